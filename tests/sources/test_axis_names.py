"""An array is read as z, y, x whatever the order in which it is stored, and refused where its order is in doubt."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from simexm.errors import SourceError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.opening import open_stack
from tests.sources.containers import A, n5, zarr_array
from tests.sources.volumes import whole

NM = (40, 8, 4)
BOX = Box((1, 3, 5), (5, 13, 20))
ORDERS = [*map("".join, permutations("zyx")), "czyx", "cxyz", "zyxc", "tzcyx", "xycz"]


def _stored(order: str) -> Any:
    """The volume with its axes in another order, further ones of length 1."""
    extra = [n for n in order if n not in "zyx"]
    a = A.reshape(*(1 for _ in extra), *A.shape)
    return np.transpose(a, [[*extra, *"zyx"].index(n) for n in order])


@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_axes_is_read(tmp_path: Path, order: str) -> None:
    """By a spec and by ingest, from arrays with and without shards, in boxes that begin and end inside chunks."""
    a = _stored(order)
    plain = zarr_array(tmp_path / "a.zarr", a, attributes={"_ARRAY_DIMENSIONS": list(order)})
    chunks = tuple(min(n, 5) for n in a.shape)
    shards = tuple(-(-n // c) * c for n, c in zip(a.shape, chunks, strict=True))
    sharded = zarr.create_array(
        tmp_path / "b.zarr", shape=a.shape, dtype=a.dtype, chunks=chunks, shards=shards, dimension_names=list(order)
    )
    sharded[...] = a
    for path in (plain, tmp_path / "b.zarr"):
        source = ZarrSource(path=str(path), voxel_size_nm=NM).open()
        assert source.shape == A.shape
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(BOX), A[BOX.slices])  # noqa: S301
        np.testing.assert_array_equal(whole(open_stack(str(path))), A)


def _ome(path: Path, order: str, version: str) -> Path:
    scale = {"z": 40, "y": 8, "x": 4}
    axes: list[Any] = [{"name": n, "type": "space", "unit": "nanometer"} for n in order]
    transforms = [{"type": "scale", "scale": [scale.get(n, 1) for n in order]}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}]
    attributes: dict[str, Any] = {"ome": {"version": version, "multiscales": scales}}
    group = zarr.create_group(
        path, zarr_format=3 if version == "0.5" else 2, attributes=attributes if version == "0.5" else attributes["ome"]
    )
    a = _stored(order)
    group.create_array("0", shape=a.shape, dtype=a.dtype, chunks=(1, *[9] * (a.ndim - 1)))[...] = a
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("order", ["xyz", "yzx", "cxyz"])
def test_ome_zarr_in_another_order_keeps_sizes_and_place(tmp_path: Path, order: str, version: str) -> None:
    source = open_source(_ome(tmp_path / "a.zarr", order, version))
    np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), A)
    assert source.voxel_size_nm == exact3(NM)
    assert source.origin_nm == exact3((-20, -4, -2))


def test_an_array_that_is_named_by_its_own_path_knows_its_group(tmp_path: Path) -> None:
    source = open_source(_ome(tmp_path / "a.zarr", "xyz", "0.4") / "0")
    np.testing.assert_array_equal(source.read(BOX), A[BOX.slices])
    assert source.voxel_size_nm == exact3(NM)


SAYING: dict[str, dict[str, Any]] = {
    "xarray": {"_ARRAY_DIMENSIONS": ["x", "y", "z"]},
    "funlib": {"axis_names": ["x", "y", "z"]},
    "ilastik": {"axistags": '{"axes": [{"key": "x", "typeFlags": 2}, {"key": "y"}, {"key": "z"}]}'},
    "COSEM": {"transform": {"axes": ["x", "y", "z"], "scale": [4, 8, 40], "translate": [0, 0, 0], "units": ["nm"] * 3}},
}


@pytest.mark.parametrize("attributes", SAYING.values(), ids=SAYING)
def test_each_program_s_names_are_heeded_by_a_command(tmp_path: Path, attributes: dict[str, Any]) -> None:
    path = zarr_array(tmp_path / "x.zarr", _stored("xyz"), attributes=attributes)
    ingest(path, tmp_path / "a.zarr", NM)
    source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), A)


def _two_names(path: Path) -> Path:
    return zarr_array(path, attributes={"axis_names": ["z", "y", "x"], "_ARRAY_DIMENSIONS": ["x", "y", "z"]})


def _ome_and_names(path: Path) -> Path:
    scales = [{"axes": [{"name": n, "type": "space"} for n in "zyx"], "datasets": [{"path": "0"}]}]
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": scales}})
    group.create_array("0", shape=A.shape, dtype=A.dtype, dimension_names=["x", "y", "z"])[...] = A
    return path


DOUBTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two lists": (_two_names, r"axis_names says z, y, x"),
    "OME and dimension_names": (_ome_and_names, "dimension_names are x, y, z"),
    "no z": (lambda p: zarr_array(p, attributes={"_ARRAY_DIMENSIONS": ["c", "y", "x"]}), "once each"),
    "names for other axes": (lambda p: zarr_array(p, attributes={"axis_names": ["y", "x"]}), "2 axes"),
    "Fortran's order": (lambda p: zarr_array(p, A[None], order="F"), "Fortran"),
    "N5 in two ways": (
        lambda p: n5(p, "a", {"axes": ["x", "y", "z"], "transform": {"axes": ["x", "y", "z"], "scale": [4, 8, 40]}}),
        "first dimension first",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), DOUBTS.values(), ids=DOUBTS)
def test_a_doubtful_order_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_stack(str(make(tmp_path / "a")))


def test_names_that_say_nothing_are_no_names(tmp_path: Path) -> None:
    path = zarr_array(tmp_path / "a", attributes={"_ARRAY_DIMENSIONS": ["dim_0", "dim_1", "dim_2"]})
    np.testing.assert_array_equal(whole(open_stack(str(path))), A)
