"""Nanoseconds per pixel of Poisson draws: rows sorted by method against one quantile after the other, in turn.

python -m benchmarks.draws
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers import draws, fields

SHAPE = (1, 1000, 1000)
ROUNDS = 9
MEANS = (0.1, 1.0, 5.0, 20.0, 100.0, 1000.0)


@njit(error_model="numpy")
def _one_by_one(mean, u, counts):  # type: ignore[no-untyped-def]
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            fields._uniform_row(u, i, j, 0, 0, 1, 2)
            for k in range(mean.shape[2]):
                counts[i, j, k] = draws.poisson_quantile(u[k], mean[i, j, k])


def one_by_one(mean: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Draw each pixel by `poisson_quantile`."""
    counts = np.empty(mean.shape, np.uint32)
    _one_by_one(mean, np.empty(mean.shape[2]), counts)
    return counts


def by_rows(mean: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Draw rows by `poisson_field`."""
    return fields.poisson_field(mean, 0, 0, 0, (1, 2))


def image() -> NDArray[np.float64]:
    """Means of a labelled specimen: dim background, and cell borders of up to some hundred electrons in wavy lines."""
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    ridge = np.sin(x / 23 + 2 * np.sin(y / 41)) * np.sin(y / 31 + 2 * np.sin(x / 57))
    return np.asarray(2.0 + 300.0 * np.exp(-((ridge / 0.08) ** 2)) * (1 + np.sin(x / 200)))[None]


def nanoseconds(function: Callable[[Any], Any], mean: NDArray[np.float64]) -> float:
    """CPU time of one call per pixel."""
    start = time.process_time()
    function(mean)
    return (time.process_time() - start) / mean.size * 1e9


def main() -> None:
    """Print the medians and their ratio."""
    print(f"{'mean':>8} {'one by one':>12} {'by rows':>9} {'ratio':>6}   ns per pixel")
    for name, mean in [*((f"{m:g}", np.full(SHAPE, m)) for m in MEANS), ("image", image())]:
        if not np.array_equal(one_by_one(mean), by_rows(mean)):
            raise SystemExit(f"counts of mean {name} differ")
        times = np.array([[nanoseconds(f, mean) for f in (one_by_one, by_rows)] for _ in range(ROUNDS)])
        old, new = np.median(times, axis=0)
        print(f"{name:>8} {old:12.1f} {new:9.1f} {old / new:6.1f}")


if __name__ == "__main__":
    main()
