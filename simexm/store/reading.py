"""Read boxes of Zarr arrays from several threads; fast for arrays that simexm wrote."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Triple, three
from simexm.store.listing import largest_file
from simexm.store.location import Location, folder_of
from simexm.store.presence import lost, refuse_gone, watched
from simexm.store.shard_list import ShardList
from simexm.store.shards import decode_shard, opened_shard

AT_ONCE_BYTES = 64 * 2**20
"""Decoded bytes of the chunks that zarr-python reads in one call; a larger chunk is read alone."""
_ZARR_AT_ONCE = 10
"""Chunks that zarr-python decodes concurrently."""
_SMALL_BYTES = 32 * 2**20
"""Chunks up to this size are counted uncompressed, without checking how well they compress; on a disk as in a store, since
the predicted memory decides the tile, and so the bytes of the result."""
_IN_PLACE = frozenset({"blosc", "zstd", "lz4"})
"""Compressors that state the decoded size, so that a decoder joins no pieces."""


@dataclass(frozen=True)
class Reader:
    """Reads an array whose last three axes are z, y, x."""

    array: zarr.Array[Any]
    folder: Location | None
    """Where its shards are, if they have simexm's format: they are decoded by `simexm.store.shards`. All others are
    read by zarr-python, which takes five times as long, on one core."""
    listed: ShardList | None = None
    """Chunk files known to exist; a missing one of these is an error, not a chunk of zeros."""

    @classmethod
    def of(cls, array: zarr.Array[Any], listed: ShardList | None = None) -> Reader:
        """Choose how to read an array."""
        folder = folder_of(array) if _is_ours(array) else None
        return cls(array if folder else watched(array, listed), folder, listed)

    @property
    def shape(self) -> Triple:
        """Elements along z, y, x."""
        return three(self.array.shape[-3:])

    @property
    def piece(self) -> Triple:
        """Shape z, y, x of boxes that are best read concurrently."""
        z, y, x = (self.array.shards or self.array.chunks)[-3:]
        return (z, y, x) if self.folder else (z, y, self.array.shape[-1])

    def read(self, box: Box, lead: tuple[int, ...] = ()) -> NDArray[Any]:
        """Read a box, z y x, at the indices `lead` along the leading axes.

        Raises GoneError if a chunk is missing because the array is gone; OSError, ValueError or RuntimeError if a shard
        cannot be read or decoded, or a listed one is missing.
        """
        if self.folder is None:
            return self._by_zarr(box, lead)
        shard = self.array.shards
        assert shard is not None
        out = np.empty(box.shape, self.array.dtype)
        first = tuple(a // s for a, s in zip(lead, shard, strict=False))
        inner = tuple(a % s for a, s in zip(lead, shard, strict=False))
        z, y, x = shard[-3:]
        ranges = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, (z, y, x), strict=True))
        missed = False
        for position in itertools.product(*ranges):
            corner = position[0] * z, position[1] * y, position[2] * x
            part = Box.at(corner, (z, y, x)).intersect(box)
            into = out[part.relative_to(box.start).slices][(np.newaxis,) * len(lead)]
            path = self.folder.joinpath("c", *map(str, (*first, *position)))
            with opened_shard(path) as data:
                if not data:
                    if self.listed is not None and (*first, *position) in self.listed:
                        refuse_gone(self.folder)
                        raise lost(str(path))
                    missed = True
                decode_shard(data, shard, self.array.chunks, (*inner, *part.relative_to(corner).start), into)
        if missed:
            refuse_gone(self.folder)
        return out

    def _by_zarr(self, box: Box, lead: tuple[int, ...]) -> NDArray[Any]:
        parts = list(_parts(box, self._chunks_at_once()))
        if len(parts) == 1:
            return np.asarray(self.array[(*lead, *box.slices)])  # type: ignore[index]
        out = np.empty(box.shape, self.array.dtype)
        for part in parts:
            out[part.relative_to(box.start).slices] = np.asarray(self.array[(*lead, *part.slices)])  # type: ignore[index]
        return out

    def _chunks_at_once(self) -> Triple:
        """Shape z, y, x of the box that zarr-python reads in one call."""
        z, y, x = self.array.chunks[-3:]
        rest = max(1, AT_ONCE_BYTES // self._chunk_bytes)
        row = min(rest, -(-self.shape[2] // x))
        rows = min(rest // row, -(-self.shape[1] // y))
        return z * (rest // (row * rows)), y * rows, x * row

    @property
    def _chunk_bytes(self) -> int:
        return math.prod(self.array.chunks) * self.array.dtype.itemsize

    def decoding_bytes(self, chunks: int) -> int:
        """Return the most bytes that decoding a box of so many chunks holds, apart from the box itself.

        A chunk is held both decoded and compressed.
        """
        chunk_bytes = self._chunk_bytes
        if self.folder is not None:
            return chunk_bytes + self._stored_bytes(chunks)
        at_once = max(1, min(chunks, AT_ONCE_BYTES // chunk_bytes))
        copies = sum(_name(c) != "transpose" for c in self.array.filters)
        compressors = [_name(c) for c in self.array.compressors]
        copies += any(n not in ("crc32c", "") for n in compressors)
        copies += any(n not in (*_IN_PLACE, "crc32c", "") for n in compressors)
        return min(at_once, _ZARR_AT_ONCE) * chunk_bytes * copies + self._stored_bytes(at_once)

    def _stored_bytes(self, chunks: int) -> int:
        """Compressed bytes of so many chunks, or of their shard."""
        most = chunks * self._chunk_bytes
        folder = folder_of(self.array)
        if folder is None or most <= _SMALL_BYTES:
            return most
        largest = largest_file(folder)
        if largest is None:
            return most
        bound = 2 * largest  # twice, since it is the largest of a sample
        return min(most, bound * (1 if self.array.shards else chunks))


def _name(codec: Any) -> str:
    """Name of a codec of Zarr 2 or 3, without the prefix "numcodecs."."""
    found = getattr(codec, "codec_id", None) or codec.to_dict()["name"]
    return str(found).removeprefix("numcodecs.")


def _parts(box: Box, step: Triple) -> Iterator[Box]:
    """Cut a box at multiples of `step`."""
    axes = []
    for start, stop, size in zip(box.start, box.stop, step, strict=True):
        inner = range((start // size + 1) * size, stop, size)
        axes.append(list(itertools.pairwise((start, *inner, stop))))
    for z, y, x in itertools.product(*axes):
        yield Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def _is_ours(array: zarr.Array[Any]) -> bool:
    """Whether shards have the format of `simexm.store.shards`."""
    about: Any = array.metadata
    codecs = [c.to_dict() for c in about.codecs] if about.zarr_format == 3 else []
    if [c["name"] for c in codecs] != ["sharding_indexed"]:
        return False
    sharding: Any = codecs[0]["configuration"]
    inner, outer = ([c["name"] for c in sharding[part]] for part in ("codecs", "index_codecs"))
    first = (sharding[part][0].get("configuration", {}) for part in ("codecs", "index_codecs"))
    little = all(codec.get("endian", "little") == "little" for codec in first)
    at_end = sharding["index_location"] == "end"
    plain = about.chunk_key_encoding.to_dict() == {"name": "default", "configuration": {"separator": "/"}}
    zeros = about.fill_value == 0
    return inner == ["bytes", "zstd"] and outer == ["bytes", "crc32c"] and little and at_end and plain and bool(zeros)
