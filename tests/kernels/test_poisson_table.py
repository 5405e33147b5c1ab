"""The tabled quantile is the quantile."""

from __future__ import annotations

import numpy as np

from simexm.compiled import njit
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.kernels.numbers.poisson_table import cumulative, tabled_quantile


@njit()
def both(u, mean, table):  # type: ignore[no-untyped-def]
    out = np.empty((2, mean.size, u.size), np.int64)
    for i in range(mean.size):
        for k in range(u.size):
            out[0, i, k] = poisson_quantile(u[k], mean[i])
            out[1, i, k] = tabled_quantile(u[k], mean[i], table[i])
    return out


def test_the_tabled_quantile_is_the_quantile() -> None:
    rng = np.random.default_rng(1)
    mean = np.concatenate([[0.0, 1e-20, 1e-9, 0.4, 5.6, 9.999, 10.0, 8192.0], rng.uniform(0, 20, 40)])
    for size in (1, 6, 24):
        table = cumulative(mean, size)
        steps = np.clip(table.ravel(), 2.0**-53, 1 - 2.0**-53)
        u = np.concatenate([rng.uniform(size=2000), 10 ** rng.uniform(-16, 0, 500), 1 - 10 ** rng.uniform(-15, 0, 500)])
        u = np.clip(np.concatenate([u, steps, np.nextafter(steps, 1)]), 2.0**-53, 1 - 2.0**-53)
        exact, tabled = both(u, mean, table)
        np.testing.assert_array_equal(exact, tabled)
