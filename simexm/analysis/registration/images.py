"""Two images with their grids and masks, and what the steps of an alignment compute from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm.analysis.registration.transform import Floats, Frame, Transform, Um
from simexm.geometry.grid import Triple, triple
from simexm.kernels.registration import warp

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """An image, (z, y, x), with its grid, and the voxels that count, None for all."""

    values: Image
    frame: Frame
    mask: Mask | None = None

    def resampled(self, spacing_um: float) -> Picture:
        """The image on cubic voxels, smoothed first where they are larger than its own."""
        ratio = spacing_um / np.asarray(self.frame.voxel_um)
        shape = triple(np.maximum(1, np.floor(np.asarray(self.frame.shape) / ratio)))
        frame = Frame(shape, (spacing_um,) * 3, self.frame.corner_um)
        sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / 2
        at = self.frame.voxels(frame.centres())
        values = ndimage.gaussian_filter(self.values, sigma, mode="nearest")
        mask = None if self.mask is None else warp.labels_at(self.mask, at)
        return Picture(warp.image_at(values, at, 1).astype(np.float32), frame, mask)

    def shrunk(self, by: int) -> Picture:
        """The image averaged over cubes of `by` voxels a side; the rest at the far ends is left out."""
        by = max(1, min(by, *self.frame.shape))
        if by == 1:
            return self
        shape = triple(n // by for n in self.frame.shape)
        frame = Frame(shape, scaled(self.frame.voxel_um, by), self.frame.corner_um)
        mask = None if self.mask is None else means(self.mask.astype(np.float32), (by,) * 3) >= 0.5
        return Picture(means(self.values, (by,) * 3), frame, mask)


def scaled(values: Um, by: float) -> Um:
    """Three values times a number."""
    z, y, x = (v * by for v in values)
    return z, y, x


def means(values: NDArray[Any], by: Triple) -> Image:
    """Means over boxes of `by` voxels along z, y, x."""
    (z, y, x), (a, b, c) = (n // f for n, f in zip(values.shape, by, strict=True)), by
    cut = values[: z * a, : y * b, : x * c].reshape(z, a, y, b, x, c)
    return np.asarray(cut.mean(axis=(1, 3, 5), dtype=np.float64), np.float32)


def pulled(moving: Picture, transform: Transform, frame: Frame) -> tuple[Image, Mask]:
    """The moving image on a grid of the fixed volume, by linear interpolation, and where it has values that count."""
    image, where = np.empty(frame.shape, np.float32), np.empty(frame.shape, np.bool_)
    for planes, points in frame.slabs():
        at = moving.frame.voxels(transform(points))
        inside = warp.inside(moving.values.shape, at)
        if moving.mask is not None:
            inside &= warp.labels_at(moving.mask, at)
        image[planes], where[planes] = warp.image_at(moving.values, at, 1), inside
    return image, where


def local_contrast(image: Image, where: Mask, sigma: float) -> Image:
    """An image with mean 0 and about deviation 1 in a Gaussian window around each voxel, of the voxels that count; 0 elsewhere.

    The median deviation is added to each, so that noise in empty parts stays small.
    """

    def window(values: Image) -> Image:
        return np.asarray(ndimage.gaussian_filter(values, sigma, mode="nearest"), np.float32)

    if not where.any():
        return np.zeros_like(image)
    kept = np.where(where, image - image[where].mean(dtype=np.float64), 0).astype(np.float32)
    share = np.maximum(window(where.astype(np.float32)), _LEAST_SHARE)
    mean = window(kept) / share
    deviation = np.sqrt(np.maximum(window(kept * kept) / share - mean * mean, 0))
    floor = float(np.median(deviation[where])) or float(deviation[where].mean()) or 1.0
    return np.asarray(np.where(where, (kept - mean) / (deviation + floor), 0), np.float32)


_LEAST_SHARE = 1e-3
"""Share of a window that counts at least, so that nothing is divided by 0."""


def mass_centre(picture: Picture) -> Floats:
    """Centre of mass of what is brighter than the median, um, (3,); the middle of the volume if nothing is."""
    weight = np.maximum(picture.values - np.median(picture.values), 0)
    if picture.mask is not None:
        weight = weight * picture.mask
    if not weight.any():
        return picture.frame.centre_um
    place = np.asarray(ndimage.center_of_mass(weight))
    return np.asarray(picture.frame.first_um + place * np.asarray(picture.frame.voxel_um))
