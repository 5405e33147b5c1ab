"""A dye is shared out exactly, and no four weights along an axis would leave less error."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import i0

from simexm.kernels.imaging.deposit import Ring
from simexm.kernels.imaging.gridding import (
    BITS,
    HIGHEST,
    MARGIN,
    NODES,
    STEPS,
    UNIT,
    WEIGHTS,
    blur,
    left_over,
    sharpened,
    sharpened_along_z,
)  # fmt: skip

Array = NDArray[np.float64]
SHARES = WEIGHTS / (1 << BITS)
DISTANCE = np.arange(NODES) - 1 - (np.arange(STEPS)[:, None] + 0.5) / STEPS
SOME = np.arange(STEPS).reshape(-1, 16)[:, 7:9].ravel()
"""Places at which weights are optimised."""
CYCLES = np.linspace(0, 0.5, 51)
SPOT = np.exp(-85 * CYCLES**2)
"""Power of a Gaussian spot 3.5 nodes wide at half its maximum."""


def transform(shares: Array, cycles: Array, distance: Array = DISTANCE) -> Array:
    """Mean over places of the sum of share * cos(2 pi q distance), term by term."""
    return np.array([(shares * np.cos(2 * np.pi * q * distance)).sum() / len(shares) for q in cycles.ravel()]).reshape(
        cycles.shape
    )


def aliases(shares: Array) -> Array:
    """Transform at `CYCLES` and at -10 to 10 cycles from them, of weights at the places `SOME`."""
    return transform(shares, CYCLES + np.arange(-10, 11)[:, None], DISTANCE[SOME])


def rms(shares: Array) -> float:
    """Error that the best linear filter leaves of the spot, over all places."""
    h = aliases(shares)
    return float(np.sqrt((SPOT * (1 - h[10] ** 2 / (h**2).sum(axis=0))).sum() / SPOT.sum()))


def better(shares: Array) -> Array:
    """Least-squares weights of the spot at each place, for the filter that is best for the given ones."""
    h = aliases(shares)
    c = h[10] / (h**2).sum(axis=0)
    wave = np.exp(2j * np.pi * CYCLES[:, None, None] * DISTANCE[SOME])
    system = np.ones((SOME.size, NODES + 1, NODES + 1))
    system[:, :NODES, :NODES] = np.einsum("q,qfi,qfj->fij", SPOT * c * c, wave, wave.conj()).real
    system[:, NODES, NODES] = 0
    wanted = np.ones((SOME.size, NODES + 1, 1))
    wanted[:, :NODES, 0] = np.einsum("q,qfi->fi", SPOT * c, wave.real)
    return np.asarray(np.linalg.solve(system, wanted)[:, :NODES, 0])


def test_weights_are_whole_and_positive_and_those_of_a_dye_sum_to_one() -> None:
    assert WEIGHTS.dtype == np.int32
    assert (WEIGHTS.sum(axis=1) == 1 << BITS).all()
    assert WEIGHTS.min() > 0
    np.testing.assert_array_equal(WEIGHTS, WEIGHTS[::-1, ::-1])


def test_an_int64_has_room_for_more_dyes_than_a_node_can_see() -> None:
    """For 6e8 of them at one point; or for 1e8 in each cell, of which a node receives all the weights of as many."""
    assert 6e8 * HIGHEST < 2**63
    assert 1e8 * UNIT < 2**63
    assert WEIGHTS.sum(dtype=np.int64) == STEPS << BITS


def test_no_other_weights_image_a_spot_with_less_error() -> None:
    best = SHARES[SOME]
    for _ in range(20):
        best = better(best)
    np.testing.assert_allclose(SHARES[SOME], best, atol=2e-3)
    ours = rms(SHARES[SOME])
    assert ours < 1.25 * rms(best)  # what whole numbers cost
    d = DISTANCE[SOME]
    kaiser = [i0(b * np.sqrt(1 - (d / 2) ** 2)) for b in np.linspace(7.6, 10, 7)]
    assert ours < 0.75 * min(rms(k / k.sum(axis=1, keepdims=True)) for k in kaiser)


def test_filters_follow_from_the_weights() -> None:
    q = np.array([0.0, 0.13, 0.31, 0.5])
    everywhere = transform(SHARES, q + np.arange(-STEPS // 2, STEPS // 2)[:, None])  # one period in the frequency
    h, power = everywhere[STEPS // 2], (everywhere**2).sum(axis=0)
    np.testing.assert_allclose(blur(q), h, atol=1e-12)
    np.testing.assert_allclose(sharpened(q), h / power, rtol=1e-9)
    np.testing.assert_allclose(left_over(q), np.sqrt(np.maximum(0, 1 - h * h / power)), atol=1e-6)


def test_a_dye_on_a_node_plane_gives_each_plane_its_response() -> None:
    z = np.arange(24.0 + MARGIN)
    response = np.exp(-((z / 2.1) ** 2))[:, None] * np.array([1.0, 0.3]) + 0.01 / (1 + z[:, None] ** 2)
    planes = sharpened_along_z(response)
    assert planes.shape == (24, 2)
    even = np.concatenate([planes[:0:-1], planes])
    for shares in (SHARES[0], SHARES[-1, ::-1]):  # just above a node plane, and just below one
        seen = sum(shares[j] * even[22 + j : 22 + j + 20] for j in range(NODES))
        np.testing.assert_allclose(seen, response[:20], atol=3e-4)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (3.99, 4.5, 2.25), (5.0, 6.5, 6.9)])
def test_a_dye_within_the_grid_adds_one_unit_to_the_nodes_around_it(place: tuple[float, float, float]) -> None:
    ring = Ring((-2, -2, -2), (16, 16, 16), 16, 16)
    z, y, x = (np.array([p]) for p in place)
    ring.add(z, y, x, np.array([3], np.int32), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert ring.planes.sum() == 3 * UNIT
    for axis, p in enumerate(place):
        held = np.roll(ring.planes.sum(axis=tuple({0, 1, 2} - {axis})), 2 if axis == 0 else 0)
        nodes = np.arange(-2, 14)
        assert nodes[held > 0].tolist() == [int(p) - 1, int(p), int(p) + 1, int(p) + 2]
        assert (held * nodes).sum() / held.sum() == pytest.approx(p, abs=2e-3)
