"""Score of synapses: those found and the true ones matched by their two cells and their distance.

Only synapses of the same two cells can match, so pairs of cells are independent: they are scored one after the other, in any
number of pieces, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.stored_table import Columns, StoredTable, hashes
from simexm.analysis.synapses.tables import synapse_columns, synapse_table
from simexm.errors import OutputError
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.names import FreeText

ROWS, MATCHES = "rows", "matches"
FOUND, TRUTH = 0, 1
KEYED = Keyed(("low", "high", "side", "id"), dict.fromkeys(("sense", "z_pm", "y_pm", "x_pm", "inside", "rows"), "sum"))
COPIES = 8
_RANGE = re.compile(r"\s*(-?[\d.]*)\s*:\s*(-?[\d.]*)\s*", re.ASCII)


class SynapseScore(Analysis):
    """Score synapses (first input) against the true ones (second): how many were found, between the right cells.

    Both are tables of `simexm synapses` or like CAVE's, results or files, or the description of a phantom. Cells have the same
    ids in both; `simexm matrix` renames those of a segmentation (merge=OWNERS). A found and a true synapse may match if they
    have the same two cells and lie near each other; most matches are made, then those of the least total distance. It writes
    the table `matches`.

    Attributes
    ----------
    largest_distance_nm
        Largest distance of a match.
    within_um
        Only synapses there count, "z0:z1,y0:y1,x0:x1"; they may match others outside. At the ends of a volume synapses are
        cut. Default: all.
    """

    analysis: Literal["synapse_score"] = "synapse_score"
    largest_distance_nm: float = Field(default=400.0, gt=0)
    within_um: FreeText | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.limits_pm()
        return self

    def limits_pm(self) -> NDArray[np.float64]:
        """Lower and upper limits along z, y, x, (3, 2), pm."""
        parts = (self.within_um or ":,:,:").split(",")
        found = [_RANGE.fullmatch(part) for part in parts]
        try:
            limits = [(float(m[1] or "-inf"), float(m[2] or "inf")) for m in found if m]
        except ValueError:
            limits = []
        if len(limits) != 3 or any(a >= b for a, b in limits):
            raise ValueError(
                f"within_um is {self.within_um!r}, and is three ranges along z, y and x, such as 0.5:5.5,0.5:5.5,0.5:5.5"
            )
        return np.array(limits) * 1e6

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open both tables."""
        if len(inputs) != 2:
            raise OutputError(
                f"synapses are compared in two tables, not {len(inputs)}; name those found, then the true ones"
            )
        return tuple(synapse_table(one) for one in inputs)

    def open(self, inputs: tuple[StoredTable, ...]) -> Bench:
        """Open both; raises OutputError if the truth has no synapse."""
        if not inputs[1].rows:
            raise OutputError(
                f"{inputs[1].path} holds no synapse, so nothing could be found; name the true ones second"
            )
        return _ScoreBench(self, *inputs)


