"""Compare traces, spikes and shifts with the true ones, frame by frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pearson(one: Array, other: Array) -> Array:
    """Return the correlation of each row with its partner, (n,); NaN where either is constant or there is one frame."""
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (one.astype(np.float64), other.astype(np.float64)))
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    out: Array = np.full(len(a), np.nan)
    np.divide((a * b).sum(axis=1), scale, out=out, where=scale > 0)
    return out


def at_lag(found: Array, true: Array, lag: int) -> tuple[Array, Array]:
    """Return the frames that both have if what was found comes `lag` frames late."""
    frames = min(found.shape[1], true.shape[1])
    late, early = max(lag, 0), max(-lag, 0)
    return found[:, late : frames - early], true[:, early : frames - late]


def best_lag(found: Array, true: Array, largest: int) -> tuple[int, Array]:
    """Return the lag, the same for all rows, of the largest median correlation, and the correlations at it."""
    lags = sorted(range(-largest, largest + 1), key=lambda lag: (abs(lag), lag))
    each = {lag: pearson(*at_lag(found, true, lag)) for lag in lags if abs(lag) < found.shape[1]}
    best = max(each, key=lambda lag: median(each[lag]) if np.isfinite(each[lag]).any() else -2.0)
    return best, each[best]


def median(values: Array) -> float:
    """Return the median of the numbers; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def events(values: Array, share: float) -> list[NDArray[np.int64]]:
    """Return the frames of each row with more than this share of its largest value; none in a row without positive values."""
    return [np.flatnonzero((row > 0) & (row >= share * row.max(initial=0))).astype(np.int64) for row in values]


def pairs_within(found: NDArray[np.int64], true: NDArray[np.int64], tolerance: int) -> int:
    """Return the largest number of one-to-one pairs of ascending frames that are at most `tolerance` apart.

    Taking the earliest partner that is left is optimal, since all intervals have the same length.
    """
    count = i = j = 0
    while i < found.size and j < true.size:
        apart = found[i] - true[j]
        if abs(apart) <= tolerance:
            count, i, j = count + 1, i + 1, j + 1
        elif apart > 0:
            j += 1
        else:
            i += 1
    return count


def shift_rmse(found: Array, true: Array) -> tuple[float, int]:
    """Return the root mean square of differences over frames and axes, without their means, and the sign that fits.

    Parameters
    ----------
    found, true
        Shifts (frame, axis). Some programs give the motion, others the correction: the sign of the smaller error counts.
    """
    centred = found - found.mean(axis=0), true - true.mean(axis=0)
    each = {sign: float(np.sqrt(((sign * centred[0] - centred[1]) ** 2).mean())) for sign in (1, -1)}
    best = min(each, key=lambda sign: each[sign])
    return each[best], best
