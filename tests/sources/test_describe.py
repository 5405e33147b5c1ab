"""What `describe` says of a volume agrees with what was written, whatever holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from simexm.errors import SourceNotFoundError
from simexm.ingestion.ingest import ingest
from simexm.sources import describe
from simexm.sources.arrays import ArrayVolume
from simexm.sources.fields import masks_of
from simexm.sources.phantom import FIELDS, Phantom
from tests.sources.volumes import SHAPE, SIZE, ids


def test_ingested(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", ids("uint32"))
    tifffile.imwrite(tmp_path / "soma.tif", (ids("uint32") > 2**31).astype("u1"))
    out = tmp_path / "cells.zarr"
    ingest(tmp_path / "cells.tif", out, SIZE, regions={"soma": tmp_path / "soma.tif"}, roi="1:,2:,3:")
    for told in (describe(out), describe(str(out))):
        shape = [n - o for n, o in zip(SHAPE, (1, 2, 3), strict=True)]
        assert told["kind"] == "Zarr"
        assert told["shape_voxels"] == shape
        assert told["voxel_size_nm"] == list(SIZE)
        assert told["origin_nm"] == [o * s for o, s in zip((1, 2, 3), SIZE, strict=True)]
        assert told["fields"][0] == {"name": "labels", "kind": "ids", "dtype": "uint32"}
        assert told["fields"][1:] == [{"name": "soma", "kind": "mask", "dtype": "bool"}]
        assert (told["regions"], told["times"]) == (["soma"], 1)
        levels = len([p for p in out.iterdir() if p.name.isdigit()])
        assert told["storage"]["levels"] == levels
        assert told["storage"]["shard_voxels"] is not None


def test_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", ids())
    np.save(tmp_path / "cells.npy", ids())
    for name, kind in (("cells.tif", "TIFF"), ("cells.npy", "NPY")):
        told = describe(tmp_path / name)
        assert (told["kind"], told["shape_voxels"], told["dtype"]) == (kind, list(SHAPE), "uint16")
        assert (told["voxel_size_nm"], told["regions"]) == (None, [])
    with pytest.raises(SourceNotFoundError):
        describe(tmp_path / "nothing.tif")


@pytest.mark.parametrize(
    ("source", "kind", "dtype", "regions"),
    [
        (Phantom(shape=SHAPE, voxel_size_nm=SIZE), "Phantom", "uint64", list(masks_of(FIELDS))),
        (ArrayVolume(ids("int16") * (ids("int16") > 0), SIZE, {"soma": ids() > 9}), "ArrayVolume", "uint16", ["soma"]),
    ],
)
def test_models_and_open_sources(source: Any, kind: str, dtype: str, regions: list[str]) -> None:
    told = describe(source)
    assert (told["kind"], told["dtype"], told["regions"]) == (kind, dtype, regions)
    assert (told["shape_voxels"], told["voxel_size_nm"]) == (list(SHAPE), list(SIZE))
