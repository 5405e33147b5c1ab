"""The graph of supervoxels: its nodes and edges, collected from all blocks or from a table, and its agglomeration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.stored_table import StoredTable
from simexm.errors import OutputError
from simexm.kernels.objects.agglomeration import merged_by_mean, merged_by_threshold, roots
from simexm.kernels.objects.edges import reduced

EDGES_INPUT = "edges"
_ROWS = 4_000_000
"""Rows of blocks that are held before equal ones are added."""


@dataclass(frozen=True)
class Graph:
    """Supervoxels, and the sums along their contacts."""

    ids: NDArray[np.uint64]
    """(n,): in ascending order."""
    pairs: NDArray[np.uint64]
    """(edges, 2): smaller and larger id, in ascending order."""
    counts: NDArray[np.int64]
    """(edges, 6): see `simexm.kernels.objects.edges.EDGE_COLUMNS`."""

    @classmethod
    def of_blocks(cls, blocks: int, read: Callable[[int], Mapping[str, NDArray[Any]]]) -> Graph:
        """Collect what each block found."""
        ids: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        pairs: list[NDArray[np.uint64]] = [np.zeros((0, 2), np.uint64)]
        counts: list[NDArray[np.int64]] = [np.zeros((0, 6), np.int64)]
        held = 0
        for number in range(blocks):
            part = read(number)
            ids.append(part["ids"])
            if "pairs" in part:
                pairs.append(part["pairs"])
                counts.append(part["counts"])
            held += len(part["ids"]) + len(part.get("pairs", ()))
            if held > max(_ROWS, 2 * (len(ids[0]) + len(pairs[0]))):
                ids = [np.unique(np.concatenate(ids))]
                merged = reduced(np.concatenate(pairs), np.concatenate(counts))
                pairs, counts = [merged[0]], [merged[1]]
                held = len(ids[0]) + len(pairs[0])
        whole, sums = reduced(np.concatenate(pairs), np.concatenate(counts))
        return cls(np.unique(np.concatenate(ids)), whole, sums)

    def refuse_unknown(self, pairs: NDArray[np.uint64], table: str, volume: str) -> None:
        """Raise OutputError if an end of an edge is no supervoxel."""
        unknown = np.setdiff1d(pairs, self.ids)
        if unknown.size:
            raise OutputError(
                f"{table} has {unknown.size} ids that are not in {volume}, the first {unknown[0]}, so the table is of another "
                "volume; give the edges of this one, or widen --roi"
            )

    def agglomerated(
        self,
        pairs: NDArray[np.uint64],
        area: NDArray[np.float64],
        mean: NDArray[np.float64],
        method: str,
        threshold: float,
    ) -> NDArray[np.uint64]:
        """The segment of each supervoxel: the smallest id of those that were merged with it."""
        first, second = (np.searchsorted(self.ids, pairs[:, n]).astype(np.int64) for n in range(2))
        if method == "mean":
            found = merged_by_mean(first, second, area, mean, threshold, self.ids.size)
        else:
            parent = np.arange(self.ids.size)
            merged_by_threshold(first, second, mean < threshold, parent)
            found = roots(parent)
        return self.ids[found]


def edges_of_table(table: StoredTable) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Pairs (n, 2), areas and means of a table of edges; raises OutputError if it cannot be one.

    Edges of the same pair are added, as if they were pieces of one contact.
    """
    if not {"mean", "affinity"} & {*table.columns}:
        raise OutputError(
            f"{table.path} has neither the column mean nor affinity, but {', '.join(table.columns)}, so nothing says which "
            "edges are merged; name a table of edges"
        )
    columns = table.whole()
    ends = np.stack([columns["first"], columns["second"]], axis=1)
    if ends.dtype.kind not in "ui" or (ends <= 0).any():
        raise OutputError(
            f"{table.path} has ids that are not whole numbers above 0 in first or second; correct the table"
        )
    pairs = np.sort(ends.astype(np.uint64), axis=1)
    mean = columns["mean"] if "mean" in columns else 1 - columns["affinity"]
    area = columns.get("area_um2", np.ones(len(pairs))).astype(np.float64)
    if (wrong := ~((mean >= 0) & (mean <= 1) & (area > 0) & np.isfinite(area))).any():
        row = int(np.flatnonzero(wrong)[0])
        raise OutputError(
            f"{table.path}, row {row}: mean {mean[row]:g} must lie between 0 and 1 and area {area[row]:g} above 0, or a "
            "merge would mean something else; correct the table"
        )
    pairs, area, mean = (column[pairs[:, 0] != pairs[:, 1]] for column in (pairs, area, mean.astype(np.float64)))
    if not len(pairs):
        return pairs, area, mean
    order = np.lexsort((mean, area, pairs[:, 1], pairs[:, 0]))
    pairs, area, mean = pairs[order], area[order], mean[order]
    starts = np.flatnonzero(np.concatenate([[True], np.any(pairs[1:] != pairs[:-1], axis=1)]))
    total = np.add.reduceat(area, starts)
    return pairs[starts], total, np.add.reduceat(area * mean, starts) / total
