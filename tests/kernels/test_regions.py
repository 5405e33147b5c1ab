"""Laws of membranes: which voxels they are, and how much surface they carry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi

from simexm.geometry.grid import Box, Tiling, Triple
from simexm.kernels.labels.cells import CellIndex
from simexm.kernels.labels.regions import (
    CYTOSOL,
    MEMBRANE,
    crofton_weights,
    halo,
    regions_of,
    surface_um2,
    surfaces_um2,
)

Ids = NDArray[np.uint64]


def _offsets(neighbourhood: int) -> list[Triple]:
    every = [(z, y, x) for z, y, x in itertools.product((-1, 0, 1), repeat=3) if (z, y, x) != (0, 0, 0)]
    return every if neighbourhood == 26 else [o for o in every if o[0] == 0]


def _by_definition(ids: Ids, neighbourhood: int) -> NDArray[np.uint8]:
    """Each neighbour on its own, on the ids themselves."""
    differs = np.zeros(ids.shape, bool)
    for offset in _offsets(neighbourhood):
        here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(offset, ids.shape, strict=True))
        there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(offset, ids.shape, strict=True))
        differs[here] |= ids[here] != ids[there]
    return np.where(ids == 0, 0, np.where(differs, MEMBRANE, CYTOSOL)).astype(np.uint8)


def _blobs(shape: Triple, ids: list[int], seed: int, coarse: int = 4) -> Ids:
    """Random patches of cells, some of one voxel."""
    rng = np.random.default_rng(seed)
    few = rng.choice(np.array(ids, np.uint64), [-(-n // coarse) for n in shape])
    volume: Ids = np.kron(few, np.ones((coarse,) * 3, np.uint64))[: shape[0], : shape[1], : shape[2]].copy()
    dust = rng.random(shape) < 0.01
    volume[dust] = rng.choice(np.array(ids, np.uint64), int(dust.sum()))
    return volume


@pytest.mark.parametrize("neighbourhood", [26, 8])
@pytest.mark.parametrize(
    "ids",
    [[4, 5, 6], [0, 4, 5, 6], [0, 2**32 + 4, 2**32 + 5, 4, 5], [2**63, 2**63 + 1, 2**40, 0]],
    ids=["side by side", "with background", "same low words", "above 2^32"],
)
def test_every_membrane_voxel_has_a_neighbour_of_another_id(neighbourhood: int, ids: list[int]) -> None:
    volume = _blobs((19, 23, 31), ids, seed=len(ids))
    found = regions_of(CellIndex().add(volume), neighbourhood)
    assert (found == _by_definition(volume, neighbourhood)).all()
    assert (found == MEMBRANE).any()
    assert (found == CYTOSOL).any()


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2**31), st.sampled_from([26, 8]), st.integers(1, 3))
def test_thin_and_tiny_volumes(shape: Triple, seed: int, neighbourhood: int, coarse: int) -> None:
    volume = _blobs(shape, [0, 1, 2], seed, coarse)
    assert (regions_of(CellIndex().add(volume), neighbourhood) == _by_definition(volume, neighbourhood)).all()


@pytest.mark.parametrize("neighbourhood", [26, 8])
@pytest.mark.parametrize("tile", [(5, 7, 9), (19, 1, 4), (1, 23, 31)])
def test_boxes_with_halo_give_what_the_whole_gives(neighbourhood: int, tile: Triple) -> None:
    """Neither the border of a block nor that of a crop is a special case; only the volume's is."""
    volume = _blobs((19, 23, 31), [0, 4, 5, 6], seed=8)
    whole = regions_of(CellIndex().add(volume), neighbourhood)
    for box in Tiling(Box.of_shape((19, 23, 31)), tile):
        read = box.grown(halo(neighbourhood)).intersect(Box.of_shape((19, 23, 31)))
        part = regions_of(CellIndex().add(volume[read.slices]), neighbourhood)
        assert (part[box.relative_to(read.start).slices] == whole[box.slices]).all()


def test_a_volume_of_one_cell_has_no_membrane() -> None:
    index = np.ones((4, 5, 6), np.int32)
    assert (regions_of(index, 26) == CYTOSOL).all()
    assert all(surface_um2(index, *p, crofton_weights((40, 32, 32), False)) == 0 for p in np.ndindex(index.shape))


def _surface(index: NDArray[np.int32], voxel_nm: tuple[float, float, float], in_slice: bool = False) -> float:
    """Surface of cell 1, um^2, voxel by voxel."""
    weights = crofton_weights(voxel_nm, in_slice)
    return float(sum(surface_um2(index, z, y, x, weights) for z, y, x in np.argwhere(index == 1)))


