"""Laws of the draws by inverse distribution function, and of the elementary functions below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from simexm.compiled import njit
from simexm.kernels.numbers import detmath, draws, fields
from simexm.random import derive_key
from tests.kernels import draws_reference

Floats = NDArray[np.float64]
LEAST_U, LARGEST_U = 2.0**-53, 1.0 - 2.0**-53


@njit()
def apply(function, x):  # type: ignore[no-untyped-def]
    """A compiled scalar function on each element."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = function(x[i])
    return out


@njit()
def poisson_quantiles(u, mean):  # type: ignore[no-untyped-def]
    out = np.empty(u.size, np.int64)
    for i in range(u.size):
        out[i] = draws.poisson_quantile(u[i], mean[i])
    return out


@njit()
def binomial_quantiles(u, n, p):  # type: ignore[no-untyped-def]
    out = np.empty(u.size, np.int64)
    for i in range(u.size):
        out[i] = draws.binomial_quantile(u[i], n[i], p[i])
    return out


def uniforms(rng: np.random.Generator, n: int) -> Floats:
    """Numbers in (0, 1), a good share of them at the very ends."""
    u = rng.uniform(size=n)
    u[::5] = 10 ** rng.uniform(-16, -1, u[::5].size)
    u[1::5] = 1 - 10 ** rng.uniform(-16, -1, u[1::5].size)
    return np.clip(u, LEAST_U, LARGEST_U)


def means(rng: np.random.Generator, n: int) -> Floats:
    """Means over eight decades, many about the change of method at 10."""
    mean = 10 ** rng.uniform(-3, 5, n)
    mean[::3] = rng.uniform(0, 30, mean[::3].size)
    return mean


RNG = np.random.default_rng(7)
EVERY_U = np.concatenate([uniforms(RNG, 50_000), [LEAST_U, LARGEST_U, 0.075, 0.5, 0.925]])
EXPONENTS = np.concatenate([RNG.uniform(-707, 708, 50_000), RNG.normal(size=50_000), [0.0, 1e-300]])


@pytest.mark.parametrize(
    ("function", "array", "reference", "x", "ulps"),
    [
        (detmath.exp, detmath.exp_array, np.exp, EXPONENTS, 2),
        (detmath.log, detmath.log_array, np.log, np.concatenate([np.exp(EXPONENTS), 1 + EXPONENTS * 1e-9]), 2),
        (detmath.normal_quantile, detmath.normal_quantile_array, special.ndtri, EVERY_U, 12),
    ],
    ids=["exp", "log", "normal quantile"],
)
def test_elementary_functions(
    function: Any, array: Callable[[Floats], Floats], reference: Callable[[Floats], Floats], x: Floats, ulps: float
) -> None:
    """Right to a few units in the last place, and the same bits compiled and by arrays."""
    got, expected = apply(function, x), reference(x)
    assert np.array_equal(got, array(x))
    assert np.all(abs(got - expected) <= ulps * np.spacing(np.maximum(abs(expected), 1e-3)))


@pytest.mark.parametrize("x", [0.0, -0.0, -1.0, 1e-310, -709.0, 710.0, np.inf, -np.inf, np.nan])
def test_exp_and_log_outside_their_range(x: float) -> None:
    assert np.array_equal(detmath.exp(x), detmath.exp_array(x), equal_nan=True)
    assert np.array_equal(detmath.log(x), detmath.log_array(x), equal_nan=True)
    if x in (0.0, np.inf):
        assert detmath.log(x) == (np.inf if x else -np.inf)


def test_the_cut_normal_is_the_normal_between_its_cuts() -> None:
    x = apply(detmath.normal_quantile_cut, EVERY_U)
    assert np.array_equal(x, detmath.normal_quantile_cut_array(EVERY_U))
    assert np.abs(x).max() <= detmath.CUT_SIGMA
    assert np.allclose(stats.truncnorm.cdf(x, -4, 4), EVERY_U, rtol=0, atol=1e-14)


