"""Chains of dyes: occupancies and times are those of the exact solution, and cuts in time change no bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.kernels.switching import chain, exact
from simexm.random import derive_key

RATES = np.array([[0.0, 20.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
"""On, dark, bleached."""
START = np.array([1.0, 0.0, 0.0])
IDS = np.arange(6000, dtype=np.int64) * 7919 + (1 << 40)
KEY = derive_key(1, "switching")


def law(rates: NDArray[np.float64] = RATES, start: NDArray[np.float64] = START) -> chain.Law:
    """The chain in the form of the kernels."""
    leaves = rates.sum(axis=1)
    return chain.Law(leaves, np.cumsum(rates, 1) / np.where(leaves > 0, leaves, 1)[:, None], np.cumsum(start))


def flashes(clock: chain.Clock, frames: int, cuts: int = 1) -> chain.Flashes:
    """Flashes of all frames, followed in so many pieces."""
    states = chain.begin(IDS, law(), KEY)
    parts = [
        chain.follow(IDS, first, frames // cuts, law(), clock, KEY, states)
        for first in range(0, frames, frames // cuts)
    ]
    return chain.Flashes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def whole() -> chain.Flashes:
    """64 frames of 40 ms, each exposed for all of its time."""
    return flashes(chain.Clock(0.0, 0.04, 0.04), 64)


def test_time_on_is_that_of_the_exact_solution(whole: chain.Flashes) -> None:
    on = np.bincount(whole.frame, weights=whole.weight / chain.FULL, minlength=64) / IDS.size
    for frame in (0, 3, 20, 63):
        times = (frame + (np.arange(50) + 0.5) / 50) * 0.04
        expected = np.mean([exact.occupancy(RATES, START, t)[0] for t in times])
        assert abs(on[frame] - expected) < 3 * np.sqrt(expected / IDS.size)


def test_a_dye_is_on_as_long_and_as_often_as_the_exact_solution_says() -> None:
    rates = np.array([[0.0, 8.0, 2.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    states = chain.begin(IDS, law(rates), KEY)
    found = chain.follow(IDS, 0, 400, law(rates), chain.Clock(0.0, 0.05, 0.05), KEY, states)
    total = np.bincount(found.emitter, weights=found.weight * (0.05 / chain.FULL), minlength=IDS.size)
    counts, times = exact.visits(rates, START)
    assert abs(total.mean() - times[0]) < 3 * total.std() / np.sqrt(IDS.size)
    visits = states.number // 2 + 1  # a dwell on, one dark, and so on; the last dwell is bleached
    assert abs(visits.mean() - counts[0]) < 3 * visits.std() / np.sqrt(IDS.size)
    assert (states.state == 2).all()
    assert abs(total.std() - times[0]) < 0.05 * times[0], "the sum of a geometric number of dwells is exponential"


def test_cuts_in_time_change_no_bit(whole: chain.Flashes) -> None:
    for one, other in zip(whole, flashes(chain.Clock(0.0, 0.04, 0.04), 64, cuts=4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_time_on_is_conserved_whatever_the_frames(whole: chain.Flashes) -> None:
    fine = flashes(chain.Clock(0.0, 0.01, 0.01), 256)
    totals = [
        np.bincount(f.emitter, f.weight * (exposure / chain.FULL), IDS.size)
        for f, exposure in ((whole, 0.04), (fine, 0.01))
    ]
    np.testing.assert_allclose(totals[0], totals[1], atol=256 * 0.04 / chain.FULL)


def test_what_happens_between_exposures_is_not_seen() -> None:
    found = flashes(chain.Clock(0.0, 0.04, 0.01), 64)
    fine = flashes(chain.Clock(0.0, 0.01, 0.01), 256)
    mine = fine.frame % 4 == 0
    np.testing.assert_array_equal(found.emitter, fine.emitter[mine])
    assert np.abs(found.weight - fine.weight[mine]).max() <= 1


def test_equilibrium_stays() -> None:
    rates = np.array([[0.0, 20.0], [0.5, 0.0]])
    at = exact.equilibrium(rates)
    np.testing.assert_allclose(at, [0.5 / 20.5, 20 / 20.5], rtol=1e-9)
    np.testing.assert_allclose(exact.occupancy(rates, at, 3.0), at, rtol=1e-9)