def _solid(
    inside: Callable[..., NDArray[np.bool_]], voxel_nm: tuple[float, float, float], half_nm: tuple[float, float, float]
) -> NDArray[np.int32]:
    """Cell 1 where `inside` (of z, y, x in nm from the middle) holds."""
    shape = [int(np.ceil(2 * h / v)) for h, v in zip(half_nm, voxel_nm, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(shape, voxel_nm, strict=True)]
    found: NDArray[np.int32] = inside(*np.meshgrid(*axes, indexing="ij")).astype(np.int32)
    return found


@pytest.mark.parametrize("voxel_nm", [(40, 32, 32), (30, 30, 30), (60, 20, 20)])
@pytest.mark.parametrize("radius", [500.0, 900.0])
def test_the_surface_of_a_sphere(voxel_nm: tuple[float, float, float], radius: float) -> None:
    half = (radius + 100,) * 3
    index = _solid(lambda z, y, x: z * z + y * y + x * x < radius * radius, voxel_nm, half)
    assert _surface(index, voxel_nm) == pytest.approx(4 * np.pi * radius**2 * 1e-6, rel=0.03)


@pytest.mark.parametrize("height", [40.0, 80.0])
def test_the_wall_of_an_upright_cylinder_in_the_slice(height: float) -> None:
    voxel = (height, 8.0, 10.0)
    index = _solid(lambda z, y, x: y * y + x * x < 400.0**2, voxel, (height * 3, 500, 500))
    assert _surface(index, voxel, in_slice=True) == pytest.approx(2 * np.pi * 0.4 * height * 6e-3, rel=0.03)


def _plane_ratio(normal: NDArray[np.float64], voxel_nm: tuple[float, float, float], in_slice: bool) -> float:
    """Estimated over true surface of a tilted plane, over the inner columns of a box that it crosses."""
    axis = int(np.argmax(np.abs(normal)))
    half = np.array([10.0, 10.0, 10.0]) * voxel_nm
    half[axis] = 2.2 * half.max() * (np.abs(normal).sum() / abs(normal[axis]) - 1) / 2 + 3 * voxel_nm[axis]
    index = _solid(
        lambda *r: sum(n * c for n, c in zip(normal, r, strict=True)) < 5.0, voxel_nm, (half[0], half[1], half[2])
    )
    weights = crofton_weights(voxel_nm, in_slice)
    inner = [slice(0, n) if a == axis else slice(2, n - 2) for a, n in enumerate(index.shape)]
    crossed = np.argwhere(index[tuple(inner)] == 1) + [0 if a == axis else 2 for a in range(3)]
    found = sum(surface_um2(index, *p, weights) for p in crossed if 0 < p[axis] < index.shape[axis] - 1)
    area = math.prod((n - 4) * v for a, (n, v) in enumerate(zip(index.shape, voxel_nm, strict=True)) if a != axis)
    return float(found / (area * 1e-6 / abs(normal[axis])))


def _directions(n: int, seed: int) -> NDArray[np.float64]:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("voxel_nm", [(40, 32, 32), (30, 30, 30)])
def test_the_surface_of_tilted_planes(voxel_nm: tuple[float, float, float]) -> None:
    """Thirteen directions cannot be right at every tilt (8 % at worst), but are on average."""
    ratios = np.array([_plane_ratio(n, voxel_nm, False) for n in _directions(60, seed=5)])
    assert ratios.mean() == pytest.approx(1, abs=0.015)
    assert np.abs(ratios - 1).max() < 0.09


def test_the_surface_of_upright_planes_in_the_slice() -> None:
    angles = np.linspace(0.02, np.pi, 40, endpoint=False)
    ratios = np.array([_plane_ratio(np.array([0.0, np.sin(a), np.cos(a)]), (40, 32, 32), True) for a in angles])
    assert ratios.mean() == pytest.approx(1, abs=0.015)
    assert np.abs(ratios - 1).max() < 0.06


@pytest.mark.parametrize("voxel_nm", [(30, 30, 30), (40, 32, 32), (60, 20, 20), (4, 8, 31), (50, 4, 4)])
def test_the_weights_are_shares_of_directions(voxel_nm: tuple[float, float, float]) -> None:
    """Areas of the Voronoi cells of the 26 directions on the unit sphere, by another program."""
    offsets = [o for o in np.ndindex(3, 3, 3) if o != (1, 1, 1)]
    vectors = (np.array(offsets) - 1) * np.array(voxel_nm)
    length = np.linalg.norm(vectors, axis=1)
    areas = SphericalVoronoi(vectors / length[:, None]).calculate_areas()
    weights = crofton_weights(voxel_nm, False)
    assert weights[1, 1, 1] == 0
    found = [weights[o] for o in offsets]
    np.testing.assert_allclose(found, areas / np.pi * math.prod(voxel_nm) / length * 1e-6, rtol=1e-11)


def test_two_cells_that_touch_have_a_membrane_each() -> None:
    index = np.ones((8, 8, 8), np.int32)
    index[:, :, 4:] = 2
    weights = crofton_weights((30, 30, 30), False)
    sides = [sum(surface_um2(index, z, y, x, weights) for z, y, x in np.argwhere(index == c)) for c in (1, 2)]
    assert sides[0] == pytest.approx(sides[1])
    assert sides[0] > 0


def test_surfaces_of_a_row_are_those_of_its_voxels() -> None:
    rng = np.random.default_rng(7)
    index = rng.integers(0, 3, (4, 5, 300)).astype(np.int32)
    weights, out = crofton_weights((40, 32, 32), False), np.empty(300)
    for n, (z, y) in itertools.product((1, 7, 150, 300), np.ndindex(index.shape[:2])):
        columns = np.sort(rng.permutation(300)[:n])  # few are computed one by one
        surfaces_um2(index, z, y, columns, n, weights, out)
        assert out[:n].tolist() == [surface_um2(index, z, y, x, weights) for x in columns]