def test_poisson_quantile_is_the_smallest_count_whose_cdf_reaches_u() -> None:
    """By scipy's distribution function, in the tail that is the smaller, to 1e-11 of that tail."""
    rng = np.random.default_rng(1)
    u, mean = uniforms(rng, 100_000), means(rng, 100_000)
    n = poisson_quantiles(u, mean)
    before = np.maximum(n - 1, 0)
    low = u < 0.5
    reached = np.where(low, special.pdtr(n, mean) >= u * (1 - 1e-11), special.pdtrc(n, mean) <= (1 - u) * (1 + 1e-11))
    short = np.where(
        low, special.pdtr(before, mean) < u * (1 + 1e-11), special.pdtrc(before, mean) > (1 - u) * (1 - 1e-11)
    )
    assert reached.all()
    assert (short | (n == 0)).all()


def test_poisson_quantile_steps_where_the_cdf_does() -> None:
    """u just below and just above a step give n and n + 1: the shortcut never decides a doubtful case."""
    rng = np.random.default_rng(2)
    mean = np.concatenate([means(rng, 100_000), rng.uniform(10, 40, 100_000)])
    n = np.maximum(np.floor(mean + np.sqrt(mean) * rng.normal(0, 1.5, mean.size)), 0.0)
    step = special.pdtr(n, mean)
    inside = (step > 1e-6) & (step < 1 - 1e-3)
    n, mean, step = n[inside], mean[inside], step[inside]
    assert np.array_equal(poisson_quantiles(step * (1 - 1e-12), mean), n)
    assert np.array_equal(poisson_quantiles(step * (1 + 1e-12), mean), n + 1)


@njit()
def poisson_rows(u, mean, guide):  # type: ignore[no-untyped-def]
    counts, room = np.empty(u.shape, np.uint32), fields._row_room(u.shape[1])
    for i in range(u.shape[0]):
        fields._poisson_row(counts[i], u[i], mean[i], guide, room)
    return counts


def test_rows_sorted_by_method_equal_single_draws() -> None:
    """At the corners of the guide's cells, at the change of method and at the ends of u, in rows of one kind and mixed."""
    rng = np.random.default_rng(12)
    shape = (600, 200)
    u, mean = uniforms(rng, 120_000).reshape(shape), means(rng, 120_000).reshape(shape)
    near = rng.integers(-3, 4, shape) * 2.0**-52
    u[:200] = np.clip(
        rng.integers(0, fields.U_CELLS + 1, u[:200].shape) / fields.U_CELLS + near[:200], LEAST_U, LARGEST_U
    )
    mean[100:300] = np.maximum(rng.integers(0, 12 * fields.MEAN_CELLS, mean[100:300].shape) / fields.MEAN_CELLS, 0)
    mean[100:300] *= 1 + near[100:300]
    mean[300:350], mean[350:400] = mean[300:350] % draws.SMALL_MEAN, mean[350:400] + draws.SMALL_MEAN
    counts = poisson_rows(u, mean, fields.poisson_guide())
    assert np.array_equal(counts.reshape(-1), poisson_quantiles(u.reshape(-1), mean.reshape(-1)))
    assert 0.01 < (fields.poisson_guide() == fields.UNSURE).mean() < 0.05


def test_poisson_quantile_rises_with_u_and_mean() -> None:
    rng = np.random.default_rng(3)
    u, mean = np.sort(uniforms(rng, 20_000)), np.sort(means(rng, 20_000))
    for value in (0.02, 3.0, 9.999, 10.0, 55.5, 2e4):
        assert (np.diff(poisson_quantiles(u, np.full(u.size, value))) >= 0).all()
    for value in (LEAST_U, 1e-5, 0.5, 0.99, draws.SUMMED_U, np.nextafter(draws.SUMMED_U, 1), LARGEST_U):
        assert (np.diff(poisson_quantiles(np.full(mean.size, value), mean)) >= 0).all()


