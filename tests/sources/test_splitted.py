"""One volume a cell: values are ids, the first name keeps a voxel, and cells that values do not tell apart are numbered."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion import bands
from simexm.ingestion.ingest import ingest
from simexm.sources.base import open_source
from simexm.sources.opening import open_stack
from tests.sources.volumes import SHAPE, SIZE, write_slices


def _disc(at: int, value: int, dtype: str = "uint16") -> NDArray[Any]:
    """A cell of 6 rows that begins at row `at`."""
    a = np.zeros(SHAPE, dtype)
    a[1:4, at : at + 6, 3:20] = value
    return a


def _merged(*cells: NDArray[Any]) -> NDArray[Any]:
    """What is meant: the first one keeps a voxel."""
    out = np.zeros(SHAPE, np.uint64)
    for cell in reversed(cells):
        out[cell != 0] = cell[cell != 0]
    return out


def _folder(path: Path, **cells: NDArray[Any]) -> Path:
    path.mkdir()
    for name, cell in cells.items():
        tifffile.imwrite(path / f"{name}.tif", cell, compression="lzw" if name.endswith("2") else None)
    return path


def _read(path: Path) -> NDArray[Any]:
    source = open_source(path)
    return source.read(Box.of_shape(source.shape))


def test_ids_are_values_and_not_names(tmp_path: Path) -> None:
    cells = _disc(0, 900), _disc(7, 12), _disc(6, 41)
    folder = _folder(tmp_path / "cells", cell_1=cells[0], cell_2=cells[1])
    write_slices(folder / "cell_10", cells[2])
    with pytest.warns(SimexmWarning, match=f"overlap in {3 * 5 * 17} voxels"):
        result = ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted")
    np.testing.assert_array_equal(_read(tmp_path / "a.zarr"), _merged(*cells))
    assert (result.largest_id, result.dtype) == (900, "uint16")
    assert "cells" not in zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["simexm"]  # type: ignore[operator]


def test_cells_lie_on_one_grid(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for n, spacing in ((1, 0.04), (2, 0.05)):
        told = {"axes": "ZYX", "unit": "um", "spacing": spacing}
        tifffile.imwrite(
            tmp_path / f"cells/{n}.tif", _disc(7 * n - 7, n), imagej=True, metadata=told, resolution=(250, 125)
        )
    with pytest.raises(SpecError, match=r"the same in all its files.*--voxel-size"):
        ingest(tmp_path / "cells", tmp_path / "a.zarr", cells="splitted")
    ingest(tmp_path / "cells", tmp_path / "a.zarr", SIZE, cells="splitted")
    (tmp_path / "cells/2.tif").unlink()
    assert open_stack(str(tmp_path / "cells"), cells="splitted").voxel_size_nm == exact3((40, 8, 4))


def test_floats_of_whole_numbers_are_cells(tmp_path: Path) -> None:
    cells = _disc(0, 900), _disc(7, 12)
    folder = _folder(tmp_path / "cells", a=cells[0].astype(np.float32), b=cells[1])
    ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted")
    np.testing.assert_array_equal(_read(tmp_path / "a.zarr"), _merged(*cells))


def test_natural_order_decides_who_keeps_a_voxel(tmp_path: Path) -> None:
    cells = _disc(0, 5), _disc(3, 6)
    for n, names in enumerate((("c9", "c10"), ("c10", "c9"))):
        folder = _folder(tmp_path / f"{n}", **dict(zip(names, cells, strict=True)))
        with pytest.warns(SimexmWarning, match="overlap"):
            ingest(folder, tmp_path / f"{n}.zarr", SIZE, cells="splitted")
        np.testing.assert_array_equal(_read(tmp_path / f"{n}.zarr"), _merged(*(cells if n == 0 else cells[::-1])))


@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks_are_numbered_and_the_table_says_which(
    tmp_path: Path, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the second cell shows up only after bands were written with values."""
    monkeypatch.setattr(bands, "_BAND_BYTES", 2**10)
    first, second = np.zeros((40, 70, 9), np.uint8), np.zeros((40, 70, 9), np.uint8)
    first[:20, :30] = second[25:, 65:] = value
    folder = tmp_path / "cells"
    folder.mkdir()
    for name, cell in (("x9", first), ("x10", second)):
        tifffile.imwrite(folder / f"{name}.tif", cell)
    with pytest.warns(SimexmWarning, match=rf"x9\.tif and .*x10\.tif both hold the value {value}.*numbered"):
        ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted", workers=2)
    np.testing.assert_array_equal(_read(tmp_path / "a.zarr"), (first != 0) + 2 * (second != 0))
    mark: Any = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["simexm"]
    assert mark["cells"] == {"1": "x9.tif", "2": "x10.tif"}


