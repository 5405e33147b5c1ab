"""The most frequent value around places of an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit


def most_frequent(values: NDArray[Any], places: NDArray[np.int64], reach: Sequence[int]) -> NDArray[Any]:
    """Most frequent value in a box around each place, (n, 3), of equals the smallest; boxes are clipped by the array.

    `reach` is the number of voxels on each side, z, y, x.
    """
    out = np.empty(len(places), values.dtype)
    room = np.empty(int(np.prod([2 * r + 1 for r in reach])), values.dtype)
    _most_frequent(np.ascontiguousarray(values), places, np.array(reach), room, out)
    return out


@njit(cache=True, nogil=True)
def _most_frequent(values, places, reach, room, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for n in range(out.size):
        count = 0
        for z in range(max(0, places[n, 0] - reach[0]), min(nz, places[n, 0] + reach[0] + 1)):
            for y in range(max(0, places[n, 1] - reach[1]), min(ny, places[n, 1] + reach[1] + 1)):
                for x in range(max(0, places[n, 2] - reach[2]), min(nx, places[n, 2] + reach[2] + 1)):
                    room[count] = values[z, y, x]
                    count += 1
        some = room[:count]
        some.sort()
        best, most, begin = some[0], 0, 0
        for k in range(1, count + 1):
            if k == count or some[k] != some[begin]:
                if k - begin > most:
                    best, most = some[begin], k - begin
                begin = k
        out[n] = best
