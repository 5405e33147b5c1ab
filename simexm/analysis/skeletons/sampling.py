"""Read volumes at the vertices of skeletons."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Spacing, triple

_CELL = 64
"""Side of the boxes in which points are read together."""


def voxels_at(
    index: NDArray[np.int64], voxel_nm: Spacing, origin_nm: Spacing, into_nm: Spacing, into_origin_nm: Spacing
) -> NDArray[np.int64]:
    """Voxels of another grid in which the centres of voxels lie, (n, 3), in exact arithmetic."""
    out = np.empty(index.shape, np.int64)
    for n in range(3):
        step = voxel_nm[n] / into_nm[n]
        start = (origin_nm[n] - into_origin_nm[n]) / into_nm[n] + step / 2
        below = math.lcm(step.denominator, start.denominator)
        out[:, n] = (int(start * below) + index[:, n] * int(step * below)) // below
    return out


def values_at(read: Callable[[Box], NDArray[Any]], voxels: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Ids at voxels, (n, 3), all inside the volume, read box by box."""
    out = np.zeros(len(voxels), np.uint64)
    cells = voxels // _CELL
    order = np.lexsort(cells.T[::-1])
    new = np.any(np.diff(cells[order], axis=0) != 0, axis=1)
    for some in np.split(order, np.flatnonzero(new) + 1):
        if some.size:
            low, high = voxels[some].min(axis=0), voxels[some].max(axis=0) + 1
            z, y, x = (voxels[some] - low).T
            out[some] = read(Box(triple(low), triple(high)))[z, y, x]
    return out
