"""Scores of a segmentation against the truth, from the sparse table of their overlaps.

The table adds up exactly over blocks, and sums of squares are whole numbers of any size, so scores do not depend on blocks and
are right for a volume of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, Score
from simexm.analysis.objects.overlaps import BYTES_PER_VOXEL, PAIRS, SECONDS_PER_VOXEL, TABLE, TwoVolumes, whole_groups
from simexm.analysis.scores.sampled import Sampled
from simexm.analysis.scores.worst import worst
from simexm.analysis.volume import Volume
from simexm.errors import OutputError
from simexm.geometry.grid import Tiling
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.objects.overlaps import overlaps

CELLS, SEGMENTS, MERGES, SPLITS = "cells", "segments", "merges", "splits"
GRID = "grid"
"""Subset of the scores of the truth on the segmentation's grid; and, before the names of tables, that truth's."""
SIZES = Keyed(("id",), {"voxels": "sum", "voxels_in_cells": "sum"})


class SegmentationScore(TwoVolumes):
    """Score a segmentation (first input) against the truth (second): splits, merges, and cells that were found.

    Voxels whose truth is 0 are outside every cell and do not count. Where the voxels differ in size, each of the truth takes the
    segment at its centre, and the scores of the subset `grid` are those of the truth sampled at the centres of the
    segmentation's voxels: what its grid alone costs. It writes the tables `cells`, one row for each true cell, `overlaps` (first:
    truth, second: segment), and `splits` and `merges`, the worst of them.

    Attributes
    ----------
    zero_is
        What a segment 0 inside a cell is. segment: one more segment, as scikit-image has it. missing: voxels that VOI and Rand
        leave out, as CREMI has it; `covered` tells their share.
    iou
        Shares of common voxels (intersection over union), at least 0.5, from which a segment is a cell that was found.
    worst
        How many splits and merges are listed.
    """

    analysis: Literal["segmentation"] = "segmentation"
    zero_is: Literal["segment", "missing"] = "segment"
    iou: tuple[float, ...] = Field(default=(0.5, 0.75), min_length=1, max_length=20)
    worst: int = Field(default=100, ge=1, le=100_000)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open both; raises SpecError if their grids do not agree."""
        self.refuse_other_count(inputs, 2, "SEGMENTATION TRUTH")
        for least in self.iou:
            if not 0.5 <= least <= 1:
                raise OutputError(
                    f"iou {least:g} is not between 0.5 and 1: below 0.5 a cell could be found twice; give values from 0.5 on"
                )
        return _ScoreBench(self, *inputs)


