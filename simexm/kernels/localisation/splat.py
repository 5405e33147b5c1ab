"""Pictures of localisations: each adds 1 to a picture, in its pixel or spread by its precision."""

from __future__ import annotations

import math

import numpy as np

from simexm.compiled import njit

_REACH = 4.0  # standard deviations
_ROOT = math.sqrt(2.0)


@njit(cache=True, nogil=True)
def splat(places, sigma, planes, corner, picture):  # type: ignore[no-untyped-def]
    """Add Gaussians integrated over pixels, cut at 4 standard deviations, to a part of a picture (z, y, x).

    Places and standard deviations (n, 2) are y, x in pixels of the whole picture; 0: all in one pixel. `planes` are integers,
    and `corner` (3,) is where the part begins. A pixel's value does not depend on the part.
    """
    shape = picture.shape
    for k in range(places.shape[0]):
        z = planes[k] - corner[0]
        if z < 0 or z >= shape[0]:
            continue
        low, high = np.empty(2, np.int64), np.empty(2, np.int64)
        for a in range(2):
            reach = _REACH * sigma[k, a]
            low[a] = max(math.floor(places[k, a] - reach), corner[a + 1])
            high[a] = min(math.floor(places[k, a] + reach) + 1, corner[a + 1] + shape[a + 1])
        if low[0] >= high[0] or low[1] >= high[1]:
            continue
        row = np.empty(high[1] - low[1])
        for j in range(row.size):
            row[j] = _share(low[1] + j - places[k, 1], sigma[k, 1])
        for i in range(low[0], high[0]):
            own = _share(i - places[k, 0], sigma[k, 0])
            for j in range(row.size):
                picture[z, i - corner[1], low[1] + j - corner[2]] += own * row[j]


@njit(cache=True, nogil=True)
def _share(edge, sigma):  # type: ignore[no-untyped-def]
    """Part of a Gaussian between an edge and the next, relative to its centre."""
    if sigma <= 0.0:
        return 1.0 if edge <= 0.0 < edge + 1.0 else 0.0
    return 0.5 * (math.erf((edge + 1.0) / (sigma * _ROOT)) - math.erf(edge / (sigma * _ROOT)))
