"""Sine, cosine, Bessel functions and Gauss-Legendre nodes for diffraction integrals, with the same bits on every machine.

Like `detmath`, from IEEE additions, products, quotients and roots alone: SciPy's Bessel functions rest on the sine of the
C library and NumPy's nodes on LAPACK, which both choose their code by CPU type.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

# pi / 2 in two parts, the first of 33 bits, so that its product with a whole number below 2**20 is exact
_HALF_PI_HIGH = float.fromhex("0x1.921fb54400000p+0")
_HALF_PI_LOW = float.fromhex("0x1.0b4611a626331p-34")
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(10))

_STEPS_PER_UNIT = 64  # of the Bessel table: a cubic Hermite step is then exact to 1e-10
_TABLE_END = 25.0  # beyond it the asymptotic series is exact to 1e-13


@njit(cache=True, nogil=True)
def sin_cos(x: float) -> tuple[float, float]:
    """Return sin(x) and cos(x), |x| < 1e6, absolute error below 1e-15."""
    turns = math.floor(x / (_HALF_PI_HIGH + _HALF_PI_LOW) + 0.5)
    y = (x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW
    y2 = y * y
    s = 0.0
    for a in _SIN[::-1]:
        s = s * y2 + a
    s *= y
    c = 0.0
    for a in _COS[::-1]:
        c = c * y2 + a
    quadrant = int(turns) & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:
        return -s, -c
    return -c, s


def sinc_array(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """sin(pi x) / (pi x) of each element, 1 at 0: `np.sinc` with the same bits on every machine, where NumPy's sine depends on
    the CPU's vector instructions."""
    return _sinc(np.ascontiguousarray(x, dtype=np.float64).ravel()).reshape(np.shape(x))


@njit(cache=True, nogil=True)
def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.ones(x.size)
    for i in range(x.size):
        if x[i] != 0.0:
            sine, _ = sin_cos(math.pi * x[i])
            result[i] = sine / (math.pi * x[i])
    return result


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
def bessel_table() -> NDArray[np.float64]:
    """J0, J1 and their derivatives at k / 64 up to 25, shape (n, 4), by Miller's backward recurrence (DLMF 3.6)."""
    return _miller(int(_TABLE_END * _STEPS_PER_UNIT) + 2)


@njit(cache=True, nogil=True)
def _miller(n: int) -> NDArray[np.float64]:
    table = np.empty((n, 4))
    table[0] = (1.0, 0.0, 0.0, 0.5)
    for i in range(1, n):
        x = i / _STEPS_PER_UNIT
        above, here, norm = 0.0, 1e-250, 0.0
        order = 2 * (int(x) // 2) + 60  # J_order(x) / J_0(x) is below 1e-18 here
        while order > 0:
            if order % 2 == 0:
                norm += 2.0 * here
            above, here = here, 2.0 * order / x * here - above
            order -= 1
            if abs(here) > 1e100:
                above, here, norm = above * 1e-200, here * 1e-200, norm * 1e-200
        norm += here
        j0, j1 = here / norm, above / norm
        table[i] = (j0, j1, -j1, j0 - j1 / x)
    return table


@njit(cache=True, nogil=True)
def bessel_01(x: float, table: NDArray[np.float64]) -> tuple[float, float]:
    """Return J0(x) and J1(x) for x >= 0; `table` is `bessel_table()`. Absolute error below 2e-10."""
    if x < _TABLE_END:
        i = int(x * _STEPS_PER_UNIT)
        t = x * _STEPS_PER_UNIT - i
        h00 = (1.0 + 2.0 * t) * (1.0 - t) * (1.0 - t)
        h10 = t * (1.0 - t) * (1.0 - t) / _STEPS_PER_UNIT
        h01 = t * t * (3.0 - 2.0 * t)
        h11 = t * t * (t - 1.0) / _STEPS_PER_UNIT
        j0 = h00 * table[i, 0] + h10 * table[i, 2] + h01 * table[i + 1, 0] + h11 * table[i + 1, 2]
        j1 = h00 * table[i, 1] + h10 * table[i, 3] + h01 * table[i + 1, 1] + h11 * table[i + 1, 3]
        return j0, j1
    y = 1.0 / (x * x)
    p0, q0, p1, q1 = 0.0, 0.0, 0.0, 0.0
    for k in range(7, -1, -1):
        p0 = p0 * y + _P0[k]
        q0 = q0 * y + _Q0[k]
        p1 = p1 * y + _P1[k]
        q1 = q1 * y + _Q1[k]
    s, c = sin_cos(x)
    a = 1.0 / math.sqrt(math.pi * x)
    return a * (p0 * (c + s) - q0 / x * (s - c)), a * (p1 * (s - c) + q1 / x * (s + c))


@lru_cache(maxsize=256)
def gauss_legendre(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the n-point rule on [-1, 1], read-only."""
    x, w = _gauss_legendre(n)
    x.flags.writeable = w.flags.writeable = False
    return x, w


@njit(cache=True, nogil=True)
def _gauss_legendre(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.empty(n), np.empty(n)
    for i in range(n):
        _, x = sin_cos(math.pi * (i + 0.75) / (n + 0.5))
        slope = 1.0
        for _ in range(6):  # Newton from within 1e-2 of a spacing: three steps reach the last bit
            before, value = 1.0, x
            for k in range(2, n + 1):
                before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
            slope = n * (x * value - before) / (x * x - 1.0)
            x -= value / slope
        nodes[i] = x
        weights[i] = 2.0 / ((1.0 - x * x) * slope * slope)
    return nodes, weights
