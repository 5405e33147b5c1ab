"""Boxes, tilings and the one transform that image and truth share.

Pure integers and exact rationals: voxel i covers [i, i + 1) * voxel size, pixel p covers [p, p + 1) * pixel size, and
plane k lies at (k + 1/2) * plane spacing. All axes are z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]
Spacing = tuple[Fraction, Fraction, Fraction]


def exact(value: float | int | str | Fraction) -> Fraction:
    """Return the number a person wrote: 162.5 is 325/2 and 0.1 is 1/10, never the nearest binary fraction."""
    return value if isinstance(value, Fraction) else Fraction(str(value))


def exact3(values: tuple[float | Fraction, float | Fraction, float | Fraction]) -> Spacing:
    """Apply `exact` to a z, y, x triple."""
    z, y, x = (exact(v) for v in values)
    return z, y, x


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of integer coordinates, z y x."""

    start: Triple
    stop: Triple

    @classmethod
    def of_shape(cls, shape: Triple) -> Box:
        """The box of an array of this shape."""
        return cls((0, 0, 0), shape)

    @classmethod
    def at(cls, start: Triple, shape: Triple) -> Box:
        """The box that begins at `start` and has this shape."""
        return cls(start, _triple(a + n for a, n in zip(start, shape, strict=True)))

    @property
    def shape(self) -> Triple:
        """Extent along z, y, x; never negative."""
        return _triple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """True where any axis has no extent."""
        return self.size == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that select this box from an array that starts at 0."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def intersect(self, other: Box) -> Box:
        """The common part, empty (stop == start) where there is none."""
        start = _triple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = _triple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, _triple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return Box(
            _triple(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            _triple(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def grown(self, halo: Triple) -> Box:
        """The box with `halo` elements more on each side."""
        return Box(
            _triple(a - h for a, h in zip(self.start, halo, strict=True)),
            _triple(b + h for b, h in zip(self.stop, halo, strict=True)),
        )

    def shifted(self, by: Triple) -> Box:
        """The box moved by `by`."""
        return Box(
            _triple(a + d for a, d in zip(self.start, by, strict=True)),
            _triple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, origin: Triple) -> Box:
        """The box in coordinates that begin at `origin`."""
        return self.shifted(_triple(-o for o in origin))

    def contains(self, other: Box) -> bool:
        """True if `other` lies inside, which an empty box always does."""
        return other.is_empty or self.intersect(other) == other


@dataclass(frozen=True, slots=True)
class Tiling:
    """A box cut into cells of one shape, the last of each axis clipped. Cells are numbered in z, y, x order."""

    box: Box
    cell: Triple

    @property
    def counts(self) -> Triple:
        """Cells along z, y, x."""
        return _triple(-(-n // c) for n, c in zip(self.box.shape, self.cell, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def position(self, index: int) -> Triple:
        """Cell coordinates of cell number `index`."""
        _, ny, nx = self.counts
        if not 0 <= index < len(self):
            raise IndexError(f"cell {index} of a tiling of {len(self)}")
        return index // (ny * nx), index // nx % ny, index % nx

    def __getitem__(self, index: int) -> Box:
        position = self.position(index)
        start = _triple(a + p * c for a, p, c in zip(self.box.start, position, self.cell, strict=True))
        return Box.at(start, self.cell).intersect(self.box)

    def __iter__(self) -> Iterator[Box]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one axis of the image samples one axis of the ground truth.

    Attributes
    ----------
    voxels
        Number of voxels along the axis (of the crop).
    voxel_nm
        Voxel size, nm of tissue before expansion.
    pixel_nm
        Pixel pitch or plane spacing, nm of tissue before expansion (the spacing at the specimen over the factor).
    """

    voxels: int
    voxel_nm: Fraction
    pixel_nm: Fraction

    @property
    def size(self) -> int:
        """Pixels along the axis: floor(extent / spacing), at least 1."""
        return max(1, math.floor(self.voxels * self.voxel_nm / self.pixel_nm))

    def voxel_at_centre(self, start: int, stop: int) -> NDArray[np.int64]:
        """Index of the half-open voxel that holds the centre of each pixel in [start, stop), in exact arithmetic.

        Where the specimen is thinner than half a pixel, the last voxel stands for it.
        """
        ratio = self.pixel_nm / self.voxel_nm / 2
        index = [(2 * p + 1) * ratio.numerator // ratio.denominator for p in range(start, stop)]
        return np.minimum(np.array(index, dtype=np.int64), self.voxels - 1)

    def first_voxel(self, pixel: int) -> int:
        """First voxel that begins at or after the start of `pixel`: blocks of pixels share out the voxels so."""
        if pixel >= self.size:
            return self.voxels
        return min(self.voxels, math.ceil(pixel * self.pixel_nm / self.voxel_nm))


def _triple(values: Iterator[int] | map[int]) -> Triple:
    z, y, x = values
    return z, y, x
