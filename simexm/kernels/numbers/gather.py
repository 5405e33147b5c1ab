"""Picking elements by place and by value, compiled: NumPy's own indexing takes several times as long.

Indices are never negative; as unsigned numbers they spare the compiled code the look at the sign.
"""

from __future__ import annotations

import numpy as np

from simexm.compiled import njit


@njit(cache=True, nogil=True)
def gather(volume, z, y, x, out):  # type: ignore[no-untyped-def]
    """out[i, j, k] = volume[z[i], y[j], x[k]]."""
    for i in range(z.size):
        for j in range(y.size):
            row, into = volume[z[i], y[j]], out[i, j]
            for k in range(x.size):
                into[k] = row[np.uint64(x[k])]


@njit(cache=True, nogil=True)
def gather_where(volume, bits, wanted, z, y, x, out):  # type: ignore[no-untyped-def]
    """The same where `bits` has one of the bits `wanted`, else 0."""
    for i in range(z.size):
        for j in range(y.size):
            row, here, into = volume[z[i], y[j]], bits[z[i], y[j]], out[i, j]
            for k in range(x.size):
                at = np.uint64(x[k])
                into[k] = row[at] if here[at] & wanted else 0


@njit(cache=True, nogil=True)
def look_up(table, index, out):  # type: ignore[no-untyped-def]
    """Set `out` to table[index], in three dimensions."""
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            row, into = index[i, j], out[i, j]
            for k in range(row.size):
                into[k] = table[np.uint32(row[k])]
