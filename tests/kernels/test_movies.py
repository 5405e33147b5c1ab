"""Similarity, matching, lags and shifts: laws, and brute force on small cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from simexm.kernels.movies import footprints as f
from simexm.kernels.movies import traces as t


def random(seed: int, units: int = 5, pixels: int = 30) -> NDArray[np.float64]:
    """Sparse weights, (unit, pixel)."""
    rng = np.random.default_rng(seed)
    return rng.random((units, pixels)) * (rng.random((units, pixels)) < 0.4)


def test_masks_are_the_fewest_pixels_that_hold_the_energy() -> None:
    weights = random(1)
    for share in (0.3, 0.9, 1.0):
        for row, mask in zip(weights, f.masks(sparse.csr_array(weights), share).toarray() > 0, strict=True):
            held = (row[mask] ** 2).sum()
            assert held >= share * (row**2).sum() * (1 - 1e-12)
            assert held - (row[mask] ** 2).min() < share * (row**2).sum()
            assert row[mask].min() > row[~mask].max() or share == 1.0
    assert f.masks(sparse.csr_array((2, 4)), 0.9).nnz == 0
    given = sparse.csr_array(weights)
    f.masks(given, 0.5)
    np.testing.assert_array_equal(given.toarray(), weights)


def test_similarities_are_those_of_dense_arrays() -> None:
    one, other = random(1), random(2, 7)
    rows = sparse.csr_array(one), sparse.csr_array(other)
    a, b = (m.toarray() > 0 for m in rows)
    either = (a[:, None] | b).sum(axis=2)
    np.testing.assert_allclose(f.iou(*(f.masks(m, 1.0) for m in rows)).toarray(), (a[:, None] & b).sum(axis=2) / either)
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    np.testing.assert_allclose(f.cosine(*rows).toarray(), one @ other.T / lengths)
    p, q = (m / m.sum(axis=1, keepdims=True) for m in (one, other))
    jaccard = np.minimum(p[:, None], q).sum(axis=2) / np.maximum(p[:, None], q).sum(axis=2)
    np.testing.assert_allclose(f.weighted_jaccard(*rows).toarray(), jaccard)


@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
@settings(max_examples=40, deadline=None)
def test_matches_have_the_largest_sum(seed: int, least: float) -> None:
    values = random(seed, 4, 5)
    allowed = np.where(values >= least, values, 0)
    pairs = f.match(sparse.csr_array(values), least)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert (values[pairs[:, 0], pairs[:, 1]] >= least).all()
    best = max(allowed[range(4), list(order)].sum() for order in itertools.permutations(range(5), 4))
    assert values[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(best)


def test_a_move_is_found_and_undone() -> None:
    shape = (20, 24)
    true = np.zeros((3, *shape))
    true[0, 5:8, 6:9], true[1, 10:14, 12:15], true[2, 8:11, 16:20] = 1, 2, 3
    moved = np.roll(true, (-3, 4), (1, 2)).reshape(3, -1)
    rows = sparse.csr_array(moved), sparse.csr_array(true.reshape(3, -1))
    assert f.best_offset(*rows, shape, 6) == (3, -4)
    np.testing.assert_array_equal(f.moved(rows[0], shape, (3, -4)).toarray(), rows[1].toarray())


def test_a_lag_is_found_and_scale_does_not_matter() -> None:
    true = np.random.default_rng(1).poisson(0.3, (4, 60)).astype(float)
    late = np.roll(true, 2, axis=1)
    late[:, :2] = 0
    lag, each = t.best_lag(3 * late + 1, true, 3)
    assert lag == 2
    np.testing.assert_allclose(each, 1)
    assert np.isnan(t.pearson(np.ones((1, 5)), true[:1, :5])[0])
    assert np.isnan(t.median(np.array([np.nan])))


@given(st.sets(st.integers(0, 15), max_size=5), st.sets(st.integers(0, 15), max_size=5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_events_make_the_most_pairs(found: set[int], true: set[int], tolerance: int) -> None:
    one, other = (np.array(sorted(s), np.int64) for s in (found, true))
    near = sparse.csr_array((np.abs(one[:, None] - other) <= tolerance).astype(float).reshape(one.size, other.size))
    most = len(f.match(near, 0.5)) if near.nnz else 0
    assert t.pairs_within(one, other, tolerance) == most


def test_sign_and_constant_of_shifts_do_not_count() -> None:
    true = np.cumsum(np.random.default_rng(1).normal(size=(50, 2)), axis=0)
    rmse, sign = t.shift_rmse(5 - true, true)
    assert rmse == pytest.approx(0, abs=1e-12)
    assert sign == -1
    error = np.tile([[0.3], [-0.3]], (25, 2))
    rmse, sign = t.shift_rmse(true + error, true)
    assert rmse == pytest.approx(0.3)
    assert sign == 1
