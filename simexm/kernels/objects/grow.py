"""Grow cells into the gaps between them, so that cells that come close touch."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple, three

_ROUNDING = 1 + 1e-9


def reach(distance_nm: float, voxel_nm: tuple[float, float, float]) -> Triple:
    """Voxels along z, y, x within which `grown` looks."""
    return three(math.floor(distance_nm / v + 0.5 + 1e-9) for v in voxel_nm)


def grown(labels: NDArray[Any], distance_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[Any]:
    """Give each voxel of 0 whose centre lies within a distance of a cell's nearest voxel, its faces included, to that cell.

    Of cells equally near, the one of the smallest id gets it. A voxel nearer than `reach` to the end of the array may be
    wrong where it continues.
    """
    if not distance_nm:
        return labels
    offsets, ranks = _offsets(distance_nm, voxel_nm)
    out = labels.copy()
    _grow(np.ascontiguousarray(labels), offsets, ranks, out)
    return out


def _offsets(distance_nm: float, voxel_nm: tuple[float, float, float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets (n, 3) to the voxels within a distance, the nearest first, and a rank that equally near ones share."""
    found = []
    for offset in itertools.product(*(range(-n, n + 1) for n in reach(distance_nm, voxel_nm))):
        gaps = [max(0.0, (abs(o) - 0.5) * v) for o, v in zip(offset, voxel_nm, strict=True)]
        distance = math.sqrt(sum(g * g for g in gaps))
        if any(offset) and distance <= distance_nm * _ROUNDING:
            found.append((round(distance, 6), offset))
    found.sort()
    distances = np.array([d for d, _ in found])
    offsets = np.array([o for _, o in found], np.int64).reshape(-1, 3)
    return offsets, np.unique(distances, return_inverse=True)[1].astype(np.int64)


@njit(cache=True, nogil=True)
def _grow(labels, offsets, ranks, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] != 0:
                    continue
                best = labels[z, y, x]
                rank = -1
                for n in range(ranks.size):
                    if rank >= 0 and ranks[n] != rank:
                        break
                    w, v, u = z + offsets[n, 0], y + offsets[n, 1], x + offsets[n, 2]
                    if 0 <= w < nz and 0 <= v < ny and 0 <= u < nx and labels[w, v, u] != 0:
                        if rank < 0 or labels[w, v, u] < best:
                            best = labels[w, v, u]
                        rank = ranks[n]
                out[z, y, x] = best
