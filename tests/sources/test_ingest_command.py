"""What a user meets who ingests other people's containers by the command line: one message, its exit code, the right voxels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from simexm.cli import app
from simexm.geometry.grid import Box
from simexm.sources.base import open_source
from tests.sources.containers import A, n5, precomputed, zarr_array

GIVEN = ("--voxel-size", "40", "8", "4")


def _pixels(path: Path) -> Path:
    axes = [{"name": n, "type": "space", "unit": "pixel"} for n in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]
    group = zarr.create_group(path, zarr_format=2, attributes={"multiscales": [{"axes": axes, "datasets": levels}]})
    group.create_array("0", shape=A.shape, dtype=A.dtype)[...] = A
    return path


def _packed(path: Path) -> Path:
    precomputed(path)
    for chunk in sorted((path / "s").iterdir())[::2]:
        chunk.with_name(f"{chunk.name}.gz").write_bytes(imagecodecs.gzip_encode(chunk.read_bytes()))
        chunk.unlink()
    return path


def _lost_separator(path: Path) -> Path:
    zarr_array(path, chunk_key_encoding={"name": "v2", "separator": "/"})
    metadata = json.loads((path / ".zarray").read_text())
    del metadata["dimension_separator"]
    (path / ".zarray").write_text(json.dumps(metadata))
    return path


def _two_series(path: Path) -> Path:
    root = zarr.create_group(path, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    root.create_group("OME", attributes={"series": ["0", "1"]})
    for n in "01":
        _pixels(path / n)
    return path


def _absurd(path: Path) -> Path:
    zarr.create_array(path, shape=(10**4,) * 3, chunks=(1,) * 3, dtype="u4")
    return path


RIGHT: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "axes x y z": (lambda p: zarr_array(p, A.T, attributes={"_ARRAY_DIMENSIONS": ["x", "y", "z"]}), GIVEN),
    "unit pixel, size given": (_pixels, GIVEN),
    "half of the chunks compressed": (_packed, ()),
    "N5 of z5py, size given": (lambda p: n5(p, "labels", {"resolution": [40, 8, 4]}), GIVEN),
}
REFUSED: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], str]] = {
    "unit pixel": (_pixels, (), "unit 'pixel'.*--voxel-size Z Y X"),
    "a lost separator": (_lost_separator, GIVEN, r'0/0/0.*add "dimension_separator": "/"'),
    "an image": (lambda p: precomputed(p, kind="image", a=A.astype(np.uint8)), (), '"type": "image"'),
    "N5 of z5py": (lambda p: n5(p, "labels", {"resolution": [40, 8, 4]}), (), r"4 8 40 nm or 40 8 4 nm.*--voxel-size"),
    "micrometres": (zarr_array, ("--voxel-size", "0.04", "0.008", "0.004"), "larger than an atom.*--voxel-size"),
    "two series": (_two_series, GIVEN, r"--dataset NAME, with one of 0, 1\."),
    "a Zarr of 10^12 chunks": (
        _absurd, GIVEN, r"1e\+12 chunks"
    ),
}  # fmt: skip


def _type(*words: object) -> Any:
    return CliRunner().invoke(app, ["ingest", *map(str, words), "-q"])


@pytest.mark.parametrize(("make", "options"), RIGHT.values(), ids=RIGHT)
def test_what_can_be_read_is_read_right(tmp_path: Path, make: Any, options: tuple[str, ...]) -> None:
    done = _type(make(tmp_path / "a"), "-o", tmp_path / "b.zarr", *options)
    assert done.exit_code == 0, done.output
    source = open_source(tmp_path / "b.zarr")
    np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), A)
    assert tuple(map(float, source.voxel_size_nm)) == (40, 8, 4)


@pytest.mark.parametrize(("make", "options", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_in_doubt_is_refused(tmp_path: Path, make: Any, options: tuple[str, ...], told: str) -> None:
    done = _type(make(tmp_path / "a"), "-o", tmp_path / "b.zarr", *options)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1
    assert re.search(told, done.output), done.output
    assert "voxel_size_nm:" not in done.output  # as in a spec
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cortx.tif", "Beside it there is: cortex.tif."),
        *((f"nothing.{end}", "`ls .` lists what there is.") for end in ("tif", "h5", "zarr", "n5", "npy")),
        ("none/more/nothing.tif", "Neither does the folder none/more. `ls none` lists what there is."),
        ("gone/nothing.tif", "Neither does the folder gone. `ls .` lists what there is."),
    ],
)
def test_a_missing_source_is_told_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "cortex.tif").touch()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["ingest", name, "-o", "x.zarr"])
    assert (done.exit_code, done.stderr.split()) == (2, ["error:", name, "does", "not", "exist.", *told.split()])
