"""Images of one emitter on pixels: a Gaussian, or a tabulated response; and the solution of small linear systems.

Places are in pixels from the corner of a square of pixels: pixel i covers [i, i + 1). Of the five parameters, y, x, photons,
background, the last is the Gaussian's standard deviation in pixels, or the distance from the focal plane in planes of the table.
"""

from __future__ import annotations

import math

import numpy as np

from simexm.compiled import njit

GAUSSIAN, TABLE = 0, 1
PARAMETERS = 5
Y, X, PHOTONS, BACKGROUND, LAST = range(PARAMETERS)
_ROOT = math.sqrt(2.0)
_NORM = 1.0 / math.sqrt(2.0 * math.pi)

jit = njit(cache=True, nogil=True)


@jit
def _profile(centre, sigma, line):  # type: ignore[no-untyped-def]
    """Share of a Gaussian in each pixel of a row, and its derivatives by centre and sigma: `line` (3, n)."""
    low = -centre / sigma
    below, height = 0.5 * math.erf(low / _ROOT), _NORM * math.exp(-0.5 * low * low) / sigma
    for i in range(line.shape[1]):
        high = (i + 1.0 - centre) / sigma
        above, next_height = 0.5 * math.erf(high / _ROOT), _NORM * math.exp(-0.5 * high * high) / sigma
        line[0, i] = above - below
        line[1, i] = height - next_height
        line[2, i] = low * height - high * next_height
        low, below, height = high, above, next_height


@jit
def gaussian(theta, lines, image):  # type: ignore[no-untyped-def]
    """Write the share of light in each pixel, and its derivatives by y, x and sigma: `image` (4, side, side)."""
    _profile(theta[Y], theta[LAST], lines[0])
    _profile(theta[X], theta[LAST], lines[1])
    side = image.shape[1]
    for i in range(side):
        for j in range(side):
            image[0, i, j] = lines[0, 0, i] * lines[1, 0, j]
            image[1, i, j] = lines[0, 1, i] * lines[1, 0, j]
            image[2, i, j] = lines[0, 0, i] * lines[1, 1, j]
            image[3, i, j] = lines[0, 2, i] * lines[1, 0, j] + lines[0, 0, i] * lines[1, 2, j]


@jit
def _weights(t, weight, slope):  # type: ignore[no-untyped-def]
    """Cubic B-splines of the four nodes about a place t after the second, and their derivatives."""
    u = 1.0 - t
    weight[0], weight[3] = u * u * u / 6.0, t * t * t / 6.0
    weight[1] = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    weight[2] = 2.0 / 3.0 - 0.5 * u * u * (2.0 - u)
    slope[0], slope[3] = -0.5 * u * u, 0.5 * t * t
    slope[1] = -2.0 * t + 1.5 * t * t
    slope[2] = 2.0 * u - 1.5 * u * u


@jit
def tabulated(theta, table, per_pixel, scratch, image):  # type: ignore[no-untyped-def]
    """Write the share of light in each pixel, and its derivatives by y, x and plane, by spline coefficients (nz, n, n).

    Nodes are 1 / `per_pixel` pixels apart, and the emitter lies at the middle one. Of a table of one plane, the derivative by
    plane is 0. `scratch` is (5, n, n).
    """
    side, nodes = image.shape[1], table.shape[1]
    middle = nodes // 2
    w, s = np.empty((3, 4)), np.empty((3, 4))
    v_y, v_x = (0.5 - theta[Y]) * per_pixel + middle, (0.5 - theta[X]) * per_pixel + middle
    y, x = math.floor(v_y), math.floor(v_x)
    _weights(v_y - y, w[1], s[1])
    _weights(v_x - x, w[2], s[2])
    y, x, span = y - 1, x - 1, (side - 1) * per_pixel + 4
    deep = table.shape[0] > 1
    if deep:
        z = min(max(math.floor(theta[LAST]), 1), table.shape[0] - 3)
        _weights(theta[LAST] - z, w[0], s[0])
        for i in range(y, y + span):
            for j in range(x, x + span):
                scratch[0, i, j] = (
                    w[0, 0] * table[z - 1, i, j] + w[0, 1] * table[z, i, j]
                    + w[0, 2] * table[z + 1, i, j] + w[0, 3] * table[z + 2, i, j]
                )  # fmt: skip
                scratch[1, i, j] = (
                    s[0, 0] * table[z - 1, i, j] + s[0, 1] * table[z, i, j]
                    + s[0, 2] * table[z + 1, i, j] + s[0, 3] * table[z + 2, i, j]
                )  # fmt: skip
    plane = scratch[0] if deep else table[0]
    along = scratch[1]
    for i in range(side):
        row = y + i * per_pixel
        for j in range(x, x + span):
            value = slope = depth = 0.0
            for a in range(4):
                value += w[1, a] * plane[row + a, j]
                slope += s[1, a] * plane[row + a, j]
                if deep:
                    depth += w[1, a] * along[row + a, j]
            scratch[2, 0, j], scratch[3, 0, j], scratch[4, 0, j] = value, slope, depth
        for j in range(side):
            column = x + j * per_pixel
            value = by_y = by_x = by_z = 0.0
            for a in range(4):
                value += w[2, a] * scratch[2, 0, column + a]
                by_x += s[2, a] * scratch[2, 0, column + a]
                by_y += w[2, a] * scratch[3, 0, column + a]
                by_z += w[2, a] * scratch[4, 0, column + a]
            image[0, i, j], image[1, i, j], image[2, i, j], image[3, i, j] = (
                value, -per_pixel * by_y, -per_pixel * by_x, by_z,
            )  # fmt: skip


@jit
def solve(matrix, n, damping, right, found):  # type: ignore[no-untyped-def]
    """Solve the leading n equations, whose diagonal is raised by the share `damping`, by Cholesky; whether it is definite."""
    low = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j] * (1.0 + damping) if i == j else matrix[i, j]
            for k in range(j):
                total -= low[i, k] * low[j, k]
            if i == j:
                if not total > 1e-13 * matrix[i, i]:
                    return False
                low[i, i] = math.sqrt(total)
            else:
                low[i, j] = total / low[j, j]
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= low[i, k] * found[k]
        found[i] = total / low[i, i]
    for i in range(n - 1, -1, -1):
        total = found[i]
        for k in range(i + 1, n):
            total -= low[k, i] * found[k]
        found[i] = total / low[i, i]
    return True
