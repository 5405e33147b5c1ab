"""An alignment in the memory of one worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import Conclusion, Measured, Score
from simexm.analysis.registration import fit
from simexm.analysis.registration.images import Picture
from simexm.analysis.registration.measures import MEASURED, alignment_measures, bits, numbers_of, scores_of
from simexm.analysis.registration.pairs import AFFINE, ALIGNED, ROWS, STEPS, Moving, PairsBench, features_bytes
from simexm.analysis.registration.transform import Transform
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.registration import warp

if TYPE_CHECKING:
    from simexm.analysis.registration.align import Align

MEASURES = "measures"
BYTES_PER_VOXEL = 260
SECONDS_PER_VOXEL = 1e-5
"""Memory, and rough work, of the steps for a voxel of the fixed volume, without those of matching spots."""


class Whole(PairsBench):
    """Volumes aligned as one block."""

    remedy = "align it block by block: add to the settings: blocks: {}"

    def __init__(self, settings: Align, inputs: tuple[Any, ...]) -> None:
        super().__init__(settings, inputs, None)
        self.blocks, self.voxels = 1, math.prod(self.frame.shape)
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels * len(settings.steps) * len(self.moving)
        largest = max(m.volume.whole.size for m in self.moving)
        self.block_bytes = BYTES_PER_VOXEL * self.voxels + 16 * largest + features_bytes(settings.steps)
        self.columns = {AFFINE: ROWS, MEASURES: ("value",)}

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Fit the transforms, and look up the moving images at them."""
        fixed = self.fixed.whole_picture()
        images, made, reports, affines, measures = [], {}, [], [], []
        for each in self.moving:
            moving = each.volume.whole_picture()
            start = each.start.on(self.frame) if each.start else Transform()
            found, report = fit.fit(fixed, moving, self.settings.steps, start)
            images.append(self._aligned(each, found))
            field = found.displacement
            made[each.displacement] = np.zeros((3, *self.frame.shape), np.float32) if field is None else field
            affines.append(found.affine)
            reports.append((each.shown, report))
            measures += list(_measured(fixed, moving, found))
        values = CellSums(np.arange(len(measures), dtype=np.uint64), {"value": bits(np.array(measures))})
        return {
            ALIGNED: self.stacked(images, lambda: self.fixed.read(self.fixed.whole)),
            **made,
            STEPS: self.step_rows(reports),
            AFFINE: self.affine_sums(affines),
            MEASURES: values,
        }

    def _aligned(self, moving: Moving, found: Transform) -> NDArray[Any]:
        at = moving.volume.frame.voxels(found(self.frame.centres()))
        raw = moving.volume.read(moving.volume.whole)
        values = warp.image_at(raw, at, 1 if self.settings.interpolation == "linear" else 3)
        if self.settings.outside == "zero":
            values = np.where(warp.inside(raw.shape, at), values, 0)
        return warp.as_type(values, self.dtype)

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Store the affine maps beside the displacements, and the measures as scores."""
        affine, measures = (add_up([*sums[name]]) for name in (AFFINE, MEASURES))
        table, groups = self.recorded(affine)
        values = numbers_of(measures.columns["value"][np.argsort(measures.ids)])
        scores: list[Score] = []
        for n, each in enumerate(self.moving):
            own = values[n * len(MEASURED) : (n + 1) * len(MEASURED)]
            scores += scores_of(dict(zip(MEASURED, map(float, own), strict=True)), each.name)
        return Conclusion({AFFINE: table}, tuple(scores), groups)


def _measured(fixed: Picture, moving: Picture, found: Transform) -> Iterable[float]:
    return alignment_measures(fixed, moving, found).values()
