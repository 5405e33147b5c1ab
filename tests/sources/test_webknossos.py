"""WEBKNOSSOS datasets: layers in WKW (written by its own library) and in Zarr of axes c, x, y, z."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from simexm.errors import SourceError, SourceNotFoundError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.opening import open_stack
from simexm.sources.stack import size_and_origin
from simexm.sources.words import COMMAND, speaking
from tests.sources.containers import A
from tests.sources.volumes import whole

wkw = pytest.importorskip("wkw")  # has no wheel for Linux on ARM

NM = (40, 8, 4)
FIRST = (3, 2, 10)
"""First voxel of the layer's bounding box, z y x."""


def _dataset(root: Path, *layers: dict[str, Any], scale: Any = None) -> Path:
    told = {"id": {"name": "d", "team": ""}, "scale": scale or {"factor": [4, 8, 40], "unit": "nanometer"}}
    (root / "datasource-properties.json").write_text(json.dumps({**told, "dataLayers": list(layers)}))
    return root


def _layer(name: str, form: str, category: str = "segmentation", **more: Any) -> dict[str, Any]:
    z, y, x = A.shape
    box = {"topLeft": FIRST[::-1], "width": x, "height": y, "depth": z}
    mags = [{"mag": [1, 1, 1], "path": f"./{name}/1"}, {"mag": [2, 2, 1], "path": f"./{name}/2-2-1"}]
    return {"name": name, "dataFormat": form, "category": category, "boundingBox": box, "mags": mags, **more}


def _write_wkw(folder: Path, packing: int, dtype: str = "uint32", a: Any = A, first: Any = FIRST) -> None:
    """Write whole cubes, as the library wants it where they are compressed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    header = wkw.Header(np.dtype(dtype).type, block_len=8, file_len=2, block_type=packing)
    cubes = np.zeros([-(-(f + n) // 16) * 16 for f, n in zip(first, a.shape, strict=True)], dtype)
    cubes[tuple(slice(f, f + n) for f, n in zip(first, a.shape, strict=True))] = a
    wkw.Dataset.create(str(folder), header).write((0, 0, 0), np.asfortranarray(cubes.T))


@pytest.mark.parametrize("packing", [1, 2, 3], ids=["raw", "LZ4", "LZ4HC"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_wkw_is_read_as_its_own_library_wrote_it(tmp_path: Path, packing: int, dtype: str) -> None:
    a = A.astype(dtype)
    _write_wkw(tmp_path / "seg/1", packing, dtype, a)
    stack = open_stack(str(_dataset(tmp_path, _layer("seg", "wkw"), _layer("em", "wkw", "color"))))
    np.testing.assert_array_equal(whole(stack), a)
    box = Box((1, 3, 5), (5, 13, 20))
    np.testing.assert_array_equal(stack.read(box), a[box.slices])
    z, y, x = (f * s for f, s in zip(FIRST, NM, strict=True))
    assert size_and_origin(stack, None) == (exact3(NM), exact3((z, y, x)))


def test_wkw_without_its_dataset_has_all_its_cubes_and_no_size(tmp_path: Path) -> None:
    _write_wkw(tmp_path / "1", 2)
    stack = open_stack(str(tmp_path / "1"))
    assert stack.shape == (16, 16, 48)
    inside = Box.at(FIRST, A.shape)
    np.testing.assert_array_equal(stack.read(inside), A)
    assert whole(stack).astype(np.uint64).sum() == A.astype(np.uint64).sum()
    with speaking(COMMAND), pytest.raises(SpecError, match="--voxel-size"):
        size_and_origin(stack, None)
    with pytest.raises(SourceError, match="simexm ingest"):
        open_source(tmp_path / "1")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"", lambda data: data[:10], lambda data: data[: len(data) // 2], lambda data: b"XYZ" + data[3:],
        lambda data: data[:16] + b"\xff" * 64 + data[80:], lambda data: data[:400] + bytes(100) + data[500:],
    ],
    ids=["empty", "ten bytes", "half", "no header", "table", "block"],
)  # fmt: skip
def test_a_damaged_cube_is_named(tmp_path: Path, spoil: Any) -> None:
    _write_wkw(tmp_path / "1", 2)
    cube = tmp_path / "1/z0/y0/x0.wkw"
    cube.write_bytes(spoil(cube.read_bytes()))
    with pytest.raises(SourceError, match=r"x0\.wkw"):
        whole(open_stack(str(tmp_path / "1")))


def _write_zarr(folder: Path, zarr_format: Any, named: bool) -> None:
    names: dict[str, Any] = {"dimension_names": ["c", "x", "y", "z"]} if named else {}
    a = A.T[None]
    array = zarr.create_array(
        folder,
        shape=a.shape,
        dtype=a.dtype,
        chunks=(1, 8, 8, 8),
        zarr_format=zarr_format,
        order=None if named else "F",
        **names,
    )
    array[...] = a


@pytest.mark.parametrize(("zarr_format", "form", "named"), [(2, "zarr", False), (3, "zarr3", True)])
def test_zarr_layers_are_turned_by_a_spec_and_by_ingest(
    tmp_path: Path, zarr_format: int, form: str, named: bool
) -> None:
    _write_zarr(tmp_path / "seg/1", zarr_format, named)
    _write_zarr(tmp_path / "seg/2-2-1", zarr_format, named)
    _dataset(tmp_path, _layer("seg", form), _layer("em", form, "color"))
    for path in (tmp_path, tmp_path / "seg", tmp_path / "seg/1"):
        source = open_source(path)
        np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), A)
        assert (source.voxel_size_nm, source.origin_nm) == (exact3(NM), exact3((0, 0, 0)))
        np.testing.assert_array_equal(whole(open_stack(str(path))), A)
    coarse = ZarrSource(path=str(tmp_path), dataset="seg/2-2-1").open()
    assert coarse.voxel_size_nm == exact3((40, 16, 8))


def test_which_layer_is_meant(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write_zarr(tmp_path / name / "1", 3, True)
    _dataset(tmp_path, _layer("one", "zarr3"), _layer("two", "zarr3"), scale=[4, 8, 40])
    with pytest.raises(SourceError, match=r"--dataset NAME, with one of one, two"), speaking(COMMAND):
        open_stack(str(tmp_path))
    with pytest.raises(SourceError, match=r"dataset: NAME\}, with one of one, two"):
        open_source(tmp_path)
    assert open_stack(str(tmp_path), dataset="two").voxel_size_nm == exact3(NM)
    with pytest.raises(SourceNotFoundError, match="one/1"):
        open_stack(str(tmp_path), dataset="three")


def test_a_scale_in_pixels_is_judged_only_where_no_size_is_given(tmp_path: Path) -> None:
    _write_wkw(tmp_path / "seg/1", 2)
    _dataset(tmp_path, _layer("seg", "wkw"), scale={"factor": [1, 1, 1], "unit": "pixel"})
    stack = open_stack(str(tmp_path))
    with pytest.raises(SpecError, match="unit 'pixel'"):
        size_and_origin(stack, None)
    assert size_and_origin(stack, exact3(NM))[0] == exact3(NM)


def test_a_path_that_leads_out_of_the_dataset_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    _write_zarr(tmp_path / "elsewhere", 3, True)
    _write_zarr(tmp_path / "d/seg/1", 3, True)
    zarr.open_array(tmp_path / "elsewhere", mode="r+")[...] = 7
    _dataset(tmp_path / "d", _layer("seg", "zarr3", mags=[{"mag": 1, "path": "../elsewhere"}]))
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "d"))), A)
