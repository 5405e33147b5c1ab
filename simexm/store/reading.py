"""Reading boxes of Zarr arrays from several threads, and fast where simexm wrote them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.grid import Box, Triple
from simexm.store.location import Location, folder_of
from simexm.store.shards import decode_shard, opened_shard


@dataclass(frozen=True)
class Reader:
    """Reads an array whose last three axes are z, y, x.

    Attributes
    ----------
    array
        The array.
    folder
        Where its shards are, if they are such as simexm writes, on a disk or in a store: these are decoded here, all others
        by zarr-python, which needs five times as long and one core alone.
    """

    array: zarr.Array[Any]
    folder: Location | None

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Reader:
        """How to read this array."""
        return cls(array, folder_of(array) if _is_ours(array) else None)

    @property
    def shape(self) -> Triple:
        """Elements along z, y, x."""
        z, y, x = self.array.shape[-3:]
        return z, y, x

    @property
    def piece(self) -> Triple:
        """Elements along z, y, x whose boxes are well read side by side."""
        z, y, x = (self.array.shards or self.array.chunks)[-3:]
        return (z, y, x) if self.folder else (z, y, self.array.shape[-1])

    def read(self, box: Box, lead: tuple[int, ...] = ()) -> NDArray[Any]:
        """The elements of a box, z y x, at the indices `lead` along the axes before.

        Raises
        ------
        OSError, ValueError, RuntimeError
            If a shard cannot be read or decoded.
        """
        if self.folder is None:
            where: Any = (*lead, *box.slices)
            return np.asarray(self.array[where])
        shard = self.array.shards
        assert shard is not None
        out = np.empty(box.shape, self.array.dtype)
        first = tuple(a // s for a, s in zip(lead, shard, strict=False))
        inner = tuple(a % s for a, s in zip(lead, shard, strict=False))
        z, y, x = shard[-3:]
        ranges = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, (z, y, x), strict=True))
        for position in itertools.product(*ranges):
            corner = position[0] * z, position[1] * y, position[2] * x
            part = Box.at(corner, (z, y, x)).intersect(box)
            into = out[part.relative_to(box.start).slices][(np.newaxis,) * len(lead)]
            with opened_shard(self.folder.joinpath("c", *map(str, (*first, *position)))) as data:
                decode_shard(data, shard, self.array.chunks, (*inner, *part.relative_to(corner).start), into)
        return out


def _is_ours(array: zarr.Array[Any]) -> bool:
    """Whether shards are as `simexm.store.shards` makes them: chunks in C order, little-endian, Zstd, index at the end."""
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
