"""Skeletons of connected objects in an array, by the method of TEASAR: paths along the middle, from a root to all that is far.

From a root, each object's farthest voxel (along paths inside it) is joined to the skeleton by the cheapest path, where a step
costs its length times 1 + 5000 (1 - r / (1.01 R))^4, r the distance of the voxel to the next object and R the largest in the
object: so paths keep to the middle (with the power of 16 of the first paper they may leave it by half a radius). All voxels
within scale * r + constant of the new path, along paths inside the object, are then reached, and the farthest voxel that is not
gives the next path, until all are reached. Points that must be reached ("gates") come first.

Sources: Sato et al., Pacific Graphics 2000, 281 (root, penalty, rolling invalidation); Bitter, Kaufman and Sato, IEEE TVCG 7, 195
(2001). Distances inside the object replace their spheres and cubes, so a path does not swallow a branch that runs beside it.
Everything is a whole number: the same vertices on any CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.skeletons.queue import HELD, pop, push, queue_for, restart
from simexm.kernels.skeletons.units import Units

PENALTY = 5000
UNREACHED = np.iinfo(np.int32).max
FULL = 1 << 30
BYTES_PER_VOXEL = 4 * 6 + 1 + 16
"""Memory of one voxel while it is traced: its fields, and its entries in the queue."""


@dataclass(frozen=True)
class Traced:
    """Vertices of all skeletons; each is listed after its parent."""

    voxel: NDArray[np.int64]
    """(n, 3): z, y, x."""
    parent: NDArray[np.int64]
    """(n,): position of its parent in this list; -1 at the root of each object."""


def trace(
    objects: NDArray[np.int32],
    surface: NDArray[np.int32],
    units: Units,
    wanted: NDArray[np.bool_],
    gates: NDArray[np.int64],
    scale: float,
    constant_nm: float,
) -> Traced:
    """Trace the skeletons of the connected objects of an array.

    Parameters
    ----------
    objects
        (z, y, x): 1, 2, ... for each object, all of whose voxels are connected (26 neighbours); 0 elsewhere.
    surface
        Square of the distance to the next object, see `surface_distance`.
    units
        Sides of a voxel.
    wanted
        (objects,): whether to trace each.
    gates
        (n, 3): voxels that the skeleton of their object must pass. The first one of an object is its root; without one the root
        is the voxel that is most steps away from the object's first.
    scale, constant_nm
        A path reaches what lies within scale * r + constant of it.
    """
    shape = tuple(n + 2 for n in objects.shape)
    padded = np.zeros(shape, np.int32)
    padded[1:-1, 1:-1, 1:-1] = objects
    depth = np.zeros(shape, np.int32)
    depth[1:-1, 1:-1, 1:-1] = surface
    z, y, x = (gates + 1).T
    of_gate = ((z * shape[1] + y) * shape[2] + x).astype(np.int64)
    owner = padded.ravel()[of_gate]
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], np.arange(1, wanted.size + 2))
    size = padded.size
    length, cost = np.full(size, UNREACHED, np.int32), np.full(size, UNREACHED, np.int32)
    reach, weight, state = np.full(size, UNREACHED, np.int32), np.empty(size, np.int32), np.zeros(size, np.uint8)
    found, parents, listed = (np.empty(size, np.int32) for _ in range(3))  # no memory before it is written
    count = _trace_all(
        padded.ravel(), depth.ravel(), wanted, of_gate[order], first, units.offsets(shape), units.steps, scale,
        units.whole(constant_nm), length, reach, weight, cost, state, *queue_for(size), listed, found, parents,
    )  # fmt: skip
    voxel = np.stack(np.unravel_index(found[:count], shape), axis=1) - 1
    return Traced(voxel.astype(np.int64), parents[:count].astype(np.int64))


@njit(cache=True, nogil=True)
def _trace_all(  # type: ignore[no-untyped-def]
    objects, depth, wanted, gates, first_gate, offsets, steps, scale, constant, length, reach, weight, cost, state,
    heads, follows, leads, order, found, parents,
):  # fmt: skip
    count = seen = 0
    for voxel in range(objects.size):
        n = objects[voxel]
        if n <= seen:
            continue
        seen = n  # objects are numbered by their first voxel
        if not wanted[n - 1]:
            continue
        begin, end = first_gate[n - 1], first_gate[n]
        root = gates[begin] if begin < end else _end(objects, n, np.int64(voxel), offsets, state, order)
        size = _lengths(objects, n, root, offsets, steps, length, order, heads, follows, leads)
        _costs(objects, depth, n, root, offsets, steps, order, size, weight, cost, state, heads, follows, leads)
        for k in range(size):
            length[order[k]] = -1  # from here on it is the position of each vertex
        fresh = count
        found[count], parents[count] = root, -1
        length[root] = count
        count += 1
        for g in range(begin + 1, end):
            count = _path(gates[g], offsets, state, length, found, parents, count)
        if end - begin <= 1:
            count = _path(np.int64(order[size - 1]), offsets, state, length, found, parents, count)
        last = size - 1
        while True:
            _cover(
                objects, depth, n, found, fresh, count, offsets, steps, scale, constant, reach, heads, follows, leads
            )
            fresh = count
            while last >= 0 and reach[order[last]] <= FULL:
                last -= 1
            if last < 0:
                break
            count = _path(np.int64(order[last]), offsets, state, length, found, parents, count)
    return count


@njit(cache=True, nogil=True)
def _end(objects, n, voxel, offsets, state, order):  # type: ignore[no-untyped-def]
    """The voxel that is most steps away from another one: an end of the object."""
    order[0], state[voxel] = voxel, 1
    count = 1
    k = 0
    while k < count:
        for o in offsets:
            other = order[k] + o
            if objects[other] == n and state[other] == 0:
                state[other] = 1
                order[count] = other
                count += 1
        k += 1
    return np.int64(order[count - 1])


@njit(cache=True, nogil=True)
def _lengths(objects, n, root, offsets, steps, length, order, heads, follows, leads):  # type: ignore[no-untyped-def]
    """Length of the shortest path inside the object from the root to each voxel; they are listed in ascending order."""
    count = 0
    length[root] = 0
    restart(heads)
    push(heads, follows, leads, 0, root)
    while heads[HELD]:
        voxel = pop(heads, follows, leads, length)
        key = length[voxel]
        order[count] = voxel
        count += 1
        for k in range(26):
            other = voxel + offsets[k]
            if objects[other] == n and key + steps[k] < length[other]:
                length[other] = key + steps[k]
                push(heads, follows, leads, key + steps[k], other)
    return count


@njit(cache=True, nogil=True)
def _costs(objects, depth, n, root, offsets, steps, order, count, weight, cost, state, heads, follows, leads):  # type: ignore[no-untyped-def]
    """Find the cheapest path from the root to each voxel: `state` is the number of the step that leads to it."""
    deepest = 0
    for k in range(count):
        deepest = max(deepest, depth[order[k]])
    largest = 1.01 * np.sqrt(np.float64(deepest))
    for k in range(count):
        share = 1 - np.sqrt(np.float64(depth[order[k]])) / largest
        share *= share
        share *= share
        weight[order[k]] = 16 + np.int32(16 * PENALTY * share)
    cost[root] = 0
    restart(heads)
    push(heads, follows, leads, 0, root)
    while heads[HELD]:
        voxel = pop(heads, follows, leads, cost)
        key = np.int64(cost[voxel])
        for k in range(26):
            other = voxel + offsets[k]
            if objects[other] != n:
                continue
            total = min(key + ((steps[k] * weight[other]) >> 7), UNREACHED - 1)
            if total < cost[other]:
                cost[other], state[other] = total, k
                push(heads, follows, leads, total, other)


@njit(cache=True, nogil=True)
def _path(voxel, offsets, state, place, found, parents, count):  # type: ignore[no-untyped-def]
    """Add the path from a voxel to the skeleton, nearest vertices first; return the number of vertices."""
    begin = count
    while place[voxel] < 0:
        found[count] = voxel
        count += 1
        voxel = voxel - offsets[state[voxel]]
    parent = place[voxel]
    found[begin:count] = found[begin:count][::-1].copy()
    for k in range(begin, count):
        place[found[k]] = k
        parents[k] = parent
        parent = k
    return count


@njit(cache=True, nogil=True)
def _cover(objects, depth, n, found, begin, end, offsets, steps, scale, constant, reach, heads, follows, leads):  # type: ignore[no-untyped-def]
    """Mark what new vertices reach: `FULL` - `reach` is how much farther each voxel could reach."""
    restart(heads)
    for k in range(begin, end):
        voxel = np.int64(found[k])
        lack = FULL - constant - np.int64(scale * np.sqrt(np.float64(depth[voxel])))
        if lack < reach[voxel]:
            reach[voxel] = lack
            push(heads, follows, leads, lack, voxel)
    while heads[HELD]:
        voxel = pop(heads, follows, leads, reach)
        lack = reach[voxel]
        for k in range(26):
            other = voxel + offsets[k]
            if objects[other] == n and lack + steps[k] < min(reach[other], FULL + 1):
                reach[other] = lack + steps[k]
                push(heads, follows, leads, lack + steps[k], other)
