"""Describe a label volume as plain data, for `simexm info` and for programs. Only headers and metadata are read."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, cast

from simexm.geometry.grid import Spacing, Triple
from simexm.sources.base import LabelSource, SourceModel
from simexm.sources.fields import Field
from simexm.sources.kinds import kind_of
from simexm.sources.opening import open_stack
from simexm.sources.stack import Stack, seconds_of, times_of
from simexm.store.location import usable


def describe(source: str | PathLike[str] | SourceModel | LabelSource, dataset: str | None = None) -> dict[str, Any]:
    """Describe a volume of labels: a path or URL of any kind that `ingest` reads, what a spec names, or an open source.

    With a path, `dataset` is the volume inside a Zarr, N5 or HDF5, or the scale of a precomputed volume. Raises
    SourceNotFoundError if nothing exists at the path, and SourceError if it cannot be read, or is not a volume.

    Returns
    -------
    dict
        `source` (its name in messages), `kind` (`TIFF`, `Zarr`, `HDF5`, ..., or the model's name), `shape_voxels`,
        `voxel_size_nm` and `origin_nm` (z, y, x; `voxel_size_nm` is None if unknown), `dtype` of the ids, `fields`
        (name, kind and dtype of each), `regions` (names of the masks), `times` (number of time points),
        `seconds_per_time` (None if unknown), and `storage`: `chunk_voxels`, and for a Zarr `shard_voxels` and `levels`.
        Empty for sources without files.
    """
    if isinstance(source, str | PathLike):
        path = usable(fspath(source))
        return _of_stack(kind_of(path), open_stack(path, dataset=dataset))
    opened = cast("LabelSource", source) if hasattr(source, "read_field") else source.open()
    return _of_source(type(source).__name__, opened)


def _of_stack(kind: str, stack: Stack) -> dict[str, Any]:
    if kind == "Zarr":
        from simexm.sources.zarr.stack import ZarrStack  # importing zarr takes half a second

        assert isinstance(stack, ZarrStack)
        fields, more = stack.fields(), stack.storage()
    else:
        fields, more = {}, {}
    others = [Field(name, k, "bool" if k == "mask" else s.dtype.name) for name, (k, s) in fields.items()]
    return {
        "source": stack.where,
        "kind": kind,
        **_grid(stack.shape, stack.voxel_size_nm, stack.origin_nm),
        **_contents(Field("labels", "ids", stack.dtype.name), others),
        "times": times_of(stack),
        "seconds_per_time": seconds_of(stack),
        "storage": {"chunk_voxels": list(stack.grain), **more},
    }


def _of_source(kind: str, source: LabelSource) -> dict[str, Any]:
    return {
        "source": source.identity,
        "kind": kind,
        **_grid(source.shape, source.voxel_size_nm, source.origin_nm),
        **_contents(Field("labels", "ids", source.dtype.name), list(source.fields.values())),
        "times": source.times,
        "seconds_per_time": source.seconds_per_time,
        "storage": {},
    }


def _grid(shape: Triple, voxel: Spacing | None, origin: Spacing) -> dict[str, Any]:
    return {
        "shape_voxels": list(shape),
        "voxel_size_nm": None if voxel is None else [float(v) for v in voxel],
        "origin_nm": [float(v) for v in origin],
    }


def _contents(ids: Field, others: list[Field]) -> dict[str, Any]:
    fields = [{"name": f.name, "kind": f.kind, "dtype": f.dtype} for f in (ids, *others)]
    return {"dtype": ids.dtype, "fields": fields, "regions": [f.name for f in others if f.kind == "mask"]}
