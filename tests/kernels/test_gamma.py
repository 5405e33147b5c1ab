"""Sums of gamma-distributed pulses, and pulses counted with a dead time, against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from simexm.compiled import njit
from simexm.kernels.numbers import draws, fields, gamma
from simexm.random import derive_key

Floats = NDArray[np.float64]


@njit()
def pulse_sums(n, w, variance, table):  # type: ignore[no-untyped-def]
    """Sum of n[i] pulses at the normal number w[i]."""
    out = np.empty(n.size)
    for i in range(n.size):
        out[i] = gamma.pulse_sum(n[i], w[i], variance, table)
    return out


@njit()
def counted(u, mean, dead_share):  # type: ignore[no-untyped-def]
    out = np.empty(u.size, np.int64)
    for i in range(u.size):
        out[i] = draws.pulse_count_quantile(u[i], mean, dead_share)
    return out


def exact(n: Floats, w: Floats, variance: float) -> Floats:
    """Quantile of the sum by scipy, from the smaller tail."""
    low = special.gammaincinv(n / variance, special.ndtr(w))
    return np.asarray(np.where(w < 0, low, special.gammainccinv(n / variance, special.ndtr(-w))) * variance)


@pytest.mark.parametrize("variance", [0.001, 0.05, 0.2, 1.0, 3.0])
def test_the_sum_of_pulses_is_the_quantile_of_its_gamma_distribution(variance: float) -> None:
    """To 1.1e-5 standard deviations within 5 sigma and 1e-3 at the very ends, in the table, at its end and beyond."""
    rng, table = np.random.default_rng(1), gamma.pulse_table(variance)
    end = table.shape[0]
    n = rng.choice([1, 2, 3, 10, end - 1, end, end + 1, 3 * end, 20 * end], 20_000).clip(1)
    w = rng.uniform(-8.2, 8.2, n.size)
    error = np.abs(pulse_sums(n, w, variance, table) - exact(n, w, variance)) / np.sqrt(n * variance)
    assert error[np.abs(w) < 5].max() < 1.1e-5
    assert error.max() < 1e-3


def test_the_table_is_right_at_its_nodes() -> None:
    w = gamma.LOWEST_W + np.arange(gamma.QUANTILES) / gamma.PER_SIGMA
    table = gamma.pulse_table(1.0)
    np.testing.assert_allclose(table[1:], exact(np.arange(1.0, table.shape[0])[:, None], w, 1.0), rtol=1e-12)
    assert not table[0].any()


def test_a_sum_rises_with_the_number_and_with_the_pulses() -> None:
    w = np.linspace(-8.2, 8.2, 4001)
    table = gamma.pulse_table(0.2)
    sums = np.array([pulse_sums(np.full(w.size, n), w, 0.2, table) for n in range(40)])
    assert (np.diff(sums[1:], axis=1) > -1e-4).all()
    assert (np.diff(sums[:, np.abs(w) < 5], axis=0) > 0).all()
    assert not sums[0].any()


@pytest.mark.parametrize(("mean", "dead_share"), [(0.3, 0.2), (5.0, 0.02), (30.0, 0.05), (400.0, 0.001)])
def test_counted_pulses_follow_the_law_of_a_counter_that_is_deaf_after_each(mean: float, dead_share: float) -> None:
    """Against a simulation of waiting times, and the renewal laws of mean and variance."""
    rng = np.random.default_rng(3)
    waits = rng.exponential(1 / mean, (20_000, int(mean + 8 * mean**0.5 + 12)))
    waits[:, 1:] += dead_share
    simulated = (np.cumsum(waits, axis=1) < 1).sum(axis=1)
    n = fields.pulse_count_field(np.full((1, 200, 200), mean), 0, 0, 0, derive_key(4, "pulses"), dead_share).reshape(-1)
    assert stats.ks_2samp(n, simulated).pvalue > 1e-3
    assert n.mean() == pytest.approx(mean / (1 + mean * dead_share), abs=0.5)
    assert n.var() == pytest.approx(simulated.var(), rel=0.05)
    if mean > 100:  # so that the discreteness of counts does not matter
        assert n.var() == pytest.approx(mean / (1 + mean * dead_share) ** 3, rel=0.03)


def test_without_a_dead_time_all_pulses_are_counted() -> None:
    mean = 10 ** np.random.default_rng(5).uniform(-3, 4, (3, 20, 20))
    key = derive_key(6, "pulses")
    assert np.array_equal(fields.pulse_count_field(mean, 0, 0, 0, key, 0.0), fields.poisson_field(mean, 0, 0, 0, key))
    u = np.linspace(0.001, 0.999, 999)
    assert (np.diff(counted(u, 20.0, 0.05)) >= 0).all()
    assert counted(u, 1e6, 0.05).max() == 20  # one dead time after the other
