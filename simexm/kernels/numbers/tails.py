"""Poisson and binomial probabilities and tail sums, to about 1e-13 relative, and exact quantiles from them.

Probabilities by saddle point (Loader, "Fast and accurate computation of binomial probabilities", 2000), tails as sums
of ratios of neighbouring probabilities: all terms are positive, nothing cancels. Built on `detmath` alone, so
bit-identical on every machine. Functions are compiled and take scalars; the test's array reference shares the formulas
without loop or branch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simexm.compiled import njit
from simexm.kernels.numbers import detmath

TWO_PI = 2.0 * math.pi
NEGLIGIBLE = 1e-17
"""A tail sum ends at a term of this share of the sum; further terms are smaller still."""

STIRLING_ERROR = np.array(
    [
        0.0, 0.08106146679532726, 0.0413406959554093, 0.02767792568499834, 0.020790672103765093, 0.016644691189821193,
        0.013876128823070748, 0.01189670994589177, 0.010411265261972096, 0.00925546218271273, 0.00833056343336287,
        0.007573675487951841, 0.00694284010720953, 0.006408994188004207, 0.0059513701127588475, 0.005554733551962801,
    ]
)  # fmt: skip
"""log(n!) - log(sqrt(2 pi n) (n / e)**n) for n = 1..15 (element 0 is unused)."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


def stirling_series(n: Any) -> Any:
    """The Stirling error of n >= 16 (Loader 2000, equation 4); the first term left out is below 2e-16."""
    square = n * n
    s = 1.0 / 1260.0 - (1.0 / 1680.0 - (1.0 / 1188.0) / square) / square
    return (1.0 / 12.0 - (1.0 / 360.0 - s / square) / square) / n


def deviance_series(x: Any, mean: Any) -> Any:
    """Return x log(x / mean) + mean - x without cancellation, for |x - mean| < 0.1 (x + mean) (Loader 2000, section 3)."""
    v = (x - mean) / (x + mean)
    w = v * v
    s = 1.0 / 11.0 + w * (1.0 / 13.0 + w * (1.0 / 15.0 + w * (1.0 / 17.0 + w * (1.0 / 19.0))))
    s = w * (1.0 / 3.0 + w * (1.0 / 5.0 + w * (1.0 / 7.0 + w * (1.0 / 9.0 + w * s))))
    return (x - mean) * v + 2.0 * x * v * s


_stirling_series_1 = _jit(stirling_series)
_deviance_series_1 = _jit(deviance_series)


@_jit
def _stirling_error(n: int) -> float:
    return float(STIRLING_ERROR[n] if n < 16 else _stirling_series_1(float(n)))


@_jit
def _deviance(x: float, mean: float) -> float:
    if abs(x - mean) < 0.1 * (x + mean):
        return float(_deviance_series_1(x, mean))
    return float(x * detmath.log(x / mean) + mean - x)


@_jit
def _poisson_pmf(n: int, mean: float) -> float:
    if n == 0:
        return float(detmath.exp(-mean))
    x = float(n)
    return float(detmath.exp(-_stirling_error(n) - _deviance(x, mean)) / math.sqrt(TWO_PI * x))


@_jit
def poisson_lower(n: int, mean: float) -> float:
    """Return P(X <= n), efficient and accurate where n is not far above the mean."""
    total = term = 1.0
    k = float(n)
    while k > 0.0 and term >= NEGLIGIBLE * total:
        term *= k / mean
        total += term
        k -= 1.0
    return float(_poisson_pmf(n, mean) * total)


@_jit
def poisson_upper(n: int, mean: float) -> float:
    """Return P(X > n), efficient and accurate where n is not far below the mean."""
    total = term = 1.0
    k = float(n + 2)
    while term >= NEGLIGIBLE * total:
        term *= mean / k
        total += term
        k += 1.0
    return float(_poisson_pmf(n + 1, mean) * total)


@_jit
def poisson_settle(n: int, u: float, mean: float) -> int:
    """Return the smallest n with P(X <= n) >= u, starting from a near guess. Mean at least 2**-53."""
    if u < 0.5:
        while poisson_lower(n, mean) < u:
            n += 1
        while n > 0 and poisson_lower(n - 1, mean) >= u:
            n -= 1
    else:
        while poisson_upper(n, mean) > 1.0 - u:
            n += 1
        while n > 0 and poisson_upper(n - 1, mean) <= 1.0 - u:
            n -= 1
    return n


@_jit
def log1p(x: float) -> float:
    """Return log(1 + x) to a few ulp, for x > -1 (Goldberg, ACM Computing Surveys 23, 1991, theorem 4)."""
    w = 1.0 + x
    return x if w == 1.0 else detmath.log(w) * x / (w - 1.0)


@_jit
def binomial_pmf(k: int, n: int, p: float) -> float:
    """Return the probability of k successes out of n, 0 < p < 1."""
    q = 1.0 - p
    if k == 0:
        return float(detmath.exp(n * log1p(-p)))
    if k == n:
        return float(detmath.exp(n * detmath.log(p)))
    x, y = float(k), float(n - k)
    exponent = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    exponent -= _deviance(x, n * p) + _deviance(y, n * q)
    return float(detmath.exp(exponent) * math.sqrt(n / (TWO_PI * x * y)))


@_jit
def _binomial_lower(k: int, n: int, p: float) -> float:
    odds = (1.0 - p) / p
    total = term = 1.0
    j = float(k)
    while j > 0.0 and term >= NEGLIGIBLE * total:
        term *= odds * j / (n - j + 1.0)
        total += term
        j -= 1.0
    return float(binomial_pmf(k, n, p) * total)


@_jit
def _binomial_upper(k: int, n: int, p: float) -> float:
    if k >= n:
        return 0.0
    odds = p / (1.0 - p)
    total = term = 1.0
    j = float(k + 1)
    while j < n and term >= NEGLIGIBLE * total:
        term *= odds * (n - j) / (j + 1.0)
        total += term
        j += 1.0
    return float(binomial_pmf(k + 1, n, p) * total)


@_jit
def binomial_settle(k: int, u: float, n: int, p: float) -> int:
    """Return the smallest k with P(X <= k) >= u, starting from a near guess in 0..n. 0 < p < 1."""
    if u < 0.5:
        while k < n and _binomial_lower(k, n, p) < u:
            k += 1
        while k > 0 and _binomial_lower(k - 1, n, p) >= u:
            k -= 1
    else:
        while _binomial_upper(k, n, p) > 1.0 - u:
            k += 1
        while k > 0 and _binomial_upper(k - 1, n, p) <= 1.0 - u:
            k -= 1
    return k
