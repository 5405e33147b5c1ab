"""Fields beside labels: read as they were written, whatever holds them; a named class is a region like any mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from simexm import Simulation, simulate
from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box
from simexm.sources import describe
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import LabelSource, ZarrSource
from simexm.sources.fields import Field
from tests import rounds_build
from tests.build import VOXEL_NM, layer, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
SHAPE = (12, 20, 24)
IDS = rounds_build.cells(SHAPE)
TISSUE = np.random.default_rng(1).integers(0, 3, SHAPE, np.uint8)
EM = np.random.default_rng(2).normal(size=SHAPE).astype(">f4")
VESICLES = np.random.default_rng(3).integers(0, 2**40, SHAPE, np.int64)
SOMA = np.random.default_rng(4).random(SHAPE) < 0.3
NAMES = {1: "dendrite", 2: "axon"}
BOX = Box((1, 3, 0), (9, 20, 17))


def in_memory() -> ArrayVolume:
    fields = [
        (Field("tissue", "classes", names=NAMES), TISSUE),
        (Field("em", "grey"), EM),
        (Field("vesicles", "ids"), VESICLES),
    ]
    return ArrayVolume(IDS, VOXEL_NM, {"soma": SOMA}, fields)


def model(folder: Path) -> ZarrSource:
    """The same in a Zarr, the grey values in one of their own."""
    root = zarr.open_group(folder / "cells.zarr", mode="w")
    for name, values in (("ids", IDS), ("tissue", TISSUE), ("vesicles", VESICLES), ("soma", SOMA.astype("u1"))):
        root.create_array(name, data=values, chunks=(8, 8, 8))
    zarr.create_array(folder / "em.zarr", data=EM, chunks=(8, 8, 8))
    fields: dict[str, Any] = {
        "tissue": {"path": "tissue", "kind": "classes", "names": NAMES},
        "em": {"path": str(folder / "em.zarr"), "kind": "grey"},
        "vesicles": {"path": "vesicles", "kind": "ids"},
    }
    given: dict[str, Any] = {"path": str(folder / "cells.zarr"), "dataset": "ids", "voxel_size_nm": VOXEL_NM}
    return ZarrSource(**given, regions={"soma": "soma"}, fields=fields)


@pytest.mark.parametrize("stored", [True, False])
def test_fields_are_read_as_they_were_written(tmp_path: Path, stored: bool) -> None:
    whole = model(tmp_path)
    source: LabelSource = whole.open() if stored else in_memory()
    assert {name: field.kind for name, field in source.fields.items()} == {
        "soma": "mask", "tissue": "classes", "em": "grey", "vesicles": "ids", "dendrite": "mask", "axon": "mask"
    }  # fmt: skip
    expected = {
        "soma": SOMA,
        "tissue": TISSUE,
        "em": EM,
        "vesicles": VESICLES,
        "dendrite": TISSUE == 1,
        "axon": TISSUE == 2,
    }
    for name, values in expected.items():
        found = source.read_field(name, BOX)
        np.testing.assert_array_equal(found, values[BOX.slices], name)
        assert found.dtype.newbyteorder("=") == np.dtype(source.fields[name].dtype)
    told = describe(source)
    assert told["regions"] == ["soma", "dendrite", "axon"]
    assert [field["kind"] for field in told["fields"]][:5] == ["ids", "mask", "classes", "grey", "ids"]
    if stored:
        names = ["axon", "soma"]
        assert source.state(Box.of_shape(SHAPE), names).keys() == {"", "tissue", "soma"}
        assert source.reading_bytes((4, 4, 4), names) > 0
        assert source.identity != whole.model_copy(update={"fields": {}}).open().identity


def test_a_class_is_labelled_as_its_mask_is(tmp_path: Path) -> None:
    layers = [layer(name="a", region="axon", density_per_um3=9000.0)]
    by_mask = Simulation.from_mapping(spec(*layers, source={"path": "memory", "regions": {"axon": "-"}}))
    expected = simulate(IDS, by_mask, voxel_size_nm=VOXEL_NM, regions={"axon": TISSUE == 2})
    of_class = Simulation.from_mapping(spec(*layers, source=(whole := model(tmp_path)).model_dump()))
    fields = [(Field("tissue", "classes", names=NAMES), TISSUE)]
    found = simulate(IDS, of_class, voxel_size_nm=VOXEL_NM, fields=fields)
    assert expected.cells["dyes_a"].sum() > 100
    np.testing.assert_array_equal(found.image, expected.image)
    made = of_class.run(tmp_path / "out.zarr", quiet=True)
    np.testing.assert_array_equal(np.asarray(made.array()[...]), expected.image)
    assert of_class.plan().hash == Simulation.from_mapping(of_class.resolved().to_mapping()).plan().hash
    other = whole.model_dump()
    other["fields"]["tissue"]["names"] = {1: "axon", 2: "dendrite"}
    assert Simulation.from_mapping(spec(*layers, source=other)).plan().hash != of_class.plan().hash


def test_fields_that_cannot_be_are_refused(tmp_path: Path) -> None:
    whole = model(tmp_path)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"em": {"path": str(tmp_path / "em.zarr"), "kind": "classes"}}, "integers"),
        ({"soma": {"path": "soma", "kind": "ids"}}, "a region and a field 'soma'"),
        ({"tissue": {"path": "tissue", "kind": "classes", "names": {1: "soma"}}}, "has the name 'soma'"),
        ({"gone": {"path": "nowhere", "kind": "grey"}}, "field 'gone': nowhere is neither"),
    ]
    for fields, text in wrong:
        given = ZarrSource(**{**whole.model_dump(), "fields": fields})
        with pytest.raises(SourceError, match=text):
            given.open()
    zarr.create_array(tmp_path / "small.zarr", data=TISSUE[1:])
    given = ZarrSource(
        **{**whole.model_dump(), "fields": {"t": {"path": str(tmp_path / "small.zarr"), "kind": "classes"}}}
    )
    with pytest.raises(SourceError, match=r"field 't': .* has shape"):
        given.open()
    with pytest.raises(SourceError, match="two fields 'soma'"):
        ArrayVolume(IDS, VOXEL_NM, {"soma": SOMA}, [(Field("soma", "grey"), EM)])
    grey = {"em": {"path": "em", "kind": "grey"}}
    with pytest.raises(SpecError, match="region 'em'"):
        Simulation.from_mapping(
            spec(layer(region="em", density_per_um3=9.0), source={"path": "memory", "fields": grey})
        )
