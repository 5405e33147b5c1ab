"""How a dye between nodes is shared out among them, and the filters that undo the blur of it.

Along each axis a dye belongs to the four nodes around it. No four weights image a Gaussian spot whose full width at half
maximum is 3.5 nodes with less mean square error, over all places between two nodes: two thirds of what Kaiser-Bessel
weights of the best parameter leave, an eighth of quadratic B-splines on a grid that is as fine (see the tests, which
repeat the minimisation). They are polynomials within 3e-6, and integers for any draw of the place: no sum of them
depends on its order, on the machine or on the device.

The filters are those of Hockney & Eastwood, Computer Simulation Using Particles, 1988, chapter 8: with h the transform
of the weights, h(q) / sum over j of h(q + j)^2 leaves the least error, on average over the places of a dye.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.diffraction.special import Array, sin_cos_array

NODES = 4
"""Nodes along one axis that share a dye: two below and two above it."""
STEP_BITS = 10
STEPS = 1 << STEP_BITS
"""Places between two nodes that are distinguished."""
BITS = 12
"""Bits of a weight along one axis."""
UNIT = 1 << (3 * BITS)
"""Sum that one dye adds to the grid."""
MARGIN = 4
"""Node planes beyond the axial range that `sharpened_along_z` looks at."""

# in t = place - 1/2, even and odd part of the outer weight, odd part of the inner one: of 1, t^2, t^4 and t, t^3, t^5
_EVEN = (0.03966, 0.25325, -0.0243)
_ODD_OUTER = (-0.16977, -0.13445, 0.01745)
_ODD_INNER = (-0.49351, 0.41484, -0.04646)
_TERMS = 16  # of the series of `blur`: exact to 1e-13
_ROUNDS = 40  # of the iteration of `sharpened_along_z`: exact to 1e-6


def _weights() -> NDArray[np.int32]:
    t = (np.arange(STEPS) + 0.5) / STEPS - 0.5

    def series(a: tuple[float, float, float]) -> Array:
        return np.asarray(a[0] + t * t * (a[1] + t * t * a[2]))

    even, outer, inner = series(_EVEN), t * series(_ODD_OUTER), t * series(_ODD_INNER)
    shares = np.stack([even + outer, 0.5 - even + inner, 0.5 - even - inner, even - outer], axis=1)
    whole = np.floor(shares * (1 << BITS) + 0.5).astype(np.int32)
    nearer = np.where(t < 0, 1, 2)  # takes what rounding left
    whole[np.arange(STEPS), nearer] += (1 << BITS) - whole.sum(axis=1, dtype=np.int32)
    return whole


WEIGHTS = _weights()
"""Weights of the four nodes, (`STEPS`, `NODES`), int32; each row sums to 2^`BITS`.

Row k is for a dye that lies (k + 1/2) / `STEPS` of the way from the second node to the third. All are positive: what n
dyes add to a node is at most n * `HIGHEST`.
"""
HIGHEST = int(WEIGHTS.max()) ** 3
"""Most that one dye adds to a node. An int64 has room for 6e8 dyes at one point, or for 1e8 in each cell of the grid."""


def _moments() -> tuple[float, ...]:
    """Coefficients of `blur` in even powers of the frequency, from the moments of the weights."""
    distance = np.arange(NODES) - 1.0 - ((np.arange(STEPS) + 0.5) / STEPS)[:, None]
    share = (WEIGHTS / (STEPS << BITS)).ravel()
    powers = [np.cumsum(share * distance.ravel() ** (2 * n))[-1] for n in range(_TERMS)]  # sequential, unlike a sum
    return tuple((-1) ** n * (2 * math.pi) ** (2 * n) / math.factorial(2 * n) * float(p) for n, p in enumerate(powers))


def _overlaps() -> tuple[float, ...]:
    """Mean product of the weights of nodes 0 to 3 apart."""
    share = WEIGHTS / (1 << BITS)
    products = [share[:, : NODES - n] * share[:, n:] for n in range(NODES)]
    return tuple(float(np.cumsum(p.ravel())[-1]) / STEPS for p in products)


_MOMENTS, _OVERLAPS = _moments(), _overlaps()


def blur(cycles: Array) -> Array:
    """Transform h of the weights, the mean over all places, at frequencies of at most half a cycle per node."""
    square = cycles * cycles
    total = np.zeros_like(cycles)
    for coefficient in _MOMENTS[::-1]:
        total = total * square + coefficient
    return total


def _power(cycles: Array) -> Array:
    """Sum of h(q + j)^2 over all j: by Poisson's formula a cosine series of the overlaps."""
    total = np.full_like(cycles, _OVERLAPS[0])
    for n in range(1, NODES):
        total += 2 * _OVERLAPS[n] * sin_cos_array(2 * math.pi * n * cycles)[1]
    return total


def sharpened(cycles: Array) -> Array:
    """Lateral filter, h(q) / sum of h(q + j)^2, at frequencies in cycles per node."""
    return blur(cycles) / _power(cycles)


def left_over(cycles: Array) -> Array:
    """Amplitude, root mean square over the places of a dye, of what `sharpened` leaves at each frequency for each of 1."""
    h = blur(cycles)
    return np.sqrt(np.maximum(0.0, 1 - h * h / _power(cycles)))


def sharpened_along_z(spectrum: Array) -> Array:
    """Response of node planes from a response even in z: (planes + `MARGIN`, n), from offset 0 on, to (planes, n).

    A dye on a node plane, shared out along z, then gives each plane exactly the response there. Beyond the last offset
    the result is taken as constant, which is forgotten within the margin. The sum over all planes is conserved.
    """
    return _sharpened(spectrum, lambda result: result[2:0:-1])[:-MARGIN]


def sharpened_along_signed_z(spectrum: Array) -> Array:
    """`sharpened_along_z` of a response at offsets of both signs, (planes + 2 `MARGIN`, n) to (planes, n)."""
    return _sharpened(spectrum, lambda result: result[[0, 0]])[MARGIN:-MARGIN]


def _sharpened(spectrum: Array, before: Callable[[Array], Array]) -> Array:
    """Solve for what the weights of a dye on a node blur to `spectrum`; `before` gives the two planes before the first."""
    first = WEIGHTS[0] / (1 << BITS)
    here, next, further = first[1], (first[0] + first[2]) / 2, first[3] / 2  # weights of a dye on a node
    step = 2 / (1 + here - 2 * next + 2 * further)  # of Richardson's iteration, whose matrix has eigenvalues up to 1
    result = spectrum.copy()
    for _ in range(_ROUNDS):
        padded = np.concatenate([before(result), result, result[-1:], result[-1:]])
        seen = here * padded[2:-2] + next * (padded[1:-3] + padded[3:-1]) + further * (padded[:-4] + padded[4:])
        result += step * (spectrum - seen)
    return result


def between_planes(planes: Array) -> Array:
    """What a dye halfway between two node planes gives each plane, from `sharpened_along_z`, (n, m) to (n - 2, m)."""
    even = np.concatenate([planes[1:2], planes])
    total = np.zeros_like(planes[2:])
    for j in range(NODES):
        total += (int(WEIGHTS[STEPS // 2, j]) / (1 << BITS)) * even[j : j + len(total)]
    return total
