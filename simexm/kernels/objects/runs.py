"""Runs: maximal stretches along x of voxels with one value.

Segmentations consist of long runs, so what follows from them (components, contacts, overlaps, moments) costs a few operations a
run instead of several a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple, triple


@dataclass(frozen=True)
class Runs:
    """The runs of an array (z, y, x), in its order; row r is z * ny + y."""

    shape: Triple
    first: NDArray[np.int64]
    """(rows + 1,): the first run of each row."""
    begin: NDArray[np.int32]
    """(n,): first x of each run."""
    end: NDArray[np.int32]
    """(n,): x behind each run."""
    value: NDArray[np.uint64]
    """(n,): its value."""

    @classmethod
    def of(cls, values: NDArray[Any], *, zeros: bool = False) -> Runs:
        """Find the runs of unsigned integers (z, y, x); those of 0 only with `zeros`."""
        values = np.ascontiguousarray(values)
        first = np.zeros(values.shape[0] * values.shape[1] + 1, np.int64)
        _count(values, zeros, first)
        np.cumsum(first, out=first)
        n = int(first[-1])
        begin, end, value = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint64)
        _fill(values, zeros, first, begin, end, value)
        return cls(triple(values.shape), first, begin, end, value)


@njit(cache=True, nogil=True)
def _count(values, zeros, first):  # type: ignore[no-untyped-def]
    """Count the runs of each row r into first[r + 1]."""
    nz, ny, nx = values.shape
    for row in range(nz * ny):
        line = values[row // ny, row % ny]
        n = 0
        if nx:
            n = 1 if zeros or line[0] != 0 else 0
        if zeros:
            for x in range(1, nx):
                n += line[x] != line[x - 1]
        else:
            for x in range(1, nx):
                n += (line[x] != line[x - 1]) & (line[x] != 0)
        first[row + 1] = n


@njit(cache=True, nogil=True)
def _fill(values, zeros, first, begin, end, value):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for row in range(nz * ny):
        line = values[row // ny, row % ny]
        n = first[row]
        start = 0
        for x in range(1, nx + 1):
            if x == nx or line[x] != line[x - 1]:
                if zeros or line[start] != 0:
                    begin[n] = start
                    end[n] = x
                    value[n] = line[start]
                    n += 1
                start = x


@njit(cache=True, nogil=True)
def paint(shape, first, begin, end, colours, out):  # type: ignore[no-untyped-def]
    """Write the colour of each run, (n,), to its voxels in `out` (z, y, x); other voxels remain."""
    ny = shape[1]
    for row in range(first.size - 1):
        line = out[row // ny, row % ny]
        for n in range(first[row], first[row + 1]):
            colour = colours[n]
            for x in range(begin[n], end[n]):
                line[x] = colour