class _ScoreBench(Bench):
    """Truth and segmentation, in blocks of the truth's voxels; pairs are keyed by truth, then segment."""

    def __init__(self, settings: SegmentationScore, segmentation: Volume, truth: Volume) -> None:
        self.settings, self.truth = settings, truth
        self.sampled = Sampled(segmentation, truth, settings.roi)
        self.tiling = Tiling(self.sampled.whole, (settings.block_voxels,) * 3)
        self.keyed = {TABLE: PAIRS, SEGMENTS: SIZES, MERGES: PAIRS, GRID + TABLE: PAIRS, GRID + SEGMENTS: SIZES}
        self.inputs = {"segmentation": segmentation.identity, "truth": truth.identity}
        self.blocks, self.voxels = len(self.tiling), self.sampled.whole.size
        self.core_seconds = 2 * SECONDS_PER_VOXEL * self.voxels
        voxels = math.prod(map(min, self.tiling.cell, self.sampled.whole.shape))
        self.block_bytes = round((2 * BYTES_PER_VOXEL + 16 * self.sampled.pixels_per_voxel) * voxels)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Count the pairs of truth and segment in a block, and the voxels of each segment; also of the sampled truth."""
        segments, truth, sampled = self.sampled.read(self.tiling[number])
        found = _counted(truth, segments)
        grid = _counted(truth, sampled)
        turned = {"first": found[TABLE]["second"], "second": found[TABLE]["first"], "voxels": found[TABLE]["voxels"]}
        return {**found, MERGES: turned, **{GRID + name: table for name, table in grid.items()}}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Compute all scores, of the segmentation and of the truth on its grid."""
        pairs, segments = sums[TABLE], sums[SEGMENTS]
        cells, found, missing = self._cells(pairs, segments)
        if cells.num_rows < 2:
            raise OutputError(
                f"{self.truth.where} holds {cells.num_rows} cells in the common part, and splits and merges need at least two; "
                "name the truth second: simexm score SEGMENTATION TRUTH, or choose a larger --roi"
            )
        sizes = _Sizes.of(pairs, segments)
        rows = self._scores(sizes, found, missing)
        grid_pairs, grid_segments = sums[GRID + TABLE], sums[GRID + SEGMENTS]
        _, reached, others = self._cells(grid_pairs, grid_segments)
        for score in self._scores(_Sizes.of(grid_pairs, grid_segments), reached, others):
            what = f"of the truth on the segmentation's grid: {score.definition}"
            rows.append(Score(score.score, score.value, score.unit, what, f"{score.subset} {GRID}".strip()))

        def table() -> Iterator[pa.Table]:
            for piece in pairs:
                yield pa.table({name: piece[name] for name in PAIRS.names})

        number, voxels = self.settings.worst, sizes.pairs.total
        splits = worst(pairs, ("cell", "segment"), number, 0, voxels)
        merges = worst(sums[MERGES], ("segment", "cell"), number, 1, voxels)
        return Conclusion({TABLE: table(), CELLS: cells, SPLITS: splits, MERGES: merges}, tuple(rows))

    def _scores(self, sizes: _Sizes, iou: NDArray[np.float64], segments: int) -> list[Score]:
        voi = _voi(sizes, self.settings.zero_is == "segment")
        rand = _rand(sizes)
        rows = [*voi, *rand, Score("cremi", math.sqrt(voi[2].value * rand[1].value), "", _CREMI)]
        covered = sizes.covered_pairs.total / max(1, sizes.pairs.total)
        rows.append(Score("covered", covered, "", "share of the voxels in cells whose segment is not 0"))
        return [*rows, *self._detection(iou, segments, iou.size)]

    def _cells(self, pairs: MergedRows, segments: MergedRows) -> tuple[pa.Table, NDArray[np.float64], int]:
        """The table of cells, the largest IoU of each, and how many segments there are beside 0."""
        pieces = [(p["id"], p["voxels"]) for p in segments]  # 16 bytes for each segment
        ids, sizes = np.concatenate([i for i, _ in pieces]), np.concatenate([s for _, s in pieces])
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _CELL_COLUMNS}
        for truth, segment, voxels in whole_groups(pairs):
            starts = np.flatnonzero(np.diff(truth, prepend=truth[:1] + np.uint64(1)))
            if not truth.size:
                continue
            total = np.add.reduceat(voxels, starts)
            union = np.repeat(total, np.diff(starts, append=truth.size)) + sizes[np.searchsorted(ids, segment)] - voxels
            iou = np.where(segment != 0, voxels / union, 0.0)
            best = np.lexsort((segment, -iou, truth))[starts]
            cells = truth[starts] != 0
            row = (
                truth[starts], total, np.add.reduceat((segment != 0).astype(np.int64), starts),
                np.add.reduceat(np.where(segment == 0, voxels, 0), starts),
                np.where(iou[best] > 0, segment[best], 0).astype(np.uint64), iou[best],
            )  # fmt: skip
            for name, column in zip(_CELL_COLUMNS, row, strict=True):
                columns[name].append(column[cells])
        empty = {"id": np.uint64, "segment": np.uint64, "iou": np.float64}
        made = {n: np.concatenate([np.zeros(0, empty.get(n, np.int64)), *c]) for n, c in columns.items()}
        return pa.table(made), made["iou"], int((ids != 0).sum())

    def _detection(self, iou: NDArray[np.float64], segments: int, cells: int) -> Iterator[Score]:
        for least in self.settings.iou:
            found = int((iou > least).sum()) if least == 0.5 else int((iou >= least).sum())
            precision, recall = found / max(1, segments), found / max(1, cells)
            both = 2 * found / max(1, segments + cells)
            share = "more than 0.5" if least == 0.5 else f"at least {least:g}"
            what = f"where a segment and a cell match if they have {share} of the voxels of either in common"
            yield Score("precision", precision, "", f"share of segments that match a cell, {what}", f"iou {least:g}")
            yield Score("recall", recall, "", f"share of cells that match a segment, {what}", f"iou {least:g}")
            yield Score("f1", both, "", f"2 * matches / (segments + cells), {what}", f"iou {least:g}")


