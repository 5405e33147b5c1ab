"""Compiled indexing, several times faster than NumPy's.

Indices are never negative; casting them to unsigned saves the check for negative ones.
"""

from __future__ import annotations

import numpy as np

from simexm.compiled import njit


@njit(cache=True, nogil=True)
def gather(volume, z, y, x, out):  # type: ignore[no-untyped-def]
    """Set out[i, j, k] to volume[z[i], y[j], x[k]]."""
    for i in range(z.size):
        for j in range(y.size):
            row, into = volume[z[i], y[j]], out[i, j]
            for k in range(x.size):
                into[k] = row[np.uint64(x[k])]


@njit(cache=True, nogil=True)
def gather_where(volume, bits, wanted, z, y, x, out):  # type: ignore[no-untyped-def]
    """Do the same where `bits` has one of the bits `wanted`; 0 elsewhere."""
    for i in range(z.size):
        for j in range(y.size):
            row, here, into = volume[z[i], y[j]], bits[z[i], y[j]], out[i, j]
            for k in range(x.size):
                at = np.uint64(x[k])
                into[k] = row[at] if here[at] & wanted else 0


@njit(cache=True, nogil=True)
def look_up(table, index, out):  # type: ignore[no-untyped-def]
    """Set `out` to table[index], (z, y, x)."""
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            row, into = index[i, j], out[i, j]
            for k in range(row.size):
                into[k] = table[np.uint32(row[k])]
