"""Compiled draws by the inverse distribution function, from one uniform number each.

The inverse is exact: the smallest n with CDF(n) >= u. It is monotonic in u and in the mean, so two nearly equal rates
give the same count in all but a share |difference of rate| of the pixels.
"""

from __future__ import annotations

import math
from typing import Any

from simexm.compiled import njit
from simexm.kernels.numbers import detmath, tails

SMALL_MEAN = 10.0
"""Below this mean the distribution is summed from 0; above, the normal expansion gives a guess."""
LEAST_MEAN = 2.0**-53
"""At or below this mean P(X > 0) is less than the smallest 1 - u of `unit_double`: the count is 0."""
SUMMED_U = 1.0 - 2.0**-10
"""Above this u the sum from 0 loses the relative accuracy of 1 - CDF; the upper tail decides."""
EXPANSION_SIGMA = 4.0
"""Beyond this quantile the error bound of the normal expansion is not valid; the tail decides."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


def poisson_expansion(w: Any, mean: Any, root: Any) -> Any:
    """Return the continuous Poisson quantile at the normal quantile w, root = sqrt(mean).

    Giles, "Algorithm 955: approximation of the inverse Poisson cumulative distribution function", ACM TOMS 42
    (2016), article 7: the normal expansion to order 1 / mean. The count is its floor.
    """
    s = w * w
    first = 1.0 / 3.0 + s * (1.0 / 6.0)
    second = w * (-1.0 / 36.0 - s * (1.0 / 72.0))
    third = -8.0 / 405.0 + s * (7.0 / 810.0 + s * (1.0 / 270.0))
    return mean + (root * w + (first + (second + third / root) / root))


def poisson_expansion_error(w: Any, mean: Any, root: Any) -> Any:
    """Return a bound on the error of `poisson_expansion` for mean >= 10 and |w| <= 4.

    By a fit, the next order is (-w/58 + w**3/284 + w**5/750) mean**(-3/2); the bound is at least 1.5 times the measured
    error for every mean from 10. The last term covers rounding.
    """
    s = w * w
    return (0.03 + 0.002 * (s * s * s)) / (mean * root) + 1e-15 * mean


poisson_expansion_1 = _jit(poisson_expansion)
poisson_expansion_error_1 = _jit(poisson_expansion_error)


@_jit
def poisson_quantile(u: float, mean: float) -> int:
    """Return the smallest n with P(X <= n) >= u for a Poisson X, u in (0, 1); 0 unless the (finite) mean is positive."""
    if not mean > LEAST_MEAN:
        return 0
    if mean < SMALL_MEAN:
        n = 0
        term = detmath.exp(-mean)
        total = term
        while total < u and term > tails.NEGLIGIBLE:
            n += 1
            term *= mean / n
            total += term
        return n if u <= SUMMED_U else tails.poisson_settle(n, u, mean)
    w = detmath.normal_quantile(u)
    root = math.sqrt(mean)
    x = max(poisson_expansion_1(w, mean, root), 0.0)
    below = math.floor(x)
    n = int(below)
    error = poisson_expansion_error_1(w, mean, root)
    if abs(w) <= EXPANSION_SIGMA and x - below > error and x - below < 1.0 - error:
        return n
    return int(tails.poisson_settle(n, u, mean))


@_jit
def pulse_count_quantile(u: float, mean: float, dead_share: float) -> int:
    """Return the smallest n with P(N <= n) >= u for pulses N counted with a dead time.

    Each counted pulse makes the counter deaf for the share `dead_share` of the time in which `mean` pulses are expected,
    and pulses meanwhile are lost (Feller, "On probability problems in the theory of counters", 1948, type I). More than n
    are counted if n + 1 waiting times and n dead times fit into the time, so P(N <= n) is that of a Poisson number of
    mean * (1 - n * dead_share). On average about mean / (1 + mean * dead_share) are counted.
    """
    return int(counted_pulses(int(poisson_quantile(u, mean)), u, mean, dead_share))


@_jit
def counted_pulses(pulses: int, u: float, mean: float, dead_share: float) -> int:
    """Return `pulse_count_quantile`, given pulses = poisson_quantile(u, mean)."""
    if pulses == 0 or not dead_share > 0.0:
        return pulses
    n = int(pulses / (1.0 + pulses * dead_share) + 0.5)
    while n < pulses and poisson_quantile(u, mean * (1.0 - n * dead_share)) > n:
        n += 1
    while n > 0 and poisson_quantile(u, mean * (1.0 - (n - 1) * dead_share)) <= n - 1:
        n -= 1
    return n


@_jit
def _binomial_guess(u: float, n: int, p: float) -> int:
    """Guess the quantile by Cornish-Fisher to the skewness, 0 < p <= 1/2."""
    w = detmath.normal_quantile(u)
    q = 1.0 - p
    x = n * p + math.sqrt(n * p * q) * w + (q - p) * (w * w - 1.0) / 6.0 + 0.5
    return int(min(max(math.floor(x), 0.0), float(n)))


@_jit
def _binomial_quantile_rare(u: float, n: int, p: float) -> int:
    """`binomial_quantile` for 0 < p <= 1/2."""
    if n * p >= SMALL_MEAN:
        return int(tails.binomial_settle(_binomial_guess(u, n, p), u, n, p))
    odds = p / (1.0 - p)
    k = 0
    term = tails.binomial_pmf(0, n, p)
    total = term
    while total < u and k < n and term > tails.NEGLIGIBLE:
        term *= odds * (n - k) / (k + 1)
        k += 1
        total += term
    return k if u <= SUMMED_U else tails.binomial_settle(k, u, n, p)


@_jit
def binomial_quantile(u: float, n: int, p: float) -> int:
    """Return the smallest k with P(X <= k) >= u for X successes out of n.

    Parameters
    ----------
    u
        In (0, 1), a value of `unit_double` (so that 1 - u is exact).
    n
        Number of trials; not positive counts as 0.
    p
        Probability of success; clipped to [0, 1].
    """
    if n <= 0 or not p > 0.0:
        return 0
    if p >= 1.0:
        return n
    if p <= 0.5:
        return int(_binomial_quantile_rare(u, n, p))
    # P(X <= k) >= u is P(failures < n - k) <= 1 - u: count failures, which are rarer.
    return n - int(_binomial_quantile_rare(1.0 - u, n, 1.0 - p))
