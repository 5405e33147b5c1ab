"""Picking elements by place and by value, compiled: NumPy's own indexing takes several times as long."""

from __future__ import annotations

import numba


@numba.njit(cache=True, nogil=True)
def gather(volume, z, y, x, out):  # type: ignore[no-untyped-def]
    """out[i, j, k] = volume[z[i], y[j], x[k]]."""
    for i in range(z.size):
        for j in range(y.size):
            row = volume[z[i], y[j]]
            for k in range(x.size):
                out[i, j, k] = row[x[k]]


@numba.njit(cache=True, nogil=True)
def gather_where(volume, bits, wanted, z, y, x, out):  # type: ignore[no-untyped-def]
    """The same where `bits` has one of the bits `wanted`, else 0."""
    for i in range(z.size):
        for j in range(y.size):
            row, here = volume[z[i], y[j]], bits[z[i], y[j]]
            for k in range(x.size):
                out[i, j, k] = row[x[k]] if here[x[k]] & wanted else 0


@numba.njit(cache=True, nogil=True)
def look_up(table, index, out):  # type: ignore[no-untyped-def]
    """out = table[index], in three dimensions."""
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            for k in range(index.shape[2]):
                out[i, j, k] = table[index[i, j, k]]
