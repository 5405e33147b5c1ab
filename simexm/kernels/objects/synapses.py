"""What lies at the faces between two cells: junctions near them, and what is around them on either side."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple, three

_ROUNDING = 1 + 1e-9


def ball_reach(radius_nm: float, voxel_nm: tuple[float, float, float]) -> Triple:
    """Voxels along z, y, x within a radius."""
    return three(math.floor(radius_nm * _ROUNDING / v) for v in voxel_nm)


def ball(radius_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[np.int64]:
    """Offsets z, y, x, (n, 3), to the voxels whose centres lie within a radius, the nearest first."""
    found = []
    for offset in itertools.product(*(range(-n, n + 1) for n in ball_reach(radius_nm, voxel_nm))):
        distance = math.sqrt(sum((o * v) ** 2 for o, v in zip(offset, voxel_nm, strict=True)))
        if distance <= radius_nm * _ROUNDING:
            found.append((round(distance, 6), offset))
    return np.array([offset for _, offset in sorted(found)], np.int64).reshape(-1, 3)


@njit(cache=True, nogil=True)
def nearest_values(values, cells, voxels, own, offsets):  # type: ignore[no-untyped-def]
    """Value, not 0, nearest to each voxel (n, 3) in its own cell or between cells, of equally near ones the first; else 0."""
    nz, ny, nx = values.shape
    out = np.zeros(len(voxels), np.uint64)
    for n in range(len(voxels)):
        for o in range(len(offsets)):
            z, y, x = voxels[n, 0] + offsets[o, 0], voxels[n, 1] + offsets[o, 1], voxels[n, 2] + offsets[o, 2]
            if not (0 <= z < nz and 0 <= y < ny and 0 <= x < nx) or values[z, y, x] == 0:
                continue
            if cells[z, y, x] == own[n] or cells[z, y, x] == 0:
                out[n] = values[z, y, x]
                break
    return out


@njit(cache=True, nogil=True)
def _around(cells, bits, voxels, own, offsets, counts, nearest):  # type: ignore[no-untyped-def]
    nz, ny, nx = cells.shape
    for n in range(len(voxels)):
        for o in range(len(offsets)):
            z, y, x = voxels[n, 0] + offsets[o, 0], voxels[n, 1] + offsets[o, 1], voxels[n, 2] + offsets[o, 2]
            if not (0 <= z < nz and 0 <= y < ny and 0 <= x < nx) or cells[z, y, x] != own[n]:
                continue
            if counts[n, 0] == 0:
                nearest[n] = (z * ny + y) * nx + x
            counts[n, 0] += 1
            for b in range(counts.shape[1] - 1):
                counts[n, b + 1] += (bits[z, y, x] >> b) & 1


def around(
    cells: NDArray[Any],
    bits: NDArray[np.uint8],
    masks: int,
    voxels: NDArray[np.int64],
    own: NDArray[np.uint64],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count what is around voxels within their own cells.

    Parameters
    ----------
    cells, bits, masks
        Ids and masks, one in each bit, (z, y, x), and how many.
    voxels, own, offsets
        Voxels (n, 3) of these arrays, the cell of each, and offsets to their surroundings, the nearest first.

    Returns
    -------
    counts
        (n, 1 + masks): voxels of the cell, and those of them in each mask.
    nearest
        (n,): index in the flat array of the cell's nearest voxel, -1 without any.
    """
    counts, nearest = np.zeros((len(voxels), 1 + masks), np.int64), np.full(len(voxels), -1, np.int64)
    _around(cells, bits, voxels, own, offsets, counts, nearest)
    return counts, nearest
