"""The cells that are split and the segments that merge most, by what they add to the variation of information."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from simexm.analysis.objects.overlaps import whole_groups
from simexm.jobs.keyed_rows import MergedRows

_COLUMNS = ("voxels", "parts", "bits", "largest", "largest_voxels", "second", "second_voxels")


def worst(rows: MergedRows, names: Sequence[str], number: int, cells: int, voxels: int) -> pa.Table:
    """Return the ids whose voxels are spread most over those of the other side.

    Parameters
    ----------
    rows
        Voxels by pair, sorted by the id that is judged.
    names
        Names of the ids that are judged, and of what they fall into.
    number
        How many to return.
    cells
        Which of both columns are true cells, 0 or 1: voxels outside are left out.
    voxels
        Voxels in all cells.
    """
    kept: list[tuple[float, int, tuple[float, ...]]] = []
    for pair in whole_groups(rows):
        some = (pair[0] != 0) & (pair[cells] != 0)
        first, second, n = (column[some] for column in pair)
        if not first.size:
            continue
        order = np.lexsort((second, -n, first))
        first, second, n = first[order], second[order], n[order]
        starts = np.flatnonzero(np.diff(first, prepend=first[:1] + np.uint64(1)))
        parts = np.diff(starts, append=first.size)
        total = np.add.reduceat(n, starts)
        bits = np.add.reduceat(n * np.log2(np.repeat(total, parts) / n), starts) / max(1, voxels)
        for at in np.flatnonzero(parts > 1):
            row, k = starts[at], int(first[starts[at]])
            values = (total[at], parts[at], bits[at], second[row], n[row], second[row + 1], n[row + 1])
            one = (float(bits[at]), -k, tuple(v.item() for v in values))
            (heapq.heappushpop if len(kept) == number else heapq.heappush)(kept, one)
    kept.sort(reverse=True)
    types = {"bits": np.float64, "largest": np.uint64, "second": np.uint64}
    columns = {names[0]: np.array([-k for _, k, _ in kept], np.uint64)}
    for n, name in enumerate(_COLUMNS):
        called = {"parts": f"{names[1]}s", "largest": f"largest_{names[1]}", "second": f"second_{names[1]}"}.get(
            name, name
        )
        columns[called] = np.array([values[n] for *_, values in kept], types.get(name, np.int64))
    return pa.table(columns)
