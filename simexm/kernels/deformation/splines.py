"""Cubic B-splines with three components on a lattice of nodes: their values, slopes and coefficients.

A lattice is an array of coefficients, (z, y, x, 3), with the index `first` of its first node; node i lies at i / `per_nm`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

MARGIN = 3
"""Nodes that `coefficients` needs beyond each end of each axis."""
_WEIGHTS = (344.0 / 216.0, -75.0 / 216.0, 12.0 / 216.0, -1.0 / 216.0)
"""Symmetric filter from values at nodes to coefficients. The filter (-1, 8, -1) / 6 reproduces cubics (de Boor & Fix, J.
Approx. Theory 8, 1973); this one is it, plus it on the error that it leaves at nodes."""
_RUN = 64
"""Most points of one cell that are computed together."""

Array = NDArray[np.float64]

_FEW = 5
"""Fewer points of one cell are computed one by one."""
_SPARSE = 8
"""Cells for each point, beyond which points are not sorted by cell."""
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11 = (np.uint64(n) for n in range(1, 12))
"""Steps in the array of coefficients; unsigned, which saves the check for negative indices."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


def _weights(t: Any) -> tuple[Any, Any, Any, Any]:
    """Weights of the uniform cubic B-spline's four coefficients at t in [0, 1)."""
    s = 1.0 - t
    return (
        s * s * s / 6.0,
        (3.0 * t * t * (t - 2.0) + 4.0) / 6.0,
        (3.0 * s * s * (s - 2.0) + 4.0) / 6.0,
        t * t * t / 6.0,
    )


spline = _jit(_weights)


def at(points: Array, first: NDArray[np.int64], per_nm: float, lattice: Array) -> Array:
    """Values at points, (3, n); compiled once, for arrays in C order."""
    return np.asarray(_at(np.ascontiguousarray(points), first, per_nm, lattice))


@_jit
def _by_cell(points, first, per_nm, shape):  # type: ignore[no-untyped-def]
    """Number of each point's cell, from its first coefficient, and the order of points by cell, (n,) each."""
    count = points.shape[1]
    keys, order = np.empty(count, np.int64), np.empty(count, np.int64)
    least, most = shape[0] * shape[1] * shape[2], -1
    for n in range(count):
        z = np.int64(np.floor(points[0, n] * per_nm)) - 1 - first[0]
        y = np.int64(np.floor(points[1, n] * per_nm)) - 1 - first[1]
        x = np.int64(np.floor(points[2, n] * per_nm)) - 1 - first[2]
        key = (z * shape[1] + y) * shape[2] + x
        keys[n] = key
        least, most = min(least, key), max(most, key)
    if most - least > _SPARSE * count or count == 0:
        order[:] = np.arange(count)
        return keys, order
    ends = np.zeros(most - least + 2, np.int64)
    for n in range(count):
        ends[keys[n] - least + 1] += 1
    for k in range(1, ends.size):
        ends[k] += ends[k - 1]
    for n in range(count):
        k = keys[n] - least
        order[ends[k]] = n
        ends[k] += 1
    return keys, order


@_jit
def _weigh(points, some, per_nm, within, weights):  # type: ignore[no-untyped-def]
    """Write the weights of some points; `within` holds their places in the cell for a moment."""
    for axis in range(3):
        for k in range(some.size):
            p = points[axis, some[k]] * per_nm
            within[k] = p - np.floor(p)
        w0, w1, w2, w3 = weights[4 * axis], weights[4 * axis + 1], weights[4 * axis + 2], weights[4 * axis + 3]
        for k in range(some.size):
            w0[k], w1[k], w2[k], w3[k] = spline(within[k])


@_jit
def _at(points, first, per_nm, lattice):  # type: ignore[no-untyped-def]
    """Values at points, (3, n).

    Points in one cell are computed together, in vectorised loops. That changes no bit of them.
    """
    out, found = np.empty(points.shape), np.empty((3, _RUN))
    within, weights = np.empty(_RUN), np.empty((12, _RUN))
    flat = lattice.reshape(lattice.size)
    row = 3 * lattice.shape[2]
    plane = row * lattice.shape[1]
    keys, order = _by_cell(points, first, per_nm, lattice.shape)
    n = 0
    while n < order.size:
        key, stop = keys[order[n]], n + 1
        while stop < min(n + _RUN, order.size) and keys[order[stop]] == key:
            stop += 1
        some = order[n:stop]
        _weigh(points, some, per_nm, within, weights)
        if some.size < _FEW:
            for k in range(some.size):
                _add_point(flat, 3 * key, plane, row, weights, k, found, k)
        else:
            found[:, : some.size] = 0.0
            for a in range(4):
                for b in range(4):
                    i = 3 * key + a * plane + b * row
                    _add_row(flat[i : i + 12], weights, a, 4 + b, some.size, found)
        for k in range(some.size):
            out[0, some[k]], out[1, some[k]], out[2, some[k]] = found[0, k], found[1, k], found[2, k]
        n = stop
    return out


