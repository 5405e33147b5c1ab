"""Score a transform against places that are known in both volumes: the target registration error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from simexm.analysis.contract import Bench, Conclusion, Measured, Score
from simexm.analysis.registration.points import PLACE, PointFile
from simexm.analysis.registration.scores.residuals import column_of, concluded, counted
from simexm.analysis.registration.scores.subsets import Subsets
from simexm.analysis.registration.transform import Floats, StoredTransform
from simexm.analysis.volume import Volume
from simexm.errors import OutputError
from simexm.stages.products import Product

MOVING_PLACE = ("moving_z_um", "moving_y_um", "moving_x_um")
LANDMARKS = (*PLACE, *MOVING_PLACE)
"""Columns: a place in the fixed volume, and the same place in the moving one."""
WHAT = (
    "distance between where the transform puts a point and its place in the moving volume (target registration error)"
)
ROWS = 1 << 18
"""Points of a block."""


class Landmarks(PointFile):
    """A table of places in both volumes."""

    @cached_property
    def values(self) -> Floats:
        """Places in the fixed and in the moving volume, (6, n), um; raises OutputError if columns or numbers are missing."""
        table = self.read(LANDMARKS, "place in both volumes")
        try:
            found = np.stack([np.asarray(table[name].to_numpy(), np.float64) for name in LANDMARKS])
        except (ValueError, TypeError) as error:
            raise OutputError(f"the places in {self.path} are not all numbers: {error}; correct them") from None
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=0))
        if wrong.size or not found.shape[1]:
            fault = f"row {int(wrong[0]) + 1} is not complete" if wrong.size else "it has no row"
            raise OutputError(f"{self.path} holds no places to compare: {fault}; correct it")
        return found


class PointsBench(Bench):
    """A transform and a table of places."""

    def __init__(
        self, found: StoredTransform, points: Landmarks, masks: Mapping[str, Volume], depth_um: tuple[float, ...]
    ) -> None:
        if found.frame is None and (masks or depth_um):
            raise OutputError(
                f"{found.path} has no grid, so the places of regions and depths are unknown; name a result of `simexm align`, or "
                "leave regions and depth_um out"
            )
        self.found, self.points = found, points
        self.subsets = None if found.frame is None else Subsets(found.frame, masks, depth_um)
        self.names = [""] if self.subsets is None else self.subsets.names
        self.ways = ("found", "identity")
        self.inputs = {
            "found": found.identity,
            "truth": points.identity,
            **{f"region {name}": mask.identity for name, mask in masks.items()},
        }
        self.voxels = points.values.shape[1]
        self.blocks = -(-self.voxels // ROWS)
        self.core_seconds = 1e-5 * self.voxels
        field = 0 if found.frame is None else 12 * math.prod(found.frame.shape)  # points may lie anywhere
        self.block_bytes = 400 * min(ROWS, self.voxels) + field + points.values.nbytes
        self.columns = {"residuals": tuple(column_of(w, s) for s in self.names for w in self.ways)}
        columns = dict.fromkeys((*LANDMARKS, "residual_um"), "float64")
        self.products = (Product("points", "table", columns=columns),)

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Move a range of points, and count their residuals."""
        part = self.points.values[:, number * ROWS : (number + 1) * ROWS]
        fixed, moving = part[:3], part[3:]
        placed = {"found": self.found.near(fixed)(fixed), "identity": fixed}
        distances = {way: np.sqrt(((place - moving) ** 2).sum(axis=0)) for way, place in placed.items()}
        everywhere = {"": np.ones(part.shape[1], np.bool_)}
        subsets = everywhere if self.subsets is None else self.subsets.at(fixed)
        return {
            "residuals": counted(distances, subsets, self.columns["residuals"]),
            "points": {**dict(zip(LANDMARKS, part, strict=True)), "residual_um": distances["found"]},
        }

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Turn the counts into percentiles and the rms."""
        table, scores = concluded(sums["residuals"], self.ways, self.names, WHAT)
        counts = Score("points", float(self.voxels), "points", "places that are known in both volumes")
        return Conclusion({"residuals": table}, (*scores, counts))
