"""Move points of tissue by a displacement on a lattice, and back. Each point's result depends on its own position alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.deformation.splines import at, value_and_slopes

Array = NDArray[np.float64]

CLOSE_NM = 5e-3
"""Residual, along each axis, at which an inversion takes its last step; that leaves a fraction of it."""
_MOST = 60
"""Most steps of an inversion."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


class Region(NamedTuple):
    """Coefficients in a box of nodes, (z, y, x, 3), from node `first`."""

    first: NDArray[np.int64]
    lattice: Array


def linear(points: Array, matrix: Array, shift: Array) -> Array:
    """Return matrix * points + shift, (3, n), summed in order."""
    return np.asarray(_linear(points, matrix, shift))


@_jit
def _linear(points, matrix, shift):  # type: ignore[no-untyped-def]
    out = np.empty(points.shape)
    for i in range(3):
        a, b, c, d = matrix[i, 0], matrix[i, 1], matrix[i, 2], shift[i]
        for n in range(points.shape[1]):
            out[i, n] = a * points[0, n] + b * points[1, n] + c * points[2, n] + d
    return out


def displace(points: Array, per_nm: float, region: Region) -> None:
    """Add the displacement to points, (3, n)."""
    points += at(points, region.first, per_nm, region.lattice)


def undisplace(points: Array, start: Array, most: Array, per_nm: float, region: Region) -> Array:
    """Return where points, (3, n), were displaced from, within `most` along each axis; NaN where the search leaves the region.

    Newton's method from `start`, halving steps that lead away. They depend on the point and its start alone, and so does the
    result, if it is found.
    """
    points, start = np.ascontiguousarray(points), np.ascontiguousarray(start)
    return np.asarray(_undisplaced(points, start, most, per_nm, region.first, region.lattice))


@_jit
def _undisplaced(points, start, most, per_nm, first, lattice):  # type: ignore[no-untyped-def]
    out = np.full(points.shape, np.nan)
    flat = lattice.reshape(lattice.size)
    row = 3 * lattice.shape[2]
    plane = row * lattice.shape[1]
    x, r, step, newton, t = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    u, node = np.empty((4, 3)), np.empty(3, np.int64)
    for n in range(points.shape[1]):
        x[:], step[:], before = start[:, n], 0.0, np.inf
        for _ in range(_MOST):
            inside = True
            for i in range(3):
                cell = math.floor(x[i] * per_nm)
                t[i], node[i] = x[i] * per_nm - cell, np.int64(cell) - 1 - first[i]
                inside = inside and 0 <= node[i] <= lattice.shape[i] - 4
            if not inside:
                break
            value_and_slopes(flat, node[0] * plane + node[1] * row + 3 * node[2], plane, row, t, u)
            for i in range(3):
                r[i] = points[i, n] - x[i] - u[0, i]
            left = max(abs(r[0]), abs(r[1]), abs(r[2]))
            if left > before:
                for i in range(3):
                    step[i] /= 2.0
                    x[i] -= step[i]
                continue
            _solve(u, per_nm, r, newton)
            if left < CLOSE_NM:
                out[:, n] = x + newton
                break
            for i in range(3):
                new = min(max(x[i] + newton[i], points[i, n] - most[i]), points[i, n] + most[i])
                step[i] = new - x[i]
                x[i] = new
            before = left
    return out


@_jit
def _solve(u, per_nm, r, found):  # type: ignore[no-untyped-def]
    """Solve (I + slopes) found = r, by Cramer's rule; rows 1 to 3 of u are the derivatives along z, y, x per spacing."""
    a, d, g = 1.0 + u[1, 0] * per_nm, u[1, 1] * per_nm, u[1, 2] * per_nm
    b, e, h = u[2, 0] * per_nm, 1.0 + u[2, 1] * per_nm, u[2, 2] * per_nm
    c, f, i = u[3, 0] * per_nm, u[3, 1] * per_nm, 1.0 + u[3, 2] * per_nm
    p, q, s = e * i - f * h, f * g - d * i, d * h - e * g
    determinant = a * p + b * q + c * s
    found[0] = (p * r[0] + (c * h - b * i) * r[1] + (b * f - c * e) * r[2]) / determinant
    found[1] = (q * r[0] + (a * i - c * g) * r[1] + (c * d - a * f) * r[2]) / determinant
    found[2] = (s * r[0] + (b * g - a * h) * r[1] + (a * e - b * d) * r[2]) / determinant
