"""Array reference of the compiled draws in `simexm.kernels.numbers.draws`: the same bits, on NumPy or CuPy.

Every step is an array operation. Operations on each element follow the order of the compiled code; finished elements are carried
along unchanged.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from simexm.kernels.numbers import draws, fields, tails
from simexm.kernels.numbers.detmath import exp_array, log_array, normal_quantile_array
from simexm.random import Key, philox_array, unit_double_array


def _poisson_pmf(n: Any, mean: Any, xp: ModuleType) -> Any:
    x = xp.maximum(n, 1).astype(xp.float64)
    stirling = xp.asarray(tails.STIRLING_ERROR)[xp.minimum(n, 15)]
    stirling = xp.where(n < 16, stirling, tails.stirling_series(x))
    far = x * log_array(x / mean, xp) + mean - x
    deviance = xp.where(abs(x - mean) < 0.1 * (x + mean), tails.deviance_series(x, mean), far)
    pmf = exp_array(-stirling - deviance, xp) / xp.sqrt(tails.TWO_PI * x)
    return xp.where(n == 0, exp_array(-mean, xp), pmf)


def _poisson_lower(n: Any, mean: Any, xp: ModuleType) -> Any:
    """P(X <= n)."""
    total, term, k = xp.ones(n.shape), xp.ones(n.shape), n.astype(xp.float64)
    while (going := (k > 0.0) & (term >= tails.NEGLIGIBLE * total)).any():
        term = xp.where(going, term * (k / mean), term)
        total = xp.where(going, total + term, total)
        k = xp.where(going, k - 1.0, k)
    return _poisson_pmf(n, mean, xp) * total


def _poisson_upper(n: Any, mean: Any, xp: ModuleType) -> Any:
    """P(X > n)."""
    total, term, k = xp.ones(n.shape), xp.ones(n.shape), (n + 2).astype(xp.float64)
    while (going := term >= tails.NEGLIGIBLE * total).any():
        term = xp.where(going, term * (mean / k), term)
        total = xp.where(going, total + term, total)
        k = xp.where(going, k + 1.0, k)
    return _poisson_pmf(n + 1, mean, xp) * total


def _reached(n: Any, u: Any, mean: Any, xp: ModuleType) -> Any:
    """True where P(X <= n) >= u, by the smaller of the two tails."""
    low = u < 0.5
    out = xp.zeros(n.shape, dtype=bool)
    out[low] = _poisson_lower(n[low], mean[low], xp) >= u[low]
    out[~low] = _poisson_upper(n[~low], mean[~low], xp) <= 1.0 - u[~low]
    return out


def _settle(n: Any, u: Any, mean: Any, xp: ModuleType) -> Any:
    while not (reached := _reached(n, u, mean, xp)).all():
        n = xp.where(reached, n, n + 1)
    while (lower := (n > 0) & _reached(xp.maximum(n - 1, 0), u, mean, xp)).any():
        n = xp.where(lower, n - 1, n)
    return n


def _by_sum(u: Any, mean: Any, xp: ModuleType) -> Any:
    """Small means: sum the probabilities from 0."""
    n = xp.zeros(u.shape, dtype=xp.int64)
    total = term = exp_array(-mean, xp)
    while (going := (total < u) & (term > tails.NEGLIGIBLE)).any():
        n = xp.where(going, n + 1, n)
        term = xp.where(going, term * (mean / xp.maximum(n, 1)), term)
        total = xp.where(going, total + term, total)
    rare = u > draws.SUMMED_U
    n[rare] = _settle(n[rare], u[rare], mean[rare], xp)
    return n


def _by_expansion(u: Any, mean: Any, xp: ModuleType) -> Any:
    """Large means: use the normal expansion, or a tail where its error could matter."""
    w, root = normal_quantile_array(u, xp), xp.sqrt(mean)
    x = xp.maximum(draws.poisson_expansion(w, mean, root), 0.0)
    below = xp.floor(x)
    n = below.astype(xp.int64)
    error = draws.poisson_expansion_error(w, mean, root)
    unsure = ~((abs(w) <= draws.EXPANSION_SIGMA) & (x - below > error) & (x - below < 1.0 - error))
    n[unsure] = _settle(n[unsure], u[unsure], mean[unsure], xp)
    return n


def poisson_quantile_array(u: Any, mean: Any, xp: ModuleType = np) -> Any:
    """Return `draws.poisson_quantile` of each element, int64; `xp` is the array namespace, NumPy or CuPy."""
    n = xp.zeros(u.shape, dtype=xp.int64)
    mean = mean.astype(xp.float64)
    small = (mean > draws.LEAST_MEAN) & (mean < draws.SMALL_MEAN)
    large = mean >= draws.SMALL_MEAN
    n[small] = _by_sum(u[small], mean[small], xp)
    n[large] = _by_expansion(u[large], mean[large], xp)
    return n


def _uniform_field(shape: tuple[int, int, int], z0: int, y0: int, x0: int, draw: int, key: Key, xp: ModuleType) -> Any:
    nz, ny, nx = shape
    z, y, x = (start + xp.arange(n) for start, n in ((z0, nz), (y0, ny), (x0, nx)))
    words = philox_array(z[:, None, None], y[:, None], x, draw, key, xp)
    return unit_double_array(words[0], words[1])


def poisson_field_array(mean: Any, z0: int, y0: int, x0: int, key: Key, xp: ModuleType = np) -> Any:
    """Return `fields.poisson_field`."""
    if mean.size:
        fields.check_mean(float(mean.min()), float(mean.max()))
    u = _uniform_field(mean.shape, z0, y0, x0, 0, key, xp)
    return poisson_quantile_array(u, mean, xp).astype(xp.uint32)


def normal_field_array(
    shape: tuple[int, int, int], z0: int, y0: int, x0: int, key: Key, draw: int = 0, xp: ModuleType = np
) -> Any:
    """Return `fields.normal_field`."""
    return normal_quantile_array(_uniform_field(shape, z0, y0, x0, draw, key, xp), xp)