@_jit
def _add_point(flat, corner, plane, row, weights, k, out, n):  # type: ignore[no-untyped-def]
    """Add the values of one point, by the same operations in the same order as `_add_row`."""
    x0, x1, x2, x3 = weights[8, k], weights[9, k], weights[10, k], weights[11, k]
    d0 = d1 = d2 = 0.0
    for a in range(4):
        for b in range(4):
            w = weights[a, k] * weights[4 + b, k]
            i = np.uint64(corner + a * plane + b * row)
            d0 += w * ((x0 * flat[i] + x1 * flat[i + _3]) + (x2 * flat[i + _6] + x3 * flat[i + _9]))
            d1 += w * ((x0 * flat[i + _1] + x1 * flat[i + _4]) + (x2 * flat[i + _7] + x3 * flat[i + _10]))
            d2 += w * ((x0 * flat[i + _2] + x1 * flat[i + _5]) + (x2 * flat[i + _8] + x3 * flat[i + _11]))
    out[0, n], out[1, n], out[2, n] = d0, d1, d2


@_jit
def _add_row(row, weights, a, b, count, out):  # type: ignore[no-untyped-def]
    """Add what four coefficients along x contribute to `count` points."""
    p0, p1, p2, p3 = row[0], row[3], row[6], row[9]
    q0, q1, q2, q3 = row[1], row[4], row[7], row[10]
    r0, r1, r2, r3 = row[2], row[5], row[8], row[11]
    out0, out1, out2 = out[0], out[1], out[2]
    wz, wy, w0, w1, w2, w3 = weights[a], weights[b], weights[8], weights[9], weights[10], weights[11]
    for n in range(count):
        w = wz[n] * wy[n]
        out0[n] += w * ((w0[n] * p0 + w1[n] * p1) + (w2[n] * p2 + w3[n] * p3))
        out1[n] += w * ((w0[n] * q0 + w1[n] * q1) + (w2[n] * q2 + w3[n] * q3))
        out2[n] += w * ((w0[n] * r0 + w1[n] * r1) + (w2[n] * r2 + w3[n] * r3))


@_jit
def _slope(t, s):  # type: ignore[no-untyped-def]
    """Derivatives of the weights at t, with s = 1 - t."""
    return -0.5 * s * s, 0.5 * t * (3.0 * t - 4.0), 0.5 * s * (4.0 - 3.0 * s), 0.5 * t * t


@_jit
def value_and_slopes(flat, corner, plane, row, t, out):  # type: ignore[no-untyped-def]
    """Write to `out`, (4, 3), a point's values and their derivatives along z, y, x, per spacing of nodes.

    The point lies at t, (3,), in the cell whose first coefficient is at `corner`; `plane` and `row` are strides.
    """
    vz, vy, vx = 1.0 - t[0], 1.0 - t[1], 1.0 - t[2]
    weights, slopes = (spline(t[0]), spline(t[1])), (_slope(t[0], vz), _slope(t[1], vy))
    w0, w1, w2, w3 = spline(t[2])
    s0, s1, s2, s3 = _slope(t[2], vx)
    # single numbers, since arrays that might overlap are written back at each step
    for c in range(3):
        value = along_z = along_y = along_x = 0.0
        for a in range(4):
            v = sy = sx = 0.0
            for b in range(4):
                k = np.uint64(corner + a * plane + b * row + c)
                p0, p1, p2, p3 = flat[k], flat[k + _3], flat[k + _6], flat[k + _9]
                u = (w0 * p0 + w1 * p1) + (w2 * p2 + w3 * p3)
                v += weights[1][b] * u
                sy += slopes[1][b] * u
                sx += weights[1][b] * ((s0 * p0 + s1 * p1) + (s2 * p2 + s3 * p3))
            value += weights[0][a] * v
            along_z += slopes[0][a] * v
            along_y += weights[0][a] * sy
            along_x += weights[0][a] * sx
        out[0, c], out[1, c], out[2, c], out[3, c] = value, along_z, along_y, along_x


def coefficients(values: Array) -> Array:
    """Coefficients of the spline through values at nodes, (z, y, x, 3), `MARGIN` fewer at each end of each axis."""
    w0, w1, w2, w3 = _WEIGHTS
    for axis in range(3):
        v = values.swapaxes(0, axis)
        pairs = w1 * (v[2:-4] + v[4:-2]) + w2 * (v[1:-5] + v[5:-1]) + w3 * (v[:-6] + v[6:])
        values = (w0 * v[3:-3] + pairs).swapaxes(0, axis)
    return np.ascontiguousarray(values)


def nodes(box_start: tuple[int, int, int], shape: tuple[int, int, int], spacing: float) -> Array:
    """Places of the nodes of a box and of `MARGIN` more on each side, (3, n)."""
    along = [np.arange(a - MARGIN, a + n + MARGIN) * spacing for a, n in zip(box_start, shape, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*along, indexing="ij")])


def at_nodes(values: Array, shape: tuple[int, int, int]) -> Array:
    """Arrange values at `nodes`, (3, n), as (z, y, x, 3)."""
    z, y, x = (n + 2 * MARGIN for n in shape)
    return np.ascontiguousarray(values.reshape(3, z, y, x).transpose(1, 2, 3, 0))
