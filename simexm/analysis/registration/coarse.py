"""The coarse alignment of a volume in blocks: each block is averaged, and the averages are aligned as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration import fit
from simexm.analysis.registration.images import Picture, means
from simexm.analysis.registration.pairs import Moving
from simexm.analysis.registration.sides import Opened
from simexm.analysis.registration.steps import Step
from simexm.analysis.registration.transform import Frame, StoredTransform, Transform
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Tiling, Triple, three, triple
from simexm.kernels.registration import fields

Arrays = Mapping[str, NDArray[Any]]
SIGNAL = 4
"""Side of the cubes, voxels, over which a block is averaged to see whether there is anything in it."""
_THINNEST = 16
"""Fewest averaged voxels along an axis."""


def factors(frame: Frame, most: int) -> Triple:
    """Voxels along z, y, x to average into one, so that at most so many are left, of about equal sides."""
    found = [1, 1, 1]
    while math.prod(n // f for n, f in zip(frame.shape, found, strict=True)) > most:
        sizes = {a: frame.voxel_um[a] * found[a] for a in range(3) if frame.shape[a] // found[a] >= 2 * _THINNEST}
        if not sizes:
            break
        for axis, size in sizes.items():
            if size < 2 * min(sizes.values()):
                found[axis] *= 2
    return three(found)


class Averaged:
    """A volume averaged over boxes of `by` voxels, block by block.

    A box belongs to the block that holds its first voxel; what is left at the far ends of the volume is left out.
    """

    def __init__(self, volume: Opened, most: int) -> None:
        self.volume, self.by = volume, factors(volume.frame, most)
        frame = volume.frame
        shape = triple(n // f for n, f in zip(frame.shape, self.by, strict=True))
        self.frame = Frame(shape, three(v * f for v, f in zip(frame.voxel_um, self.by, strict=True)), frame.corner_um)

    def cells(self, box: Box) -> Box:
        """The averaged voxels that belong to a block."""
        start = triple(-(-a // f) for a, f in zip(box.start, self.by, strict=True))
        stop = triple(-(-b // f) for b, f in zip(box.stop, self.by, strict=True))
        return Box(start, stop).intersect(Box.of_shape(self.frame.shape))

    def average(self, box: Box) -> dict[str, NDArray[Any]]:
        """Means of a block, and where at least half of the voxels count if there is a mask."""
        cells = self.cells(box)
        if cells.is_empty:
            return {"values": np.zeros(cells.shape, np.float32), "start": np.array(cells.start)}
        read = Box(*(triple(n * f for n, f in zip(place, self.by, strict=True)) for place in (cells.start, cells.stop)))
        values = self.volume.read(read).astype(np.float32)
        found = {"values": means(values, self.by), "start": np.array(cells.start)}
        mask = self.volume.masked(read)
        return found if mask is None else {**found, "mask": means(mask.astype(np.float32), self.by) >= _HALF}

    def picture(self, parts: Sequence[Arrays]) -> Picture:
        """The averaged volume from the parts of all blocks; raises SpecError if it has one value."""
        values = np.zeros(self.frame.shape, np.float32)
        mask = np.ones(self.frame.shape, np.bool_) if self.volume.mask is not None else None
        for part in parts:
            at = Box.at(triple(part["start"]), triple(part["values"].shape)).slices
            values[at] = part["values"]
            if mask is not None and "mask" in part:
                mask[at] = part["mask"]
        counted = values if mask is None else values[mask]
        if not counted.size or counted.min() == counted.max():
            raise SpecError(
                f"{self.volume.volume.where}, averaged over {' x '.join(map(str, self.by))} voxels, has one value in all voxels "
                "that count, so nothing can be aligned; name an image"
            )
        return Picture(values, self.frame, mask)


_HALF = 0.5


def signal(values: NDArray[Any]) -> NDArray[np.float64]:
    """Number, sum and sum of squares of a block averaged over cubes of `SIGNAL` voxels, or of fewer if it is thinner."""
    cubes = means(values, triple(min(SIGNAL, n) for n in values.shape)).astype(np.float64)
    return np.array([cubes.size, cubes.sum(), (cubes**2).sum()], np.float64)


def deviation(sums: NDArray[np.float64]) -> float:
    """Standard deviation from number, sum and sum of squares."""
    n, total, square = sums
    return math.sqrt(max(0.0, square / n - (total / n) ** 2)) if n else 0.0


def moving_tiles(tiling: Tiling, number: int, blocks: int) -> range:
    """The tiles of a moving volume that are averaged with a block of the fixed one."""
    return range(number * len(tiling) // blocks, (number + 1) * len(tiling) // blocks)


def align(fixed: Picture, moving: Picture, steps: Sequence[Step], each: Moving) -> tuple[Transform, list[fit.Report]]:
    """Run the steps on averaged volumes, beginning from the moving volume's start."""
    return fit.fit(fixed, moving, steps, each.start.on(fixed.frame) if each.start else Transform())


def smoothed(found: Transform, by: Triple, voxels: float) -> Transform:
    """The transform with its displacement smoothed, and again without folds; `voxels` are those that were averaged by `by`."""
    if found.displacement is None or found.frame is None or not voxels:
        return found
    z, y, x = (voxels / f for f in by)
    smooth = fields.smooth(found.displacement, (z, y, x))
    return Transform(found.affine, fields.unfold(smooth, found.frame.voxel_um, _LEAST)[0], found.frame)


_LEAST = 0.1
"""Smallest Jacobian of the coarse displacement."""


def packed(found: Transform, reports: Sequence[fit.Report]) -> dict[str, NDArray[Any]]:
    """A transform in memory, and what the steps did, as arrays."""
    arrays: dict[str, NDArray[Any]] = {
        "affine": found.affine,
        "step": np.array([r.step for r in reports], np.str_),
        "correlation": np.array([r.correlation for r in reports]),
        "remark": np.array([r.remark for r in reports], np.str_),
    }
    if found.displacement is not None and found.frame is not None:
        frame = np.array([found.frame.shape, found.frame.voxel_um, found.frame.corner_um], np.float64)
        arrays |= {"displacement": found.displacement, "frame": frame}
    return arrays


def unpacked(arrays: Arrays) -> tuple[Transform, list[fit.Report]]:
    """The inverse of `packed`."""
    rows = zip(arrays["step"].tolist(), arrays["correlation"].tolist(), arrays["remark"].tolist(), strict=True)
    reports = [fit.Report(step, correlation, 0.0, remark) for step, correlation, remark in rows]
    if "displacement" not in arrays:
        return Transform(arrays["affine"]), reports
    shape, voxel, corner = arrays["frame"]
    frame = Frame(triple(shape), three(map(float, voxel)), three(map(float, corner)))
    return Transform(arrays["affine"], arrays["displacement"], frame), reports


Base = Transform | StoredTransform
"""What blocks begin from: the coarse transform, or an earlier one."""
