"""A queue of voxels by ascending key, for keys that never fall below the last one taken: a radix heap.

Voxels lie in buckets by the highest bit in which their key differs from the last one taken (Ahuja, Mehlhorn, Orlin and Tarjan,
J. ACM 37, 213, 1990), as lists with links in both directions, so that a key is lowered in its place. What leaves first among
equal keys follows from the order of adding alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

BYTES_PER_VOXEL = 8
OUTSIDE = -1
"""Mark of a voxel that is not in the queue."""
_LAST, HELD = 33, 34
"""Where the state lies after the buckets: the last key taken, and how many voxels are in the queue."""


def queue_for(size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """An empty queue for voxels 0 to size - 1: first voxel of each bucket and state, and the next and former voxel of each."""
    return np.full(35, -1, np.int64), np.empty(size, np.int32), np.full(size, OUTSIDE, np.int32)


@njit(cache=True, nogil=True)
def restart(heads):  # type: ignore[no-untyped-def]
    """Begin with an empty queue; keys are 0 or more."""
    heads[_LAST] = 0
    heads[HELD] = 0


@njit(cache=True, nogil=True)
def _bucket(difference):  # type: ignore[no-untyped-def]
    n = 0
    while difference >= 16:
        difference >>= 4
        n += 4
    while difference:
        difference >>= 1
        n += 1
    return n


@njit(cache=True, nogil=True)
def remove(heads, follows, leads, voxel):  # type: ignore[no-untyped-def]
    """Remove a voxel from the queue."""
    before, after = leads[voxel], follows[voxel]
    if before < 0:
        heads[-2 - before] = after
    else:
        follows[before] = after
    if after >= 0:
        leads[after] = before
    leads[voxel] = OUTSIDE
    heads[HELD] -= 1


@njit(cache=True, nogil=True)
def push(heads, follows, leads, key, voxel):  # type: ignore[no-untyped-def]
    """Add a voxel, or lower its key."""
    if leads[voxel] != OUTSIDE:
        remove(heads, follows, leads, voxel)
    bucket = _bucket(key ^ heads[_LAST])
    first = heads[bucket]
    follows[voxel] = first
    leads[voxel] = -2 - bucket
    if first >= 0:
        leads[first] = voxel
    heads[bucket] = voxel
    heads[HELD] += 1


@njit(cache=True, nogil=True)
def pop(heads, follows, leads, keys):  # type: ignore[no-untyped-def]
    """Remove a voxel with the smallest key, which is keys[voxel]."""
    if heads[0] < 0:
        bucket = 1
        while heads[bucket] < 0:
            bucket += 1
        voxel = heads[bucket]
        heads[bucket] = -1
        first, least = voxel, np.int64(keys[voxel])
        while voxel >= 0:
            least = min(least, np.int64(keys[voxel]))
            voxel = follows[voxel]
        heads[_LAST] = least
        voxel = first
        while voxel >= 0:
            after = follows[voxel]
            heads[HELD] -= 1
            leads[voxel] = OUTSIDE
            push(heads, follows, leads, np.int64(keys[voxel]), voxel)
            voxel = after
    voxel = heads[0]
    remove(heads, follows, leads, voxel)
    return voxel