class _ScoreBench(Bench):
    """Both tables, piece by piece."""

    def __init__(self, settings: SynapseScore, found: StoredTable, truth: StoredTable) -> None:
        self.settings, self.tables = settings, (found, truth)
        self.keyed = {ROWS: KEYED}
        self.inputs = hashes({"found": found, "truth": truth})
        self.blocks, self.voxels = found.pieces + truth.pieces, found.rows + truth.rows
        self.core_seconds = 1e-4 * self.voxels
        self.block_bytes = max(COPIES * 8 * len(t.columns) * t.largest_piece for t in self.tables)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Describe the synapses of one piece by their cells."""
        side = FOUND if number < self.tables[0].pieces else TRUTH
        piece = synapse_columns(self.tables[side].piece(number - side * self.tables[0].pieces))
        unknown = piece["pre"] == 0
        one, other = (
            np.where(unknown, piece[a], piece[b]).astype(np.uint64) for a, b in (("first", "pre"), ("second", "post"))
        )
        places = {f"{axis}_pm": np.rint(piece[f"{axis}_nm"] * 1000).astype(np.int64) for axis in "zyx"}
        limits = self.settings.limits_pm()
        inside = np.all(
            [(p >= low) & (p < high) for p, (low, high) in zip(places.values(), limits, strict=True)], axis=0
        )
        sense = np.where(unknown, 0, np.where(one <= other, 1, -1))
        row: Columns = {
            "low": np.minimum(one, other),
            "high": np.maximum(one, other),
            "id": piece["id"],
            "sense": sense,
        }
        row |= {"side": np.full(one.size, side), "inside": inside.astype(np.int64), "rows": np.ones(one.size, np.int64)}
        return {ROWS: row | places}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Match the synapses pair of cells by pair of cells."""
        rows: MergedRows = sums[ROWS]
        directed, either = _Counts(), _Counts()
        for group in _pairs(rows):
            self._refuse_twice(group)
            either.add(group, self._matched(group))
            for sense in (1, -1, 0):
                some = {name: column[group["sense"] == sense] for name, column in group.items()}
                if len(some["id"]):
                    directed.add(some, self._matched(some) if sense else np.empty((0, 2), np.int64))
        right = directed.matches / max(1, either.matches)
        what = f"at most {self.settings.largest_distance_nm:g} nm apart"
        scores = [
            *directed.scores("directed", f"of the same presynaptic and the same postsynaptic cell, {what}"),
            *either.scores("pairs", f"of the same two cells, in either direction, {what}"),
            Score("direction", right, "", "directed matches by all matches"),
            Score("distance", either.distance_pm / 1000 / max(1, either.matches), "nm", "mean distance of all matches"),
        ]
        return Conclusion({MATCHES: self._table(rows)}, tuple(scores))

    def _refuse_twice(self, group: Columns) -> None:
        if (group["rows"] > 1).any():
            twice = int(np.flatnonzero(group["rows"] > 1)[0])
            table = self.tables[int(group["side"][twice])]
            raise OutputError(
                f"{table.path} holds the synapse {group['id'][twice]} more than once, so it would count more than once; give "
                "each row an id of its own"
            )

    def _matched(self, group: Columns) -> NDArray[np.int64]:
        """Rows of found and true synapses of one pair of cells that match, (n, 2)."""
        found, truth = np.flatnonzero(group["side"] == FOUND), np.flatnonzero(group["side"] == TRUTH)
        if not found.size or not truth.size:
            return np.empty((0, 2), np.int64)
        from scipy import sparse, spatial  # late: it takes a while to load

        places = np.column_stack([group[f"{axis}_pm"] for axis in "zyx"]).astype(np.float64)
        limit = self.settings.largest_distance_nm * 1000
        trees = [spatial.cKDTree(places[some]) for some in (found, truth)]
        near = trees[0].sparse_distance_matrix(trees[1], limit, output_type="coo_matrix")
        one, other = near.row.astype(np.int64), near.col.astype(np.int64) + found.size
        size = found.size + truth.size
        graph = sparse.coo_matrix((np.ones(one.size), (one, other)), (size, size))
        cluster = sparse.csgraph.connected_components(graph, directed=False)[1]
        rows = np.concatenate([found, truth])
        pairs = [
            _assigned(rows[one[cluster[one] == c]], rows[other[cluster[one] == c]], places)
            for c in np.unique(cluster[one])
        ]
        return np.concatenate([np.empty((0, 2), np.int64), *pairs])

    def _table(self, rows: MergedRows) -> Iterator[pa.Table]:
        """Rows of matches, missed and spurious synapses; 0 where there is none."""
        held: list[dict[str, NDArray[Any]]] = []
        for group in _pairs(rows):
            pairs = self._matched(group)
            alone = np.setdiff1d(np.arange(len(group["id"])), pairs)
            is_found = group["side"][alone] == FOUND
            zero, ids = np.zeros(alone.size, np.uint64), group["id"]
            held.append(
                {
                    "found": np.concatenate([ids[pairs[:, 0]], np.where(is_found, ids[alone], zero)]),
                    "truth": np.concatenate([ids[pairs[:, 1]], np.where(is_found, zero, ids[alone])]),
                    "distance_nm": np.concatenate([_distances(group, pairs), np.full(alone.size, np.nan)]) / 1000,
                    "same_direction": np.concatenate(
                        [(group["sense"][pairs[:, 0]] == group["sense"][pairs[:, 1]]), np.zeros(alone.size)]
                    ).astype(np.uint8),
                }
            )
            if len(held) == 10_000:
                yield pa.table({name: np.concatenate([one[name] for one in held]) for name in held[0]})
                held = []
        if held:
            yield pa.table({name: np.concatenate([one[name] for one in held]) for name in held[0]})