def test_bands_do_not_change_ids_overlaps_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    folder = tmp_path / "cells"
    folder.mkdir()
    cells = [np.where(rng.random((40, 70, 9)) < 0.3, n, 0).astype(np.uint8) for n in (200, 3, 7)]
    for n, cell in enumerate(cells):
        tifffile.imwrite(folder / f"{n}.tif", cell, compression="zlib")
    overlapped = int((np.sum([c != 0 for c in cells], axis=0) - 1).clip(0).sum())
    for name, size in (("a", 2**28), ("b", 2**10)):
        monkeypatch.setattr(bands, "_BAND_BYTES", size)
        with pytest.warns(SimexmWarning, match=f"overlap in {overlapped} voxels"):
            ingest(folder, tmp_path / f"{name}.zarr", SIZE, cells="splitted")
    np.testing.assert_array_equal(_read(tmp_path / "a.zarr"), _read(tmp_path / "b.zarr"))


def test_one_voxel_of_two_files_of_one_cell_is_no_overlap(tmp_path: Path) -> None:
    """Values of a file may be several, as long as no other file has them."""
    two = _disc(0, 5)
    two[2] *= 2
    stack = open_stack(str(_folder(tmp_path / "cells", a=two, b=_disc(7, 6))), cells="splitted")
    np.testing.assert_array_equal(stack.read(Box.of_shape(SHAPE)), _merged(two, _disc(7, 6)))


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    for n in range(80):
        a = np.zeros((2, 4, 80), np.uint8)
        a[:, :, n] = 1
        tifffile.imwrite(folder / f"{n}.tif", a, compression="zlib" if n % 2 else None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    try:
        with pytest.warns(SimexmWarning, match="numbered"):
            ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_array_equal(_read(tmp_path / "a.zarr")[0, 0], np.arange(1, 81))


def test_what_are_no_cells(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "cells", a=_disc(0, 5), b=_disc(0, 6)[:, :, :-1])
    with pytest.raises(SourceError, match=r"b\.tif has the shape 5 x 14 x 22 .*a\.tif has 5 x 14 x 23"):
        ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted")
    with pytest.raises(SourceError, match="one TIFF stack, or one folder of slices, for each cell"):
        ingest(folder / "a.tif", tmp_path / "a.zarr", SIZE, cells="splitted")
    write_slices(tmp_path / "folders", _disc(0, 5)).rename(tmp_path / "inner")
    (tmp_path / "folders").mkdir()
    (tmp_path / "inner").rename(tmp_path / "folders" / "inner")
    with pytest.raises(SourceError, match="--cells splitted"):
        ingest(tmp_path / "folders", tmp_path / "a.zarr", SIZE)
    several = _disc(0, 5)
    several[2] *= 2
    folder = _folder(tmp_path / "several", a=several, b=_disc(8, 5))
    with (
        pytest.warns(SimexmWarning, match="numbered"),
        pytest.raises(SourceError, match=r"a\.tif holds several values \(5, 10"),
    ):
        ingest(folder, tmp_path / "a.zarr", SIZE, cells="splitted")
    assert not (tmp_path / "a.zarr").exists()
