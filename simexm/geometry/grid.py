"""Boxes and tilings in integers and exact rationals; all axes are z, y, x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import SupportsInt, TypeVar

T = TypeVar("T")
Triple = tuple[int, int, int]
Spacing = tuple[Fraction, Fraction, Fraction]


def exact(value: float | int | str | Fraction) -> Fraction:
    """Convert a decimal number exactly: 162.5 to 325/2 and 0.1 to 1/10, not to the nearest binary fraction."""
    return value if isinstance(value, Fraction) else Fraction(str(value))


def three(values: Iterable[T]) -> tuple[T, T, T]:
    """Return three values as a tuple, z, y, x; raises ValueError if they are more or fewer."""
    z, y, x = values
    return z, y, x


def exact3(values: Iterable[float | Fraction]) -> Spacing:
    """Apply `exact` to a z, y, x triple."""
    return three(exact(v) for v in values)


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of integer coordinates, z y x.

    A tile creates thousands of them, so the methods called most are written without loops.
    """

    start: Triple
    stop: Triple

    @classmethod
    def of_shape(cls, shape: Triple) -> Box:
        """The box of an array of this shape."""
        return cls((0, 0, 0), shape)

    @classmethod
    def at(cls, start: Triple, shape: Triple) -> Box:
        """The box that begins at `start` and has this shape."""
        return cls(start, triple(a + n for a, n in zip(start, shape, strict=True)))

    @property
    def shape(self) -> Triple:
        """Extent along z, y, x; never negative."""
        (z, y, x), (w, v, u) = self.start, self.stop
        return max(0, w - z), max(0, v - y), max(0, u - x)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """Whether any axis has no extent."""
        return self.size == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that select this box from an array that starts at 0."""
        return three(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def intersect(self, other: Box) -> Box:
        """Return the common part; if there is none, an empty box (stop == start)."""
        (a, b, c), (d, e, f) = self.start, other.start
        z, y, x = max(a, d), max(b, e), max(c, f)
        (a, b, c), (d, e, f) = self.stop, other.stop
        return Box((z, y, x), (max(z, min(a, d)), max(y, min(b, e)), max(x, min(c, f))))

    def hull(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return Box(
            triple(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            triple(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def grown(self, halo: Triple) -> Box:
        """Return the box with `halo` more elements on each side."""
        return Box(
            triple(a - h for a, h in zip(self.start, halo, strict=True)),
            triple(b + h for b, h in zip(self.stop, halo, strict=True)),
        )

    def shifted(self, by: Triple) -> Box:
        """Return the box moved by `by`."""
        (a, b, c), (d, e, f), (z, y, x) = self.start, self.stop, by
        return Box((a + z, b + y, c + x), (d + z, e + y, f + x))

    def relative_to(self, origin: Triple) -> Box:
        """Return the box in coordinates that begin at `origin`."""
        z, y, x = origin
        return self.shifted((-z, -y, -x))

    def with_z(self, start: int, stop: int) -> Box:
        """The box with these planes."""
        return Box((start, *self.start[1:]), (stop, *self.stop[1:]))

    def contains(self, other: Box) -> bool:
        """Whether `other` lies inside; an empty box always does."""
        return other.is_empty or self.intersect(other) == other


@dataclass(frozen=True, slots=True)
class Tiling:
    """A box cut into cells of one shape, the last of each axis clipped. Cells are numbered in z, y, x order."""

    box: Box
    cell: Triple

    @property
    def counts(self) -> Triple:
        """Cells along z, y, x."""
        return triple(-(-n // c) for n, c in zip(self.box.shape, self.cell, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def position(self, index: int) -> Triple:
        """Position of cell number `index` along z, y, x."""
        _, ny, nx = self.counts
        if not 0 <= index < len(self):
            raise IndexError(f"cell {index} of a tiling of {len(self)}")
        return index // (ny * nx), index // nx % ny, index % nx

    def __getitem__(self, index: int) -> Box:
        position = self.position(index)
        start = triple(a + p * c for a, p, c in zip(self.box.start, position, self.cell, strict=True))
        return Box.at(start, self.cell).intersect(self.box)

    def __iter__(self) -> Iterator[Box]:
        return (self[i] for i in range(len(self)))


def triple(values: Iterable[SupportsInt]) -> Triple:
    """Convert three values to integers, z, y, x."""
    return three(map(int, values))


@dataclass(frozen=True, slots=True)
class NmBox:
    """A half-open box in exact nm from the corner of the specimen, z y x."""

    start: Spacing
    stop: Spacing

    def scaled(self, by: Fraction) -> NmBox:
        """Scale the box uniformly about the corner of the specimen."""
        return NmBox(exact3(each(self.start, lambda v: v * by)), exact3(each(self.stop, lambda v: v * by)))

    def grown(self, by: Spacing) -> NmBox:
        """Return the box with `by` more nm on each side."""
        start, stop = combine(self.start, by, lambda a, h: a - h), combine(self.stop, by, lambda b, h: b + h)
        return NmBox(exact3(start), exact3(stop))

    def hull(self, other: NmBox) -> NmBox:
        """Return the smallest box that holds both."""
        return NmBox(exact3(combine(self.start, other.start, min)), exact3(combine(self.stop, other.stop, max)))


def each(values: Spacing, do: Callable[[Fraction], Fraction]) -> Spacing:
    """Apply a function to each axis."""
    return three(do(v) for v in values)


def combine(a: Triple | Spacing, b: Triple | Spacing, do: Callable[..., Fraction]) -> Spacing:
    """Apply a function of two values to each axis."""
    return three(do(p, q) for p, q in zip(a, b, strict=True))
