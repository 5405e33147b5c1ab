"""Results made by hand, in the form that runs leave them: any size, data type and ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from simexm.result.result import Result

SCALE_UM = (0.1125, 0.040625, 0.04)
COLORS = ("3DFF18", "FF0B00", "0040FF", "FFFFFF")
NAMES = ("green", "red", "blue", "white")
IDS = np.array([7, 300, 2**16 + 5, 2**33 + 1], np.uint64)


def make_result(
    path: Path,
    image: NDArray[Any] | tuple[tuple[int, ...], str],
    labels: dict[str, NDArray[Any]] | None = None,
    *,
    status: str = "complete",
    chunk: int = 2,
) -> Result:
    """Store an image (or one of zeros, by its shape and data type) and label images, every second element making level 1."""
    root = zarr.create_group(path, zarr_format=3)
    shape, dtype = image if isinstance(image, tuple) else (image.shape, image.dtype)

    def store(name: str, data: NDArray[Any] | None, shape: tuple[int, ...], dtype: Any) -> None:
        lead = (1,) * (len(shape) - 3)
        inner = (*lead, chunk, 16, 16) if data is not None else (*lead, chunk, *shape[-2:])
        shard = (*lead, 2 * chunk, *(2 * n for n in inner[-2:]))
        array = root.create_array(name, shape=shape, dtype=dtype, chunks=inner, shards=shard, fill_value=0)
        if data is not None:
            array[...] = data

    half = (shape[0], *(-(-n // 2) for n in shape[1:]))
    store("0", None if isinstance(image, tuple) else image, shape, dtype)
    store("1", None if isinstance(image, tuple) else image[:, ::2, ::2, ::2], half, dtype)
    for name, ids in (labels or {}).items():
        store(f"labels/{name}/0", ids, ids.shape, ids.dtype)
        store(f"labels/{name}/1", ids[::2, ::2, ::2], half[1:], ids.dtype)
    datasets = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [1.0, *(s * 2**n for s in SCALE_UM)]}],
        }
        for n in range(2)
    ]
    channels = [
        {
            "label": NAMES[c],
            "color": COLORS[c],
            "window": {"min": 0, "max": 65535, "start": 100.0, "end": 300.0 + 50 * c},
        }
        for c in range(shape[0])
    ]
    attributes = {
        "ome": {"multiscales": [{"name": "häuser & <co>", "datasets": datasets}], "omero": {"channels": channels}},
        "simexm": {"hash": "0" * 32, "status": status, "quantity": "image", "expansion_factor": 4.0},
    }
    (path / "zarr.json").write_text(json.dumps({"attributes": attributes, "zarr_format": 3, "node_type": "group"}))
    if labels:
        group = {"attributes": {"ome": {"labels": list(labels)}}, "zarr_format": 3, "node_type": "group"}
        (path / "labels" / "zarr.json").write_text(json.dumps(group))
    return Result.open(path)


def counts(channels: int = 2, dtype: str = "uint16") -> NDArray[Any]:
    """Counts, the channels of different brightness, (c, z, y, x)."""
    drawn = (
        np.random.default_rng(3).poisson(60, (channels, 11, 21, 26)) * np.arange(1, channels + 1)[:, None, None, None]
    )
    return (drawn + 100).astype(dtype)


def cells(ids: NDArray[np.uint64] = IDS) -> NDArray[np.uint64]:
    """Some cells in a background of 0, (z, y, x)."""
    volume = np.zeros((11, 21, 26), np.uint64)
    for i, cell in enumerate(ids):
        volume[i : i + 5, 5 * i : 5 * i + 5, 3 * i : 3 * i + 9] = cell
    return volume


@pytest.fixture
def small(tmp_path: Path) -> Result:
    """Two channels, and ids up to 65541 of which layer `some` labels two."""
    ids = cells(IDS[:3])
    return make_result(
        tmp_path / "small.zarr", counts(), {"cells": ids, "some": np.where(ids == 300, np.uint64(0), ids)}
    )
