"""Distances counted in bins, whose counts add up over blocks, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Score
from simexm.analysis.registration.transform import Floats
from simexm.jobs.sums_by_id import CellSums, add_up

STEP_UM = 1e-3
"""Residuals are rounded to whole steps: percentiles are exact to half of one, and points that agree have 0."""
PERCENTILES = (50, 95, 99)


def column_of(way: str, subset: str) -> str:
    """Column of the counts of a way, such as "found", in a subset of places, "" for all."""
    return f"{way}, {subset}" if subset else way


def named(way: str, subset: str) -> str:
    """Subset of a score: what was found has no name of its own."""
    return ", ".join(part for part in ("" if way == "found" else way, subset) if part)


def counted(
    distances: Mapping[str, Floats], subsets: Mapping[str, NDArray[np.bool_]], columns: Sequence[str]
) -> CellSums:
    """Count distances by bins.

    Parameters
    ----------
    distances
        Distances of each way, (n,), um.
    subsets
        Which of the n places are in each subset.
    columns
        All columns; one that does not occur here gets zeros.
    """
    bins = {way: np.rint(values / STEP_UM).astype(np.int64) for way, values in distances.items()}
    ids, place = np.unique(np.concatenate(list(bins.values())), return_inverse=True)
    parts = np.split(place, np.cumsum([values.size for values in bins.values()])[:-1])
    counts = {name: np.zeros(ids.size, np.int64) for name in columns}
    for way, part in zip(bins, parts, strict=True):
        for subset, where in subsets.items():
            counts[column_of(way, subset)] = np.bincount(part[where], minlength=ids.size).astype(np.int64)
    return CellSums(ids.astype(np.uint64), counts)


def concluded(
    sums: Iterable[CellSums], ways: Sequence[str], subsets: Sequence[str], what: str
) -> tuple[pa.Table, list[Score]]:
    """Turn counts into a table by bin, and scores; `what` says what the distances are."""
    columns = [column_of(way, subset) for subset in subsets for way in ways]
    bins = add_up([CellSums.none(columns), *sums])
    order = np.argsort(bins.ids)
    place = bins.ids[order].astype(np.float64) * STEP_UM
    rows: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {"residual_um": place}
    scores: list[Score] = []
    for subset in subsets:
        for way in ways:
            counts = bins.columns[column_of(way, subset)][order]
            rows[column_of(way, subset)] = counts
            scores += residual_scores(place, counts, named(way, subset), what)
    return pa.table(rows), scores


def residual_scores(place: Floats, counts: NDArray[np.int64], subset: str, what: str) -> list[Score]:
    """Percentiles and rms of residuals, from the middles of bins, um, and their counts; none without a count."""
    total = int(counts.sum())
    if not total:
        return []
    reached = np.cumsum(counts)
    at = [float(place[np.searchsorted(reached, p / 100 * total)]) for p in PERCENTILES]
    found = [
        Score(f"residual_p{p}", value, "um", f"{p}th percentile of the {what}", subset)
        for p, value in zip(PERCENTILES, at, strict=True)
    ]
    rms = math.sqrt(float((counts * place**2).sum()) / total)
    return [Score("residual_rms", rms, "um", f"root mean square of the {what}", subset), *found]
