"""Counts by pair of small indices in an open-addressing hash table, for compiled code.

All arrays are flat, since views of rows would cost more than the counting. The key of a pair of indices, each below 2^31, is
first * 2^32 + second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

FACTOR, SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(36)
"""Multiplicative hashing: the golden ratio, and the lower bits of a product that are not used."""


@njit(cache=True, nogil=True)
def place_of(slots, keys, key):  # type: ignore[no-untyped-def]
    """Place in `slots` that holds the row of a key, or a negative number where it belongs."""
    mask = np.int64(slots.size - 1)
    place = np.int64((np.uint64(key) * FACTOR) >> SHIFT) & mask
    while slots[place] >= 0 and keys[slots[place]] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def grown(keys, counts):  # type: ignore[no-untyped-def]
    """Return slots, keys and counts of twice the room with the same content; `keys` are full."""
    slots = np.full(8 * keys.size, -1, np.int32)
    more_keys = np.empty(2 * keys.size, np.int64)
    more_counts = np.zeros(2 * counts.size, np.int64)
    more_keys[: keys.size] = keys
    more_counts[: counts.size] = counts
    for row in range(keys.size):
        slots[place_of(slots, more_keys, keys[row])] = row
    return slots, more_keys, more_counts


FIRST = 1 << 12
"""Rows for which a table has room at first, a quarter of its slots."""


def by_value(
    keys: NDArray[np.int64], counts: NDArray[np.int64], one: NDArray[np.uint64], other: NDArray[np.uint64], width: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the pairs (n, 2) as values by index, `one` and `other`, in ascending order, and their counts (n, width)."""
    pairs: NDArray[Any] = np.stack([one[keys >> 32], other[keys & 0xFFFFFFFF]], axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], counts.reshape(len(keys), width)[order]
