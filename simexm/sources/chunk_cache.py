"""Cache of decoded chunks.

Boxes of neighbouring tiles overlap by their halos and begin inside chunks: without a cache each chunk was decoded seven times.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Triple, three

CACHE_BYTES = 64 * 2**20
"""Bytes of decoded chunks in one process, for all sources together."""

Key = tuple[Hashable, Triple]


class ChunkCache:
    """The least recently used chunks are dropped beyond `limit` bytes; safe for threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._chunks: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, name: Hashable, box: Box, chunk: Triple, shape: Triple, itemsize: int, read: Callable[[Box], NDArray[Any]]
    ) -> NDArray[Any]:
        """Return the voxels of a box inside an array of this `chunk`, `shape` and `itemsize`.

        `name` is the key of the array and its content. `read` reads a box of the array; it is called at most once, for
        the box around the missing chunks. A box of more chunks than fit into the cache is read without it.
        """
        z, y, x = (range(a // c, -(-b // c)) for a, b, c in zip(box.start, box.stop, chunk, strict=True))
        positions = list(itertools.product(z, y, x))
        hull = [_chunk_box(p, chunk, shape) for p in positions]
        if box.is_empty or sum(b.size for b in hull) * itemsize > self._limit:
            return read(box)
        with self._lock:
            cached = {p: self._chunks[name, p] for p in positions if (name, p) in self._chunks}
        missing = [b for p, b in zip(positions, hull, strict=True) if p not in cached]
        data: NDArray[Any] | None = None
        if missing:
            around = missing[0]
            for each in missing[1:]:
                around = around.hull(each)
            data = read(around)
            for position, each in zip(positions, hull, strict=True):
                if around.contains(each) and position not in cached:
                    cached[position] = np.ascontiguousarray(data[each.relative_to(around.start).slices])
        self._store(name, cached)
        if data is not None and around == box:
            return data
        out = np.empty(box.shape, next(iter(cached.values())).dtype)
        for position, each in zip(positions, hull, strict=True):
            part = each.intersect(box)
            out[part.relative_to(box.start).slices] = cached[position][part.relative_to(each.start).slices]
        return out

    def _store(self, name: Hashable, chunks: dict[Triple, NDArray[Any]]) -> None:
        with self._lock:
            for position, data in chunks.items():
                if (name, position) not in self._chunks:
                    self._chunks[name, position] = data
                    self._bytes += data.nbytes
                self._chunks.move_to_end((name, position))
            while self._bytes > self._limit:
                _, data = self._chunks.popitem(last=False)
                self._bytes -= data.nbytes


def _chunk_box(position: Triple, chunk: Triple, shape: Triple) -> Box:
    corner = three(p * c for p, c in zip(position, chunk, strict=True))
    return Box.at(corner, chunk).intersect(Box.of_shape(shape))
