"""Overlaps of the values of two arrays: a sparse table of voxels by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.labels.cells import CellIndex
from simexm.kernels.objects.pairs import FACTOR, FIRST, SHIFT, by_value, grown, place_of
from simexm.kernels.objects.runs import Runs


def overlaps(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Count the voxels of each pair of values, 0 included, of two arrays (z, y, x) of unsigned integers.

    Returns
    -------
    pairs
        (n, 2): value in `one` and in `other`, in ascending order.
    voxels
        (n,)
    """
    a, b = Runs.of(one, zeros=True), Runs.of(other, zeros=True)
    known_a, known_b = CellIndex(), CellIndex()
    index_a, index_b = known_a.add(a.value), known_b.add(b.value)
    keys, found = _overlaps(a.first, a.end, index_a, b.first, b.end, index_b)
    pairs, counts = by_value(keys, found, known_a.ids, known_b.ids, 1)
    return pairs, counts[:, 0]


@njit(cache=True, nogil=True)
def _overlaps(first_a, end_a, value_a, first_b, end_b, value_b):  # type: ignore[no-untyped-def]
    slots, keys, counts = np.full(4 * FIRST, -1, np.int32), np.empty(FIRST, np.int64), np.zeros(FIRST, np.int64)
    known = 0
    for row in range(first_a.size - 1):
        i, j, x = first_a[row], first_b[row], 0
        while i < first_a[row + 1]:
            stop = min(end_a[i], end_b[j])
            # written out, since a call costs more than all of it; see `place_of`
            key = (np.int64(value_a[i]) << np.int64(32)) | np.int64(value_b[j])
            mask = slots.size - 1
            place = np.int64((np.uint64(key) * FACTOR) >> SHIFT) & mask
            while slots[place] >= 0 and keys[slots[place]] != key:
                place = (place + 1) & mask
            if slots[place] < 0:
                if known == keys.size:
                    slots, keys, counts = grown(keys, counts)
                    place = place_of(slots, keys, key)
                slots[place] = known
                keys[known] = key
                known += 1
            counts[slots[place]] += stop - x
            x = stop
            if end_a[i] == stop:
                i += 1
            if end_b[j] == stop:
                j += 1
    return keys[:known], counts[:known]
