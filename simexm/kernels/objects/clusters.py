"""Clusters of voxels: those of one group that a chain of steps, none longer than a distance, connects.

Voxels are sorted into cubes so small that all in one are near each other, so only neighbouring cubes are compared.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple, three
from simexm.kernels.objects.components import find, unite

_SIDE = 0.99 / math.sqrt(3)
"""Side of a cube by the distance: its diagonal is shorter, and what is near lies at most two cubes away along each axis."""
_LATER = np.array([o for o in itertools.product(range(-2, 3), repeat=3) if o > (0, 0, 0)])


def shortest_nm(voxel_nm: tuple[float, float, float]) -> float:
    """Diagonal of a voxel, nm: within this distance are all 26 neighbours."""
    return math.sqrt(sum(v * v for v in voxel_nm))


def reach_of(distance_nm: float, voxel_nm: tuple[float, float, float]) -> Triple:
    """Voxels along z, y, x within which clusters are joined."""
    return three(math.floor(distance_nm / v + 1e-9) for v in voxel_nm)


def clusters(
    groups: NDArray[np.int64], voxels: NDArray[np.int64], voxel_nm: tuple[float, float, float], distance_nm: float
) -> NDArray[np.int64]:
    """Join the voxels of a group whose centres are at most a distance apart.

    Parameters
    ----------
    groups
        (n,): voxels of different groups are never joined.
    voxels
        (n, 3): z, y, x in the volume.
    voxel_nm, distance_nm
        Size of a voxel along z, y, x; largest distance, at least `shortest_nm`.

    Returns
    -------
    ndarray
        (n,): the smallest row of each voxel's cluster.
    """
    size = np.array(voxel_nm)
    cubes = np.floor(voxels * (size / (_SIDE * distance_nm))).astype(np.int64)
    keys = np.column_stack([groups, cubes])
    order = np.lexsort((cubes[:, 2], cubes[:, 1], cubes[:, 0], groups))
    keys = keys[order]
    starts = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=keys[:1] - 1), axis=1))
    parent = np.arange(len(groups))
    # squares of distances are the same for two voxels wherever they lie, as differences of indices are
    limit = distance_nm * distance_nm * (1 + 1e-12)
    _join(keys[starts], np.append(starts, len(groups)), order, voxels, size, limit, _LATER, parent)
    return parent


@njit(cache=True, nogil=True)
def _before(one, group, z, y, x):  # type: ignore[no-untyped-def]
    if one[0] != group:
        return one[0] < group
    if one[1] != z:
        return one[1] < z
    if one[2] != y:
        return one[2] < y
    return one[3] < x


@njit(cache=True, nogil=True)
def _join(keys, starts, order, voxels, size, limit, later, parent):  # type: ignore[no-untyped-def]
    number = len(keys)
    for a in range(number):
        for n in range(starts[a] + 1, starts[a + 1]):
            unite(parent, order[starts[a]], order[n])
    for a in range(number):
        for o in range(len(later)):
            z, y, x = keys[a, 1] + later[o, 0], keys[a, 2] + later[o, 1], keys[a, 3] + later[o, 2]
            low, high = a + 1, number
            while low < high:
                middle = (low + high) // 2
                if _before(keys[middle], keys[a, 0], z, y, x):
                    low = middle + 1
                else:
                    high = middle
            if low == number:
                continue
            if keys[low, 0] != keys[a, 0] or keys[low, 1] != z or keys[low, 2] != y or keys[low, 3] != x:
                continue
            if find(parent, order[starts[a]]) != find(parent, order[starts[low]]):
                _join_cubes(order, starts[a], starts[a + 1], starts[low], starts[low + 1], voxels, size, limit, parent)
    for n in range(parent.size):
        parent[n] = find(parent, n)


@njit(cache=True, nogil=True)
def _join_cubes(order, begin, end, other_begin, other_end, voxels, size, limit, parent):  # type: ignore[no-untyped-def]
    """Join two cubes if any two of their voxels are near."""
    for n in range(begin, end):
        p = voxels[order[n]]
        for m in range(other_begin, other_end):
            q = voxels[order[m]]
            distance = 0.0
            for axis in range(3):
                d = (p[axis] - q[axis]) * size[axis]
                distance += d * d
            if distance <= limit:
                unite(parent, order[n], order[m])
                return
