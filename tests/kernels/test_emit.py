"""Laws of proteins and dyes: how many there are, and where."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from simexm.geometry.grid import Box, Tiling, Triple
from simexm.kernels.emission import emit
from simexm.kernels.emission.points import (
    BINOMIAL,
    NO_DEPTH,
    NO_GREY,
    POINTS_OF_CLUMP,
    POISSON,
    EmissionLaw,
    Emitters,
    Factors,
    LayerKeys,
)
from simexm.kernels.labels.regions import crofton_weights, regions_of
from simexm.kernels.numbers.detmath import CUT_SIGMA
from simexm.random import derive_key

VOXEL_NM = (40.0, 32.0, 32.0)
SHAPE: Triple = (32, 48, 48)
NO_LINKER = (0.0, 0.0, 0.0)


def _keys(seed: int = 1, layer: str = "a") -> LayerKeys:
    return LayerKeys(*(derive_key(seed, layer, part) for part in ("number", "place", "linker")))


def _law(mean: float, **changes: Any) -> EmissionLaw:
    usual = EmissionLaw(mean, False, 0, POISSON, 3.0, 1.0, NO_LINKER, (1, 1, 1), False)
    return usual._replace(**changes)


def uniform(cells: int) -> Factors:
    """Every cell labelled alike."""
    return Factors(np.ones(cells), NO_DEPTH, NO_GREY)


def _join(parts: list[Emitters]) -> Emitters:
    """Copies of all their emitters, in one."""
    columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Emitters(*columns)


def _emit(
    law: EmissionLaw,
    index: NDArray[np.int32] | None = None,
    *,
    keys: LayerKeys | None = None,
    array: Box | None = None,
    specimen: Box | None = None,
    inside: Box | None = None,
    own: Box | None = None,
    capacity: int = emit.CAPACITY,
    factors: Factors | None = None,
) -> tuple[Emitters, NDArray[np.int64]]:
    """All emitters of a volume of cells (one cell all over, if not given), and the dyes that were counted by cell."""
    index = np.ones(SHAPE, np.int32) if index is None else index
    nz, ny, nx = index.shape
    array = array or Box.of_shape((nz, ny, nx))
    specimen = specimen or array
    counted = np.zeros(int(index.max()) + 1, np.int64)
    room = Emitters.empty(capacity)
    parts = [Emitters.empty(0)] + [
        _join([chunk])
        for chunk in emit.emit_layer(
            index, regions_of(index, 26), factors or uniform(counted.size), crofton_weights(VOXEL_NM, False), law,
            keys or _keys(), array=array, specimen=specimen, inside=inside or specimen, own=own or specimen,
            voxel_nm=VOXEL_NM, room=room, dyes_of_cell=counted,
        )
    ]  # fmt: skip
    return _join(parts), counted


def _by_voxel(found: Emitters, values: NDArray[np.generic], shape: Triple = SHAPE) -> NDArray[np.float64]:
    """Sum of `values` in each voxel, for emitters without a linker."""
    where = [np.floor(p / v).astype(int) for p, v in zip(found[:3], VOXEL_NM, strict=True)]
    total = np.zeros(shape)
    np.add.at(total, tuple(where), values)
    return total


def _assert_moments(values: NDArray[np.float64], proteins: float, dyes: Any) -> None:
    """Mean and variance over voxels are those of a Poisson number of proteins with `dyes` each, within 4.5 standard errors.

    The cumulants of a compound Poisson number are mean * E[dyes^j].
    """
    k = np.arange(4000)
    p = dyes.pmf(k)
    cumulant = [proteins * float((p * k**j).sum()) for j in range(5)]
    n = values.size
    assert values.mean() == pytest.approx(cumulant[1], abs=4.5 * math.sqrt(cumulant[2] / n))
    spread = math.sqrt((cumulant[4] + 2 * cumulant[2] ** 2) / n)
    assert values.var() == pytest.approx(cumulant[2], abs=4.5 * spread)


DYES = {
    "poisson": ({"kind": POISSON, "dyes": 4.0}, stats.poisson(4)),
    "poisson, some lost": ({"kind": POISSON, "dyes": 4.0, "kept": 0.6}, stats.poisson(2.4)),
    "few": ({"kind": POISSON, "dyes": 0.3}, stats.poisson(0.3)),
    "binomial": ({"kind": BINOMIAL, "dyes": 6.0, "kept": 0.5}, stats.binom(6, 0.5)),
    "fixed": ({"kind": BINOMIAL, "dyes": 3.0, "kept": 1.0}, stats.binom(3, 1)),
}


@pytest.mark.parametrize("clumped", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("subcells", [(1, 1, 1), (2, 1, 3)], ids=["whole", "parts"])
@pytest.mark.parametrize("proteins", [0.4, 15.0])
@pytest.mark.parametrize("kind", DYES)
def test_dyes_per_voxel(kind: str, proteins: float, subcells: Triple, clumped: bool) -> None:
    """Poisson(a) dyes per protein: variance / mean = 1 + a; however a voxel is cut and drawn."""
    changes, dyes = DYES[kind]
    found, counted = _emit(_law(proteins, **changes, subcells=subcells, clumped=clumped), keys=_keys(7))
    values = _by_voxel(found, found.weight)
    _assert_moments(values, proteins, dyes)
    assert counted[1] == values.sum()
    if kind == "poisson":
        tolerance = 5 * math.sqrt(2 / values.size) * 5 * (1 + 2 / proteins)
        assert values.var() / values.mean() == pytest.approx(1 + 4, abs=tolerance)


def test_many_dyes_in_one_part_keep_the_binomials_moments() -> None:
    """Thousands of dyes at once, where the binomial is drawn by its normal limit."""
    law = _law(400.0, kind=BINOMIAL, dyes=20.0, kept=0.3, clumped=True)
    values = _by_voxel(found := _emit(law)[0], found.weight)
    _assert_moments(values, 400.0, stats.binom(20, 0.3))


@pytest.mark.parametrize("mean", [0.02, 0.7, 9.0])
def test_proteins_per_voxel_are_poisson(mean: float) -> None:
    found, _ = _emit(_law(mean, kind=BINOMIAL, dyes=1.0, kept=1.0))
    seen = np.bincount(_by_voxel(found, found.weight).astype(int).reshape(-1), minlength=40)
    expected = stats.poisson(mean).pmf(np.arange(seen.size)) * math.prod(SHAPE)
    usual = expected > 5
    observed, wanted = np.append(seen[usual], seen[~usual].sum()), np.append(expected[usual], 0.0)
    wanted[-1] = math.prod(SHAPE) - wanted.sum()
    keep = wanted > 1
    assert ((observed - wanted)[keep] ** 2 / wanted[keep]).sum() < stats.chi2(keep.sum()).isf(1e-4)


@pytest.mark.parametrize("clumped", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("subcells", [(1, 1, 1), (2, 3, 1)])
def test_places_are_uniform_in_the_voxel(subcells: Triple, clumped: bool) -> None:
    """One emitter of each voxel (mirror images are not independent), in 4 x 4 x 4 bins, and each axis in 50."""
    found, _ = _emit(_law(0.8, kind=BINOMIAL, dyes=9.0, kept=1.0, subcells=subcells, clumped=clumped))
    part = [p / v for p, v in zip(found[:3], VOXEL_NM, strict=True)]
    cell = np.ravel_multi_index(tuple(np.floor(p).astype(int) for p in part), SHAPE)
    picked = np.random.default_rng(0).permutation(cell.size)
    one = picked[np.unique(cell[picked], return_index=True)[1]]
    inside = np.array([p[one] % 1 for p in part])
    assert inside.min() >= 0
    bins = np.histogramdd(inside.T, bins=4, range=[(0, 1)] * 3)[0].reshape(-1)
    assert stats.chisquare(bins).pvalue > 1e-4
    for axis in inside:
        assert stats.chisquare(np.histogram(axis, 50, (0, 1))[0]).pvalue > 1e-4


@pytest.mark.parametrize("clumped", [False, True], ids=["one by one", "at once"])
def test_linkers_are_gaussian_and_cut(clumped: bool) -> None:
    """The same law without a linker puts the proteins in the same places: the difference is the linker."""
    sigma = (3.0, 9.0, 20.0)
    law = _law(1.0, kind=BINOMIAL, dyes=1.0, kept=1.0, clumped=clumped)
    without, _ = _emit(law)
    with_linker, _ = _emit(law._replace(sigma=sigma))
    first = np.unique(without.z, return_index=True)[1]
    for s, a, b in zip(sigma, without[:3], with_linker[:3], strict=True):
        step = (b - a)[first] / s
        assert np.abs(step).max() <= CUT_SIGMA + 1e-9
        assert np.abs(step).max() > 3.5
        assert stats.kstest(step, stats.truncnorm(-4, 4).cdf).pvalue > 1e-4
    steps = np.array([(b - a)[first] for a, b in zip(without[:3], with_linker[:3], strict=True)])
    assert np.abs(np.corrcoef(steps) - np.eye(3)).max() < 4.5 / math.sqrt(first.size)


def test_each_dye_has_a_linker_of_its_own() -> None:
    found, _ = _emit(_law(0.05, kind=BINOMIAL, dyes=4.0, kept=1.0, sigma=(5.0, 5.0, 5.0)))
    assert (found.weight == 1).all()
    assert len(np.unique(found.x)) == found.x.size
    of_protein = found.x.reshape(-1, 4)
    within = (of_protein - of_protein.mean(axis=1, keepdims=True)).var() * 4 / 3
    assert within == pytest.approx(25, rel=4.5 * math.sqrt(2 / (found.x.size * 3 / 4)))


def test_dyes_drawn_at_once_do_not_shake_the_picture_more_than_one_by_one() -> None:
    """A dense voxel's centroid: 5000 dyes scatter it by 0.4 % of a voxel; a few random points would by 10 %."""
    shape = (6, 20, 20)
    found, _ = _emit(_law(5000.0, dyes=1.0, clumped=True, sigma=(4.0, 4.0, 4.0)), np.ones(shape, np.int32))
    assert found.weight.size == math.prod(shape) * POINTS_OF_CLUMP
    for axis in range(3):
        weight, place = (a.reshape(-1, POINTS_OF_CLUMP) for a in (found.weight, found[axis]))
        centroid = (weight * place).sum(axis=1) / weight.sum(axis=1) / VOXEL_NM[axis] % 1
        assert centroid.std() < 1 / math.sqrt(12 * 5000)
        assert centroid.mean() == pytest.approx(0.5, abs=1e-3)


