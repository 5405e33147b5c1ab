"""Compiled draws by the inverse distribution function, from one uniform number each.

The inverse is exact: the smallest n with CDF(n) >= u. It is monotonic in u and in the mean, so two nearly equal rates
give the same count in all but a share |difference of rate| of the pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers import detmath, tails
from simexm.random import Key, philox, unit_double

SMALL_MEAN = 10.0
"""Below this mean the distribution is summed from 0; above, the normal expansion gives a guess."""
LEAST_MEAN = 2.0**-53
"""At or below this mean P(X > 0) is less than the smallest 1 - u of `unit_double`: the count is 0."""
LARGEST_MEAN = 2.0**31
"""Largest mean of a field: its counts still fit 32 bits."""
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


_poisson_expansion_1 = _jit(poisson_expansion)
_poisson_expansion_error_1 = _jit(poisson_expansion_error)


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
    x = max(_poisson_expansion_1(w, mean, root), 0.0)
    below = math.floor(x)
    n = int(below)
    error = _poisson_expansion_error_1(w, mean, root)
    if abs(w) <= EXPANSION_SIGMA and x - below > error and x - below < 1.0 - error:
        return n
    return int(tails.poisson_settle(n, u, mean))


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


# One function per step of a row: LLVM does not vectorise Philox in a function that also searches or allocates (14 ns a pixel
# instead of 1.6).
@_jit
def _uniform_row(u, z, y, x0, draw, k0, k1):  # type: ignore[no-untyped-def]
    for k in range(u.shape[0]):
        words = philox(z, y, x0 + k, draw, k0, k1)
        u[k] = unit_double(words[0], words[1])


@_jit
def _poisson_row(counts, u, mean):  # type: ignore[no-untyped-def]
    for k in range(counts.shape[0]):
        counts[k] = poisson_quantile(u[k], np.float64(mean[k]))


@_jit
def _normal_row(u):  # type: ignore[no-untyped-def]
    for k in range(u.shape[0]):
        u[k] = detmath.normal_quantile(u[k])


@_jit
def _poisson_field(mean, z0, y0, x0, k0, k1):  # type: ignore[no-untyped-def]
    counts = np.empty(mean.shape, np.uint32)
    u = np.empty(mean.shape[2])
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            _uniform_row(u, z0 + i, y0 + j, x0, 0, k0, k1)
            _poisson_row(counts[i, j], u, mean[i, j])
    return counts


@_jit
def _normal_field(nz, ny, nx, z0, y0, x0, draw, k0, k1):  # type: ignore[no-untyped-def]
    field = np.empty((nz, ny, nx))
    for i in range(nz):
        for j in range(ny):
            _uniform_row(field[i, j], z0 + i, y0 + j, x0, draw, k0, k1)
            _normal_row(field[i, j])
    return field


def check_mean(lowest: float, highest: float) -> None:
    """Raise ValueError if a mean is NaN or above `LARGEST_MEAN`."""
    if not (lowest <= highest <= LARGEST_MEAN):
        raise ValueError(f"means from {lowest} to {highest}: a Poisson field needs numbers up to {LARGEST_MEAN:.0f}")


def poisson_field(
    mean: NDArray[np.float32] | NDArray[np.float64], z0: int, y0: int, x0: int, key: Key
) -> NDArray[np.uint32]:
    """Draw a Poisson count for every pixel of a box, uint32.

    Pixel (i, j, k) uses the random number of counter (z0 + i, y0 + j, x0 + k, 0) only, so its count does not depend on
    the box or on other pixels.

    Parameters
    ----------
    mean
        Expected counts, (z, y, x); 0 is drawn unless positive. ValueError if one is NaN or above `LARGEST_MEAN`.
    z0, y0, x0
        Index of the first pixel in the image.
    key
        Key of the stream, one per channel and purpose (`simexm.random.derive_key`).
    """
    if mean.size:
        check_mean(float(mean.min()), float(mean.max()))
    counts: NDArray[np.uint32] = _poisson_field(mean, z0, y0, x0, *key)
    return counts


def normal_field(
    shape: tuple[int, int, int], z0: int, y0: int, x0: int, key: Key, draw: int = 0
) -> NDArray[np.float64]:
    """Draw a standard normal number for every pixel of a box, float64, as `poisson_field` does.

    `draw` is the fourth word of the counter, for streams with several numbers per pixel.
    """
    field: NDArray[np.float64] = _normal_field(*shape, z0, y0, x0, draw, *key)
    return field
