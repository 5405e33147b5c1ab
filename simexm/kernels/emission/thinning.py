"""Take dyes away from points, each by its identity, so that a dye that is lost stays lost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.emission.points import Emitters
from simexm.kernels.numbers.draws import binomial_quantile
from simexm.random import Key, philox, unit_double

_DRAWN = 4096
"""Most dyes at a point whose number is drawn; that of more is rounded at random, since it hardly varies."""


def thinned(emitters: Emitters, left: float, key: Key) -> Emitters:
    """Emitters of which the share `left` of the dyes is still there; of points without any, none.

    The dyes that are left are among those of any larger share, by the same key.
    """
    weight = dyes_left(emitters.weight, emitters.identity, left, key[0], key[1])
    return emitters._replace(weight=weight).select(weight > 0)


@njit(cache=True, nogil=True)
def dyes_left(weight, identity, left, key0, key1):  # type: ignore[no-untyped-def]
    """Numbers of dyes that are left of `weight`, int32, by the rows of `identity`."""
    out = np.empty_like(weight)
    for n in range(weight.size):
        row = identity[n]
        # draws and parts of a voxel are few: a word holds both and the kind
        which = np.int64(row[4]) ^ (np.int64(row[3]) << 20) ^ (np.int64(row[5]) << 29)
        words = philox(row[0], row[1], row[2], which, key0, key1)
        u = unit_double(words[0], words[1])
        if weight[n] <= _DRAWN:
            out[n] = binomial_quantile(u, weight[n], left)
        else:
            out[n] = np.int32(math.floor(weight[n] * left + u))
    return out


def outside(emitters: Emitters, boxes: NDArray[np.float64]) -> Emitters:
    """Emitters that lie in none of the boxes, (n, 2, 3), nm of tissue, half open."""
    return emitters.select(_outside(emitters.z, emitters.y, emitters.x, boxes))


@njit(cache=True, nogil=True)
def _outside(z, y, x, boxes):  # type: ignore[no-untyped-def]
    out = np.ones(z.size, np.bool_)
    for n in range(z.size):
        for b in range(boxes.shape[0]):
            low, high = boxes[b, 0], boxes[b, 1]
            if low[0] <= z[n] < high[0] and low[1] <= y[n] < high[1] and low[2] <= x[n] < high[2]:
                out[n] = False
    return out
