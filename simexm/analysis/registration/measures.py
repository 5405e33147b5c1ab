"""Scores of an alignment that need no truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import Score
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.transform import Transform
from simexm.kernels.registration import similarity

_NCC = "correlation coefficient of fixed and moving image over the voxels that the moving one covers"
_LOCAL = "mean correlation coefficient in cubes of 9 voxels, over the half of them with the larger variance in the fixed image"
_JACOBIAN = (
    "smallest ratio of volumes of the displacement in a cell between eight voxel centres, over the corners of cells"
)
MEASURED: dict[tuple[str, str], tuple[str, str]] = {
    ("correlation", "identity"): ("", f"{_NCC}, without a transform"),
    ("correlation", ""): ("", _NCC),
    ("local_correlation", "identity"): ("", f"{_LOCAL}, without a transform"),
    ("local_correlation", ""): ("", _LOCAL),
    ("covered", ""): ("", "share of the fixed volume that the moving one covers"),
    ("smallest_jacobian", ""): ("", _JACOBIAN),
    ("folds", ""): ("cells", "cells between eight voxel centres whose smallest ratio of volumes is not positive"),
}
"""Unit and definition of each score, by its name and subset."""


def alignment_measures(fixed: Picture, moving: Picture, found: Transform) -> dict[tuple[str, str], float]:
    """Compute the scores of an alignment that need no truth; see `MEASURED`."""
    values: dict[tuple[str, str], float] = {}
    covered = 0.0
    for subset, transform in (("identity", Transform()), ("", found)):
        image, where = pulled(moving, transform, fixed.frame)
        covered = float(where.mean())
        if fixed.mask is not None:
            where &= fixed.mask
        values["correlation", subset] = similarity.correlation(fixed.values, image, where)
        values["local_correlation", subset] = similarity.local_correlation(fixed.values, image, where)
    values["covered", ""] = covered
    values["smallest_jacobian", ""] = found.smallest_jacobian()
    values["folds", ""] = float(found.folds())
    return {key: values[key] for key in MEASURED}


def scores_of(values: Mapping[tuple[str, str], float], of: str = "") -> list[Score]:
    """Measures, by name and subset, as scores; `of` names what was aligned, where there are several."""
    return [
        Score(name, value, *MEASURED[name, subset], " ".join(filter(None, (of, subset))))
        for (name, subset), value in values.items()
    ]


MOMENTS = ("voxels", "fixed", "moving", "fixed_fixed", "moving_moving", "fixed_moving")
"""Sums over voxels from which a correlation coefficient follows."""


def moments(one: NDArray[Any], other: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The sums `MOMENTS` of two images over some voxels, (6,)."""
    a, b = one[where].astype(np.float64), other[where].astype(np.float64)
    # not by `@`, whose order of additions depends on the number of threads
    return np.array([a.size, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()], np.float64)


def correlation_of(sums: NDArray[np.float64]) -> float:
    """Correlation coefficient from the sums `MOMENTS`; NaN if an image is constant."""
    n, a, b, aa, bb, ab = sums
    if n < 2:
        return float("nan")
    norm = (aa - a * a / n) * (bb - b * b / n)
    return float((ab - a * b / n) / np.sqrt(norm)) if norm > 0 else float("nan")


def bits(values: NDArray[Any]) -> NDArray[np.int64]:
    """Floats as the integers with their bits, which a table of sums keeps where each row has a key of its own."""
    return np.ascontiguousarray(values, np.float64).view(np.int64)


def numbers_of(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """The floats whose bits are these integers."""
    return np.ascontiguousarray(values, np.int64).view(np.float64)
