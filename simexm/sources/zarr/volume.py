"""A Zarr array read as a volume."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.errors import GoneError, SourceError, SourceGoneError
from simexm.geometry.grid import Box, Triple, three
from simexm.sources.bombs import refuse_bombs
from simexm.sources.chunk_cache import CACHE_BYTES, ChunkCache
from simexm.sources.state import FilesState, state_of_chunks
from simexm.sources.times import refuse_time
from simexm.sources.zarr import ngff
from simexm.store.reading import Reader
from simexm.store.shard_list import ShardList

_CHUNKS = ChunkCache(CACHE_BYTES)
_TOKENS = itertools.count()


@dataclass(frozen=True)
class Volume:
    """A Zarr array read as z, y, x at any time point, whatever the order of its axes; other axes have length 1."""

    where: str  # name in messages: path and dataset
    array: zarr.Array[Any]
    geometry: ngff.Geometry
    group: zarr.Group | None  # the group that holds the array, if any
    time: int | None = None  # the only time point that is read; None reads all
    listed: ShardList | None = field(default=None, compare=False)  # chunk files that exist, if known
    token: int = field(default_factory=lambda: next(_TOKENS), compare=False)  # key of this opening in the chunk cache

    @property
    def shape(self) -> Triple:
        return self.geometry.along(self.array.shape)

    @property
    def times(self) -> int:
        axis = self.geometry.time
        return 1 if axis is None or self.time is not None else self.array.shape[axis]

    def at(self, time: int) -> Volume:
        """Return the volume at one time point; raises SourceError if there is no such one."""
        refuse_time(self.where, time, self.times)
        return self if self.times == 1 else replace(self, time=time)

    def read(self, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x), at a time point; without time axis they are the same at all.

        Raises SourceError if they cannot be decoded.
        """
        if not Box.of_shape(self.shape).contains(box):
            raise IndexError(f"{box} reaches outside {self.where}, whose shape is {self.shape}")
        chunk = self.geometry.along(self.array.chunks)
        now = time if self.time is None else self.time
        name = (self.token, self.array.path, now)
        return _CHUNKS.read(name, box, chunk, self.shape, self.array.dtype.itemsize, partial(self._read, box, now))

    def state(self, box: Box) -> FilesState | None:
        """Return the state of the chunk files that hold a box, at all time points; see `state_of_chunks`."""
        grid = self.array.shards or self.array.chunks
        ranges = [range(1)] * self.array.ndim
        for i, a, b in zip(self.geometry.axes, box.start, box.stop, strict=True):
            if i is not None:
                ranges[i] = range(a // grid[i], -(-b // grid[i]))
        axis = self.geometry.time
        if axis is not None:
            first, end = (0, self.array.shape[axis]) if self.time is None else (self.time, self.time + 1)
            ranges[axis] = range(first // grid[axis], -(-end // grid[axis]))
        return state_of_chunks(self.where, self.array, ranges, listing=self.listed is None)

    def reading_bytes(self, shape: Triple) -> int:
        """Return the peak memory of reading a box of this shape, without the box and the chunk cache, bytes."""
        chunk = self.geometry.along(self.array.chunks)
        item = self.array.dtype.itemsize
        box, least, most, touched = item, item, item, 1
        for n, c, m in zip(shape, chunk, self.shape, strict=True):
            aligned, count = -(-n // c), min(-(-n // c) + 1, -(-m // c))  # a box may begin in the middle of a chunk
            box, least, most, touched = box * n, least * min(aligned * c, m), most * min(count * c, m), touched * count
        decoding = self._reader.decoding_bytes(touched)
        held = box + decoding if most > CACHE_BYTES else 0
        if least <= CACHE_BYTES:  # chunks are copied into the cache out of the box around them
            around = min(most, CACHE_BYTES)
            held = max(held, around + max(around, decoding))
        return held + (0 if self.array.dtype.isnative else box)

    @cached_property
    def _reader(self) -> Reader:
        return Reader.of(self.array, self.listed)

    def _read(self, wanted: Box, time: int, box: Box) -> NDArray[Any]:
        try:
            return self._stored(box, time)
        except GoneError as error:
            raise SourceGoneError(
                f"{self.where}: voxels {wanted.start} to {wanted.stop} cannot be read: {error.strerror}."
            ) from error
        except (RuntimeError, ValueError, OSError) as error:
            raise SourceError(
                f"{self.where}: voxels {wanted.start} to {wanted.stop} cannot be read, a chunk is damaged or gone: {error}"
            ) from error

    def _stored(self, box: Box, time: int) -> NDArray[Any]:
        """Read a box in the array's order of axes, and transpose it."""
        ndim = self.array.ndim
        where: list[slice] = [slice(0, 1)] * ndim
        if self.geometry.time is not None:
            where[self.geometry.time] = slice(time, time + 1)
        for axis, part in zip(self.geometry.axes, box.slices, strict=True):
            if axis is not None:
                where[axis] = part
        refuse_bombs(self.array, tuple(where))
        axes = [a for a in self.geometry.axes if a is not None]
        last = sorted(axes)
        turned = [last.index(a) for a in axes]  # positions of z, y and x among the spatial axes
        if last == [ndim - 3, ndim - 2, ndim - 1]:
            own = Box(*(three(ends[turned.index(i)] for i in range(3)) for ends in (box.start, box.stop)))
            return self._reader.read(own, tuple(part.start for part in where[:-3])).transpose(turned)
        found = np.asarray(self._reader.array[tuple(where)])
        return found.reshape([found.shape[a] for a in last]).transpose(turned).reshape(box.shape)
