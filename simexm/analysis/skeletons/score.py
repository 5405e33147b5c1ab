"""Scores of a segmentation along true skeletons: how far one can go before it splits or merges.

Definitions: Januszewski et al., Nature Methods 15, 605 (2018), expected run length; its share of what is possible is NERL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, Score
from simexm.analysis.skeletons.by_id import Columns, by_id
from simexm.analysis.skeletons.sampling import values_at, voxels_at
from simexm.analysis.volume import Volume, VolumeAnalysis, same_grid, voxel_floats
from simexm.errors import OutputError
from simexm.geometry.grid import Box, Tiling
from simexm.jobs.keyed_rows import Keyed
from simexm.kernels.objects.overlaps import overlaps
from simexm.names import FreeText
from simexm.result.skeletons import StoredSkeletons

CELLS, RUNS, HELD, CALIBERS, MASKED = "cells", "runs", "held", "calibers", "masked"
_PER_NM = 10**8
"""Lengths are added up as whole numbers, so many for a nm: sums of up to 90 m."""
_KEYED = {
    CELLS: Keyed(("id",), dict.fromkeys(("length", "outside", "omitted", "split", "splits"), "sum")),
    RUNS: Keyed(("id", "segment"), {"length": "sum"}),
    HELD: Keyed(("segment", "id"), {"twice": "sum", "nodes": "sum"}),
    CALIBERS: Keyed(("caliber", "segment"), dict.fromkeys(("length", "omitted", "split"), "sum")),
    MASKED: Keyed(("segment",), {"voxels": "sum"}),
}
_ROWS = 200_000
"""Vertices of a block."""
_BYTES_PER_ROW, _BYTES_PER_VOXEL = 500, 64


class SkeletonScore(VolumeAnalysis):
    """Score a segmentation (first input) along skeletons of the truth (second), an output of `simexm skeletons`.

    Each vertex is the centre of a voxel, and has the segment that holds this point; an edge is right if both its vertices lie in
    one segment that belongs to no other skeleton. It writes the table `cells`, one row for each skeleton. Settings for volumes
    are those of the segmentation.

    Attributes
    ----------
    merge_tolerance_nm
        A segment merges two skeletons if it holds more than this of each; half of each edge belongs to either vertex. 0: one
        vertex is enough.
    zero_is
        What segment 0 is. missing: no segment, so that edges that touch it are omitted. segment: one more segment.
    no_merge
        Volume that no segment of a cell may hold where it is not 0, such as cells without a skeleton: segments that do are
        merged.
    no_merge_um3
        A segment is merged with it if they share more than this.
    calibers_nm
        Radii that divide edges into classes, for which right, split, omitted and merged lengths are told.
    """

    analysis: Literal["skeleton_score"] = "skeleton_score"
    merge_tolerance_nm: float = Field(default=0.0, ge=0, le=1e9)
    zero_is: Literal["missing", "segment"] = "missing"
    no_merge: FreeText | None = None
    no_merge_um3: float = Field(default=0.0, ge=0)
    calibers_nm: tuple[float, ...] = Field(default=(50.0, 100.0, 200.0, 400.0), max_length=20)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the segmentation as a volume and the truth as skeletons."""
        self.refuse_other_count(inputs, 2, "SEGMENTATION SKELETONS")
        mask = (self.model_copy(update={"dataset": None})._volume(self.no_merge),) if self.no_merge else ()
        return (self._volume(inputs[0]), StoredSkeletons.open(inputs[1]).result, *mask)

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Check that the skeletons lie in the segmentation."""
        if sorted(self.calibers_nm) != [*dict.fromkeys(self.calibers_nm)]:
            raise OutputError(f"calibers_nm {self.calibers_nm} do not ascend; write them in ascending order")
        return _SkeletonScoreBench(self, *inputs)


class _SkeletonScoreBench(Bench):
    """Skeletons in pieces of their table, then the mask in blocks."""

    def __init__(self, settings: SkeletonScore, volume: Volume, truth: Any, mask: Volume | None = None) -> None:
        self.settings, self.volume, self.mask = settings, volume, mask
        self.truth = StoredSkeletons(truth)
        self.read, self.whole = volume.numbers("labels"), settings.box(volume)
        rows = self.truth.rows()
        self.pieces = [(file, a) for file, count in enumerate(rows) for a in range(0, count, _ROWS)]
        self.keyed = _KEYED
        self.inputs = {"segmentation": volume.identity, "truth": self.truth.identity}
        self.blocks, self.voxels = len(self.pieces), 0
        self.block_bytes = _BYTES_PER_ROW * min(max([1, *rows]), 1 << 20) + 64**3 * 8
        if mask is not None:
            self.inputs["no_merge"] = mask.identity
            self.start, self.start_mask, shape = same_grid(volume, mask)
            self.tiling = Tiling(Box.of_shape(shape), (settings.block_voxels,) * 3)
            self.read_mask = mask.numbers("labels")
            self.blocks += len(self.tiling)
            self.voxels = self.tiling.box.size
            self.block_bytes = max(self.block_bytes, _BYTES_PER_VOXEL * math.prod(map(min, self.tiling.cell, shape)))
        self.core_seconds = 3e-6 * sum(rows) + 4e-8 * self.voxels

    def measure(self, number: int) -> Mapping[str, Any]:
        """Look up the segments of a piece of the skeletons, or count the voxels that segments share with the mask."""
        if number >= len(self.pieces):
            return {**self._empty(), MASKED: self._masked(self.tiling[number - len(self.pieces)])}
        file, begin = self.pieces[number]
        vertices = self.truth.read(file)
        parent = vertices["parent"] + (np.arange(vertices["id"].size) - vertices["vertex"])
        rows = np.arange(begin, min(begin + _ROWS, vertices["id"].size))
        upper = np.where(vertices["parent"][rows] >= 0, parent[rows], rows)
        needed, where = np.unique(np.concatenate([rows, upper]), return_inverse=True)
        at = np.stack([vertices[axis][needed] for axis in "zyx"], axis=1).astype(np.int64)
        voxels = voxels_at(at, *self.truth.grid, self.volume.voxel_nm, self.volume.origin_nm)
        inside = np.all((voxels >= self.whole.start) & (voxels < self.whole.stop), axis=1)
        segment = np.zeros(needed.size, np.uint64)
        segment[inside] = values_at(self.read, voxels[inside])
        own, above = where[: rows.size], where[rows.size :]
        length = np.rint(vertices["length_nm"][rows] * _PER_NM).astype(np.int64)
        radius = (vertices["radius_nm"][rows] + vertices["radius_nm"][upper]) / 2
        return {
            **self._empty(),
            **self._counted(
                vertices["id"][rows], length, radius, segment[own], segment[above], inside[own], inside[above]
            ),
        }

    def _empty(self) -> dict[str, Any]:
        return {name: dict.fromkeys(keyed.names, np.zeros(0, np.int64)) for name, keyed in _KEYED.items()}

    def _counted(
        self, ids: Any, length: Any, radius: Any, one: Any, other: Any, is_inside: Any, other_inside: Any
    ) -> dict[str, Any]:
        """Add up edges by cell, by cell and segment, by segment and cell, and by caliber and segment."""
        edge, scored = length > 0, is_inside & other_inside
        has = (one != 0) if self.settings.zero_is == "missing" else np.ones(one.size, np.bool_)
        has_other = (other != 0) if self.settings.zero_is == "missing" else has
        omitted = scored & edge & ~(has & has_other)
        split = scored & edge & has & has_other & (one != other)
        same = scored & edge & has & has_other & (one == other)
        counted = {
            "length": np.where(scored, length, 0), "outside": np.where(scored, 0, length),
            "omitted": np.where(omitted, length, 0), "split": np.where(split, length, 0), "splits": split.astype(np.int64),
        }  # fmt: skip
        caliber = np.searchsorted(np.array(self.settings.calibers_nm), radius, side="right").astype(np.uint64)
        key = np.where(same, one, 0)
        lengths = {"length": counted["length"], "omitted": counted["omitted"], "split": counted["split"]}
        by_class = {"caliber": caliber, "segment": key, **lengths}
        held_one, held_other = has & is_inside, scored & has_other & edge
        held = {
            "segment": np.concatenate([one[held_one], other[held_other]]),
            "id": np.concatenate([ids[held_one], ids[held_other]]),
            "twice": np.concatenate([np.where(scored, length, 0)[held_one], length[held_other]]),
            "nodes": np.concatenate([np.ones(held_one.sum(), np.int64), np.zeros(held_other.sum(), np.int64)]),
        }
        return {
            CELLS: _added(CELLS, {"id": ids, **counted}),
            RUNS: _added(RUNS, {"id": ids[same], "segment": one[same], "length": length[same]}),
            HELD: _added(HELD, held),
            CALIBERS: _added(CALIBERS, {name: column[scored & edge] for name, column in by_class.items()}),
        }

    def _masked(self, box: Box) -> dict[str, Any]:
        own = self.read(box.shifted(self.start))
        pairs, voxels = overlaps(own, (self.read_mask(box.shifted(self.start_mask)) != 0).astype(np.uint8))
        some = pairs[:, 1] != 0
        return {"segment": pairs[some, 0], "voxels": voxels[some]}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Find merged segments, then compute all scores."""
        merged, merges = self._merged(sums)
        cells = [self._cells(merged, part[0], part[1]) for part in by_id(sums[CELLS], sums[RUNS])]
        table = pa.concat_tables(cells)
        if not table.num_rows or not sum(table["cable_um"].to_pylist()):
            raise OutputError(
                f"no skeleton of {self.truth.result.path} lies in {self.volume.where}; check the positions and voxel sizes of "
                "both, or leave --roi out"
            )
        return Conclusion({CELLS: table}, (*self._scores(table, merges), *self._calibers(sums[CALIBERS], merged)))

    def _merged(self, sums: Mapping[str, Any]) -> tuple[NDArray[np.uint64], int]:
        """Segments that hold more than one skeleton or the mask, and how many merges that are."""
        least = round(2 * self.settings.merge_tolerance_nm * _PER_NM)
        voxel_um3 = math.prod(voxel_floats(self.volume)) * 1e-9
        found, merges = [np.zeros(0, np.uint64)], 0
        for held, masked in by_id(_renamed(sums[HELD]), _renamed(sums[MASKED])):
            counts = held["nodes"] > 0 if not least else held["twice"] > least
            several, number = np.unique(held["id"][counts], return_counts=True)
            with_mask = masked["id"][masked["voxels"] * voxel_um3 > self.settings.no_merge_um3]
            total = number + np.isin(several, with_mask)
            some = total > 1
            merges += int((total[some] - 1).sum())
            found.append(several[some].astype(np.uint64))
        return np.concatenate(found), merges

    def _cells(self, merged: NDArray[np.uint64], cells: Columns, runs: Columns) -> pa.Table:
        """Rows of the table of cells."""
        right = ~np.isin(runs["segment"], merged)
        place = np.searchsorted(cells["id"], runs["id"])
        um = runs["length"] * (1e-3 / _PER_NM)
        size = cells["id"].size

        def total(which: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(place[which], values[which], size).astype(np.float64)  # of nothing it counts integers

        squares = total(right, um**2)
        lengths = {name: cells[name] * (1e-3 / _PER_NM) for name in ("length", "outside", "split", "omitted")}
        cable = lengths["length"]
        run = np.where(cable > 0, squares / np.where(cable > 0, cable, 1.0), 0.0)
        return pa.table(
            {
                "id": cells["id"], "cable_um": cable, "outside_um": lengths["outside"],
                "right_um": total(right, um), "split_um": lengths["split"],
                "omitted_um": lengths["omitted"], "merged_um": total(~right, um),
                "splits": cells["splits"], "segments": np.bincount(place, minlength=size), "run_length_um": run,
                "normalised": np.where(cable > 0, run / np.where(cable > 0, cable, 1.0), 0.0),
            }
        )  # fmt: skip

    def _scores(self, cells: pa.Table, merges: int) -> Iterator[Score]:
        total = {name: math.fsum(cells[name].to_pylist()) for name in cells.column_names if name.endswith("_um")}
        cable = total["cable_um"]
        of_cells = list(zip(cells["cable_um"].to_pylist(), cells["run_length_um"].to_pylist(), strict=True))
        run = math.fsum(length * one for length, one in of_cells) / cable
        possible = math.fsum(length * length for length, _ in of_cells) / cable
        tolerance = self.settings.merge_tolerance_nm
        merge = f"a segment merges skeletons if it holds {f'more than {tolerance:g} nm' if tolerance else 'a vertex'} of two"
        yield Score("erl", run, "um", f"expected run length: sum of squared right runs / cable; {merge}")
        yield Score("erl_possible", possible, "um", "expected run length of a segmentation without errors")
        yield Score("nerl", run / possible, "", "erl / erl_possible")
        zero = "segment 0 is none" if self.settings.zero_is == "missing" else "segment 0 is one more segment"
        meaning = {
            "right": "edges whose vertices lie in one segment that is not merged",
            "split": "edges whose vertices lie in two segments",
            "omitted": f"edges with a vertex in no segment; {zero}",
            "merged": "edges whose vertices lie in one segment that is merged",
        }
        for name, what in meaning.items():
            yield Score(name, total[f"{name}_um"] / cable, "", f"share of the cable: {what}")
        yield Score("splits_per_mm", sum(cells["splits"].to_pylist()) / cable * 1000, "1/mm", "split edges / cable")
        per_mm = "skeletons (and mask) in each merged segment, less one, / cable"
        yield Score("merges_per_mm", merges / cable * 1000, "1/mm", per_mm)
        yield Score("cable", cable, "um", "length of the edges that were scored")
        inside = cable / (cable + total["outside_um"])
        yield Score("inside", inside, "", "share of the skeletons inside the segmentation, which alone is scored")

    def _calibers(self, rows: Any, merged: NDArray[np.uint64]) -> Iterator[Score]:
        """Shares of the cable by radius."""
        borders = (0.0, *self.settings.calibers_nm)
        sums = {name: np.zeros(len(borders), object) for name in ("length", "omitted", "split", "merged")}
        for piece in rows:
            same = piece["length"] - piece["omitted"] - piece["split"]
            piece = {**piece, "merged": np.where(np.isin(piece["segment"], merged), same, 0)}
            for name, total in sums.items():
                np.add.at(total, piece["caliber"].astype(np.int64), piece[name].astype(object))
        for n, low in enumerate(borders):
            upto = f" to {borders[n + 1]:g}" if n + 1 < len(borders) else " and more"
            cable = sums["length"][n]
            if cable:
                wrong = {name: sums[name][n] / cable for name in ("omitted", "split", "merged")}
                right = (cable - sum(sums[name][n] for name in wrong)) / cable
                for name, value in {"right": right, **wrong}.items():
                    what = f"as {name}, of edges whose mean radius is in this range"
                    yield Score(name, float(value), "", what, f"radius {low:g}{upto} nm")


def _added(table: str, columns: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Rows with equal keys added up."""
    keyed = _KEYED[table]
    return keyed.by_name(keyed.reduced(keyed.rows(keyed.arrow(columns))))


def _renamed(rows: Any) -> Iterator[dict[str, NDArray[Any]]]:
    """Rows by segment, as `by_id` wants them."""
    for piece in rows:
        yield {"id": piece["segment"], **{n: c for n, c in piece.items() if n not in ("id", "segment")}}