def _two_cells() -> NDArray[np.int32]:
    index = np.zeros((14, 20, 24), np.int32)
    index[:, :, :11], index[3:, 2:17, 11:21] = 1, 2
    return index


def _table(found: Emitters) -> NDArray[np.float64]:
    """Rows in an order that does not depend on how they came."""
    rows = np.stack([*found[:3], found.weight, found.cell], axis=1).astype(np.float64)
    return rows[np.lexsort(rows.T)]


LAWS = {
    "surface": _law(300.0, by_surface=True, region_bits=1, sigma=(5.0, 5.0, 5.0)),
    "volume": _law(0.5, region_bits=2),
    "parts": _law(6.0, region_bits=3, subcells=(2, 2, 2), sigma=(5.0, 5.0, 5.0)),
    "at once": _law(90.0, region_bits=3, subcells=(2, 2, 2), clumped=True, sigma=(5.0, 5.0, 5.0)),
    "anywhere": _law(0.2, kind=BINOMIAL, dyes=1.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_blocks_and_crops_draw_what_the_whole_volume_draws(name: str) -> None:
    """Reading boxes with a halo of one voxel, at odd places; each emitter belongs to exactly one block."""
    law, index = LAWS[name], _two_cells()
    volume = Box.of_shape((14, 20, 24))
    whole, counted = _emit(law, index)
    tables, total, owned = [], np.zeros_like(counted), 0
    for box in Tiling(volume, (5, 7, 11)):
        array = box.grown((2, 2, 2)).intersect(volume)
        inside = box.grown((1, 1, 1)).intersect(volume)
        part, some = _emit(law, index[array.slices], array=array, specimen=volume, inside=inside, own=box)
        tables.append(_table(part.select(part.own != 0)))
        total[: some.size] += some
        owned += int((part.own != 0).sum())
        assert int(part.weight[part.own != 0].sum()) == some.sum()
    rows = np.concatenate(tables)
    assert (rows[np.lexsort(rows.T)] == _table(whole)).all()
    assert (total == counted).all()
    assert owned == whole.z.size


@pytest.mark.parametrize("name", LAWS)
def test_a_small_room_changes_nothing(name: str) -> None:
    law, index = LAWS[name], _two_cells()
    ample, counted = _emit(law, index)
    tight, again = _emit(law, index, capacity=37)
    assert (_table(ample) == _table(tight)).all()
    assert (counted == again).all()


def test_a_voxel_that_does_not_fit_the_room_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 4 dyes"):
        _emit(_law(5.0, dyes=9.0), np.ones((1, 1, 1), np.int32), capacity=4)


def test_only_labelled_cells_and_regions_emit() -> None:
    index = _two_cells()
    for bits in (1, 2, 3):
        found, counted = _emit(_law(2.0, region_bits=bits), index)
        where = tuple(np.floor(p / v).astype(int) for p, v in zip(found[:3], VOXEL_NM, strict=True))
        assert ((regions_of(index, 26)[where] & bits) != 0).all()
        assert (index[where] == found.cell).all()
        assert counted[0] == 0
    found, _ = _emit(_law(2.0), index)
    where = tuple(np.floor(p / v).astype(int) for p, v in zip(found[:3], VOXEL_NM, strict=True))
    assert {0, 1, 2} == set(index[where])
    volumes = np.bincount(index.reshape(-1))
    dyes = np.bincount(index[where], weights=found.weight)
    assert (np.abs(dyes - 6 * volumes) < 4.5 * np.sqrt(6 * 4 * volumes)).all()


def test_streams_of_two_layers_and_of_neighbours_are_independent() -> None:
    one, other = (_by_voxel(f := _emit(_law(3.0), keys=_keys(1, n))[0], f.weight) for n in "ab")
    limit = 4.5 / math.sqrt(one.size)
    assert abs(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]) < limit
    for axis in range(3):
        shifted = np.roll(one, 1, axis=axis)
        assert abs(np.corrcoef(one.reshape(-1), shifted.reshape(-1))[0, 1]) < limit
