"""Cubic spline through the samples of an even function: its integral and half width.

Equal to `scipy.interpolate.CubicSpline` of the samples and their mirror image, without its import, the slowest part of
a plan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def integral(x: Array, y: Array) -> float:
    """Integral from 0 to the last x of the function with values `y` at ascending `x` from 0."""
    a, b, c, d = _cubics(x, y)
    h = np.diff(x)
    parts = d * h + c * (h * h) * 0.5 + b * (h * h * h) * (1.0 / 3.0) + a * (h * h * h * h) * 0.25
    return float(np.cumsum(parts)[-1])  # sequential, unlike a sum


def half_width(x: Array, y: Array) -> float | None:
    """Smallest x at which the function is half its value at 0; None if no sample is that low."""
    half = 0.5 * float(y[0])
    low = np.flatnonzero(y <= half)
    if low.size == 0:
        return None
    i = int(low[0]) - 1
    a, b, c, d = (float(v[i]) for v in _cubics(x, y))
    left, right = 0.0, float(x[i + 1] - x[i])
    while left < (middle := 0.5 * (left + right)) < right:
        if ((a * middle + b) * middle + c) * middle + d > half:
            left = middle
        else:
            right = middle
    return float(x[i]) + right


def _cubics(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Coefficients of (x - x[i])^3, ^2, ^1 and ^0 between x[i] and x[i + 1]."""
    middle = x.size - 1
    x, y = np.concatenate((-x[:0:-1], x)), np.concatenate((y[:0:-1], y))
    h = np.diff(x)
    slope = np.diff(y) / h
    derivative = _derivatives(x, h, slope)
    bend = (derivative[:-1] + derivative[1:] - 2.0 * slope) / h
    cubics = bend / h, (slope - derivative[:-1]) / h - bend, derivative[:-1], y[:-1]
    return cubics[0][middle:], cubics[1][middle:], cubics[2][middle:], cubics[3][middle:]


def _derivatives(x: Array, h: Array, slope: Array) -> Array:
    """First derivatives of the not-a-knot spline at its samples.

    Solves the tridiagonal equations of de Boor (A Practical Guide to Splines, chapter IV); they need no pivoting.
    """
    ends = float(x[2] - x[0]), float(x[-1] - x[-3])
    below = [*h[1:].tolist(), ends[1]]
    above = [ends[0], *h[:-1].tolist()]
    diagonal = [float(h[1]), *(2.0 * (h[:-1] + h[1:])).tolist(), float(h[-2])]
    right = [
        float(((h[0] + 2.0 * ends[0]) * h[1] * slope[0] + h[0] * h[0] * slope[1]) / ends[0]),
        *(3.0 * (h[1:] * slope[:-1] + h[:-1] * slope[1:])).tolist(),
        float((h[-1] * h[-1] * slope[-2] + (2.0 * ends[1] + h[-1]) * h[-2] * slope[-1]) / ends[1]),
    ]
    for i in range(len(below)):
        factor = below[i] / diagonal[i]
        diagonal[i + 1] -= factor * above[i]
        right[i + 1] -= factor * right[i]
    right[-1] /= diagonal[-1]
    for i in reversed(range(len(above))):
        right[i] = (right[i] - above[i] * right[i + 1]) / diagonal[i]
    return np.array(right)
