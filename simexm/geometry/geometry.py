"""Grid of the image over the ground truth.

Voxel i covers [i, i + 1) * voxel size, pixel p covers [p, p + 1) * pixel size, and plane k lies at (k + 1/2) * plane spacing;
a `Transform` maps tissue to expanded tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, NmBox, Spacing, Triple, combine, each, three, triple
from simexm.geometry.transform import Points, Specimen, Transform


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one axis of the image samples one axis of the ground truth; lengths are in nm of tissue before expansion."""

    voxels: int  # of the crop
    voxel_nm: Fraction
    pixel_nm: Fraction  # pixel pitch or plane spacing
    phase_nm: Fraction = Fraction(0)  # where pixel 0 begins, from the corner of the crop
    fixed_size: int | None = None  # pixels, if a model has its own rule; None: floor(extent / spacing)

    @property
    def size(self) -> int:
        """Pixels along the axis: floor(extent / spacing), at least 1, unless fixed."""
        if self.fixed_size is not None:
            return self.fixed_size
        return max(1, math.floor(self.voxels * self.voxel_nm / self.pixel_nm))

    def voxel_at_centre(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the voxel that holds the centre of each pixel in [start, stop), in exact arithmetic.

        Beyond the end of the specimen it is the last voxel.
        """
        ratio, phase = self.pixel_nm / self.voxel_nm / 2, self.phase_nm / self.voxel_nm
        one = math.lcm(ratio.denominator, phase.denominator)
        half, first = int(ratio * one), int(phase * one)
        index = [((2 * p + 1) * half + first) // one for p in range(start, stop)]
        return np.clip(np.array(index, dtype=np.int64), 0, self.voxels - 1)

    def first_voxel(self, pixel: int) -> int:
        """Return the first voxel that begins at or after `pixel`; this divides the voxels among blocks of pixels."""
        if pixel >= self.size:
            return self.voxels
        if pixel == 0:
            return 0
        return min(self.voxels, max(0, math.ceil((pixel * self.pixel_nm + self.phase_nm) / self.voxel_nm)))


@dataclass(frozen=True, slots=True)
class Geometry:
    """The image's grid over the ground truth.

    The grid follows from the transform's `scale` alone; other deformation moves tissue relative to a fixed grid.
    """

    volume: Triple  # voxels of the complete ground truth
    crop: Box  # the specimen: voxels that may carry label
    voxel_nm: Spacing  # of tissue
    origin_nm: Spacing  # corner of the ground truth, nm of tissue
    transform: Transform
    pixel_nm: Spacing  # plane spacing and pixel pitch, nm of expanded tissue
    phase_nm: Spacing = (Fraction(0),) * 3  # see `Sampling`
    fixed_shape: Triple | None = None
    frame: tuple[int, int] | None = None  # rows, columns of the detector's frame; None: the image is one

    @property
    def axes(self) -> tuple[Sampling, Sampling, Sampling]:
        """The sampling of each axis, in nm of tissue."""
        fixed = self.fixed_shape or (None,) * 3
        return three(map(Sampling, self.crop.shape, self.voxel_nm, self.pixel_tissue_nm, self.phase_nm, fixed))

    @property
    def shape(self) -> Triple:
        """Planes, rows, columns of the image."""
        return triple(a.size for a in self.axes)

    @property
    def pixel_tissue_nm(self) -> Spacing:
        """Plane spacing and pixel pitch, nm of tissue before expansion."""
        return each(self.pixel_nm, lambda p: p / self.transform.scale)

    @property
    def image_origin_nm(self) -> Spacing:
        """Position of the corner of the first pixel, nm of tissue."""
        return combine(self.specimen_origin_nm, self.phase_nm, lambda a, b: a + b)

    @property
    def specimen_origin_nm(self) -> Spacing:
        """Position of the corner of the specimen, nm of tissue."""
        return three(o + c * v for o, c, v in zip(self.origin_nm, self.crop.start, self.voxel_nm, strict=True))

    def specimen(self, seed: int) -> Specimen:
        """Return what deformations depend on."""
        corner, extent = (
            combine(voxels, self.voxel_nm, lambda n, v: n * v) for voxels in (self.crop.start, self.crop.shape)
        )
        return Specimen(seed, corner, extent)

    def pixels_nm(self, box: Box) -> NmBox:
        """Convert a box of pixels to nm of expanded tissue from the corner of the specimen."""
        phase = each(self.phase_nm, lambda v: v * self.transform.scale)
        start, stop = (
            combine(combine(corner, self.pixel_nm, lambda a, p: a * p), phase, lambda a, b: a + b)
            for corner in (box.start, box.stop)
        )
        return NmBox(start, stop)

    def pixels(self, box: NmBox) -> Box:
        """Return the pixels of the image that `box` (nm of expanded tissue) touches."""
        corner = self.pixels_nm(Box.of_shape((0, 0, 0))).start
        start = triple(math.floor((a - c) / p) for a, c, p in zip(box.start, corner, self.pixel_nm, strict=True))
        stop = triple(math.ceil((b - c) / p) for b, c, p in zip(box.stop, corner, self.pixel_nm, strict=True))
        return Box(start, stop).intersect(Box.of_shape(self.shape))

    def voxels_at_centres(self, pixels: Box) -> NDArray[np.int64]:
        """Return the voxel of the volume that holds each pixel's centre before expansion, (3, *pixels.shape).

        Works for any transform. A uniform one is sampled exactly, axis by axis: see `Sampling.voxel_at_centre`.
        """
        z, y, x = np.meshgrid(*(self.centres_nm(axis, pixels) for axis in range(3)), indexing="ij")
        return self.voxels_at(self.transform.invert((z, y, x)))

    def centres_nm(self, axis: int, pixels: Box, stride: int = 1) -> NDArray[np.float64]:
        """Return the centres of pixels along an axis, nm of expanded tissue.

        With a stride, they are those of every few pixels of the image, from one before the box to two after it.
        """
        a, b = pixels.start[axis], pixels.stop[axis]
        index = np.arange(a, b) if stride == 1 else np.arange(a // stride - 1, (b - 1) // stride + 3) * stride
        corner = self.pixels_nm(Box.of_shape((0, 0, 0))).start[axis]
        return np.asarray((index + 0.5) * float(self.pixel_nm[axis]) + float(corner))

    def voxels_at(self, tissue_nm: Points) -> NDArray[np.int64]:
        """Return the voxel of the volume that holds each point of tissue, (3, ...)."""
        within = zip(tissue_nm, self.voxel_nm, self.crop.start, strict=True)
        return np.stack([np.floor(at / float(size)).astype(np.int64) + first for at, size, first in within])

    def voxels_nm(self, box: Box) -> NmBox:
        """Convert a box of voxels to nm of tissue, both from the corner of the specimen."""
        start, stop = (combine(corner, self.voxel_nm, lambda a, v: a * v) for corner in (box.start, box.stop))
        return NmBox(start, stop)

    def voxels(self, box: NmBox) -> Box:
        """Return the voxels of the volume that `box` (nm of tissue) touches, clipped to the volume."""
        start = triple(c + math.floor(a / v) for a, v, c in zip(box.start, self.voxel_nm, self.crop.start, strict=True))
        stop = triple(c + math.ceil(b / v) for b, v, c in zip(box.stop, self.voxel_nm, self.crop.start, strict=True))
        return Box(start, stop).intersect(Box.of_shape(self.volume))

    def own_voxels(self, box: Box) -> Box:
        """Return the voxels that a box of pixels owns: boxes that tile the image own each voxel of the crop exactly once."""
        start = triple(c + a.first_voxel(p) for a, p, c in zip(self.axes, box.start, self.crop.start, strict=True))
        stop = triple(c + a.first_voxel(p) for a, p, c in zip(self.axes, box.stop, self.crop.start, strict=True))
        return Box(start, stop)