def test_nothing_is_counted_where_nothing_is_expected() -> None:
    mean = np.array([[[0.0, -0.0, -1e-12, -5.0, 1e-300, 5e-324, 2.0**-53]]])
    assert not fields.poisson_field(mean, 0, 0, 0, (1, 2)).any()
    assert draws.poisson_quantile(LARGEST_U, 2.0**-53) == 0
    assert draws.poisson_quantile(LARGEST_U, 2.0**-51) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0**32])
def test_a_mean_that_cannot_be_drawn_is_refused(bad: float) -> None:
    mean = np.ones((1, 2, 3))
    mean[0, 1, 1] = bad
    for field in (fields.poisson_field, draws_reference.poisson_field_array):
        with pytest.raises(ValueError, match="means from"):
            field(mean, 0, 0, 0, (1, 2))


def test_binomial_quantile_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    size = 20_000
    u, n, p = rng.uniform(size=size), rng.integers(1, 5000, size), rng.uniform(size=size)
    n[::4], p[::3] = rng.integers(1, 12, n[::4].size), 10 ** rng.uniform(-6, 0, p[::3].size)
    assert np.array_equal(binomial_quantiles(u, n, p), stats.binom.ppf(u, n, p))


def test_binomial_quantile_at_the_ends() -> None:
    assert draws.binomial_quantile(0.5, 0, 0.5) == 0
    assert draws.binomial_quantile(LARGEST_U, 9, 0.0) == 0
    assert draws.binomial_quantile(LEAST_U, 9, 1.0) == 9
    for n, p in ((1, 0.5), (30, 0.02), (3000, 0.5), (3000, 0.999)):
        extreme = [draws.binomial_quantile(u, n, p) for u in (LEAST_U, 1e-9, 0.5, 1 - 1e-9, LARGEST_U)]
        assert extreme == sorted(extreme)
        assert extreme[0] >= 0
        assert extreme[-1] <= n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_fields_equal_the_array_reference(dtype: type[np.floating[Any]]) -> None:
    mean: Any = means(np.random.default_rng(5), 40 * 50 * 60).reshape(40, 50, 60).astype(dtype)
    key = derive_key(0, "camera")
    got = fields.poisson_field(mean, 3, 2**32 - 20, 10**6, key)
    assert got.dtype == np.uint32
    assert np.array_equal(got, draws_reference.poisson_field_array(mean, 3, 2**32 - 20, 10**6, key))
    normal = fields.normal_field((40, 50, 60), 3, 2**32 - 20, 10**6, key, draw=1)
    assert np.array_equal(normal, draws_reference.normal_field_array((40, 50, 60), 3, 2**32 - 20, 10**6, key, draw=1))


def test_extreme_uniforms_agree_with_the_array_reference() -> None:
    rng = np.random.default_rng(6)
    u, mean = uniforms(rng, 50_000), means(rng, 50_000)
    assert np.array_equal(poisson_quantiles(u, mean), draws_reference.poisson_quantile_array(u, mean))


@pytest.mark.parametrize("mean", [0.3, 7.0, 40.0, 3000.0])
def test_counts_follow_the_poisson_law(mean: float) -> None:
    shape = (20, 250, 400)
    counts = fields.poisson_field(np.full(shape, mean), 100, 0, 0, derive_key(11, "camera", "counts"))
    found = np.bincount(counts.ravel())
    expected = stats.poisson.pmf(np.arange(found.size), mean) * counts.size
    inside = np.flatnonzero(expected >= 20)
    first, last = inside[0], inside[-1] + 1
    found = np.concatenate([[found[:first].sum()], found[first:last], [found[last:].sum()]])
    low, high = stats.poisson.cdf(first - 1, mean), stats.poisson.sf(last - 1, mean)
    expected = np.concatenate([[low * counts.size], expected[first:last], [high * counts.size]])
    found, expected = found[expected > 0], expected[expected > 0]
    assert stats.chisquare(found, expected * (found.sum() / expected.sum())).pvalue > 1e-4


