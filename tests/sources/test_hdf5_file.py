"""HDF5: which volume is meant, who has the file open, and what is damaged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError
from simexm.ingestion.ingest import ingest
from simexm.sources.hdf5 import file as hdf5_file
from simexm.sources.opening import open_stack
from tests.sources.hdf5_files import SIZE, UM, A, Make, attributed, filtered, holding, open_made, write
from tests.sources.volumes import SHAPE, whole


def test_a_group_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["raw/em"] = np.zeros(SHAPE)
        file["seg/labels"] = A

    path = write(tmp_path, make)
    np.testing.assert_array_equal(whole(open_stack(f"{path}/seg")), A)
    with pytest.raises(SourceError, match=r"raw/em \(5 x 14 x 23 float64\), seg/labels \(5 x 14 x 23 uint32\)"):
        open_stack(path)


def test_links_of_all_kinds(tmp_path: Path) -> None:
    write(tmp_path, holding(A, "there"), "other.h5")

    def make(file: h5py.File) -> None:
        file["g/v"] = A
        file["g/round"] = file["g"]
        file["also"] = h5py.SoftLink("/g/v")
        file["circle"] = h5py.SoftLink("/circle")
        file["nowhere"] = h5py.SoftLink("/no/such")
        file["away"] = h5py.ExternalLink("other.h5", "/there")
        file["lost"] = h5py.ExternalLink("lost.h5", "/there")
        file["pipe"] = h5py.ExternalLink("pipe.h5", "/there")

    os.mkfifo(tmp_path / "pipe.h5")
    path = write(tmp_path, make)
    for name in ("g", "also", "away", "g/round/round/v"):
        np.testing.assert_array_equal(whole(open_stack(path, dataset=name)), A)
    for name, error, told in [
        ("circle", SourceError, "circular"), ("nowhere", SourceNotFoundError, "link to nothing"),
        ("lost", SourceError, "lost.h5, which is missing"), ("pipe", SourceError, "pipe.h5, which is missing"),
    ]:  # fmt: skip
        with pytest.raises(error, match=told):
            open_stack(path, dataset=name)


def test_names_of_all_kinds(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        for name in ("two\nlines", "x" * 5000, b"latin-1 \xe9"):
            file[name] = A

    with pytest.raises(SourceError, match=r"volumes two\?lines \(.*, x{200} \([^)]*\)\. Name one") as told:
        open_made(tmp_path, make)
    assert "\n" not in str(told.value)


def test_more_objects_than_can_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_file, "_MOST_OBJECTS", 50)

    def make(file: h5py.File) -> None:
        file["v"] = A
        for n in range(51):
            file[str(n)] = h5py.SoftLink("/v")

    path = write(tmp_path, make)
    with pytest.raises(SourceError, match="over 50 objects"):
        open_stack(path)
    assert open_stack(path, dataset="v").shape == SHAPE


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.full((2, 2, 2), "a", h5py.string_dtype()), "holds text"), (np.zeros((2, 2, 2), [("a", "u4")]), "holds records"),
        (np.zeros((2, 2, 2), "c8"), "holds complex64"), (np.zeros((2, 2)), "has 2 axes"), (np.zeros((2, 0, 2)), "is empty"),
        (h5py.Empty("u4"), "is empty"), (3, "has 0 axes"),
    ],
)  # fmt: skip
def test_what_is_no_volume(tmp_path: Path, value: Any, told: str) -> None:
    path = write(tmp_path, holding(value, "a"))
    with pytest.raises(SourceError, match=told):
        open_stack(path, dataset="a")
    with pytest.raises(SourceError, match="no labels in it"):
        open_stack(path)


def test_groups_nested_without_end(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        node = file
        for _ in range(300):
            node = node.create_group("a")
        node["labels"] = A

    path = write(tmp_path, make)
    with pytest.raises(SourceError, match="no labels in it"):
        open_stack(path)
    np.testing.assert_array_equal(whole(open_stack(path, dataset="a/" * 300 + "labels")), A)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Path]:
    """A file that another program has open for writing."""
    path = Path(write(tmp_path, holding(A)))
    code = (
        "import h5py, sys; f = h5py.File(sys.argv[1], 'r+', locking=True); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield path
        process.communicate("")


def test_a_lock_is_no_damage(writer: Path) -> None:
    with pytest.warns(SimexmWarning, match="open for writing in another program"):
        stack = open_stack(str(writer))
    np.testing.assert_array_equal(whole(stack), A)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There flock fails, for HDF5 and for us."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no compiler")
    (tmp_path / "nolock.c").write_text("#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "nolock.so"), str(tmp_path / "nolock.c")], check=True
    )
    path = write(tmp_path, holding(A))
    read = "import sys; from simexm.sources.opening import open_stack; print(open_stack(sys.argv[1]).shape)"
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "nolock.so"))
    told = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(SHAPE)


def test_this_process_has_it_open_itself(tmp_path: Path) -> None:
    path = write(tmp_path, holding(A))
    with h5py.File(path, "r"):
        np.testing.assert_array_equal(whole(open_stack(path)), A)


def test_a_writer_that_was_killed(tmp_path: Path) -> None:
    code = "import h5py, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest'); f['labels'] = [[[1]]]; f.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], check=True)
    with pytest.raises(SourceError, match=r"marked as open for writing.*h5clear -s"):
        open_stack(str(tmp_path / "a.h5"))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    stack = open_stack(write(tmp_path, holding(A)))
    time.sleep(0.01)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["labels"][0] = 1
    with pytest.raises(SourceError, match="changed while it was read"):
        whole(stack)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "load('a.mat'); save('labels.mat', 'V', '-v7.3')"),
        (b"CDF\x01\0\0\0\0", "nccopy -k netCDF-4"), (b"CDF\x05\0\0\0\0", "nccopy -k netCDF-4"),
    ],
)  # fmt: skip
def test_older_formats_are_told_by_name(tmp_path: Path, head: bytes, told: str) -> None:
    (tmp_path / "a.mat").write_bytes(head.ljust(512))
    with pytest.raises(SourceError, match=re.escape(told)):
        open_stack(str(tmp_path / "a.mat"))


def test_bits_that_flip_are_told_or_harmless(tmp_path: Path) -> None:
    """With a checksum on each chunk, a flipped bit never gives another volume: not where chunks are listed either."""
    path = Path(
        write(
            tmp_path,
            holding(A, chunks=(2, 14, 23), compression="gzip", fletcher32=True),
        )
    )
    good, random = path.read_bytes(), np.random.default_rng(5)
    for n in range(60):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
        flipped = tmp_path / f"{n}.h5"
        flipped.write_bytes(bad)
        try:
            stack = open_stack(str(flipped))
            read = whole(stack)
        except SourceError:
            continue
        np.testing.assert_array_equal(read, A)


def _circle(file: h5py.File) -> None:
    file["labels"] = h5py.SoftLink("/labels")


@pytest.mark.parametrize(
    "make",
    [_circle, attributed({"resolution": UM}, units="pixel"), lambda file: filtered(file, 32013), holding("text")],
    ids=["link", "unit", "lossy", "text"],
)
def test_bad_input_is_told_on_the_command_line_in_one_line(tmp_path: Path, make: Make) -> None:
    path = write(tmp_path, make)
    told = CliRunner().invoke(app, ["ingest", path, "-o", str(tmp_path / "a.zarr"), "--dataset", "labels"])
    assert told.exit_code == 2
    assert told.stderr.startswith(f"error: {path}")
    assert told.stderr.count("\n") == 1
    assert not (tmp_path / "a.zarr").exists()


def test_ids_of_an_hdf5_come_through_ingest(tmp_path: Path) -> None:
    path = write(tmp_path, attributed({"resolution": UM[::-1], "units": "um"}, order="xyz"))
    made = ingest(path, tmp_path / "a.zarr")
    assert (made.shape, made.largest_id, made.voxel_size_nm) == (SHAPE, A.max(), SIZE)
