"""Sine, cosine, Bessel functions and Gauss-Legendre nodes for diffraction integrals, bit-identical on every machine.

Like `detmath`, built on IEEE additions, products, quotients and roots alone: SciPy's Bessel functions depend on the C
library's sine and NumPy's nodes on LAPACK, both of which choose their code by CPU type. Functions without suffix are
compiled and take scalars, those ending in ``_array`` take arrays; both share the formulas.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm import compiled
from simexm.compiled import njit

Array = NDArray[np.float64]

# pi / 2 in two parts, the first of 33 bits, so that its product with an integer below 2**20 is exact
_HALF_PI_HIGH = float.fromhex("0x1.921fb54400000p+0")
_HALF_PI_LOW = float.fromhex("0x1.0b4611a626331p-34")
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(10))

_STEPS_PER_UNIT = 64  # of the Bessel table: a cubic Hermite step is then exact to 1e-10
_TABLE_END = 25.0  # beyond it the asymptotic series is exact to 1e-13


def _sin_cos_near_zero(y: Any) -> Any:
    """sin(y) and cos(y) for |y| <= pi / 4, by their Taylor series."""
    y2 = y * y
    s = 0.0 * y
    for a in _SIN[::-1]:
        s = s * y2 + a
    c = 0.0 * y
    for a in _COS[::-1]:
        c = c * y2 + a
    return s * y, c


_sin_cos_near_zero_1 = njit(cache=True, nogil=True)(_sin_cos_near_zero)


@njit(cache=True, nogil=True)
def sin_cos(x: float) -> tuple[float, float]:
    """Return sin(x) and cos(x), |x| < 1e6, absolute error below 1e-15."""
    turns = math.floor(x / (_HALF_PI_HIGH + _HALF_PI_LOW) + 0.5)
    s, c = _sin_cos_near_zero_1((x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW)
    quadrant = int(turns) & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:
        return -s, -c
    return -c, s


def sin_cos_array(x: Array) -> tuple[Array, Array]:
    """Return `sin_cos` of each element."""
    turns = np.floor(x / (_HALF_PI_HIGH + _HALF_PI_LOW) + 0.5)
    s, c = _sin_cos_near_zero((x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW)
    quadrant = turns.astype(np.int64) & 3
    odd = (quadrant & 1) != 0
    s, c = np.where(odd, c, s), np.where(odd, s, c)
    return np.where(quadrant >= 2, -s, s), np.where((quadrant == 1) | (quadrant == 2), -c, c)


def sinc_array(x: Array) -> Array:
    """sin(pi x) / (pi x) of each element, 1 at 0: `np.sinc`, bit-identical on every machine."""
    phase = math.pi * np.where(x != 0.0, x, 1.0)
    return np.where(x != 0.0, sin_cos_array(phase)[0] / phase, 1.0)


def _hankel_series(order: int, odd: int) -> tuple[float, ...]:
    """Coefficients in 1 / x**2 of P (odd 0) or x * Q (odd 1) of the large-argument expansion, DLMF 10.17.1."""
    terms = []
    for k in range(odd, 16, 2):
        product = 1.0
        for j in range(1, k + 1):
            product *= (4 * order**2 - (2 * j - 1) ** 2) / (8.0 * j)
        terms.append(product * (-1) ** (k // 2))
    return tuple(terms)


_P0, _Q0, _P1, _Q1 = (_hankel_series(order, odd) for order in (0, 1) for odd in (0, 1))


@lru_cache(maxsize=1)
def bessel_table() -> Array:
    """J0, J1 and their derivatives at k / 64 up to 25, shape (n, 4), by Miller's backward recurrence (DLMF 3.6)."""
    x = np.arange(1, int(_TABLE_END * _STEPS_PER_UNIT) + 2) / _STEPS_PER_UNIT
    start = 2 * (x.astype(np.int64) // 2) + 60  # J_start(x) / J_0(x) is below 1e-18
    above, here, norm = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for order in range(int(start.max()), 0, -1):
        here[start == order] = 1e-250
        if order % 2 == 0:
            norm += 2.0 * here
        above, here = here, 2.0 * order / x * here - above
        scale = np.where(abs(here) > 1e100, 1e-200, 1.0)
        above, here, norm = above * scale, here * scale, norm * scale
    norm += here
    j0, j1 = here / norm, above / norm
    return np.vstack([(1.0, 0.0, 0.0, 0.5), np.stack([j0, j1, -j1, j0 - j1 / x], axis=1)])


def _between_samples(t: Any, left: Any, slope_left: Any, right: Any, slope_right: Any) -> Any:
    """Cubic Hermite interpolation in a step of the table, at the fraction t from the left."""
    h00 = (1.0 + 2.0 * t) * (1.0 - t) * (1.0 - t)
    h10 = t * (1.0 - t) * (1.0 - t) / _STEPS_PER_UNIT
    h01 = t * t * (3.0 - 2.0 * t)
    h11 = t * t * (t - 1.0) / _STEPS_PER_UNIT
    return h00 * left + h10 * slope_left + h01 * right + h11 * slope_right


def _asymptotic(x: Any, s: Any, c: Any, root: Any) -> Any:
    """J0 and J1 beyond the table, given sin(x), cos(x) and sqrt(pi x)."""
    y = 1.0 / (x * x)
    p0, q0, p1, q1 = 0.0 * y, 0.0 * y, 0.0 * y, 0.0 * y
    for k in range(7, -1, -1):
        p0 = p0 * y + _P0[k]
        q0 = q0 * y + _Q0[k]
        p1 = p1 * y + _P1[k]
        q1 = q1 * y + _Q1[k]
    a = 1.0 / root
    return a * (p0 * (c + s) - q0 / x * (s - c)), a * (p1 * (s - c) + q1 / x * (s + c))


_between_samples_1 = njit(cache=True, nogil=True)(_between_samples)
_asymptotic_1 = njit(cache=True, nogil=True)(_asymptotic)


@njit(cache=True, nogil=True)
def bessel_01(x: float, table: Array) -> tuple[float, float]:
    """Return J0(x) and J1(x) for x >= 0; `table` is `bessel_table()`. Absolute error below 2e-10."""
    if x < _TABLE_END:
        i = int(x * _STEPS_PER_UNIT)
        t = x * _STEPS_PER_UNIT - i
        j0 = _between_samples_1(t, table[i, 0], table[i, 2], table[i + 1, 0], table[i + 1, 2])
        j1 = _between_samples_1(t, table[i, 1], table[i, 3], table[i + 1, 1], table[i + 1, 3])
        return j0, j1
    s, c = sin_cos(x)
    j0, j1 = _asymptotic_1(x, s, c, math.sqrt(math.pi * x))
    return j0, j1


@njit(cache=True, nogil=True)
def _bessel_01_many(x: Array, table: Array, j0: Array, j1: Array) -> None:
    for i in range(x.size):
        j0[i], j1[i] = bessel_01(x[i], table)


def bessel_01_array(x: Array) -> tuple[Array, Array]:
    """Return `bessel_01` of each element."""
    flat = np.ascontiguousarray(x).ravel()
    table, j0, j1 = bessel_table(), np.empty(flat.size), np.empty(flat.size)
    if compiled.pays(60 * flat.size):
        _bessel_01_many(flat, table, j0, j1)
    else:
        near = flat < _TABLE_END
        steps = flat[near] * _STEPS_PER_UNIT
        i = steps.astype(np.int64)
        for column, j in enumerate((j0, j1)):
            value, slope = table[:, column], table[:, column + 2]
            j[near] = _between_samples(steps - i, value[i], slope[i], value[i + 1], slope[i + 1])
        far = flat[~near]
        j0[~near], j1[~near] = _asymptotic(far, *sin_cos_array(far), np.sqrt(math.pi * far))
    return j0.reshape(x.shape), j1.reshape(x.shape)


def gauss_legendre(n: int) -> tuple[Array, Array]:
    """Nodes and weights of the n-point rule on [-1, 1], read-only."""
    return gauss_legendre_rules((n,))[n]


@lru_cache(maxsize=64)
def gauss_legendre_rules(sizes: tuple[int, ...]) -> dict[int, tuple[Array, Array]]:
    """Compute `gauss_legendre` of several sizes together, which saves NumPy's overhead per call."""
    sizes = tuple(sorted(set(sizes), reverse=True))
    guesses = [sin_cos_array(math.pi * (np.arange(n, dtype=np.float64) + 0.75) / (n + 0.5))[1] for n in sizes]
    find = _legendre_roots_1 if compiled.pays(30 * sum(n * n for n in sizes)) else _legendre_roots
    x, w = find(np.concatenate(guesses), np.repeat(sizes, sizes))
    x.flags.writeable = w.flags.writeable = False
    ends = np.cumsum(sizes).tolist()
    return {n: (x[end - n : end], w[end - n : end]) for n, end in zip(sizes, ends, strict=True)}


def _legendre_roots(x: Array, degree: NDArray[np.int64]) -> tuple[Array, Array]:
    """Roots near `x` of Legendre polynomials of these (descending) degrees, and their Gauss weights."""
    slope = np.ones_like(x)
    for _ in range(6):  # Newton from within 1e-2 of a spacing: three steps reach the last bit
        before, value = np.ones_like(x), x.copy()
        m = x.size
        for k in range(2, degree[0] + 1):
            while degree[m - 1] < k:
                m -= 1
            after = ((2 * k - 1) * x[:m] * value[:m] - (k - 1) * before[:m]) / k
            before[:m] = value[:m]
            value[:m] = after
        slope = degree * (x * value - before) / (x * x - 1.0)
        x = x - value / slope
    return x, 2.0 / ((1.0 - x * x) * slope * slope)


_legendre_roots_1 = njit(cache=True, nogil=True)(_legendre_roots)