def test_normal_numbers_follow_the_normal_law() -> None:
    x = fields.normal_field((20, 250, 400), 0, 0, 50, derive_key(11, "camera", "read noise"))
    edges = np.linspace(-4.2, 4.2, 200)
    found = np.bincount(np.searchsorted(edges, x.ravel()), minlength=edges.size + 1)
    expected = np.diff(stats.norm.cdf(edges), prepend=0.0, append=1.0) * x.size
    assert stats.chisquare(found, expected * (x.size / expected.sum())).pvalue > 1e-4


STREAMS: dict[str, tuple[int, tuple[str | int, ...], tuple[int, int, int], int]] = {
    "seed": (1, ("camera", 0), (0, 0, 0), 0),
    "stage": (0, ("labelling", 0), (0, 0, 0), 0),
    "channel": (0, ("camera", 1), (0, 0, 0), 0),
    "layer": (0, ("camera", 0, "layer"), (0, 0, 0), 0),
    "draw": (0, ("camera", 0), (0, 0, 0), 1),
    "next plane": (0, ("camera", 0), (1, 0, 0), 0),
    "next row": (0, ("camera", 0), (0, 1, 0), 0),
    "next pixel": (0, ("camera", 0), (0, 0, 1), 0),
    "axes swapped far": (0, ("camera", 0), (2**16, 2**16, 2**20), 0),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_uncorrelated(name: str) -> None:
    """Of other seeds, stages, layers, channels, draws and positions, in value and in magnitude."""
    seed, parts, start, draw = STREAMS[name]
    shape = (64, 64, 64)
    a = fields.normal_field(shape, 0, 0, 0, derive_key(0, "camera", 0))
    b = fields.normal_field(shape, *start, derive_key(seed, *parts), draw)
    for f, g in ((a, b), (abs(a), abs(b)), (a, abs(b)), (a, b.transpose(2, 1, 0))):
        assert abs(np.corrcoef(f.ravel(), g.ravel())[0, 1]) < 4.5 / np.sqrt(f.size)


def test_a_pixel_is_drawn_alike_in_every_box() -> None:
    mean = means(np.random.default_rng(8), 12 * 20 * 30).reshape(12, 20, 30)
    whole = fields.poisson_field(mean, 5, 6, 7, (3, 4))
    noise = fields.normal_field((12, 20, 30), 5, 6, 7, (3, 4))
    rng = np.random.default_rng(9)
    for _ in range(30):
        z, y, x = (int(rng.integers(0, n)) for n in mean.shape)
        box = np.s_[z : z + int(rng.integers(1, 9)), y : y + int(rng.integers(1, 9)), x : x + int(rng.integers(1, 9))]
        part = mean[box]
        assert np.array_equal(fields.poisson_field(part, 5 + z, 6 + y, 7 + x, (3, 4)), whole[box])
        assert np.array_equal(fields.normal_field(part.shape, 5 + z, 6 + y, 7 + x, (3, 4)), noise[box])


def test_a_neighbour_never_matters() -> None:
    rng = np.random.default_rng(10)
    mean = means(rng, 12 * 20 * 30).reshape(12, 20, 30)
    changed = rng.uniform(size=mean.shape) < 0.5
    first = fields.poisson_field(mean, 0, 0, 0, (3, 4))
    second = fields.poisson_field(np.where(changed, mean * 2 + 1, mean), 0, 0, 0, (3, 4))
    assert np.array_equal(first[~changed], second[~changed])
    assert (first[changed] <= second[changed]).all()


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-2])
@pytest.mark.parametrize("level", [0.5, 9.99, 300.0, 20_000.0])
def test_nearly_equal_rates_give_nearly_always_the_same_count(level: float, size: float) -> None:
    """The coupling law behind invariance of the image under another tiling."""
    rng = np.random.default_rng(12)
    rate = rng.uniform(level * 0.9, level * 1.1, (20, 128, 128))
    other = rate + rng.normal(0, size, rate.shape)
    a = fields.poisson_field(rate, 0, 0, 0, (5, 6)).astype(np.int64)
    b = fields.poisson_field(other, 0, 0, 0, (5, 6)).astype(np.int64)
    assert np.mean(a != b) <= 2 * np.mean(abs(rate - other)) + 1e-6
    assert abs(a - b).max() <= 1
