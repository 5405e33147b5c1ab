"""A segmentation and a truth on grids of their own, compared on the truth's voxels.

A voxel of the truth takes the segment of the pixel that holds its centre. Beside it stands the truth itself, sampled at the
pixels' centres as label images of results are: what the pixels alone cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.volume import Volume, same_grid
from simexm.errors import SpecError
from simexm.geometry.grid import Box, three, triple
from simexm.geometry.roi import box_of

Read = Callable[[Box], NDArray[Any]]


class Sampled:
    """Reads both volumes in boxes of the truth's voxels.

    Raises SpecError if grids of equal voxels are shifted by less than a voxel, or there is no common part.
    """

    def __init__(self, segmentation: Volume, truth: Volume, roi: str | None) -> None:
        self._segments, self._truth = segmentation, truth
        self.read_segments, self.read_truth = segmentation.numbers("labels"), truth.numbers("labels")
        self.alike = segmentation.voxel_nm == truth.voxel_nm
        start, stop = [0, 0, 0], list(truth.shape)
        if self.alike:
            _, start_truth, shape = same_grid(segmentation, truth)
            start, stop = list(start_truth), [a + n for a, n in zip(start_truth, shape, strict=True)]
        else:
            for axis in range(3):
                # the centres of these voxels lie in pixels: pixel_of is monotonic, so its ends are found from the pixels' own
                ends = (_first_centre(truth, axis, _edge(segmentation, axis, p)) for p in (0, segmentation.shape[axis]))
                start[axis], stop[axis] = (min(max(0, end), truth.shape[axis]) for end in ends)
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            raise SpecError(
                f"{segmentation.where} and {truth.where} have no voxel in common; correct the position of one"
            )
        common = Box(triple(start), triple(stop))
        self.whole = box_of(roi, common.shape, f"the common part of {segmentation.where} and {truth.where}")
        self.whole = self.whole.shifted(common.start)

    @property
    def pixels_per_voxel(self) -> float:
        """How many pixels of the segmentation are read for each voxel of the truth."""
        return math.prod(float(t / s) for t, s in zip(self._truth.voxel_nm, self._segments.voxel_nm, strict=True))

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Segments, truth, and truth sampled on the segmentation's pixels, in a box of the truth's voxels."""
        truth = self.read_truth(box)
        pixels = [_holding(self._segments, self._truth, axis, box) for axis in range(3)]
        low = triple(int(p[0]) for p in pixels)
        near = Box(low, triple(int(p[-1]) + 1 for p in pixels))
        at = np.ix_(*(p - a for p, a in zip(pixels, low, strict=True)))
        segments = self.read_segments(near)[at]
        if self.alike:
            return segments, truth, truth
        return segments, truth, self._sampled(near)[at]

    def _sampled(self, pixels: Box) -> NDArray[Any]:
        """The truth at the centres of pixels; 0 outside it."""
        voxels = [_holding(self._truth, self._segments, axis, pixels) for axis in range(3)]
        inside = [(v >= 0) & (v < n) for v, n in zip(voxels, self._truth.shape, strict=True)]
        known = three(np.flatnonzero(i) for i in inside)
        if any(not k.size for k in known):
            return np.zeros(pixels.shape, np.uint64)
        some = [v[k] for v, k in zip(voxels, known, strict=True)]
        near = Box(triple(int(v[0]) for v in some), triple(int(v[-1]) + 1 for v in some))
        values = self.read_truth(near)
        found = np.zeros(pixels.shape, values.dtype)
        found[np.ix_(*known)] = values[np.ix_(*(v - a for v, a in zip(some, near.start, strict=True)))]
        return found


def _edge(volume: Volume, axis: int, index: int) -> Fraction:
    """Lower end of a voxel along an axis, nm."""
    return volume.origin_nm[axis] + index * volume.voxel_nm[axis]


def _first_centre(volume: Volume, axis: int, place: Fraction) -> int:
    """The first voxel whose centre is not below a place."""
    return math.ceil((place - volume.origin_nm[axis]) / volume.voxel_nm[axis] - Fraction(1, 2))


def _holding(one: Volume, other: Volume, axis: int, box: Box) -> NDArray[np.int64]:
    """The voxels of a volume that hold the centres of those of another in a box, in exact arithmetic."""
    scale = other.voxel_nm[axis] / one.voxel_nm[axis]
    shift = (other.origin_nm[axis] + other.voxel_nm[axis] / 2 - one.origin_nm[axis]) / one.voxel_nm[axis]
    whole = scale.denominator * shift.denominator
    step, first = int(scale * whole), int(shift * whole)
    return np.array([(n * step + first) // whole for n in range(box.start[axis], box.stop[axis])], np.int64)
