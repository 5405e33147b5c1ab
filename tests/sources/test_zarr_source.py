"""Any Zarr that holds labels is read as it is, at the place its metadata tells; anything else says what to do."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from simexm.errors import SourceError, SourceNotFoundError
from simexm.geometry.grid import Box, exact3
from simexm.sources.base import ZarrSource, open_source

SHAPE = (12, 20, 30)
BOX = Box((2, 3, 5), (11, 20, 29))


def _ids(dtype: str = "uint64") -> NDArray[Any]:
    top = min(np.iinfo(dtype).max, 2**63)
    return np.random.default_rng(3).integers(0, top, SHAPE, dtype=dtype, endpoint=True)


def _scales(
    unit: str | None = "micrometer", scale: tuple[float, ...] = (0.04, 0.032, 0.032), axes: str = "zyx", **more: Any
) -> list[dict[str, Any]]:
    described = [{"name": a, "type": "space"} | ({"unit": unit} if unit else {}) for a in axes]
    transforms = [{"type": "scale", "scale": [1.0] * (len(axes) - 3) + list(scale)}]
    return [{"axes": described, "datasets": [{"path": "0", "coordinateTransformations": transforms}], **more}]


def _write(
    path: Path, a: NDArray[Any], scales: list[dict[str, Any]] | None = None, version: str = "0.5", **array: Any
) -> Path:
    zarr_format: Literal[2, 3] = 3 if version == "0.5" else 2
    scales = _scales() if scales is None else scales
    attributes = {"ome": {"version": "0.5", "multiscales": scales}} if version == "0.5" else {"multiscales": scales}
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)
    array = {"chunks": (8,) * a.ndim, **array}
    group.create_array("0", shape=a.shape, dtype=a.dtype, **array)[...] = a
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", ">u4", "int32", "int64"])
@pytest.mark.parametrize(
    ("version", "array"),
    [("0.5", {}), ("0.5", {"shards": (16, 16, 16)}), ("0.4", {})],
    ids=["0.5", "0.5 sharded", "0.4"],
)
def test_ids_and_place_of_ome_zarr(tmp_path: Path, dtype: str, version: str, array: dict[str, Any]) -> None:
    a = _ids(np.dtype(dtype).newbyteorder("=").name).astype(dtype)
    source = open_source(_write(tmp_path / "x.zarr", a, version=version, **array))
    assert source.shape == SHAPE
    assert source.voxel_size_nm == exact3((40, 32, 32))
    assert source.origin_nm == exact3((-20, -16, -16))  # no translation: the first voxel's centre is at 0
    read = source.read(BOX)
    assert read.dtype == source.dtype == np.dtype(f"u{a.dtype.itemsize}")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, a[BOX.slices])


def test_a_source_survives_pickling(tmp_path: Path) -> None:
    source = open_source(_write(tmp_path / "x.zarr", _ids()))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(BOX), source.read(BOX))  # noqa: S301


@pytest.mark.parametrize(
    ("unit", "scale", "nm"),
    [
        ("nanometer", (162.5, 0.1, 4), ("162.5", "0.1", "4")),
        ("micrometer", (0.1625, 0.0325, 8e-05), ("162.5", "32.5", "0.08")),
        ("angstrom", (400.0, 320.0, 320.0), ("40", "32", "32")),
        ("millimeter", (4e-05, 3.2e-05, 3.2e-05), ("40", "32", "32")),
    ],
)
def test_units_become_exact_nanometres(
    tmp_path: Path, unit: str, scale: tuple[float, ...], nm: tuple[Any, Any, Any]
) -> None:
    source = open_source(_write(tmp_path / "x.zarr", _ids(), _scales(unit, scale)))
    assert source.voxel_size_nm == exact3(nm)


def test_transforms_of_dataset_and_image_are_chained(tmp_path: Path) -> None:
    scales = _scales("nanometer", (4, 2, 2))
    scales[0]["datasets"][0]["coordinateTransformations"].append({"type": "translation", "translation": [10, 0, 1]})
    scales[0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [10, 16, 16]},
        {"type": "translation", "translation": [5, 0, 0]},
    ]
    source = open_source(_write(tmp_path / "x.zarr", _ids(), scales))
    assert source.voxel_size_nm == exact3((40, 32, 32))
    assert source.origin_nm == exact3((105 - 20, -16, 16 - 16))


def test_leading_axes_of_length_1_are_taken_away(tmp_path: Path) -> None:
    a = _ids()
    source = open_source(_write(tmp_path / "x.zarr", a[None, None], _scales(axes="tczyx"), version="0.4"))
    np.testing.assert_array_equal(source.read(BOX), a[BOX.slices])
    assert source.voxel_size_nm == exact3((40, 32, 32))


def test_given_voxel_size_wins_and_begins_at_0(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.zarr", _ids())
    source = ZarrSource(path=str(path), voxel_size_nm=(33, 4.5, 0.1)).open()
    assert source.voxel_size_nm == exact3((33, 4.5, 0.1))
    assert source.origin_nm == exact3((0, 0, 0))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_array_with_a_voxel_size(tmp_path: Path, zarr_format: Any) -> None:
    a = _ids()
    zarr.create_array(tmp_path / "a", shape=a.shape, dtype=a.dtype, zarr_format=zarr_format)[...] = a
    source = ZarrSource(path=str(tmp_path / "a"), voxel_size_nm=(40, 32, 32)).open()
    np.testing.assert_array_equal(source.read(BOX), a[BOX.slices])
    with pytest.raises(SourceError, match="voxel_size_nm"):
        open_source(tmp_path / "a")


def _image_with_labels(path: Path, names: tuple[str, ...]) -> Path:
    _write(path, np.zeros((1, *SHAPE), np.uint16), _scales(axes="czyx"))
    labels = zarr.open_group(path).create_group("labels", attributes={"ome": {"version": "0.5", "labels": list(names)}})
    for n, name in enumerate(names):
        group = labels.create_group(name, attributes={"ome": {"version": "0.5", "multiscales": _scales()}})
        group.create_array("0", shape=SHAPE, dtype="uint32")[...] = n + 1
    return path


def test_the_only_labels_of_an_image_are_chosen(tmp_path: Path) -> None:
    path = _image_with_labels(tmp_path / "x.zarr", ("cells",))
    for source in (path, path / "labels", path / "labels" / "cells"):
        assert (open_source(source).read(BOX) == 1).all()
        assert open_source(source).voxel_size_nm == exact3((40, 32, 32))


def test_several_labels_need_a_choice(tmp_path: Path) -> None:
    path = _image_with_labels(tmp_path / "x.zarr", ("cells", "soma"))
    with pytest.raises(SourceError, match=r"dataset.*labels/cells, labels/soma"):
        open_source(path)
    for dataset in ("labels/soma", "labels/soma/0"):
        source = ZarrSource(path=str(path), dataset=dataset).open()
        assert (source.read(BOX) == 2).all()
        assert source.voxel_size_nm == exact3((40, 32, 32))


def test_regions_are_masks_inside_or_beside(tmp_path: Path) -> None:
    path = _image_with_labels(tmp_path / "x.zarr", ("cells", "soma"))
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    zarr.create_array(tmp_path / "m", shape=SHAPE, dtype="bool")[...] = mask
    regions = {"inside": "labels/soma", "beside": str(tmp_path / "m")}
    source = ZarrSource(path=str(path), dataset="labels/cells", regions=regions).open()
    assert tuple(source.fields) == ("inside", "beside")
    assert source.read_field("inside", BOX).all()
    np.testing.assert_array_equal(source.read_field("beside", BOX), mask[BOX.slices])


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.zarr", _ids())
    zarr.create_array(tmp_path / "m", shape=(12, 20, 31), dtype="bool")
    _write(tmp_path / "n.zarr", _ids(), _scales(scale=(0.05, 0.032, 0.032)))
    for name, message in (("m", "shape"), ("n.zarr", "50 x 32 x 32 nm")):
        with pytest.raises(SourceError, match=f"'soma'.*{message}"):
            ZarrSource(path=str(path), regions={"soma": str(tmp_path / name)}).open()
    with pytest.raises(SourceNotFoundError, match="soma"):
        ZarrSource(path=str(path), regions={"soma": "nowhere"}).open()


def _tiff(path: Path) -> Path:
    tifffile.imwrite(path / "seg.tif", np.ones(SHAPE, np.uint16))
    return path / "seg.tif"


def _folder(path: Path) -> Path:
    (path / "folder" / "inner.zarr").mkdir(parents=True)
    return path / "folder"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "cortx.zarr", "does not exist"),
    "tiff": (_tiff, r"simexm ingest .*seg.tif -o seg.zarr --voxel-size"),
    "no Zarr": (_folder, "inner.zarr"),
    "floats": (lambda p: _write(p / "x", np.ones(SHAPE, np.float32)), "float32"),
    "two axes": (lambda p: _write(p / "x", np.ones((4, 4), np.uint8), _scales(axes="yx", scale=(1, 1))), "z, y, x"),
    "z y y": (lambda p: _write(p / "x", _ids(), _scales(axes="zyy")), "once each"),
    "channels": (
        lambda p: _write(p / "x", np.ones((2, *SHAPE), np.uint8), _scales(axes="czyx")),
        "the axis c of 2",
    ),
    "no unit": (lambda p: _write(p / "x", _ids(), _scales(None)), "voxel_size_nm"),
    "odd unit": (lambda p: _write(p / "x", _ids(), _scales("parsec")), "parsec"),
    "negative size": (lambda p: _write(p / "x", _ids(), _scales(scale=(0, 1, 1))), "voxel size"),
    "empty": (lambda p: _write(p / "x", np.ones((0, 4, 4), np.uint8)), "is empty"),
    "level is gone": (
        lambda p: _write(p / "x", _ids(), [{**_scales()[0], "datasets": [{"path": "s0"}]}]),
        "'s0', which is missing",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_cannot_serve_says_what_to_do(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)


def test_a_missing_path_names_its_nearest_neighbour(tmp_path: Path) -> None:
    _write(tmp_path / "cortex.zarr", _ids())
    with pytest.raises(SourceNotFoundError, match=r"Beside it there is: cortex\.zarr"):
        open_source(tmp_path / "cortx.zarr")
    with pytest.raises(SourceNotFoundError, match=r"'1'.*there are: 0"):
        ZarrSource(path=str(tmp_path / "cortex.zarr"), dataset="1").open()


def test_a_negative_id_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    a = _ids("int32")
    a[4, 4, 6] = -7
    source = open_source(_write(tmp_path / "x.zarr", a))
    with pytest.raises(SourceError, match="negative id -7"):
        source.read(BOX)


def test_a_damaged_chunk_is_an_error_that_names_the_voxels(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.zarr", _ids())
    source = open_source(path)
    (path / "0/c/1/1/1").write_bytes(b"not zstd at all")
    with pytest.raises(SourceError, match=r"\(2, 3, 5\).*cannot be read"):
        source.read(BOX)


def test_a_box_outside_is_no_silent_crop(tmp_path: Path) -> None:
    source = open_source(_write(tmp_path / "x.zarr", _ids()))
    with pytest.raises(IndexError):
        source.read(Box((0, 0, 0), (13, 20, 30)))


def test_the_model_refuses_what_it_does_not_know() -> None:
    assert ZarrSource.model_validate("a.zarr") == ZarrSource(path="a.zarr")
    for bad in ({"path": "a", "voxels": 1}, {"path": ""}, {"path": "a", "voxel_size_nm": (1, 0, 1)}):
        with pytest.raises(ValidationError):
            ZarrSource.model_validate(bad)


IDENTIFIED: dict[str, dict[str, Any]] = {
    "0.5": {},
    "uncompressed": {"compressors": None},
    "sharded": {"shards": (16, 16, 16)},
    "0.4": {"version": "0.4"},
    "0.4, Blosc and Delta": {
        "version": "0.4", "compressors": [numcodecs.Blosc()], "filters": [numcodecs.Delta("u8")]
    },
}  # fmt: skip


@pytest.mark.parametrize("how", IDENTIFIED.values(), ids=IDENTIFIED)
def test_identity_follows_content_and_neither_place_nor_time(tmp_path: Path, how: dict[str, Any]) -> None:
    a = _ids()
    first = _write(tmp_path / "a.zarr", a, **how)
    identity = open_source(first).identity
    moved = Path(shutil.copytree(first, tmp_path / "moved.zarr"))
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    zarr.open_group(moved)["0"].update_attributes({"note": "seen"})
    assert open_source(moved).identity == identity
    assert pickle.loads(pickle.dumps(open_source(first))).identity == identity  # noqa: S301
    a[7, 3, 2] += 1
    assert open_source(_write(tmp_path / "b.zarr", a, **how)).identity != identity


def test_identity_follows_the_masks(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.zarr", _ids())
    found = set()
    for n in range(2):
        zarr.create_array(tmp_path / f"m{n}", shape=SHAPE, dtype="uint8")[n] = 1
        found.add(ZarrSource(path=str(path), regions={"soma": str(tmp_path / f"m{n}")}).open().identity)
    assert len({*found, open_source(path).identity}) == 3


def test_resolved_paths_need_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name inside the source stays, even where the working directory has such a name, too."""
    _image_with_labels(tmp_path / "work" / "x.zarr", ("cells", "soma"))
    for name in ("work/m", "home/h", "m", "work/labels/soma"):
        zarr.create_array(tmp_path / name, shape=SHAPE, dtype="bool")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    regions = {"soma": "labels/soma", "beside": "m", "above": "../m", "home": "~/h", "far": "s3://bucket/m"}
    resolved = ZarrSource(path="x.zarr", dataset="labels/cells", regions=regions).resolved()
    assert resolved.path == str(tmp_path / "work" / "x.zarr")
    assert resolved.regions == {
        "soma": "labels/soma",
        "beside": str(tmp_path / "work" / "m"),
        "above": str(tmp_path / "m"),
        "home": str(tmp_path / "home" / "h"),
        "far": "s3://bucket/m",
    }
    assert resolved.resolved() == resolved
    assert ZarrSource(path="~/h").resolved().path == str(tmp_path / "home" / "h")
    near = {name: mask for name, mask in resolved.regions.items() if name != "far"}
    monkeypatch.chdir(tmp_path)
    opened = resolved.model_copy(update={"regions": near}).open()
    assert opened.read_field("soma", BOX).all()
    assert not opened.read_field("above", BOX).any()
