"""Bit set of the chunk files of an array that exist, to tell lost ones from those never written."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ShardList:
    """A set of positions on the grid of an array's chunk files (shards, if it is sharded)."""

    first: tuple[int, ...]  # first position along each axis that the list covers
    counts: tuple[int, ...]  # number of positions that it covers along each axis
    bits: bytearray  # one for each position, the last axis fastest

    @classmethod
    def empty(cls, first: Sequence[int], counts: Sequence[int]) -> ShardList:
        """Return a list without any file."""
        return cls(tuple(first), tuple(counts), bytearray(-(-math.prod(counts) // 8)))

    def __contains__(self, position: Sequence[int]) -> bool:
        number = self._number(position)
        return number is not None and bool(self.bits[number // 8] >> number % 8 & 1)

    def add(self, position: Sequence[int]) -> None:
        """Add a position; one outside the list is ignored. Not thread-safe."""
        number = self._number(position)
        if number is not None:
            self.bits[number // 8] |= 1 << number % 8

    def to_text(self) -> str:
        """Return the bits as compressed text; it is short, since neighbouring shards are mostly alike."""
        return base64.b64encode(zlib.compress(bytes(self.bits), 9)).decode()

    @classmethod
    def from_text(cls, counts: Sequence[int], text: str) -> ShardList:
        """Parse the text of `to_text` for a whole array; raises ValueError if it is damaged or of another size."""
        found = cls.empty((0,) * len(counts), counts)
        size = len(found.bits)
        try:
            unpacked = zlib.decompressobj()
            bits = unpacked.decompress(base64.b64decode(text, validate=True), size + 1)
        except (zlib.error, TypeError) as error:
            raise ValueError(str(error)) from error
        if len(bits) != size or not unpacked.eof:
            raise ValueError(f"it does not hold {math.prod(counts)} shards")
        found.bits[:] = bits
        return found

    def _number(self, position: Sequence[int]) -> int | None:
        if len(position) != len(self.counts):
            return None
        number = 0
        for p, a, n in zip(position, self.first, self.counts, strict=True):
            if not a <= p < a + n:
                return None
            number = number * n + p - a
        return number


def chunk_position(name: str) -> tuple[int, ...]:
    """Parse a chunk file's name below the array's folder, such as c/0/1/2 or 0.1.2; () if it is no chunk file."""
    parts = name.replace(".", "/").removeprefix("c/").split("/")
    return tuple(map(int, parts)) if all(p.isascii() and p.isdigit() for p in parts) else ()
