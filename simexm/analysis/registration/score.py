"""Score a transform against the true one: distances between where both put the voxels of the fixed volume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Analysis, Bench, Conclusion, Measured, Score
from simexm.analysis.registration.align import absolute
from simexm.analysis.registration.transform import Floats, Frame, StoredTransform
from simexm.analysis.registration.truth import transform_at
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, Tiling, triple
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.registration import fields

STEP_UM = 1e-3
"""Residuals are rounded to whole steps: percentiles are exact to half of one, and points that agree have 0."""
SUBSETS = ("", "identity")
_RESIDUAL = "distance between where the transform and the true one put a voxel of the fixed volume"
PERCENTILES = (50, 95, 99)


class AlignmentScore(Analysis):
    """Score a transform against the true one, and beside it the identity.

    Inputs are the transform that was found, a result of align, and the true one: a round of a simulation
    (`OUT.zarr/round_02`), another result of align, or a text file with an affine map. Residuals count where the true
    transform ends in the moving volume: elsewhere nothing could be found.

    Attributes
    ----------
    block_voxels
        Side of a block. It changes speed and memory, no number.
    """

    analysis: Literal["alignment"] = "alignment"
    block_voxels: int = Field(default=128, ge=16, le=512)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open both transforms."""
        if len(inputs) != 2:
            raise OutputError(
                f"alignment compares two transforms, not {len(inputs)}; name the one found, then the true one"
            )
        return tuple(
            one if isinstance(one, StoredTransform) else transform_at(absolute(str(getattr(one, "path", one))))
            for one in inputs
        )

    def open(self, inputs: tuple[Any, ...]) -> AlignmentScoreBench:
        """Check that both belong to one pair."""
        return AlignmentScoreBench(self, *inputs)


class AlignmentScoreBench(Bench):
    """Two transforms on the grid of the one that was found."""

    def __init__(self, settings: AlignmentScore, found: StoredTransform, truth: StoredTransform) -> None:
        if found.frame is None or found.moving is None:
            raise OutputError(
                f"{found.path} has no grid to compare on; name a result of `simexm align` as the transform found"
            )
        if truth.frame is not None and not np.allclose(truth.frame.extent_um, found.frame.extent_um, rtol=1e-3):
            one, other = (" x ".join(f"{v:.4g}" for v in f.extent_um) for f in (found.frame, truth.frame))
            raise SpecError(
                f"{found.path} has a fixed volume of {one} um, and {truth.path} one of {other} um, so they belong to different "
                "pairs; name the truth of this pair"
            )
        self.found, self.truth = found, truth
        self.frame: Frame = found.frame
        self.moving: Frame = found.moving
        self.tiling = Tiling(Box.of_shape(self.frame.shape), (settings.block_voxels,) * 3)
        self.inputs = {"found": found.identity, "truth": truth.identity}
        self.blocks, self.voxels = len(self.tiling), math.prod(self.frame.shape)
        self.core_seconds = 2e-6 * self.voxels
        self.block_bytes = 300 * settings.block_voxels**3
        self.columns = {"residuals": ("found", "identity"), "totals": ("covered", "folds", "jacobian")}

    def measure(self, number: int) -> dict[str, Measured]:
        """Count residuals by bins, covered voxels, and folds of one block."""
        box = self.tiling[number]
        points = self.frame.centres(box.start, box.shape)
        true = self.truth.near(points)(points)
        covered = np.all(np.abs(true - _along(self.moving.centre_um)) <= _along(self.moving.extent_um / 2), axis=0)
        found = self.found.near(points)(points)
        bins = [self._bins(place - true, covered) for place in (found, points)]
        ids, where = np.unique(np.concatenate(bins), return_inverse=True)
        counts = [np.bincount(w, minlength=ids.size) for w in np.split(where, [bins[0].size])]
        folds, least = self._folds(box)
        totals = {  # a row with the sums, and one with the block's own smallest value, which is not added up
            "covered": np.array([int(covered.sum()), 0]),
            "folds": np.array([folds, 0]),
            "jacobian": np.array([0, round(least / _JACOBIAN_STEP)]),
        }
        return {
            "residuals": CellSums(ids.astype(np.uint64), dict(zip(self.columns["residuals"], counts, strict=True))),
            "totals": CellSums(np.array([0, 1 + number], np.uint64), totals),
        }

    @staticmethod
    def _bins(difference: Floats, covered: NDArray[np.bool_]) -> NDArray[np.int64]:
        distance = np.sqrt((difference[:, covered] ** 2).sum(axis=0))
        return np.asarray(np.rint(distance / STEP_UM), np.int64)

    def _folds(self, box: Box) -> tuple[int, float]:
        """Folds and smallest Jacobian of the cells that begin in a block."""
        wide = Box(box.start, triple(b + 1 for b in box.stop)).intersect(Box.of_shape(self.frame.shape))
        if min(wide.shape) < 2:
            return 0, 1.0
        part = self.found.near(self.frame.centres(wide.start, wide.shape))
        if part.displacement is None:
            return 0, 1.0
        cells = fields.smallest_jacobian(part.displacement, np.asarray(self.frame.voxel_um))
        return int((cells <= 0).sum()), float(cells.min())

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Turn the counts into percentiles and the rms."""
        bins = add_up([CellSums.none(self.columns["residuals"]), *sums["residuals"]])
        totals = add_up([CellSums.none(self.columns["totals"]), *sums["totals"]])
        order = np.argsort(bins.ids)
        place = bins.ids[order].astype(np.float64) * STEP_UM
        scores: list[Score] = []
        rows: dict[str, NDArray[Any]] = {"residual_um": place}
        for subset, column in zip(SUBSETS, self.columns["residuals"], strict=True):
            counts = bins.columns[column][order]
            rows[f"{column}_voxels"] = counts
            scores += residual_scores(place, counts, subset)
        covered = int(totals.columns["covered"].sum()) / self.voxels
        least = float(totals.columns["jacobian"][totals.ids > 0].min()) * _JACOBIAN_STEP
        folds = float(totals.columns["folds"].sum())
        scores += [
            Score("covered", covered, "", "share of the fixed volume that the true transform puts into the moving one"),
            Score(
                "folds",
                folds,
                "cells",
                "cells between eight voxel centres whose smallest ratio of volumes is not positive",
            ),
            Score(
                "smallest_jacobian",
                least,
                "",
                "smallest ratio of volumes of the displacement found, over corners of cells",
            ),
        ]
        return Conclusion({"residuals": pa.table(rows)}, tuple(scores))


_JACOBIAN_STEP = 1e-6


def residual_scores(place: Floats, counts: NDArray[np.int64], subset: str) -> list[Score]:
    """Percentiles and rms of residuals, from the middles of bins, um, and their counts; none without a count."""
    total = int(counts.sum())
    if not total:
        return []
    reached = np.cumsum(counts)
    at = [float(place[np.searchsorted(reached, p / 100 * total)]) for p in PERCENTILES]
    found = [
        Score(f"residual_p{p}", value, "um", f"{p}th percentile of the {_RESIDUAL}", subset)
        for p, value in zip(PERCENTILES, at, strict=True)
    ]
    rms = math.sqrt(float((counts * place**2).sum()) / total)
    return [Score("residual_rms", rms, "um", f"root mean square of the {_RESIDUAL}", subset), *found]


def _along(values: Floats) -> Floats:
    return values.reshape(3, 1, 1, 1)
