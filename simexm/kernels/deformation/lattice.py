"""Draw a smooth random displacement, and put it onto one lattice of cubic B-splines.

A step is a lattice of uniform random coefficients so small that the step alone is invertible whatever is drawn. Steps follow
each other, so displacements may be large and yet do not fold. Where the steps lead is tabulated on a finer lattice, whose
spline is the displacement. A node depends on its index and the keys alone, not on the box that is computed.

Lengths are nm, axes z, y, x. Arithmetic is limited to +, -, *, / and floor: results have the same bits on all machines.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple
from simexm.kernels.deformation.splines import at, at_nodes, coefficients, nodes
from simexm.random import Key, philox_array, unit_float32word_array

Array = NDArray[np.float64]

ROW_SUM = 2.5
"""Bound of the gradient of a component, summed over the axes, if coefficients lie in -1 ... 1 and nodes 1 apart."""
PER_RMS = (315 / 151) ** 1.5
"""Standard deviation of independent coefficients over that of their spline, averaged over positions."""
LARGEST = 3**0.5
"""Largest uniform coefficient, in standard deviations."""
_HALVINGS = 3
_CELLS = 512
"""Cells whose halves are checked together."""

Step = tuple[float, tuple[float, float, float], Key]
"""A step: spacing of its nodes, largest coefficients along z, y, x, and the key of its random stream."""


def drawn(first: Triple, shape: Triple, step: Step) -> Array:
    """Coefficients of a step in a box of nodes, uniform in -largest ... largest along each axis, (z, y, x, 3)."""
    _, largest, key = step
    z, y, x = np.meshgrid(*(np.arange(a, a + n) for a, n in zip(first, shape, strict=True)), indexing="ij", sparse=True)
    uniform = 2.0 * unit_float32word_array(philox_array(z, y, x, 0, key)[:3]) - 1.0
    return np.ascontiguousarray(np.moveaxis(uniform, 0, -1) * np.array(largest))


def composed(first: Triple, shape: Triple, spacing: float, steps: Iterable[Step]) -> Array:
    """Coefficients of a box of the lattice, (z, y, x, 3): where the steps, in order, lead its nodes."""
    return coefficients(at_nodes(displaced(nodes(first, shape, spacing), steps), shape))


def displaced(places: Array, steps: Iterable[Step]) -> Array:
    """Displacement by the steps, in order, of places, (3, n)."""
    moved = places.copy()
    for step in steps:
        per_nm = 1.0 / step[0]
        low = np.floor(moved.min(axis=1) * per_nm).astype(np.int64) - 1
        high = np.floor(moved.max(axis=1) * per_nm).astype(np.int64) + 3
        (a, b, c), (d, e, f) = low.tolist(), (high - low).tolist()
        moved += at(moved, low, per_nm, drawn((a, b, c), (d, e, f), step))
    return np.asarray(moved - places)


def never_folds(lattice: Array, spacing: float) -> bool:
    """Whether it is proven for each cell of a box of a lattice, (z, y, x, 3), that the displacement does not fold there.

    In a cell, a derivative along an axis lies between the smallest and the largest difference of neighbours along it. Most
    cells are proven by their sums alone. Where the differences prove nothing, the halves of the cell are looked at.
    """
    open_cells = np.argwhere(_steepest(lattice) >= spacing)
    for start in range(0, len(open_cells), _CELLS):
        some = open_cells[start : start + _CELLS]
        window = np.arange(4)
        z, y, x = (some[:, axis, None] + window for axis in range(3))
        cells = lattice[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
        for level in range(_HALVINGS + 1):
            cells = _halves(cells) if level else cells
            cells = cells[~_proven(*_slopes(cells, spacing / 2**level)).reshape(-1)]
        if len(cells):
            return False
    return True


def _steepest(lattice: Array) -> Array:
    """Bound of the gradient of a component, summed over the axes, in each cell of a lattice, (z, y, x), per spacing of nodes."""
    shape = (*(n - 3 for n in lattice.shape[:3]), 3)
    rows = np.zeros(shape)
    for j in range(3):
        d = np.diff(lattice, axis=j)
        np.abs(d, out=d)
        for axis in range(3):
            v = d.swapaxes(0, axis)
            pairs = np.maximum(v[:-1], v[1:])
            widest = np.maximum(pairs[:-1], v[2:]) if axis == j else np.maximum(pairs[:-2], pairs[2:])
            d = widest.swapaxes(0, axis)
        rows += d
    return np.asarray(rows.max(axis=-1))


def _slopes(lattices: Array, spacing: float) -> tuple[Array, Array]:
    """Bounds of the derivative of component i along axis j in each cell of lattices, (n, z, y, x, 3): (i, j, n, z, y, x) each."""
    bounds = []
    for extreme in (np.minimum, np.maximum):
        along = []
        for j in range(3):
            d = np.diff(lattices, axis=1 + j) / spacing
            for axis in range(3):
                width = 3 if axis == j else 4
                count = d.shape[1 + axis] - width + 1
                parts = [d.take(range(k, k + count), axis=1 + axis) for k in range(width)]
                d = parts[0]
                for part in parts[1:]:
                    d = extreme(d, part)
            along.append(np.moveaxis(d, -1, 0))
        bounds.append(np.stack(along, axis=1))
    return bounds[0], bounds[1]


def _proven(low: Array, high: Array) -> NDArray[np.bool_]:
    """Whether every matrix I + D with D between `low` and `high`, (3, 3, ...), has a positive determinant.

    Either all |D| have row sums below 1, or the midpoint's determinant is positive and no matrix is far enough from it to be
    singular: row sums of |inverse of the midpoint| * radius are below 1 (Neumaier, Interval Methods for Systems of
    Equations, 1990, section 4.1).
    """
    found: NDArray[np.bool_] = np.maximum(np.abs(low), np.abs(high)).sum(axis=1).max(axis=0) < 1.0
    left = ~found
    low, high = low[:, :, left], high[:, :, left]
    m, r = (low + high) / 2.0, (high - low) / 2.0
    m += np.eye(3)[:, :, None]
    c = np.empty_like(m)  # cofactors
    for i, j in itertools.product(range(3), repeat=2):
        p, q, s, t = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
        c[i, j] = m[p, s] * m[q, t] - m[p, t] * m[q, s]
    determinant = (m[0] * c[0]).sum(axis=0)
    rows = np.einsum("kin,kjn->in", np.abs(c), r)
    found[left] = (determinant > 0.0) & (rows.max(axis=0) < determinant)
    return found


def _halves(cells: Array) -> Array:
    """Coefficients of the same splines in the eight halves of cells, (n, 4, 4, 4, 3): (8 n, 4, 4, 4, 3)."""
    for axis in (1, 2, 3):
        a, b, d, e = np.moveaxis(cells, axis, 0)
        fine = [(a + b) / 2.0, (a + 6.0 * b + d) / 8.0, (b + d) / 2.0, (b + 6.0 * d + e) / 8.0, (d + e) / 2.0]
        cells = np.stack(fine, axis=axis)
    halves = [cells[:, a : a + 4, b : b + 4, c : c + 4] for a, b, c in itertools.product(range(2), repeat=3)]
    return np.stack(halves, axis=1).reshape(-1, 4, 4, 4, 3)
