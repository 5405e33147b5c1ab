"""Fields beside labels keep their values through ingest, whatever holds them, and are known to whoever opens the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from simexm.cli.app import app
from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box, triple
from simexm.ingestion.ingest import ingest
from simexm.sources import describe
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.fields import masks_of
from simexm.store.pyramid import downsample_mean
from tests.sources.volumes import SHAPE, SIZE, ids

TISSUE = np.random.default_rng(1).integers(0, 3, SHAPE, np.uint8)
EM = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
SIGNED = np.random.default_rng(3).integers(-(2**15), 2**15, SHAPE, np.int16)
VESICLES = np.random.default_rng(4).integers(0, 2**40, SHAPE, np.int64)
FIELDS = {"tissue": ("classes", TISSUE), "em": ("grey", EM), "signed": ("grey", SIGNED), "vesicles": ("ids", VESICLES)}
BOX = Box((1, 2, 0), (5, 14, 17))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels, and beside them the fields: in one HDF5 file, those with a sign as a TIFF."""
    with h5py.File(tmp_path / "fields.h5", "w") as file:
        for name in ("tissue", "em", "vesicles"):
            file.create_dataset(f"made/{name}", data=FIELDS[name][1], chunks=(3, 8, 8))
    tifffile.imwrite(tmp_path / "signed.tif", SIGNED)
    tifffile.imwrite(tmp_path / "labels.tif", ids())
    return tmp_path / "labels.tif"


def _named(folder: Path) -> dict[str, Any]:
    places = {name: folder / "fields.h5" / "made" / name for name in FIELDS} | {"signed": folder / "signed.tif"}
    return {name: (kind, places[name]) for name, (kind, _) in FIELDS.items()}


def test_fields_are_read_as_they_were_written(tmp_path: Path, labels: Path) -> None:
    made = ingest(labels, tmp_path / "a.zarr", SIZE, fields=_named(tmp_path))
    assert (made.fields, made.regions) == (tuple(FIELDS), ())
    ingest(tmp_path / "a.zarr", tmp_path / "b.zarr", roi="1:5,2:14,:17")
    for path, box in ((tmp_path / "a.zarr", BOX), (tmp_path / "b.zarr", Box.of_shape(BOX.shape))):
        source = open_source(path)
        assert {name: field.kind for name, field in source.fields.items()} == {n: k for n, (k, _) in FIELDS.items()}
        for name, (_, values) in FIELDS.items():
            found = source.read_field(name, box)
            np.testing.assert_array_equal(found, values[BOX.slices])
            assert found.dtype == values.dtype or name == "vesicles"
        told = {field["name"]: field["kind"] for field in describe(path)["fields"]}
        assert told == {"labels": "ids", **{name: kind for name, (kind, _) in FIELDS.items()}}


def test_coarser_levels_hold_means_of_grey_values_and_classes_that_are_there(tmp_path: Path, labels: Path) -> None:
    ingest(labels, tmp_path / "a.zarr", SIZE, fields=_named(tmp_path))
    levels: dict[str, Any] = {name: zarr.open_array(tmp_path / "a.zarr" / name / "1", mode="r")[...] for name in FIELDS}
    for name in ("em", "signed"):
        factors = triple(round(a / b) for a, b in zip(SHAPE, levels[name].shape, strict=True))
        np.testing.assert_array_equal(levels[name], downsample_mean(FIELDS[name][1], factors))
    cell = tuple(slice(0, f) for f in factors)
    assert levels["em"][0, 0, 0] == pytest.approx(EM[cell].mean(), rel=1e-6)
    assert levels["signed"][0, 0, 0] == round(SIGNED[cell].astype(float).mean())
    assert set(np.unique(levels["vesicles"])) <= set(np.unique(VESICLES))


def test_classes_get_names_in_the_spec(tmp_path: Path, labels: Path) -> None:
    ingest(labels, tmp_path / "a.zarr", SIZE, fields=_named(tmp_path))
    given: Any = {"tissue": {"path": "tissue", "kind": "classes", "names": {1: "dendrite"}}}
    model = ZarrSource(path=str(tmp_path / "a.zarr"), fields=given)
    assert masks_of(model.offered()) == ("dendrite",) == masks_of(model.resolved().offered())
    np.testing.assert_array_equal(model.resolved().open().read_field("dendrite", BOX), TISSUE[BOX.slices] == 1)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("em={folder}/fields.h5/made/em", "--field NAME=KIND:PATH"),
        ("grey:x.tif", "--field NAME=KIND:PATH"),
        ("soma=mask:{folder}/signed.tif", "masks are given by --region"),
        ("tissue=classes:{folder}/fields.h5/made/em", "no id"),
        ("em=grey:{folder}/fields.h5/made/vesicles", "at most 32 bits"),
        ("labels=grey:{folder}/signed.tif", "labels, membrane"),
    ],
)
def test_the_command_refuses_what_is_no_field(tmp_path: Path, labels: Path, option: str, told: str) -> None:
    words = ["ingest", str(labels), "-o", str(tmp_path / "a.zarr"), "--voxel-size", *map(str, SIZE), "-q"]
    done = CliRunner().invoke(app, [*words, "--field", option.format(folder=tmp_path)])
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "a.zarr").exists()


def test_the_command_writes_fields(tmp_path: Path, labels: Path) -> None:
    words = ["ingest", str(labels), "-o", str(tmp_path / "a.zarr"), "--voxel-size", *map(str, SIZE)]
    done = CliRunner().invoke(app, [*words, "--field", f"em=grey:{tmp_path}/fields.h5/made/em"])
    assert done.exit_code == 0, done.output
    assert "fields em" in done.output
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read_field("em", BOX), EM[BOX.slices])


def test_a_region_and_a_field_have_different_names(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(SpecError, match="a region and a field 'em'"):
        ingest(
            labels, tmp_path / "a.zarr", SIZE, regions={"em": tmp_path / "signed.tif"},
            fields={"em": ("grey", tmp_path / "signed.tif")},
        )  # fmt: skip


def test_forged_fields_lead_nowhere(tmp_path: Path, labels: Path) -> None:
    ingest(labels, tmp_path / "a.zarr", SIZE)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    mark: Any = group.attrs["simexm"]
    for forged in ({"../../b": "grey"}, {"em": "mask"}, ["em"]):
        group.attrs["simexm"] = {**mark, "fields": forged}
        with pytest.raises(SourceError, match=r"simexm\.fields"):
            open_source(tmp_path / "a.zarr")
