"""Quantiles of the sum of n gamma-distributed pulses, by a table and, for many pulses, by an expansion.

A sum of n pulses of mean 1 and variance v is gamma-distributed with shape n / v and mean n. Electrons behind a register
that multiplies each of n by an exponential number (v = 1) are the same law. `numbers` are normal quantiles, so that one
random number draws the sum for any n, and a sum rises with it. Tables come from `detmath` and exact operations alone, so
they have the same bits on every machine.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers import tails
from simexm.kernels.numbers.detmath import exp_array, log_array

Floats = NDArray[np.float64]

TABLED_SHAPE = 64.0
"""From this shape on the expansion is used; its error there is 1.1e-5 of the standard deviation within 5 sigma."""
LOWEST_W, PER_SIGMA = -8.5, 16
"""First node of a table's rows, and nodes per standard deviation of the normal number."""
QUANTILES = int(-2 * LOWEST_W * PER_SIGMA) + 3
_TERMS, _STEPS = 96, 6
"""Terms of the series and of the continued fraction, and steps of Newton's method: enough for 1e-12 at every node."""


@cache
def pulse_table(variance: float) -> Floats:
    """Sum of n = 0, 1, ... pulses of mean 1 at each node, (n, `QUANTILES`), for all n below `TABLED_SHAPE`."""
    pulses = math.ceil(TABLED_SHAPE * variance)
    w = LOWEST_W + np.arange(QUANTILES) / PER_SIGMA
    table = np.zeros((pulses, QUANTILES))
    if pulses > 1:
        shape = np.arange(1, pulses)[:, None] / variance
        for upper, some in ((False, w < 1.0), (True, w >= 1.0)):
            table[1:, some] = _gamma_quantiles(shape, w[some], upper) * variance
    table.flags.writeable = False
    return table


def _gamma_quantiles(shape: Floats, w: Floats, upper: bool) -> Floats:
    """Return x whose gamma distribution of this shape equals the normal distribution at w, by Newton's method.

    The logarithm of the lower or upper tail is solved for log x, of which it is nearly linear far out.
    """
    log_tail = _log_normal_tail(w if upper else -w)
    log_gamma = _log_gamma(shape)
    third = 1.0 / (9.0 * shape)  # Wilson & Hilferty, PNAS 17, 684 (1931)
    cube = 1.0 - third + w * np.sqrt(third)
    least = exp_array((log_tail + log_gamma + log_array(shape)) / shape) * 0.5  # where x**shape is small
    x = np.maximum(shape * cube * cube * cube, least)
    for _ in range(_STEPS):
        log_x = log_array(x)
        rise = shape * log_x - x - log_gamma  # log of density * x
        found = rise + (_log_fraction(shape, x) if upper else _log_series(shape, x))
        step = (log_tail - found) * exp_array(found - rise)
        x = x * exp_array(np.clip(-step if upper else step, -1.0, 1.0))
    return np.asarray(x)


def _log_normal_tail(w: Floats) -> Floats:
    """Logarithm of P(W > w) for a standard normal W: a series within 2 sigma, Laplace's continued fraction beyond."""
    near, far = np.clip(w, -2.0, 2.0), np.maximum(np.abs(w), 2.0)
    total = term = near
    for k in range(1, 60):
        term = term * (near * near / (2 * k + 1))
        total = total + term
    middle = 0.5 - exp_array(-0.5 * near * near) / math.sqrt(tails.TWO_PI) * total
    value = far
    for k in range(_TERMS, 0, -1):
        value = far + k / value
    log_far = -0.5 * far * far - 0.5 * math.log(tails.TWO_PI) - log_array(value)
    beyond = np.where(w > 0, log_far, log_array(1.0 - exp_array(log_far)))
    return np.asarray(np.where(np.abs(w) <= 2.0, log_array(middle), beyond))


def _log_gamma(a: Floats) -> Floats:
    """Logarithm of the gamma function, by Stirling's series above 16."""
    product, high = np.ones(a.shape), a
    for _ in range(17):
        low = high < 16.0
        product = np.where(low, product * high, product)
        high = np.where(low, high + 1.0, high)
    n = high - 1.0
    stirling = (n + 0.5) * log_array(n) - n + 0.5 * math.log(tails.TWO_PI) + tails.stirling_series(n)
    return np.asarray(stirling - log_array(product))


def _log_series(a: Floats, x: Floats) -> Floats:
    """Logarithm of the lower incomplete gamma function over x**a exp(-x), by its series of positive terms."""
    total = term = 1.0 / np.broadcast_to(a, x.shape)
    for k in range(1, _TERMS):
        term = term * (x / (a + k))
        total = total + term
    return np.asarray(log_array(total))


def _log_fraction(a: Floats, x: Floats) -> Floats:
    """Logarithm of the upper incomplete gamma function over x**a exp(-x), by Legendre's continued fraction."""
    value = x + (2 * _TERMS + 1) - a
    for k in range(_TERMS, 0, -1):
        value = x + (2 * k - 1) - a - k * (k - a) / value
    return np.asarray(-log_array(value))


def gamma_expansion(w: Any, shape: Any, root: Any) -> Any:
    """Return the gamma quantile at the normal quantile w, root = sqrt(shape).

    Cornish & Fisher, Rev. Inst. Int. Stat. 5, 307 (1938), for the chi-square distribution to order shape**(-3/2), with
    the coefficients of Goldberg & Levine, Ann. Math. Stat. 17, 216 (1946).
    """
    s = w * w
    first = (s - 1.0) / 3.0
    second = w * (s - 7.0) / 36.0
    third = -(s * (3.0 * s + 7.0) - 16.0) / 810.0
    fourth = w * (s * (9.0 * s + 256.0) - 433.0) / 38880.0
    return shape + (root * w + (first + (second + (third + fourth / root) / root) / root))


_gamma_expansion_1 = njit(cache=True, nogil=True, error_model="numpy")(gamma_expansion)


@njit(cache=True, nogil=True, error_model="numpy")
def pulse_sum(n, w, variance, table):  # type: ignore[no-untyped-def]
    """Return the sum of n pulses of mean 1 at the normal number w; `table` is `pulse_table(variance)`."""
    if n <= 0:
        return 0.0
    if n >= table.shape[0]:
        shape = n / variance
        return max(_gamma_expansion_1(w, shape, math.sqrt(shape)), 0.0) * variance
    place = (w - LOWEST_W) * PER_SIGMA
    i = min(max(int(place), 1), QUANTILES - 3)
    s = place - (i - 1)
    a, b, c, d = table[n, i - 1], table[n, i], table[n, i + 1], table[n, i + 2]
    first, second = b - a, c - 2.0 * b + a
    third = d - 3.0 * c + 3.0 * b - a
    return max(a + s * (first + (s - 1.0) / 2.0 * (second + (s - 2.0) / 3.0 * third)), 0.0)
