"""A Zarr as input of ingest: to crop it, to shard it again, or to read a mask or field from it."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.fields import Kind
from simexm.sources.mark import stored_fields
from simexm.sources.stack import PlanesByZ, Stack
from simexm.sources.state import FilesState
from simexm.sources.zarr.finding import inside
from simexm.sources.zarr.ngff import pixel_geometry
from simexm.sources.zarr.source import locate
from simexm.store.ngff import datasets


class ZarrStack(PlanesByZ):
    """A Zarr array (z, y, x); obeys `simexm.sources.stack.Stack`, and raises what `open_zarr` does."""

    def __init__(self, path: str, dataset: str | None) -> None:
        self._path = path
        self._volume, self.is_image = locate(path, dataset)
        self.where = self._volume.where
        self.shape: Triple = self._volume.shape
        self.dtype: np.dtype[Any] = self._volume.array.dtype.newbyteorder("=")
        self.grain: Triple = self._volume.geometry.along(self._volume.array.chunks)
        self.voxel_size_nm: Spacing | None = self._volume.geometry.voxel_size_nm
        self.origin_nm: Spacing = self._volume.geometry.origin_nm
        self.size_doubt = self._volume.geometry.doubt
        self.seconds_per_time = self._volume.geometry.seconds_per_time

    @property
    def times(self) -> int:
        return self._volume.times

    @property
    def levels(self) -> list[str]:
        """Datasets of the levels of its pyramid, finest first; empty without one."""
        group = self._volume.group
        return [] if group is None else [f"{inside(group)}/{name}".lstrip("/") for name in datasets(dict(group.attrs))]

    def at(self, time: int) -> Self:
        """Return the stack at one time point; raises SourceError if there is no such one."""
        found = copy.copy(self)
        found._volume = self._volume.at(time)
        return found

    def state(self, box: Box) -> FilesState | None:
        """Return the state of the chunk files that hold a box."""
        return self._volume.state(box)

    def fields(self) -> dict[str, tuple[Kind, Stack]]:
        """Return the fields that an earlier ingest stored beside these labels, by name."""
        stored = stored_fields(self._volume.group)
        return {name: (kind, ZarrStack(self._path, path)) for name, (kind, path) in stored.items()}

    def pixels(self) -> tuple[Spacing, Spacing] | None:
        """Return pixel size and origin, nm, of planes whose thickness is unknown; those along z are not meant."""
        group = self._volume.group
        if group is None or not datasets(dict(group.attrs)):
            return None
        array = self._volume.array
        name = array.path.removeprefix(inside(group)).lstrip("/")
        return pixel_geometry(self.where, dict(group.attrs), name, array.shape)

    def storage(self) -> dict[str, Any]:
        """Return the shard's voxels along z, y, x (None without shards) and the levels of the pyramid."""
        array, group = self._volume.array, self._volume.group
        shard = None if array.shards is None else list(self._volume.geometry.along(array.shards))
        levels = len(datasets(dict(group.attrs))) if group is not None else 0
        return {"shard_voxels": shard, "levels": max(1, levels)}

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x); raises SourceError if they cannot be decoded."""
        return np.ascontiguousarray(self._volume.read(box), self.dtype)
