"""Voxel size and position are read wherever a format stores them, and judged only where nobody gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zarr
from pydantic import ValidationError

from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Spacing, exact3
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.opening import open_stack
from simexm.sources.stack import size_and_origin
from simexm.sources.words import COMMAND, speaking
from tests.sources.containers import A, n5, precomputed, zarr_array

NM = (40, 8, 4)


def _typed(path: Path, dataset: str | None = None, given: Spacing | None = None) -> tuple[Spacing, Spacing]:
    """Voxel size and origin as a command finds them."""
    with speaking(COMMAND):
        return size_and_origin(open_stack(str(path), dataset=dataset), given)


COSEM = {"axes": ["z", "y", "x"], "scale": [40, 8, 4], "translate": [120, 40, 2], "units": ["nm", "nm", "nm"]}

ZARR: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "funlib": ({"voxel_size": [40, 8, 4], "offset": [100, 36, 0], "units": ["nm", "nm", "nm"]}, (100, 36, 0)),
    "Daisy": ({"resolution": [40, 8, 4], "offset": [100, 36, 0]}, (100, 36, 0)),
    "funlib of axes x y z": (
        {"axis_names": ["x", "y", "z"], "voxel_size": [0.004, 0.008, 0.04], "offset": [0, 0.036, 0.1], "units": "um"},
        (100, 36, 0),
    ),
    "element_size_um": ({"element_size_um": [0.04, 0.008, 0.004]}, (0, 0, 0)),
    "COSEM": ({"transform": COSEM}, (100, 36, 0)),
    "Java": ({"pixelResolution": {"dimensions": [0.004, 0.008, 0.04], "unit": "um"}}, (0, 0, 0)),
}


@pytest.mark.parametrize(("attributes", "origin"), ZARR.values(), ids=ZARR)
def test_attributes_of_a_zarr_array(
    tmp_path: Path, attributes: dict[str, Any], origin: tuple[float, float, float]
) -> None:
    path = zarr_array(tmp_path / "a", attributes=attributes)
    source = open_source(path)
    assert (source.voxel_size_nm, source.origin_nm) == (exact3(NM), exact3(origin))
    assert _typed(path) == (exact3(NM), exact3(origin))


def _transforms(kind: str) -> list[dict[str, Any]]:
    scale: dict[str, Any] = {"type": "scale", "scale": [40, 8, 4]}
    shift: dict[str, Any] = {"type": "translation", "translation": [120, 40, 2]}
    ends = {"input": {"path": "0"}, "output": {"name": "intrinsic"}}
    if kind == "sequence":
        return [{"type": "sequence", "transformations": [{"type": "identity"}, scale, shift], **ends}]
    if kind == "scale":
        return [{**scale, "input": "0", "output": "intrinsic"}]
    return [{"type": "affine", "affine": [[40, 0, 0, 1], [0, 8, 0, 1], [0, 0, 4, 1]], **ends}]


def _ome06(path: Path, kind: str, unit: str = "nanometer", outer: list[dict[str, Any]] | None = None) -> Path:
    """A multiscale of OME-Zarr 0.6, of whose coordinate systems the level reaches the second one."""
    axes = [{"name": n, "type": "space", "unit": unit} for n in "zyx"]
    world = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    systems = [{"name": "world", "axes": world}, {"name": "intrinsic", "axes": axes}]
    levels = [{"path": "0", "coordinateTransformations": _transforms(kind)}]
    scales = [{"coordinateSystems": systems, "datasets": levels, "coordinateTransformations": outer or []}]
    group = zarr.create_group(path, attributes={"ome": {"version": "0.6", "multiscales": scales}})
    group.create_array("0", shape=A.shape, dtype=A.dtype)[...] = A
    return path


@pytest.mark.parametrize(("kind", "origin"), [("sequence", (100, 36, 0)), ("scale", (-20, -4, -2))])
def test_ome_zarr_06(tmp_path: Path, kind: str, origin: tuple[float, float, float]) -> None:
    """A transformation from there to another system changes nothing."""
    elsewhere = [{"type": "scale", "scale": [9, 9, 9], "input": "intrinsic", "output": "world"}]
    source = open_source(_ome06(tmp_path / "a.zarr", kind, outer=elsewhere))
    assert (source.voxel_size_nm, source.origin_nm) == (exact3(NM), exact3(origin))


def test_ome_zarr_06_goes_on_to_a_system_that_has_lengths(tmp_path: Path) -> None:
    outer = [
        {"type": "scale", "scale": [0.001, 0.001, 0.001], "input": {"name": "intrinsic"}, "output": {"name": "world"}}
    ]
    source = open_source(_ome06(tmp_path / "a.zarr", "sequence", "pixel", outer))
    assert (source.voxel_size_nm, source.origin_nm) == (exact3(NM), exact3((100, 36, 0)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: _ome06(p, "affine"), "type 'affine'"),
        (lambda p: _ome06(p, "scale", "pixel"), "unit 'pixel'"),
        (lambda p: _ome06(p, "scale", " "), "unit ' '"),
        (lambda p: _ome06(p, "scale", ""), "has no unit"),
        (lambda p: zarr_array(p, attributes={"resolution": [0, 8, 4]}), "larger than an atom"),
        (lambda p: zarr_array(p, attributes={"resolution": [0.04, 0.008, 0.004]}), "larger than an atom"),
        (lambda p: zarr_array(p, attributes={"resolution": ["a", 8, 4]}), "cannot be read as 3 numbers"),
        (lambda p: zarr_array(p, attributes={"resolution": [1, 1, 1], "units": ["px"] * 3}), "units of length"),
    ],
    ids=["affine", "pixel", "blank unit", "no unit", "zero", "smaller than an atom", "a word", "unknown units"],
)
def test_metadata_are_judged_only_where_nothing_is_given(tmp_path: Path, make: Any, reason: str) -> None:
    path = str(make(tmp_path / "a.zarr"))
    with pytest.raises(SourceError, match=rf"{reason}.*voxel_size_nm: \[z, y, x\]"):
        open_source(path)
    with pytest.raises(SpecError, match=rf"{reason}.*--voxel-size Z Y X"):
        _typed(Path(path))
    source = ZarrSource(path=path, voxel_size_nm=NM).open()
    assert (source.voxel_size_nm, source.origin_nm) == (exact3(NM), exact3((0, 0, 0)))
    assert _typed(Path(path), given=exact3(NM))[0] == exact3(NM)


def test_a_size_typed_in_micrometres_stops(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"is 0\.04 x 0\.008 x 0\.004 nm"):
        ZarrSource(path=str(zarr_array(tmp_path / "a")), voxel_size_nm=(0.04, 0.008, 0.004))


BDV = """<SpimData><SequenceDescription>
<ImageLoader format="bdv.n5"><n5 type="relative">{}</n5></ImageLoader>
<ViewSetups><ViewSetup><id>{}</id><voxelSize><unit>{}</unit><size>0.004 0.008 0.04</size></voxelSize></ViewSetup></ViewSetups>
</SequenceDescription></SpimData>"""


def _bdv(root: Path, name: str = "a.n5", setup: int = 0, unit: str = "um", scale: str = "s0", **more: Any) -> Path:
    n5(root / "a.n5", f"setup0/timepoint0/{scale}", more)
    told = {"multiScale": True, "resolution": [0.004, 0.008, 0.04]}
    (root / "a.n5/setup0/timepoint0/attributes.json").write_text(json.dumps(told))
    (root / "data.xml").write_text(BDV.format(name, setup, unit))
    return root / "a.n5"


N5: dict[str, tuple[dict[str, Any], tuple[float, float, float]]] = {
    "COSEM, whose axes are listed as Python sees them": ({"transform": COSEM}, (100, 36, 0)),
    "Java, micrometres": ({"pixelResolution": {"dimensions": [0.004, 0.008, 0.04], "unit": "Microns"}}, (0, 0, 0)),
    "x y z, the sections thickest": ({"resolution": [4, 8, 40], "offset": [0, 36, 100]}, (100, 36, 0)),
    "with units": ({"resolution": [4, 8, 40], "units": ["nanometers"] * 3}, (0, 0, 0)),
}


@pytest.mark.parametrize(("attributes", "origin"), N5.values(), ids=N5)
def test_attributes_of_n5(tmp_path: Path, attributes: dict[str, Any], origin: tuple[float, float, float]) -> None:
    path = n5(tmp_path / "a.n5", "labels", attributes)
    assert _typed(path) == (exact3(NM), exact3(origin))


def test_the_xml_of_bigdataviewer_tells_the_unit(tmp_path: Path) -> None:
    assert open_stack(str(_bdv(tmp_path))).voxel_size_nm == exact3(NM)
    coarse = open_stack(str(_bdv(tmp_path, scale="s1", downsamplingFactors=[2, 2, 1])), dataset="setup0/timepoint0/s1")
    assert coarse.voxel_size_nm == exact3((40, 16, 8))


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"name": "other.n5"}, "which is missing"),
        ({"setup": 1}, "for the setup 0"),
        ({"unit": "px"}, "'px'"),
        ({"scale": "s1"}, "how much it is coarser"),
    ],
)
def test_bigdataviewer_without_a_unit_is_asked_for(tmp_path: Path, about: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=rf"{reason}.*--voxel-size"):
        _typed(_bdv(tmp_path, **about))


def test_a_bare_resolution_of_n5_that_may_be_reversed_is_asked_for(tmp_path: Path) -> None:
    path = n5(tmp_path / "a.n5", "labels", {"resolution": [40, 8, 4], "offset": [400, 80, 40]})
    with pytest.raises(SpecError, match=r"4 8 40 nm or 40 8 4 nm \(z y x\)"):
        _typed(path)


def test_a_group_of_scales_says_nothing_of_a_coarser_one(tmp_path: Path) -> None:
    for scale in ("s0", "s1"):
        n5(tmp_path / "a.n5", f"labels/{scale}", {})
    told = {"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}}
    (tmp_path / "a.n5/labels/attributes.json").write_text(json.dumps(told))
    assert open_stack(str(tmp_path / "a.n5")).voxel_size_nm == exact3(NM)
    assert open_stack(str(tmp_path / "a.n5"), dataset="labels/s1").voxel_size_nm is None


def test_a_precomputed_voxel_smaller_than_an_atom_stops(tmp_path: Path) -> None:
    path = precomputed(tmp_path / "a", resolution=[0.004, 0.008, 0.04])
    with pytest.raises(SpecError, match=r"larger than an atom.*--voxel-size"):
        _typed(path)
