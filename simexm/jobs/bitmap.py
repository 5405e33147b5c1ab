"""A set of block numbers that stores one bit for each."""

from __future__ import annotations

from collections.abc import Iterator


class Bitmap:
    """A set of non-negative integers that stores one bit for each number up to the largest."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, number: int) -> None:
        """Add `number`."""
        byte, bit = divmod(number, 8)
        if byte >= len(self._bits):
            # Half as much again, so that a growing set is not copied at every step.
            self._bits.extend(bytes(byte + 1 + byte // 2 - len(self._bits)))
        if not self._bits[byte] >> bit & 1:
            self._bits[byte] |= 1 << bit
            self._count += 1

    def discard(self, number: int) -> None:
        """Remove `number`, if it is in the set."""
        if number in self:
            self._bits[number // 8] &= ~(1 << number % 8)
            self._count -= 1

    def missing(self, stop: int) -> Iterator[int]:
        """Yield the numbers of range(stop) that are not in the set, in order; the set may change meanwhile."""
        for byte in range(-(-stop // 8)):
            if byte < len(self._bits) and self._bits[byte] == 0xFF:
                continue
            for number in range(byte * 8, min(byte * 8 + 8, stop)):
                if number not in self:
                    yield number

    def __contains__(self, number: int) -> bool:
        byte, bit = divmod(number, 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    def __len__(self) -> int:
        return self._count
