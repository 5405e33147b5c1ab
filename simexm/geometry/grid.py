"""Boxes, tilings and the one transform that image and truth share.

Pure integers and exact rationals: voxel i covers [i, i + 1) * voxel size, pixel p covers [p, p + 1) * pixel size, and
plane k lies at (k + 1/2) * plane spacing. All axes are z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import SupportsInt

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
    """A half-open box of integer coordinates, z y x. (A tile makes thousands, so what is called most is written out.)"""

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
        """True where any axis has no extent."""
        return self.size == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that select this box from an array that starts at 0."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def intersect(self, other: Box) -> Box:
        """The common part, empty (stop == start) where there is none."""
        (a, b, c), (d, e, f) = self.start, other.start
        z, y, x = max(a, d), max(b, e), max(c, f)
        (a, b, c), (d, e, f) = self.stop, other.stop
        return Box((z, y, x), (max(z, min(a, d)), max(y, min(b, e)), max(x, min(c, f))))

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return Box(
            triple(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            triple(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def grown(self, halo: Triple) -> Box:
        """The box with `halo` elements more on each side."""
        return Box(
            triple(a - h for a, h in zip(self.start, halo, strict=True)),
            triple(b + h for b, h in zip(self.stop, halo, strict=True)),
        )

    def shifted(self, by: Triple) -> Box:
        """The box moved by `by`."""
        (a, b, c), (d, e, f), (z, y, x) = self.start, self.stop, by
        return Box((a + z, b + y, c + x), (d + z, e + y, f + x))

    def relative_to(self, origin: Triple) -> Box:
        """The box in coordinates that begin at `origin`."""
        z, y, x = origin
        return self.shifted((-z, -y, -x))

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
        return triple(-(-n // c) for n, c in zip(self.box.shape, self.cell, strict=True))

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
        start = triple(a + p * c for a, p, c in zip(self.box.start, position, self.cell, strict=True))
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
    phase_nm
        Where pixel 0 begins, nm of tissue from the corner of the crop.
    fixed_size
        Pixels along the axis, where a model has a rule of its own for them; None for floor(extent / spacing).
    """

    voxels: int
    voxel_nm: Fraction
    pixel_nm: Fraction
    phase_nm: Fraction = Fraction(0)
    fixed_size: int | None = None

    @property
    def size(self) -> int:
        """Pixels along the axis: floor(extent / spacing), at least 1, unless fixed."""
        if self.fixed_size is not None:
            return self.fixed_size
        return max(1, math.floor(self.voxels * self.voxel_nm / self.pixel_nm))

    def voxel_at_centre(self, start: int, stop: int) -> NDArray[np.int64]:
        """Index of the half-open voxel that holds the centre of each pixel in [start, stop), in exact arithmetic.

        Where the specimen ends before a pixel's centre, the last voxel stands for it.
        """
        ratio, phase = self.pixel_nm / self.voxel_nm / 2, self.phase_nm / self.voxel_nm
        one = math.lcm(ratio.denominator, phase.denominator)
        half, first = int(ratio * one), int(phase * one)
        index = [((2 * p + 1) * half + first) // one for p in range(start, stop)]
        return np.clip(np.array(index, dtype=np.int64), 0, self.voxels - 1)

    def first_voxel(self, pixel: int) -> int:
        """First voxel that begins at or after the start of `pixel`: blocks of pixels share out the voxels so."""
        if pixel >= self.size:
            return self.voxels
        if pixel == 0:
            return 0
        return min(self.voxels, max(0, math.ceil((pixel * self.pixel_nm + self.phase_nm) / self.voxel_nm)))


def triple(values: Iterable[SupportsInt]) -> Triple:
    """Three integers, z, y, x."""
    z, y, x = map(int, values)
    return z, y, x


@dataclass(frozen=True, slots=True)
class NmBox:
    """A half-open box in nm, exact, measured from the corner of the specimen; z y x."""

    start: Spacing
    stop: Spacing

    def scaled(self, by: Fraction) -> NmBox:
        """The box after uniform scaling about the corner of the specimen."""
        return NmBox(exact3(_each(self.start, lambda v: v * by)), exact3(_each(self.stop, lambda v: v * by)))

    def grown(self, by: Spacing) -> NmBox:
        """The box with `by` nm more on each side."""
        return NmBox(
            exact3(_zip(self.start, by, lambda a, h: a - h)),
            exact3(_zip(self.stop, by, lambda b, h: b + h)),
        )

    def hull(self, other: NmBox) -> NmBox:
        """The smallest box that holds both."""
        return NmBox(exact3(_zip(self.start, other.start, min)), exact3(_zip(self.stop, other.stop, max)))


@dataclass(frozen=True, slots=True)
class Geometry:
    """The one transform between ground truth and image.

    Attributes
    ----------
    volume
        Voxels of the whole ground truth, z y x.
    crop
        The specimen: voxels that may carry label.
    voxel_nm
        Voxel size, nm of tissue.
    origin_nm
        Position of the ground truth's corner, nm of tissue.
    factor
        Linear expansion.
    pixel_nm
        Plane spacing and pixel pitch at the specimen, nm of expanded tissue.
    phase_nm, fixed_shape
        See `Sampling`.
    """

    volume: Triple
    crop: Box
    voxel_nm: Spacing
    origin_nm: Spacing
    factor: Fraction
    pixel_nm: Spacing
    phase_nm: Spacing = (Fraction(0),) * 3
    fixed_shape: Triple | None = None

    @property
    def axes(self) -> tuple[Sampling, Sampling, Sampling]:
        """The sampling of each axis, in nm of tissue."""
        z, y, x = (
            Sampling(n, v, p / self.factor, phase, size)
            for n, v, p, phase, size in zip(
                self.crop.shape,
                self.voxel_nm,
                self.pixel_nm,
                self.phase_nm,
                self.fixed_shape or (None,) * 3,
                strict=True,
            )
        )
        return z, y, x

    @property
    def shape(self) -> Triple:
        """Planes, rows, columns of the image."""
        return triple(a.size for a in self.axes)

    @property
    def pixel_tissue_nm(self) -> Spacing:
        """Plane spacing and pixel pitch, nm of tissue before expansion."""
        return exact3(_each(self.pixel_nm, lambda p: p / self.factor))

    @property
    def image_origin_nm(self) -> Spacing:
        """Position of the corner of the first pixel, nm of tissue."""
        return exact3(_zip(self.specimen_origin_nm, self.phase_nm, lambda a, b: a + b))

    @property
    def specimen_origin_nm(self) -> Spacing:
        """Position of the corner of the specimen, nm of tissue."""
        z, y, x = (o + c * v for o, c, v in zip(self.origin_nm, self.crop.start, self.voxel_nm, strict=True))
        return z, y, x

    @property
    def specimen_nm(self) -> Spacing:
        """Extent of the specimen, nm of tissue."""
        return exact3(_zip(self.crop.shape, self.voxel_nm, lambda n, v: n * v))

    def pixels_nm(self, box: Box) -> NmBox:
        """The box of pixels in nm of expanded tissue from the corner of the specimen."""
        phase = exact3(_each(self.phase_nm, lambda v: v * self.factor))
        start, stop = (
            exact3(_zip(exact3(_zip(corner, self.pixel_nm, lambda a, p: a * p)), phase, lambda a, b: a + b))
            for corner in (box.start, box.stop)
        )
        return NmBox(start, stop)

    def voxels_nm(self, box: Box) -> NmBox:
        """The box of voxels, counted from the corner of the specimen, in nm of tissue from there."""
        return NmBox(
            exact3(_zip(box.start, self.voxel_nm, lambda a, v: a * v)),
            exact3(_zip(box.stop, self.voxel_nm, lambda b, v: b * v)),
        )

    def voxels(self, box: NmBox) -> Box:
        """Voxels of the whole volume that `box` (nm of tissue) touches, clipped to the volume."""
        start = triple(c + math.floor(a / v) for a, v, c in zip(box.start, self.voxel_nm, self.crop.start, strict=True))
        stop = triple(c + math.ceil(b / v) for b, v, c in zip(box.stop, self.voxel_nm, self.crop.start, strict=True))
        return Box(start, stop).intersect(Box.of_shape(self.volume))

    def own_voxels(self, box: Box) -> Box:
        """Voxels that a box of pixels answers for: boxes that tile the image share out the crop's voxels exactly once."""
        start = triple(c + a.first_voxel(p) for a, p, c in zip(self.axes, box.start, self.crop.start, strict=True))
        stop = triple(c + a.first_voxel(p) for a, p, c in zip(self.axes, box.stop, self.crop.start, strict=True))
        return Box(start, stop)


def _each(values: Spacing, do: Callable[[Fraction], Fraction]) -> tuple[Fraction, Fraction, Fraction]:
    z, y, x = (do(v) for v in values)
    return z, y, x


def _zip(
    a: tuple[int, int, int] | Spacing, b: tuple[int, int, int] | Spacing, do: Callable[..., Fraction]
) -> tuple[Fraction, Fraction, Fraction]:
    z, y, x = (do(p, q) for p, q in zip(a, b, strict=True))
    return z, y, x
