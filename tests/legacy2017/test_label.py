"""Laws of displacement and proteins of the model of 2017."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from simexm.geometry.grid import Box, Tiling
from simexm.legacy2017.kernels import label
from simexm.random import derive_key

VOXEL_NM = (40.0, 32.0, 32.0)
CYTOSOL = 2


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_as_many_voxels_stay_as_draws_with_replacement_mark(n: int, noise: float) -> None:
    rng = np.random.default_rng(1)
    draws = int((1 - noise) * n)
    marked = [len(set(rng.integers(n, size=draws))) / n for _ in range(4000)]
    expected = label.stay_probability(np.array([0, n]), noise)
    assert expected[0] == 1
    assert expected[1] == pytest.approx(np.mean(marked), abs=4 * np.std(marked) / np.sqrt(4000) + 1e-12)


def one_cell(shape: tuple[int, int, int]) -> tuple[NDArray[np.int32], NDArray[np.uint8], Box]:
    return np.ones(shape, np.int32), np.full(shape, CYTOSOL, np.uint8), Box.of_shape(shape)


def layer(stay: float, proteins: float, dyes: float = 1.0, seed: int = 1) -> label.Layer:
    key = derive_key(seed, "test")
    return label.Layer(CYTOSOL, np.array([1.0, stay]), np.array([0.0, proteins]), dyes, VOXEL_NM, key)


def add(
    index: NDArray[np.int32], regions: NDArray[np.uint8], crop: Box, law: label.Layer, out: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Add the dyes of the whole crop; return how many each cell has."""
    of_cell = np.zeros(law.proteins.size, np.int64)
    label.add_dyes(index, regions, crop, crop, crop, law, out, crop, of_cell)
    return of_cell


def test_voxels_move_by_rounded_gaussians() -> None:
    index, regions, crop = one_cell((21, 27, 27))
    index[:] = 0
    index[10, 13, 13] = 1
    reach = label.reach(VOXEL_NM)
    assert reach == (10, 13, 13)
    moves = []
    for seed in range(2500):
        out = np.zeros(crop.shape, np.int32)
        add(index, regions, crop, layer(0.0, 50.0, seed=seed), out)
        moves.append(np.argwhere(out)[0] - (10, 13, 13))
    for axis, (voxel, far) in enumerate(zip(VOXEL_NM, reach, strict=True)):
        steps = np.array(moves)[:, axis]
        edges = np.arange(-far, far + 2) - 0.5
        share = np.diff(stats.norm.cdf(edges * voxel / label.DISPLACEMENT_NM))
        seen = np.bincount(steps + far, minlength=2 * far + 1)
        common = share > 0.004
        table = np.append(seen[common], seen[~common].sum()), np.append(share[common], share[~common].sum())
        assert stats.chisquare(table[0], len(moves) * table[1] / table[1].sum()).pvalue > 1e-4
    assert np.abs(np.corrcoef(np.array(moves).T) - np.eye(3)).max() < 0.08


@pytest.mark.parametrize("mean", [0.3, 6.0, 8192.0])
def test_proteins_of_a_voxel_are_poisson_and_dyes_are_rounded(mean: float) -> None:
    index, regions, crop = one_cell((30, 40, 40))
    out = np.zeros(crop.shape, np.int32)
    add(index, regions, crop, layer(1.0, mean), out)
    counts = out.ravel()
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / counts.size))
    assert counts.var() / mean == pytest.approx(1, abs=5 * np.sqrt((2 + 1 / mean) / counts.size))
    assert (counts == np.floor(mean)).mean() == pytest.approx(stats.poisson.pmf(np.floor(mean), mean), abs=0.01)
    amplified = np.zeros(crop.shape, np.int32)
    add(index, regions, crop, layer(1.0, mean, 2.5), amplified)
    np.testing.assert_array_equal(amplified, np.rint(out * 2.5))


def test_what_leaves_the_crop_is_what_is_missing() -> None:
    index, regions, crop = one_cell((26, 30, 28))
    law = layer(0.4, 0.0)
    dropped = np.zeros(2, np.int64)
    label.count_dropped(index, regions, crop, crop, crop, law, dropped)
    left = crop.size - dropped[1]
    # with hundreds of proteins in every voxel that is left, each of them shows; their sum tells how many there are
    out = np.zeros(crop.shape, np.int32)
    add(index, regions, crop, law._replace(proteins=np.array([0.0, 1e6])), out)
    assert round(out.sum(dtype=np.int64) / 1e6) == left
    assert 0 < dropped[1] < 0.6 * crop.size
    inner = crop.grown((-10, -13, -13))
    nobody = np.zeros(2, np.int64)
    label.count_dropped(index, regions, crop, inner, crop, law, nobody)
    assert not nobody.any()


def test_a_cells_proteins_are_a_whole_number_on_average() -> None:
    rates = label.proteins_per_voxel(np.array([0, 3, 1000]), 1e-5, VOXEL_NM)
    np.testing.assert_allclose(rates * [1, 3, 1000], [0, 1, 409])


def test_boxes_share_out_a_cells_dyes() -> None:
    index, regions, crop = one_cell((24, 30, 28))
    law = layer(0.4, 2.0, 3.0)
    out = np.zeros(crop.shape, np.int32)
    whole = add(index, regions, crop, law, out)
    assert whole[1] == out.sum()
    parts = np.zeros(2, np.int64)
    for own in Tiling(crop, (9, 14, 28)):
        label.add_dyes(index, regions, crop, crop, own, law, np.zeros(own.shape, np.int32), own, parts)
    np.testing.assert_array_equal(parts, whole)


def test_too_many_dyes_are_refused() -> None:
    index, regions, crop = one_cell((1, 1, 1))
    out = np.zeros(crop.shape, np.int32)
    with pytest.raises(ValueError, match="dyes in one voxel"):
        add(index, regions, crop, layer(1.0, 1e9, 5.0), out)
    with pytest.raises(ValueError, match="proteins in a voxel"):
        add(index, regions, crop, layer(1.0, 1e10), out)


def test_voxels_that_are_missing_are_refused() -> None:
    index, regions, crop = one_cell((40, 40, 40))
    with pytest.raises(ValueError, match="need the voxels of"):
        label.add_dyes(
            index[:20], regions[:20], Box.of_shape((20, 40, 40)), crop, Box.of_shape((15, 40, 40)),
            layer(1.0, 1.0), np.zeros((15, 40, 40), np.int32), crop, np.zeros(2, np.int64),
        )  # fmt: skip
