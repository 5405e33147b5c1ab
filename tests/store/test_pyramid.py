"""Laws of the pyramid: which levels there are, and that a level follows from the one above in any aligned partition."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm.geometry.grid import Spacing, Triple, exact3
from simexm.store.pyramid import (
    downsample_labels,
    downsample_mean,
    plan_levels,
    plan_storage,
    pyramid,
    step_factors,
)

lengths = st.integers(1, 40)
shapes = st.tuples(lengths, lengths, lengths)
factors = st.tuples(*[st.integers(1, 2)] * 3)
ONE = exact3((1, 1, 1))


@settings(deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(1, 10**6)] * 3), st.tuples(*[st.sampled_from([8, 30, 32, 40, 125, 500])] * 3))
def test_levels_halve_fine_axes_until_none_is_longer_than_64(shape: Triple, size: Triple) -> None:
    levels = plan_levels(shape, exact3(size))
    assert max(levels[-1].shape) <= 64
    assert len(levels) >= 3 or max(levels[-1].shape) == 1
    assert len(levels) <= 3 or max(levels[-2].shape) > 64
    for upper, lower in itertools.pairwise(levels):
        step = step_factors(upper, lower)
        divisible = [s for s, n in zip(upper.spacing, upper.shape, strict=True) if n > 1]
        for axis in range(3):
            coarse = upper.spacing[axis] >= 2 * min(divisible)
            assert step[axis] == (1 if coarse or upper.shape[axis] == 1 else 2)
    for level in levels:
        for axis in range(3):
            assert level.shape[axis] == math.ceil(Fraction(shape[axis], level.factors[axis]))
            assert level.spacing[axis] == size[axis] * level.factors[axis]


@pytest.mark.parametrize(
    ("size", "steps"),
    [
        ((40, 32, 32), [(2, 2, 2), (2, 2, 2)]),
        ((125, Fraction("40.625"), Fraction("40.625")), [(1, 2, 2), (2, 2, 2)]),
        ((64, 32, 32), [(1, 2, 2), (2, 2, 2)]),
        ((500, 100, 100), [(1, 2, 2), (1, 2, 2), (2, 2, 2)]),
    ],
)
def test_z_waits_until_spacing_is_isotropic_within_2(size: Spacing, steps: list[Triple]) -> None:
    levels = plan_levels((1000, 1000, 1000), exact3(size))
    assert [step_factors(a, b) for a, b in itertools.pairwise(levels)][: len(steps)] == steps


@settings(deadline=None, derandomize=True)
@given(shapes, st.sampled_from([(256, 256, 256), (64, 256, 128), (8, 32, 32), (96, 96, 96)]))
def test_storage_covers_the_levels_and_owned_shards_follow_level_0(shape: Triple, shard: Triple) -> None:
    levels = plan_levels((shape[0] * 50, shape[1] * 50, shape[2]), ONE)
    storage = plan_storage(levels, shard, (64, 64, 64))
    assert storage[0].shard == shard
    assert storage[0].owned
    for level, stored in zip(levels, storage, strict=True):
        assert all(s % c == 0 and c <= 64 for s, c in zip(stored.shard, stored.chunk, strict=True))
        if stored.owned:
            assert tuple(s * f for s, f in zip(stored.shard, level.factors, strict=True)) == shard
    owned = [s.owned for s in storage]
    assert owned == sorted(owned, reverse=True)


@given(shapes, factors, st.sampled_from(["uint8", "uint16", "uint32", "float32"]), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_mean_is_the_exact_mean_rounded_half_to_even(shape: Triple, f: Triple, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    a = (rng.random(shape) * top).astype(dtype)
    b = downsample_mean(a, f)
    assert b.dtype == a.dtype
    for _ in range(5):
        p = tuple(int(rng.integers(n)) for n in b.shape)
        cell = a[tuple(slice(i * k, (i + 1) * k) for i, k in zip(p, f, strict=True))]
        mean = sum((Fraction(v.item()) for v in cell.ravel()), Fraction(0)) / cell.size
        if dtype == "float32":
            assert b[p] == pytest.approx(float(mean), rel=2**-23)
        else:
            assert b[p] == round(mean)  # Python rounds halves of exact fractions to even


def test_mean_of_what_has_none_is_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        downsample_mean(np.zeros((2, 2, 2), np.int64), (2, 2, 2))


@given(shapes, factors, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_label_is_the_mode_and_ties_go_to_the_largest(shape: Triple, f: Triple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(2**63, 2**63 + 3, shape, dtype=np.uint64)
    b = downsample_labels(a, f)
    for _ in range(5):
        p = tuple(int(rng.integers(n)) for n in b.shape)
        cell = a[tuple(slice(i * k, (i + 1) * k) for i, k in zip(p, f, strict=True))]
        counts = Counter(cell.ravel().tolist())
        assert int(b[p]) == max(counts, key=lambda v: (counts[v], v))


@given(shapes, st.integers(0, 2), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_levels_do_not_depend_on_the_partition(shape: Triple, axis: int, seed: int) -> None:
    levels = plan_levels((shape[0] + 64, *shape[1:]), exact3((30, 8, 8)))[:3]
    a = np.random.default_rng(seed).integers(0, 4, levels[0].shape, dtype=np.uint32)
    cut = levels[-1].factors[axis] * 2
    parts = [a.take(range(cut), axis) if a.shape[axis] > cut else a]
    if a.shape[axis] > cut:
        parts.append(a.take(range(cut, a.shape[axis]), axis))
    for downsample in (downsample_mean, downsample_labels):
        whole = pyramid(a, levels, downsample)
        pieces = [pyramid(part, levels, downsample) for part in parts]
        for n in range(len(levels)):
            np.testing.assert_array_equal(np.concatenate([p[n] for p in pieces], axis), whole[n])
            assert whole[n].shape == levels[n].shape
