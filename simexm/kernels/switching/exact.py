"""Exact solution of a chain: occupancies in time, in equilibrium, and times spent until a state is never left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def generator(rates: Array) -> Array:
    """Return the generator of rates (from, to): the diagonal makes its rows 0."""
    q = np.array(rates, np.float64)
    np.fill_diagonal(q, 0.0)
    np.fill_diagonal(q, -q.sum(axis=1))
    return q


def occupancy(rates: Array, start: Array, time_s: float) -> Array:
    """Return the probability of each state at a time: start * exp(Q t)."""
    from scipy.linalg import expm  # late: it takes a while to load

    return np.asarray(start @ expm(generator(rates) * time_s), np.float64)


def equilibrium(rates: Array) -> Array:
    """Return the probabilities of the states that remain in the long run, of a chain whose states all return to one another."""
    q = generator(rates)
    n = len(q)
    found, *_ = np.linalg.lstsq(np.vstack([q.T, np.ones(n)]), np.append(np.zeros(n), 1.0), rcond=None)
    return np.asarray(np.clip(found, 0.0, None) / np.clip(found, 0.0, None).sum())


def visits(rates: Array, start: Array) -> tuple[Array, Array]:
    """Return the mean number of visits to each state, and the mean time in it, until a state is never left.

    Infinite for all states if none is final; 0 visits to final ones are not counted.
    """
    q = generator(rates)
    leaving = -np.diag(q)
    passing = leaving > 0
    times, counts = np.zeros(len(q)), np.zeros(len(q))
    inner = q[np.ix_(passing, passing)]
    if not passing.any():
        return counts, times
    if passing.all() or abs(np.linalg.det(inner / leaving[passing][:, None])) < 1e-12:
        return np.full(len(q), np.inf), np.full(len(q), np.inf)
    times[passing] = np.linalg.solve(-inner.T, start[passing])
    counts[passing] = times[passing] * leaving[passing]
    return counts, times