def _assigned(found: NDArray[np.int64], truth: NDArray[np.int64], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of candidate pairs that are connected with each other, most matches, then those of the least total distance."""
    if found.size == 1:
        return np.column_stack([found, truth])
    from scipy.optimize import linear_sum_assignment

    ones, one = np.unique(found, return_inverse=True)
    others, other = np.unique(truth, return_inverse=True)
    distances = np.linalg.norm(places[found] - places[truth], axis=1)
    never = (distances.max() + 1) * (found.size + 1)  # more than all distances together
    cost = np.full((ones.size, others.size), never)
    cost[one, other] = distances
    rows, columns = linear_sum_assignment(cost)
    real = cost[rows, columns] < never
    return np.column_stack([ones[rows[real]], others[columns[real]]])


def _distances(group: Columns, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    difference = [group[f"{axis}_pm"][pairs[:, 0]] - group[f"{axis}_pm"][pairs[:, 1]] for axis in "zyx"]
    return np.sqrt(sum((d.astype(np.float64) ** 2 for d in difference), np.zeros(len(pairs))))


def _pairs(rows: MergedRows) -> Iterator[Columns]:
    """Yield the rows of each pair of cells."""
    held: Columns | None = None
    for piece in rows:
        joined = dict(piece) if held is None else {name: np.concatenate([held[name], piece[name]]) for name in piece}
        new = (np.diff(joined["low"]) != 0) | (np.diff(joined["high"]) != 0)
        borders = np.concatenate([[0], np.flatnonzero(new) + 1])
        for begin, end in pairwise(borders):
            yield {name: column[begin:end] for name, column in joined.items()}
        held = {name: column[borders[-1] :] for name, column in joined.items()}
    if held is not None and held["low"].size:
        yield held


@dataclass
class _Counts:
    """Synapses inside, and those of them that match."""

    total: list[int] = field(default_factory=lambda: [0, 0])
    right: list[int] = field(default_factory=lambda: [0, 0])
    matches: int = 0
    distance_pm: float = 0.0

    def add(self, group: Columns, pairs: NDArray[np.int64]) -> None:
        """Add the synapses of one pair of cells."""
        for side in (FOUND, TRUTH):
            self.total[side] += int(group["inside"][group["side"] == side].sum())
            self.right[side] += int(group["inside"][pairs[:, side]].sum())
        self.matches += len(pairs)
        self.distance_pm += float(_distances(group, pairs).sum())

    def scores(self, subset: str, match: str) -> Iterator[Score]:
        """Precision, recall and F1."""
        precision, recall = (self.right[side] / max(1, self.total[side]) for side in (FOUND, TRUTH))
        both = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        yield Score(
            "precision", precision, "", f"share of the {self.total[0]} found that match a true one {match}", subset
        )
        yield Score(
            "recall", recall, "", f"share of the {self.total[1]} true ones that match one found {match}", subset
        )
        yield Score("f1", both, "", "2 * precision * recall / (precision + recall)", subset)
