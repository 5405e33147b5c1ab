"""Merge the nodes of a graph: by a threshold on its edges, or one after the other by the mean along what they share.

Both see the list of edges alone, in one thread, so the result depends on the list and its order only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.objects.components import find, unite
from simexm.kernels.objects.pairs import place_of

BYTES_PER_EDGE = 140
"""Memory of `merged_by_mean` for each edge: ends, area, sum and heap; lists of each node's edges; and a hash table of pairs."""


def merged_by_threshold(
    first: NDArray[np.int64], second: NDArray[np.int64], joined: NDArray[np.bool_], parent: NDArray[np.int64]
) -> None:
    """Join the ends of those edges that are `joined`, in `parent`, (nodes,); a set's root is its smallest node.

    It may be called for one piece of the list after the other, at 8 bytes for each node in memory.
    """
    _unite(first, second, joined, parent)


def merged_by_mean(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    area: NDArray[np.float64],
    mean: NDArray[np.float64],
    threshold: float,
    nodes: int,
) -> NDArray[np.int64]:
    """Merge the two nodes with the lowest mean, as long as it is below a threshold; return each node's smallest, (nodes,).

    When two nodes merge, edges of both to a third become one: areas add, and its mean is that of both, weighted by area. Of equal
    means the edge that comes first in the list is merged. Each pair of nodes has one edge, and none with itself.
    """
    parent = np.arange(nodes)
    ends = np.stack([first, second], axis=1).astype(np.int32)
    _merge(ends, area.copy(), area * mean, threshold, parent)
    return roots(parent)


def roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each node."""
    out = np.empty_like(parent)
    _roots(parent, out)
    return out


@njit(cache=True, nogil=True)
def _unite(first, second, joined, parent):  # type: ignore[no-untyped-def]
    for n in range(first.size):
        if joined[n]:
            unite(parent, first[n], second[n])


@njit(cache=True, nogil=True)
def _roots(parent, out):  # type: ignore[no-untyped-def]
    for n in range(parent.size):
        out[n] = find(parent, n)


@njit(cache=True, nogil=True)
def _before(key, a, b):  # type: ignore[no-untyped-def]
    return key[a] < key[b] or (key[a] == key[b] and a < b)


@njit(cache=True, nogil=True)
def _sift(heap, place, key, size, at):  # type: ignore[no-untyped-def]
    """Move the edge at a place of the heap up or down to where it belongs."""
    edge = heap[at]
    while at > 0 and _before(key, edge, heap[(at - 1) // 2]):
        heap[at] = heap[(at - 1) // 2]
        place[heap[at]] = at
        at = (at - 1) // 2
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(key, heap[child + 1], heap[child]):
            child += 1
        if not _before(key, heap[child], edge):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at] = edge
    place[edge] = at


@njit(cache=True, nogil=True)
def _dropped(heap, place, key, size, edge):  # type: ignore[no-untyped-def]
    """Remove an edge from the heap; return its new size."""
    at, last = place[edge], heap[size - 1]
    place[edge] = -1
    if last != edge:
        heap[at] = last
        place[last] = at
        _sift(heap, place, key, size - 1, at)
    return size - 1


@njit(cache=True, nogil=True)
def _pair(one, other):  # type: ignore[no-untyped-def]
    return (np.int64(min(one, other)) << 32) | np.int64(max(one, other))


@njit(cache=True, nogil=True)
def _table(ends, place, slots, keys):  # type: ignore[no-untyped-def]
    """Fill a hash table with the pairs of all edges that are in the heap; row e of `keys` is that of edge e."""
    slots[:] = -1
    for e in range(len(ends)):
        if place[e] >= 0:
            keys[e] = _pair(ends[e, 0], ends[e, 1])
            slots[place_of(slots, keys, keys[e])] = e


@njit(cache=True, nogil=True)
def _lists(ends, head, tail, following, degree):  # type: ignore[no-untyped-def]
    """Lists of the edges of each node: link 2 e + s is that of end s of edge e."""
    head[:] = -1
    tail[:] = -1
    for e in range(len(ends)):
        for s in range(2):
            node = ends[e, s]
            following[2 * e + s] = -1
            if head[node] < 0:
                head[node] = 2 * e + s
            else:
                following[tail[node]] = 2 * e + s
            tail[node] = 2 * e + s
            degree[node] += 1


@njit(cache=True, nogil=True)
def _merge(ends, area, total, threshold, parent):  # type: ignore[no-untyped-def]
    count, nodes = len(ends), parent.size
    key = total / area
    heap, place = np.arange(count), np.arange(count)
    for at in range(count):
        _sift(heap, place, key, at + 1, at)
    head, tail = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    following, degree = np.empty(2 * count, np.int64), np.zeros(nodes, np.int64)
    _lists(ends, head, tail, following, degree)
    capacity = 64
    while capacity < 4 * count:
        capacity *= 2
    slots, keys = np.empty(capacity, np.int32), np.empty(count, np.int64)
    _table(ends, place, slots, keys)
    used, size = count, count
    while size > 0 and key[heap[0]] < threshold:
        edge = heap[0]
        a, b = ends[edge, 0], ends[edge, 1]
        size = _dropped(heap, place, key, size, edge)
        if degree[a] < degree[b]:
            a, b = b, a
        unite(parent, a, b)  # from now on `a` stands for both in `ends`: the shorter list of edges was to be moved
        link = head[b]
        while link >= 0:
            e, s = link // 2, link % 2
            after = following[link]
            if place[e] >= 0:
                other = ends[e, 1 - s]
                ends[e, s] = a
                if used > capacity // 2:
                    _table(ends, place, slots, keys)
                    used = size
                pair = _pair(a, other)
                slot = place_of(slots, keys, pair)
                if slots[slot] >= 0 and slots[slot] != e and place[slots[slot]] >= 0:
                    kept = slots[slot]
                    size = _dropped(heap, place, key, size, e)
                    area[kept] += area[e]
                    total[kept] += total[e]
                    key[kept] = total[kept] / area[kept]
                    _sift(heap, place, key, size, place[kept])
                elif slots[slot] != e:
                    keys[e] = pair
                    slots[slot] = e
                    used += 1
                following[link] = -1
                if place[e] >= 0:
                    if head[a] < 0:
                        head[a] = link
                    else:
                        following[tail[a]] = link
                    tail[a] = link
                    degree[a] += 1
            link = after
        head[b] = -1
