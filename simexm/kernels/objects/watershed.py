"""Watershed by steepest ascent: each voxel drains to its steepest higher neighbour, and all that reach one summit are a basin.

It is the rainfalling watershed (Bieniek & Moga 2000, Pattern Recognition 33, 907-916; unchecked), upside down. Where a voxel
drains to is decided by its 26 neighbours alone, so a basin is a set that union-find joins across blocks: cut in any way, basins
are those of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box


def drained(
    heights: NDArray[np.float32], own: Box, voxel_nm: tuple[float, float, float]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Find the basins of a box.

    Parameters
    ----------
    heights
        (z, y, x), with one voxel around the box, where the volume goes on.
    own
        The box in this array.
    voxel_nm
        Size of a voxel along z, y, x, for slopes.

    Returns
    -------
    basins
        (z, y, x) of the box: the voxels that drain to one summit in it, or leave it at one voxel, have a number above 0.
    exits
        (n, 2): voxels at which basins leave the box, as an index in the box, and where to, as an index in `heights`.

    Of equally steep ways, and on plains, the neighbour of the smallest index is chosen; on a plain only one of smaller index.
    """
    next_voxel = np.empty(own.size, np.int64)
    basins = np.zeros(own.size, np.uint32)
    count = _drain(
        np.ascontiguousarray(heights), np.array([*own.start, *own.stop]), np.array(voxel_nm), next_voxel, basins
    )
    exits = np.flatnonzero(next_voxel < 0)
    assert basins.max(initial=0) == count
    return basins.reshape(own.shape), np.column_stack([exits, -1 - next_voxel[exits]])


@njit(cache=True, nogil=True)
def _steepest(heights, lengths, z, y, x):  # type: ignore[no-untyped-def]
    """The neighbour to which a voxel drains, as 9 (dz + 1) + 3 (dy + 1) + dx + 1; 13, itself, for a summit."""
    nz, ny, nx = heights.shape
    here, best, most = heights[z, y, x], 13, np.float32(-1)
    for n in range(27):
        w, v, u = z + n // 9 - 1, y + n // 3 % 3 - 1, x + n % 3 - 1
        if n == 13 or w < 0 or v < 0 or u < 0 or w >= nz or v >= ny or u >= nx:
            continue
        rise = (heights[w, v, u] - here) * lengths[n]
        if rise > most and (rise > 0 or (rise == 0 and n < 13)):
            best, most = n, rise
    return best


@njit(cache=True, nogil=True)
def _drain(heights, box, voxel_nm, following, basins):  # type: ignore[no-untyped-def]
    """Write where each voxel drains to, a negative number for voxels outside the box, and its basin; return their number."""
    nz, ny, nx = box[3] - box[0], box[4] - box[1], box[5] - box[2]
    lengths = np.zeros(27, np.float32)
    for n in range(27):
        if n != 13:
            a, b, c = (n // 9 - 1) * voxel_nm[0], (n // 3 % 3 - 1) * voxel_nm[1], (n % 3 - 1) * voxel_nm[2]
            lengths[n] = np.float32(1 / np.sqrt(a * a + b * b + c * c))
    for i in range(following.size):
        z, y, x = i // (ny * nx), i // nx % ny, i % nx
        n = _steepest(heights, lengths, z + box[0], y + box[1], x + box[2])
        w, v, u = z + n // 9 - 1, y + n // 3 % 3 - 1, x + n % 3 - 1
        if 0 <= w < nz and 0 <= v < ny and 0 <= u < nx:
            following[i] = (w * ny + v) * nx + u
        else:
            following[i] = -1 - (((w + box[0]) * heights.shape[1] + v + box[1]) * heights.shape[2] + u + box[2])
    count = 0
    for i in range(following.size):
        end = i
        while basins[end] == 0 and following[end] >= 0 and following[end] != end:
            end = following[end]
        if basins[end] == 0:
            count += 1
            basins[end] = count
        number, end = basins[end], i
        while basins[end] == 0:
            basins[end] = number
            end = following[end]
    return count
