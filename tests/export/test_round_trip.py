"""What export writes, ingest reads: the same ids, of the same size, in the same place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from simexm.export.export import export
from simexm.geometry.grid import Box
from simexm.ingestion.ingest import ingest
from simexm.result.result import Result
from simexm.sources.base import open_source
from tests.export.conftest import IDS, SCALE_UM, cells, counts, make_result

BEGIN_UM = (12.3, -4.5, 0.6789)


def placed(path: Path) -> Result:
    """A result whose first pixel begins at `BEGIN_UM`."""
    make_result(path, counts(), {"cells": cells(IDS[:3])})
    told = json.loads((path / "zarr.json").read_text())
    for level, data in enumerate(told["attributes"]["ome"]["multiscales"][0]["datasets"]):
        centre = [round(b + s * 2**level / 2, 9) for b, s in zip(BEGIN_UM, SCALE_UM, strict=True)]
        data["coordinateTransformations"].append({"type": "translation", "translation": [0.0, *centre]})
    (path / "zarr.json").write_text(json.dumps(told))
    return Result.open(path)


@pytest.mark.parametrize("form", ["tiff", "ome-tiff"])
@pytest.mark.parametrize("level", [0, 1])
def test_exported_labels_are_where_they_were(tmp_path: Path, form: str, level: int) -> None:
    export(placed(tmp_path / "a.zarr"), tmp_path / "out", form, labels="merged", level=level)
    (path,) = (tmp_path / "out" / "labels").iterdir()
    ingest(path, tmp_path / "b.zarr")
    source = open_source(tmp_path / "b.zarr")
    step = 2**level
    np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), cells(IDS[:3])[::step, ::step, ::step])
    exact = 0 if form == "ome-tiff" else 1e-9  # ImageJ's resolution is a ratio of two numbers of 32 bits
    assert [float(s) for s in source.voxel_size_nm] == pytest.approx(
        [s * step * 1000 for s in SCALE_UM], rel=exact, abs=exact
    )
    assert [float(s) for s in source.origin_nm] == pytest.approx([b * 1000 for b in BEGIN_UM], rel=1e-9)


def test_every_plane_of_an_ome_tiff_says_where_it_is(tmp_path: Path) -> None:
    (path,) = export(placed(tmp_path / "a.zarr"), tmp_path / "out", "ome-tiff", channels="merged")
    with tifffile.TiffFile(path) as tif:
        planes = tifffile.xml2dict(str(tif.ome_metadata))["OME"]["Image"]["Pixels"]["Plane"]
    assert len(planes) == 2 * 11
    for plane in planes:
        at = [plane[f"Position{a}"] for a in "ZYX"]
        index = (plane["TheZ"], 0, 0)
        assert at == pytest.approx([b + (i + 0.5) * s for b, i, s in zip(BEGIN_UM, index, SCALE_UM, strict=True)])
        assert {plane[f"Position{a}Unit"] for a in "ZYX"} == {"µm"}