def _counted(truth: NDArray[Any], segments: NDArray[Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Voxels of each pair, by truth and segment, and of each segment."""
    found, voxels = overlaps(truth, segments)
    ids, where = np.unique(found[:, 1], return_inverse=True)
    sizes = {name: np.zeros(ids.size, np.int64) for name in ("voxels", "voxels_in_cells")}
    np.add.at(sizes["voxels"], where, voxels)
    np.add.at(sizes["voxels_in_cells"], where, np.where(found[:, 0] != 0, voxels, 0))
    return {TABLE: {"first": found[:, 0], "second": found[:, 1], "voxels": voxels}, SEGMENTS: {"id": ids, **sizes}}


_CELL_COLUMNS = ("id", "voxels", "segments", "missing_voxels", "segment", "iou")
_CREMI = "sqrt((voi_split + voi_merge) * rand_cremi)"


class _Histogram:
    """Numbers of voxels, and how often each occurs: whatever the order of adding, their sums have the same bits."""

    def __init__(self) -> None:
        self._voxels, self._times = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, voxels: NDArray[np.int64]) -> None:
        """Add the sizes of some pairs, cells or segments."""
        found, where = np.unique(np.concatenate([self._voxels, voxels[voxels > 0]]), return_inverse=True)
        times = np.zeros(found.size, np.int64)
        np.add.at(times, where, np.concatenate([self._times, np.ones(where.size - self._times.size, np.int64)]))
        self._voxels, self._times = found, times

    def _each(self) -> Iterator[tuple[int, int]]:
        return zip(self._voxels.tolist(), self._times.tolist(), strict=True)

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(n * times for n, times in self._each())

    @property
    def squares(self) -> int:
        """Sum of squares, which may need more than 64 bits."""
        return sum(n * n * times for n, times in self._each())

    @property
    def n_log_n(self) -> float:
        """Sum of n log2 n."""
        return math.fsum(times * n * math.log2(n) for n, times in self._each())


@dataclass(frozen=True)
class _Sizes:
    """Voxels in cells: of pairs, of cells and of segments; `covered_` without those whose segment is 0."""

    pairs: _Histogram = field(default_factory=_Histogram)
    truth: _Histogram = field(default_factory=_Histogram)
    segments: _Histogram = field(default_factory=_Histogram)
    covered_pairs: _Histogram = field(default_factory=_Histogram)
    covered_truth: _Histogram = field(default_factory=_Histogram)
    covered_segments: _Histogram = field(default_factory=_Histogram)

    @classmethod
    def of(cls, pairs: MergedRows, segments: MergedRows) -> _Sizes:
        sizes = cls()
        for truth, segment, n in whole_groups(pairs):
            truth, segment, n = truth[truth != 0], segment[truth != 0], n[truth != 0]
            if truth.size:
                starts = np.flatnonzero(np.diff(truth, prepend=truth[:1] + np.uint64(1)))
                covered = np.where(segment != 0, n, 0)
                sizes.pairs.add(n)
                sizes.covered_pairs.add(covered)
                sizes.truth.add(np.add.reduceat(n, starts))
                sizes.covered_truth.add(np.add.reduceat(covered, starts))
        for piece in segments:
            sizes.segments.add(piece["voxels_in_cells"])
            sizes.covered_segments.add(piece["voxels_in_cells"][piece["id"] != 0])
        return sizes


def _voi(sizes: _Sizes, keep_zero: bool) -> list[Score]:
    """Variation of information in bits, over voxels with a true cell."""
    pairs, truth, segments = (
        (sizes.pairs, sizes.truth, sizes.segments)
        if keep_zero
        else (sizes.covered_pairs, sizes.covered_truth, sizes.covered_segments)
    )
    voxels = max(1, pairs.total)
    split = max(0.0, (truth.n_log_n - pairs.n_log_n) / voxels)
    merge = max(0.0, (segments.n_log_n - pairs.n_log_n) / voxels)
    zero = "segment 0 is one more segment" if keep_zero else "voxels of segment 0 are left out"
    return [
        Score("voi_split", split, "bit", f"H(segment | truth) over voxels in cells; {zero}"),
        Score("voi_merge", merge, "bit", f"H(truth | segment) over voxels in cells; {zero}"),
        Score("voi", split + merge, "bit", "voi_split + voi_merge"),
    ]


def _rand(sizes: _Sizes) -> list[Score]:
    """Both definitions of the adapted Rand error."""
    skimage = _rand_error(sizes.pairs, sizes.truth, sizes.segments, 1)
    cremi = _rand_error(sizes.covered_pairs, sizes.truth, sizes.covered_segments)
    same = "adapted Rand error, 1 - 2 p r / (p + r)"
    left_out = "voxels of segment 0 are left out of pairs and segments, not of the truth"
    return [
        Score(
            "rand_skimage",
            skimage,
            "",
            f"{same}, over pairs of different voxels; segment 0 is one more segment (scikit-image)",
        ),
        Score("rand_cremi", cremi, "", f"{same}; {left_out} (CREMI, SNEMI)"),
    ]


def _rand_error(pairs: _Histogram, truth: _Histogram, segments: _Histogram, less: int = 0) -> float:
    """1 - 2 p r / (p + r) with p = pairs / segments and r = pairs / truth (squares): 1 - 2 pairs / (truth + segments)."""
    both, common = (sum(h.squares - less * h.total for h in some) for some in ((truth, segments), (pairs,)))
    return (both - 2 * common) / both if both else 0.0
