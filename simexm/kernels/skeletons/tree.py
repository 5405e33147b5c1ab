"""Trees of vertices: orientation from a root, branch points, ends, and the majority along them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit


def positions(
    first: NDArray[np.int64], owner: NDArray[np.int64], voxel: NDArray[Any], wanted: NDArray[Any]
) -> NDArray[np.int64]:
    """Position of the vertex of each wanted voxel; the voxels of object n ascend from first[n] to first[n + 1]."""
    out = np.empty(wanted.size, np.int64)
    _positions(first, owner, voxel, wanted, out)
    return out


@njit(cache=True, nogil=True)
def _positions(first, owner, voxel, wanted, out):  # type: ignore[no-untyped-def]
    for n in range(wanted.size):
        low, high = first[owner[n]], first[owner[n] + 1]
        while low < high:
            middle = (low + high) >> 1
            if voxel[middle] < wanted[n]:
                low = middle + 1
            else:
                high = middle
        out[n] = low


def oriented(
    first: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64], size: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order the vertices of forests so that each follows its parent, and its branch is not cut unless it branches.

    Parameters
    ----------
    first
        (objects + 1,): where the vertices of each object begin.
    one, other
        (edges,): vertices that are joined, without loops.
    size
        (n,): the root of a tree is the vertex with the largest, of equals the first.

    Returns
    -------
    tuple
        The vertices in order, (n,), and the place in this order of the parent of each, -1 for roots.
    """
    n = int(first[-1])
    ends = np.concatenate([one, other])
    order = np.argsort(ends, kind="stable")
    begin = np.searchsorted(ends[order], np.arange(n + 1))
    out, parent = np.empty(n, np.int64), np.empty(n, np.int64)
    roots = np.lexsort((np.arange(n), -size.astype(np.int64), np.repeat(np.arange(first.size - 1), np.diff(first))))
    _orient(
        roots, begin, np.concatenate([other, one])[order], out, parent, np.full(n, -1, np.int64), np.empty(n, np.int64)
    )
    return out, parent


@njit(cache=True, nogil=True)
def _orient(roots, begin, beside, out, parent, place, stack):  # type: ignore[no-untyped-def]
    count = 0
    above = np.empty(out.size, np.int64)
    for root in roots:
        if place[root] >= 0:
            continue
        stack[0], above[root] = root, -1
        size = 1
        while size:
            size -= 1
            vertex = stack[size]
            place[vertex], out[count], parent[count] = count, vertex, above[vertex]
            for k in range(begin[vertex + 1] - 1, begin[vertex] - 1, -1):
                if place[beside[k]] < 0:
                    above[beside[k]] = count
                    stack[size] = beside[k]
                    size += 1
            count += 1


def degrees(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of edges at each vertex."""
    joined = parent >= 0
    found: NDArray[np.int64] = np.bincount(parent[joined], minlength=parent.size) + joined
    return found


def running_majority(
    parent: NDArray[np.int64],
    length: NDArray[np.float64],
    classes: NDArray[np.int64],
    counts: NDArray[np.bool_],
    reach: float,
) -> NDArray[np.int64]:
    """The class with most cable within `reach` of each vertex, along the tree.

    Parameters
    ----------
    parent
        (n,): position of each vertex's parent, -1 at roots.
    length
        (n,): length of the edge to it; half of an edge belongs to either vertex.
    classes
        (n,): class of each vertex, 0 and above; of equals the smaller wins.
    counts
        (n,): whether a vertex counts, and whether paths may pass it; one that does not keeps its own class.
    reach
        In the unit of `length`.
    """
    n = parent.size
    child = np.flatnonzero(parent >= 0)
    ends = np.concatenate([child, parent[child]])
    order = np.argsort(ends, kind="stable")
    beside, edge = np.concatenate([parent[child], child])[order], np.concatenate([child, child])[order]
    begin = np.searchsorted(ends[order], np.arange(n + 1))
    own = np.bincount(ends, np.concatenate([length[child]] * 2) / 2, n).astype(np.float64)
    out = classes.copy()
    votes = np.zeros(int(classes.max(initial=0)) + 1)
    stack = np.empty((n, 2), np.int64)
    _running(begin, beside, length[edge], own, classes, counts, reach, votes, stack, np.empty(n), out)
    return out


@njit(cache=True, nogil=True)
def _running(begin, beside, steps, own, classes, counts, reach, votes, stack, far, out):  # type: ignore[no-untyped-def]
    for vertex in range(out.size):
        if not counts[vertex]:
            continue
        votes[:] = 0
        stack[0, 0], stack[0, 1], far[0] = vertex, -1, 0.0
        size = 1
        while size:
            size -= 1
            here, before, distance = stack[size, 0], stack[size, 1], far[size]
            votes[classes[here]] += own[here]
            for k in range(begin[here], begin[here + 1]):
                if beside[k] != before and counts[beside[k]] and distance + steps[k] <= reach:
                    stack[size, 0], stack[size, 1], far[size] = beside[k], here, distance + steps[k]
                    size += 1
        best = classes[vertex]
        most = votes[best]
        for c in range(votes.size):
            if votes[c] > most or (votes[c] == most and c < best):
                best, most = c, votes[c]
        out[vertex] = best
