"""Chunked containers as other programs write them, with axes and ids that cannot be taken for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
import zarr
from numpy.typing import NDArray

from tests.sources.volumes import ids

A = ids("uint32")
"""z, y, x"""


def zarr_array(
    path: Path,
    a: NDArray[Any] = A,
    zarr_format: Literal[2, 3] = 2,
    attributes: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a Zarr array in small chunks."""
    chunks = tuple(min(n, 9) for n in a.shape)
    array = zarr.create_array(path, shape=a.shape, dtype=a.dtype, chunks=chunks, zarr_format=zarr_format, **more)
    array[...] = a
    array.update_attributes(attributes or {})
    return path


def n5(root: Path, inside: str, attributes: dict[str, Any], a: NDArray[Any] = A) -> Path:
    """Write a data set (its axes in reversed order) into an N5 container; returns the container."""
    metadata = {
        "dataType": a.dtype.name, "dimensions": a.shape[::-1], "blockSize": [9] * a.ndim, "compression": {"type": "gzip"},
        **attributes,
    }  # fmt: skip
    kvstore = {"driver": "file", "path": str(root / inside)}
    ts.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata, "create": True}).result()[...] = a.T
    root.joinpath("attributes.json").write_text(json.dumps({"n5": "2.5.1"}))
    return root


def precomputed(
    path: Path, encoding: str = "raw", kind: str = "segmentation", a: NDArray[Any] = A, **scale: Any
) -> Path:
    """Write a Neuroglancer precomputed volume."""
    told = {
        "size": a.shape[::-1],
        "chunk_size": [8, 8, 4],
        "encoding": encoding,
        "resolution": [4, 8, 40],
        "key": "s",
        **scale,
    }
    if encoding == "compressed_segmentation":
        told["compressed_segmentation_block_size"] = [8, 8, 8]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": kind, "data_type": a.dtype.name, "num_channels": 1},
        "scale_metadata": told,
        "create": True,
    }
    ts.open(spec).result()[...] = np.asarray(a.T)[..., None]
    return path
