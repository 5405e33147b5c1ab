"""Which chunk files of an array exist, in a bit each: so a missing one is told from one that was never written."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ShardList:
    """A set of positions on the grid of an array's chunk files (shards, where it is sharded).

    Attributes
    ----------
    first
        The first position along each axis that the list tells of.
    counts
        Positions along each axis from there on. Of those outside the list tells nothing.
    bits
        One for each position, the last axis fastest.
    """

    first: tuple[int, ...]
    counts: tuple[int, ...]
    bits: bytearray

    @classmethod
    def empty(cls, first: Sequence[int], counts: Sequence[int]) -> ShardList:
        """A list without any file."""
        return cls(tuple(first), tuple(counts), bytearray(-(-math.prod(counts) // 8)))

    def __contains__(self, position: Sequence[int]) -> bool:
        number = self._number(position)
        return number is not None and bool(self.bits[number // 8] >> number % 8 & 1)

    def add(self, position: Sequence[int]) -> None:
        """Put a position in; one outside is left out. Not safe for threads."""
        number = self._number(position)
        if number is not None:
            self.bits[number // 8] |= 1 << number % 8

    def to_text(self) -> str:
        """The bits as text, compressed: neighbouring shards are mostly alike."""
        return base64.b64encode(zlib.compress(bytes(self.bits), 9)).decode()

    @classmethod
    def from_text(cls, counts: Sequence[int], text: str) -> ShardList:
        """What `to_text` told of a whole array.

        Raises
        ------
        ValueError
            If the text is damaged, or tells of another number of shards.
        """
        found = cls.empty((0,) * len(counts), counts)
        size = len(found.bits)
        try:
            unpacked = zlib.decompressobj()
            bits = unpacked.decompress(base64.b64decode(text, validate=True), size + 1)
        except (zlib.error, TypeError) as error:
            raise ValueError(str(error)) from error
        if len(bits) != size or not unpacked.eof:
            raise ValueError(f"it tells of other than {math.prod(counts)} shards")
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
    """Position of a chunk file by its name below the array's folder, such as c/0/1/2 or 0.1.2; () where it is none."""
    parts = name.replace(".", "/").removeprefix("c/").split("/")
    return tuple(map(int, parts)) if all(p.isascii() and p.isdigit() for p in parts) else ()
