"""Map cell ids of up to 64 bits to small indices, so that tables by cell are plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _slot(cell, ids, table, shift):  # type: ignore[no-untyped-def]
    """Position of `cell` in the hash table, or the free position for it (linear probing)."""
    mask = table.size - 1
    place = np.int64((cell * _GOLDEN) >> np.uint64(shift))
    while True:
        slot = table[place]
        if slot < 0 or ids[slot] == cell:
            return place
        place = (place + 1) & mask


@njit(cache=True, nogil=True)
def _index_rows(labels, first, index, ids, count, table, shift):  # type: ignore[no-untyped-def]
    """Index rows of labels (z, y, x) from row `first` until the table is half full; return (ids known, rows done)."""
    nz, ny, nx = labels.shape
    previous = np.uint64(0)
    slot = 0
    limit = table.size // 2
    for row in range(first, nz * ny):
        cells, into = labels[row // ny, row % ny], index[row // ny, row % ny]
        for x in range(nx):
            cell = np.uint64(cells[x])
            if cell != previous:
                place = _slot(cell, ids, table, shift)
                slot = table[place]
                if slot < 0:
                    if count >= limit:
                        return count, row
                    slot = count
                    ids[slot] = cell
                    table[place] = slot
                    count += 1
                previous = cell
            into[x] = slot
    return count, nz * ny


class CellIndex:
    """A growing bijection between the cell ids so far and 0, 1, 2, ...; index 0 is always id 0 (no cell).

    Indices depend on the order of first occurrence and are valid within one block only: never store them.
    """

    def __init__(self) -> None:
        self._count = 1
        self._resize(12)

    def _resize(self, bits: int) -> None:
        known = self.ids if bits > 12 else np.zeros(1, np.uint64)
        self._shift = 64 - bits
        self._ids = np.zeros(1 << (bits - 1), np.uint64)
        self._ids[: known.size] = known
        self._table = np.full(1 << bits, -1, np.int32)
        for slot, cell in enumerate(known):
            self._table[_slot(cell, self._ids, self._table, self._shift)] = slot

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Ids by index."""
        return self._ids[: self._count]

    def add(self, labels: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return the index of each element of `labels` (any shape), adding new ids."""
        index = np.empty(labels.shape, np.int32)
        self.add_to(np.ascontiguousarray(labels).reshape(1, 1, -1), index.reshape(1, 1, -1))
        return index

    def add_to(self, labels: NDArray[np.unsignedinteger], index: NDArray[np.int32]) -> None:
        """Write the index of each element of `labels` (z, y, x) to `index`."""
        done = 0
        while True:
            self._count, done = _index_rows(labels, done, index, self._ids, self._count, self._table, self._shift)
            if done == labels.shape[0] * labels.shape[1]:
                return
            self._resize(64 - self._shift + 2)


class ByCell:
    """Values by cell index, computed when a cell first occurs, by `of`: from ids, uint64 (n,), to values (n, ...)."""

    def __init__(self, of: Callable[[NDArray[np.uint64]], NDArray[Any]]) -> None:
        self._of = of
        self._values = of(np.zeros(0, np.uint64))

    def at(self, ids: NDArray[np.uint64]) -> NDArray[Any]:
        """Values of all `ids`, which extend those of the last call; changes in place persist."""
        known = len(self._values)
        if ids.size > known:
            self._values = np.concatenate([self._values, self._of(ids[known:])])
        return self._values


def counts() -> ByCell:
    """Counters by cell index, int64, initially 0."""
    return ByCell(lambda ids: np.zeros(ids.size, np.int64))


@njit(cache=True, nogil=True)
def count_voxels(index, start, stop, out):  # type: ignore[no-untyped-def]
    """Add one to out[i] for every voxel of cell index i in index[start:stop] (z y x triples)."""
    for z in range(start[0], stop[0]):
        for y in range(start[1], stop[1]):
            row = index[z, y, start[2] : stop[2]]
            cell, run = 0, 0  # count runs: repeated additions to one place would wait for each other
            for x in range(row.size):
                if row[x] != cell:
                    out[cell] += run
                    cell, run = row[x], 0
                run += 1
            out[cell] += run


@njit(cache=True, nogil=True)
def sum_indices(index, start, stop, origin, z_sum, y_sum, x_sum, r2_sum):  # type: ignore[no-untyped-def]
    """Add z, y, x and y^2 + x^2 of every voxel in index[start:stop] to the sums of its cell; `origin` is that of `start`."""
    for z in range(start[0], stop[0]):
        for y in range(start[1], stop[1]):
            for x in range(start[2], stop[2]):
                cell = index[z, y, x]
                v, u = y - start[1] + origin[1], x - start[2] + origin[2]
                z_sum[cell] += z - start[0] + origin[0]
                y_sum[cell] += v
                x_sum[cell] += u
                r2_sum[cell] += v * v + u * u
