"""Connected components of equal values: in an array, and across the faces, edges and corners of blocks.

Two passes with union-find (Rosenfeld & Pfaltz 1966, J ACM 13, 471-494), on runs instead of voxels. The root of a set is its
first run, so components are numbered by their smallest voxel index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.objects.runs import Runs, paint

AXES_OF = {6: 1, 18: 2, 26: 3}
"""Along how many axes neighbours may differ, by connectivity."""


@dataclass(frozen=True)
class Components:
    """The components of an array, numbered 1, 2, ... by their smallest voxel index."""

    runs: Runs
    of_run: NDArray[np.int32]
    """(n,): component of each run."""
    first_run: NDArray[np.int64]
    """(components,): the run that begins with the smallest voxel index."""

    @classmethod
    def of(cls, values: NDArray[Any], connectivity: int) -> Components:
        """Join voxels of equal value, 0 apart, that are neighbours: 6, 18 or 26."""
        runs = Runs.of(values)
        of_run = np.empty(runs.value.size, np.int32)
        count = _join(runs.shape, runs.first, runs.begin, runs.end, runs.value, AXES_OF[connectivity], of_run)
        first_run = np.empty(count, np.int64)
        _first_runs(of_run, first_run)
        return cls(runs, of_run, first_run)

    def __len__(self) -> int:
        return self.first_run.size

    @property
    def values(self) -> NDArray[np.uint64]:
        """(components,): the value of each component."""
        return self.runs.value[self.first_run]

    @property
    def first_voxel(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """z, y, x of the voxel of the smallest index of each component."""
        row = np.searchsorted(self.runs.first, self.first_run, side="right") - 1
        return row // self.runs.shape[1], row % self.runs.shape[1], self.runs.begin[self.first_run].astype(np.int64)

    def painted(self, colours: NDArray[Any]) -> NDArray[Any]:
        """Return an array (z, y, x) with the colour of each component, (components,), and 0 elsewhere."""
        out = np.zeros(self.runs.shape, colours.dtype)
        r = self.runs
        paint(r.shape, r.first, r.begin, r.end, colours[self.of_run - 1] if len(self) else colours, out)
        return out


def components(values: NDArray[Any], connectivity: int = 26) -> NDArray[np.int32]:
    """Number the connected components of equal values in an array (z, y, x) of unsigned integers; 0 remains 0."""
    found = Components.of(values, connectivity)
    return found.painted(np.arange(1, len(found) + 1, dtype=np.int32))


@njit(cache=True, nogil=True)
def find(parent, n):  # type: ignore[no-untyped-def]
    """Root of `n`; the path is halved on the way."""
    while parent[n] != n:
        parent[n] = parent[parent[n]]
        n = parent[n]
    return n


@njit(cache=True, nogil=True)
def unite(parent, one, other):  # type: ignore[no-untyped-def]
    """Join two sets; the smaller root remains a root."""
    one, other = find(parent, one), find(parent, other)
    if one < other:
        parent[other] = one
    elif other < one:
        parent[one] = other


@njit(cache=True, nogil=True)
def _join_rows(first, begin, end, value, row, other, reach, parent):  # type: ignore[no-untyped-def]
    """Join the runs of a row with those of an earlier one, whose x may differ by `reach`."""
    j, last = first[other], first[other + 1]
    for i in range(first[row], first[row + 1]):
        low, high = begin[i] - reach, end[i] + reach
        while j < last and end[j] <= low:
            j += 1
        k = j
        while k < last and begin[k] < high:
            if value[k] == value[i]:
                unite(parent, i, k)
            k += 1


@njit(cache=True, nogil=True)
def _join(shape, first, begin, end, value, axes, of_run):  # type: ignore[no-untyped-def]
    """Write the component of each run, from 1 on; return their number."""
    nz, ny = shape[0], shape[1]
    parent = np.arange(value.size)
    for z in range(nz):
        for y in range(ny):
            row = z * ny + y
            if y:
                _join_rows(first, begin, end, value, row, row - 1, min(1, axes - 1), parent)
            if z:
                _join_rows(first, begin, end, value, row, row - ny, min(1, axes - 1), parent)
            if z and axes > 1:
                if y:
                    _join_rows(first, begin, end, value, row, row - ny - 1, axes - 2, parent)
                if y + 1 < ny:
                    _join_rows(first, begin, end, value, row, row - ny + 1, axes - 2, parent)
    count = 0
    for n in range(value.size):
        root = parent[n]
        if root == n:
            count += 1
            of_run[n] = count
        else:
            while parent[root] != root:
                root = parent[root]
            of_run[n] = of_run[root]
    return count


@njit(cache=True, nogil=True)
def _first_runs(of_run, first_run):  # type: ignore[no-untyped-def]
    known = 0
    for n in range(of_run.size):
        if of_run[n] > known:
            first_run[known] = n
            known += 1


@njit(cache=True, nogil=True)
def touching(one, other, value_one, value_other, axes, pairs):  # type: ignore[no-untyped-def]
    """Find the components that touch across a border between two blocks.

    `one` and `other`, (u, v), are the components along the border, 0 for none, in layers that face each other; their values
    begin with that of 0. Neighbours may differ along `axes` axes of the layers. Writes pairs, (n, 2), each as often as
    it follows another, and returns how many there are; more than fit are counted, not written.
    """
    count = 0
    for u in range(one.shape[0]):
        for v in range(one.shape[1]):
            a = one[u, v]
            if a == 0:
                continue
            last = 0
            for du in range(-1, 2):
                for dv in range(-1, 2):
                    if abs(du) + abs(dv) > axes or not (0 <= u + du < other.shape[0] and 0 <= v + dv < other.shape[1]):
                        continue
                    b = other[u + du, v + dv]
                    if b == 0 or b == last or value_one[a] != value_other[b]:
                        continue
                    if v > 0 and du == 0 and dv == 0 and one[u, v - 1] == a and other[u, v - 1] == b:
                        continue  # as the voxel before
                    last = b
                    if count < len(pairs):
                        pairs[count, 0] = a
                        pairs[count, 1] = b
                    count += 1
    return count
