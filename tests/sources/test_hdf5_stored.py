"""HDF5 gives fill values for what is missing; simexm does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from simexm.errors import SourceError
from simexm.sources.opening import open_stack
from tests.sources.hdf5_files import A, Make, filtered, holding, open_made, write
from tests.sources.volumes import SHAPE, whole


def test_a_virtual_data_set_needs_its_sources(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u4")
    for z in range(SHAPE[0]):
        write(tmp_path, holding(A[z], "part"), f"{z}.h5")
        layout[z] = h5py.VirtualSource(f"{z}.h5", "part", SHAPE[1:])
    path = write(tmp_path, lambda file: file.create_virtual_dataset("labels", layout, fillvalue=0))
    stack = open_stack(path)
    np.testing.assert_array_equal(whole(stack), A)
    (tmp_path / "3.h5").rename(tmp_path / "gone.h5")
    with pytest.raises(SourceError, match=r"3\.h5, which holds a part of it, is no longer there"):
        whole(stack)
    with pytest.raises(SourceError, match=r"3\.h5 is missing; its voxels would count as 0"):
        open_stack(path)
    write(tmp_path, holding(A[3], "other"), "3.h5")
    with pytest.raises(SourceError, match=r"'part' in .* is missing, or smaller"):
        open_stack(path)
    write(tmp_path, holding(A[3, 1:], "part"), "3.h5")
    with pytest.raises(SourceError, match="smaller than it says"):
        open_stack(path)


def test_numbers_outside_the_file(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("labels", data=A, external=[(str(tmp_path / "raw.bin"), 0, A.nbytes)])

    with pytest.raises(SourceError, match=r"outside the file, in .*raw\.bin"):
        open_made(tmp_path, make)


def test_what_was_never_written(tmp_path: Path) -> None:
    def make(fill: int, part: slice) -> Make:
        def write(file: h5py.File) -> None:
            data = file.create_dataset("labels", SHAPE, "u4", chunks=(1, 14, 23), fillvalue=fill)
            data[part] = A[part]

        return write

    with pytest.raises(SourceError, match="nothing was ever written"):
        open_made(tmp_path, make(0, slice(0)))
    with pytest.raises(SourceError, match=r"3 of 5 chunks were written, and HDF5 would .* the others as the id 9"):
        open_made(tmp_path, make(9, slice(3)))
    np.testing.assert_array_equal(whole(open_made(tmp_path, make(0, slice(3))))[3:], 0)  # HDF5 itself says so


def test_a_chunk_that_no_memory_holds(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        data = file.create_dataset("labels", (3000, 3000, 3000), "u8", chunks=(900, 900, 900), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), b"x")

    with pytest.raises(SourceError, match=r"chunks of 900 x 900 x 900, each 5\.43 GiB"):
        open_made(tmp_path, make)


def test_a_shape_that_nobody_filled(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("labels", (10**6,) * 3, "u8", chunks=(64,) * 3)[0, 0, 0] = 1

    with pytest.raises(SourceError, match="takes 3814697265625 chunks of 64 x 64 x 64"):
        open_made(tmp_path, make)


def test_a_chunk_that_the_index_lost(tmp_path: Path) -> None:
    """Bits of the index are flipped in turn: it tells which chunk lies where, and has no checksum."""
    a = np.ones((4, 3, 2), "u1")
    path = Path(write(tmp_path, holding(a, chunks=(1, 3, 2), compression="gzip")))
    good = path.read_bytes()
    keys = good.index(b"TREE\1") + 24
    lost = 0
    for bit in range(0, 8 * 4 * 48, 17):
        bad = bytearray(good)
        bad[keys + bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            read = whole(open_stack(str(path)))
        except SourceError:
            lost += 1
            continue
        assert read.all()
    assert lost > 20


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(SourceError, match=r"lz4 \(HDF5 filter 32004\).*pip install hdf5plugin"):
        open_made(tmp_path, lambda file: filtered(file, 32004))


@pytest.mark.parametrize(("code", "name"), [(32013, "zfp"), (32017, "SZ"), (32100, "unknown")])
def test_a_filter_that_may_change_numbers_is_refused(tmp_path: Path, code: int, name: str) -> None:
    with pytest.raises(SourceError, match=rf"{name}.*may change numbers"):
        open_made(tmp_path, lambda file: filtered(file, code))


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}, {"scaleoffset": 0}],
)
def test_filters_of_hdf5_and_h5py(tmp_path: Path, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(whole(open_made(tmp_path, holding(A, **options))), A)


def test_a_scale_offset_of_few_bits_is_lossy(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="may change numbers"):
        open_made(tmp_path, holding(A, scaleoffset=5))


@pytest.mark.slow
def test_filters_of_hdf5plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hdf5plugin")
    monkeypatch.delenv("HDF5_PLUGIN_PATH", raising=False)  # netCDF4 sets it to filters of its own
    write = "import sys, h5py, hdf5plugin, numpy as np; f = h5py.File(sys.argv[1], 'w'); a = np.arange(120, dtype='u4').reshape(4, 5, 6); "
    write += "[f.create_dataset(n, data=a, chunks=a.shape, **getattr(hdf5plugin, n)()) for n in sys.argv[2:]]"
    read = "import sys; from simexm.sources.opening import open_stack; from simexm.geometry.grid import Box; "
    read += "print([int(open_stack(sys.argv[1], dataset=n).read(Box.of_shape((4, 5, 6))).sum()) for n in sys.argv[2:]])"
    names = ["Blosc", "LZ4", "Zstd", "Bitshuffle", "Blosc2"]
    for code in write, read:  # processes of their own, as a filter stays registered
        command = [sys.executable, "-c", code, str(tmp_path / "a.h5"), *names]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [119 * 120 // 2] * len(names)
