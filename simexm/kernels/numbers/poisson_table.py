"""Poisson quantile of `draws` by table lookup, for many draws of a few means below `SMALL_MEAN`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers import detmath
from simexm.kernels.numbers.draws import SMALL_MEAN, SUMMED_U, poisson_quantile


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(mean, out):  # type: ignore[no-untyped-def]
    for i in range(mean.size):
        if mean[i] < SMALL_MEAN:
            # the same sum as in `poisson_quantile`, term by term
            term = detmath.exp(-mean[i])
            total = term
            out[i, 0] = total
            for n in range(1, out.shape[1]):
                term *= mean[i] / n
                total += term
                out[i, n] = total


def cumulative(mean: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """P(X <= n) for n = 0..size - 1 and each mean, (means, size); zeros for means from `SMALL_MEAN`."""
    out = np.zeros((mean.size, size))
    _fill(mean, out)
    return out


@njit(cache=True, nogil=True, inline="always")
def tabled_quantile(u, mean, row):  # type: ignore[no-untyped-def]
    """Return `poisson_quantile(u, mean)`, looked up in the mean's row of `cumulative`."""
    if u > SUMMED_U or u > row[-1]:
        return poisson_quantile(u, mean)
    n = 0
    while row[n] < u:
        n += 1
    return n
