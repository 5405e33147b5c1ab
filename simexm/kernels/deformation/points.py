"""Move points of tissue by a displacement on a lattice, and back. Each point's result depends on its own position alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple
from simexm.kernels.deformation.splines import at, at_nodes, coefficients, gradient, nodes

Array = NDArray[np.float64]

CLOSE_NM = 5e-3
"""Residual, along each axis, at which an inversion takes its last step; that leaves a fraction of it."""
_DIRECT, _MOST, _AT_ONCE = 8, 60, 16384
"""Steps before Newton's method, most steps of it, and points that are inverted together."""


class Region(NamedTuple):
    """Coefficients in a box of nodes, (z, y, x, 3), from node `first`."""

    first: NDArray[np.int64]
    lattice: Array


def linear(points: Array, matrix: Array, shift: Array) -> Array:
    """Return matrix * points + shift, (3, n), summed in order."""
    z, y, x = points
    return np.stack([a * z + b * y + c * x + d for (a, b, c), d in zip(matrix.tolist(), shift.tolist(), strict=True)])


def displace(points: Array, per_nm: float, region: Region) -> None:
    """Add the displacement to points, (3, n)."""
    points += at(points, region.first, per_nm, region.lattice)


def _newton(x: Array, p: Array, most: Array, per_nm: float, region: Region) -> Array:
    """Solve x + displacement(x) = p, (3, n) both, from x on by Newton's method, halving steps that lead away.

    The solution lies within `most` of p along each axis, and x stays there; NaN if it is not found.
    """
    found = np.full_like(x, np.nan)
    wanted = np.arange(x.shape[1])
    step, before = np.zeros_like(x), np.full(x.shape[1], np.inf)
    low, high = p - most[:, None], p + most[:, None]
    for _ in range(_MOST):
        r = p - x - at(x, region.first, per_nm, region.lattice)
        left = np.abs(r).max(axis=0)
        close = left < CLOSE_NM
        found[:, wanted[close]] = (x + r)[:, close]
        away = left > before
        g = gradient(x, region.first, per_nm, region.lattice) + np.eye(3)[:, :, None]
        inverse = np.stack([_cross(g[1], g[2]), _cross(g[2], g[0]), _cross(g[0], g[1])], axis=1)
        newton = (inverse * r).sum(axis=1) / (g[0] * inverse[:, 0]).sum(axis=0)
        step = np.where(away, step / 2.0, np.minimum(np.maximum(x + newton, low), high) - x)
        x = np.where(away, x - step, x + step)
        before = np.where(away, before, left)
        keep = ~close
        wanted, before = wanted[keep], before[keep]
        x, step, p, low, high = (part[:, keep] for part in (x, step, p, low, high))
        if not wanted.size:
            break
    return found


def _cross(a: Array, b: Array) -> Array:
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _inverted(p: Array, x: Array, most: Array, per_nm: float, region: Region) -> Array:
    """Solve x + displacement(x) = p from x on, (3, n) both."""
    found = np.empty_like(x)
    wanted = np.arange(x.shape[1])
    for _ in range(_DIRECT):
        r = p - x - at(x, region.first, per_nm, region.lattice)
        x = x + r
        close = np.abs(r).max(axis=0) < CLOSE_NM
        if close.all():
            found[:, wanted] = x
            return found
        found[:, wanted[close]] = x[:, close]
        wanted, p, x = wanted[~close], p[:, ~close], x[:, ~close]
        x = np.minimum(np.maximum(x, p - most[:, None]), p + most[:, None])
    found[:, wanted] = _newton(x, p, most, per_nm, region)
    return found


def undisplace(points: Array, most: Array, per_nm: float, region: Region, guess: Region) -> None:
    """Move points, (3, n), back to where the displacement moved them from, within `most` along each axis.

    The search begins at the inverse displacement of the lattice `guess`.
    """
    for start in range(0, points.shape[1], _AT_ONCE):
        p = np.ascontiguousarray(points[:, start : start + _AT_ONCE])
        x = p + at(p, guess.first, per_nm, guess.lattice)
        points[:, start : start + _AT_ONCE] = _inverted(p, x, most, per_nm, region)


def inverse_lattice(first: Triple, shape: Triple, spacing: float, most: Array, region: Region) -> Array:
    """Coefficients of the inverse displacement in a box of nodes, (z, y, x, 3), by inverting the nodes."""
    places = nodes(first, shape, spacing)
    found = _inverted(places, places, most, 1.0 / spacing, region)
    return coefficients(at_nodes(found - places, shape))
