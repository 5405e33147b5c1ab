"""Components, contacts, overlaps and shapes of labelled voxels, against slow independent computations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from simexm.kernels.labels.regions import crofton_weights
from simexm.kernels.objects import shapes
from simexm.kernels.objects.components import AXES_OF, Components, components
from simexm.kernels.objects.contacts import (
    CONTACT_COLUMNS,
    DIRECTIONS,
    areas_um2,
    contacts,
    crofton_areas_um2,
    face_areas_um2,
    surface_crossings,
)
from simexm.kernels.objects.grow import grown
from simexm.kernels.objects.grow import reach as grow_reach
from simexm.kernels.objects.morphology import closed, dilated, eroded, opened
from simexm.kernels.objects.overlaps import overlaps
from simexm.kernels.objects.runs import Runs

VOXEL = (40.0, 32.0, 32.0)


def cells(seed: int, shape: tuple[int, int, int] = (5, 6, 13), most: int = 4) -> NDArray[np.uint32]:
    """Random ids in short runs."""
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.integers(0, most, shape), rng.integers(1, 4), axis=2)
    return values.astype(np.uint32)


def labelled_by_scipy(values: NDArray[Any], connectivity: int) -> NDArray[np.int64]:
    """Components of each value, numbered by their smallest voxel index."""
    out = np.zeros(values.shape, np.int64)
    structure = ndimage.generate_binary_structure(3, AXES_OF[connectivity])
    for value in np.unique(values[values > 0]):
        found, _ = ndimage.label(values == value, structure)
        out[found > 0] = found[found > 0] + out.max()
    first = np.unique(out[out > 0], return_index=True)[1]
    order = np.zeros(out.max() + 1, np.int64)
    order[np.unique(out[out > 0])[np.argsort(first)]] = np.arange(1, first.size + 1)
    return order[out]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([6, 18, 26]))
def test_components_are_those_of_scipy(seed: int, connectivity: int) -> None:
    values = cells(seed)
    assert np.array_equal(components(values, connectivity), labelled_by_scipy(values, connectivity))


def test_a_component_is_known_by_its_first_voxel() -> None:
    values = cells(3)
    found = Components.of(values, 26)
    painted = found.painted(np.arange(1, len(found) + 1))
    for n, (z, y, x) in enumerate(zip(*found.first_voxel, strict=True), 1):
        assert tuple(np.argwhere(painted == n)[0]) == (z, y, x)
        assert found.values[n - 1] == values[z, y, x]


def slow_contacts(values: NDArray[Any], start: Any, stop: Any, corner: Any) -> dict[tuple[int, int], list[int]]:
    """Each voxel of a box with each of its thirteen later neighbours."""
    found: dict[tuple[int, int], NDArray[np.int64]] = {}
    for p in itertools.product(*(range(a, b) for a, b in zip(start, stop, strict=True))):
        for n, direction in enumerate(DIRECTIONS):
            q = tuple(a + d for a, d in zip(p, direction, strict=True))
            if not all(0 <= c < s for c, s in zip(q, values.shape, strict=True)):
                continue
            a, b = int(values[p]), int(values[q])
            if a and b and a != b:
                row = found.setdefault((min(a, b), max(a, b)), np.zeros(len(CONTACT_COLUMNS), np.int64))
                row[n] += 1
                if n < 3:
                    row[13 + n] += 1 if a < b else -1
                    row[16 + 3 * n : 19 + 3 * n] += 2 * (np.array(p) + corner) + direction + 1
    return {pair: row.tolist() for pair, row in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_contacts_are_those_of_each_voxel_and_its_neighbours(seed: int) -> None:
    values = cells(seed, most=30 if seed == 5 else 4)
    box: Any = ((0, 1, 0), (4, 6, values.shape[2] - 1), (3, 2, 7))
    pairs, counts = contacts(Runs.of(values), *box)
    assert {(a, b): row for (a, b), row in zip(pairs.tolist(), counts.tolist(), strict=True)} == slow_contacts(
        values, *box
    )


def test_a_table_of_pairs_grows() -> None:
    values = np.arange(1, 30 * 30 * 30 + 1, dtype=np.uint64).reshape(30, 30, 30)
    pairs, counts = contacts(Runs.of(values), (0, 0, 0), (30, 30, 30), (0, 0, 0))
    assert counts[:, :3].sum() == 3 * 30 * 30 * 29 == (counts[:, :3] > 0).sum()
    assert len(pairs) == counts[:, :13].sum() > 100_000
    found, voxels = overlaps(values, values)
    assert np.array_equal(found[:, 0], values.ravel())
    assert np.all(voxels == 1)


def test_contacts_of_a_cell_add_up_to_its_surface() -> None:
    """Without background, what a cell shows to others is its surface, by faces and by Crofton's formula."""
    values = cells(4) + np.uint32(1)
    _, counts = contacts(Runs.of(values), (0, 0, 0), values.shape, (0, 0, 0))
    pairs = contacts(Runs.of(values), (0, 0, 0), values.shape, (0, 0, 0))[0]
    runs = Runs.of(values)
    ids, of_run = np.unique(runs.value, return_inverse=True)
    surface = surface_crossings(runs, (0, 0, 0), values.shape, runs, (of_run + 1).astype(np.int32), ids.size)
    for n, cell in enumerate(ids):
        assert np.array_equal(counts[(pairs == cell).any(axis=1), :13].sum(axis=0), surface[n])


def test_areas_are_those_of_faces_and_of_the_crofton_weights() -> None:
    assert face_areas_um2(VOXEL)[:3] == pytest.approx([1280e-6, 1280e-6, 1024e-6], rel=1e-12)
    half = sum(crofton_weights(VOXEL, False)[d[0] + 1, d[1] + 1, d[2] + 1] for d in DIRECTIONS)
    assert crofton_areas_um2(VOXEL).sum() == pytest.approx(half, rel=1e-12)


def test_the_surface_of_a_ball_is_right_by_crofton_and_half_too_large_by_faces() -> None:
    radius = 20
    z, y, x = np.ogrid[-24:25, -24:25, -24:25]
    ball = (z * z + y * y + x * x <= radius * radius).astype(np.uint8)
    runs = Runs.of(ball)
    crossings = surface_crossings(runs, (0, 0, 0), ball.shape, runs, np.ones(runs.value.size, np.int32), 1)
    true_um2 = 4 * math.pi * (radius * 0.01) ** 2
    cube = (10.0, 10.0, 10.0)
    assert areas_um2(crossings, crofton_areas_um2(cube))[0] == pytest.approx(true_um2, rel=0.03)
    assert areas_um2(crossings, face_areas_um2(cube))[0] == pytest.approx(1.5 * true_um2, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_overlaps_are_the_pairs_of_voxels(seed: int) -> None:
    one, other = cells(seed), cells(seed + 1)
    other = other[:, :, : one.shape[2]]
    one = one[:, :, : other.shape[2]]
    pairs, voxels = overlaps(one, other)
    expected = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1, return_counts=True)
    assert np.array_equal(pairs.T, expected[0])
    assert np.array_equal(voxels, expected[1])


def test_moments_and_boxes_are_sums_over_voxels() -> None:
    found = Components.of(cells(8), 6)
    painted = found.painted(np.arange(1, len(found) + 1))
    voxels, sums, boxes = shapes.moments(found)
    for n in range(len(found)):
        z, y, x = np.nonzero(painted == n + 1)
        products = [z, y, x, z * z, y * y, x * x, z * y, z * x, y * x]
        assert sums[n].tolist() == [int(p.sum()) for p in products]
        assert voxels[n] == z.size
        assert boxes[n].tolist() == [z.min(), y.min(), x.min(), z.max(), y.max(), x.max()]


def test_depth_is_the_distance_to_another_value() -> None:
    values = np.repeat(np.repeat(cells(2, (3, 3, 4)), 5, axis=0), 6, axis=1)
    found = shapes.depth(values)
    for value in np.unique(values):
        inside = values == value
        padded = np.pad(inside, 1, constant_values=True)  # the end of the array is no border
        steps = ndimage.distance_transform_cdt(padded, "taxicab")[1:-1, 1:-1, 1:-1] if not inside.all() else 99
        assert np.array_equal(found[inside], np.minimum(steps, shapes.DEEPEST)[inside])


def test_the_deepest_voxel_is_inside_and_the_first_of_equals() -> None:
    values = np.repeat(np.repeat(np.repeat(cells(1, (3, 3, 3)), 4, axis=0), 4, axis=1), 4, axis=2)
    found, depths, corner, volume = Components.of(values, 6), shapes.depth(values), (2, 3, 4), (100, 200, 300)
    painted = found.painted(np.arange(1, len(found) + 1))
    places = shapes.deepest_voxel(shapes.deepest(found, depths, corner, volume), volume)
    for n, place in enumerate(places.T, 1):
        mine = np.where(painted == n, depths, 0)
        assert tuple(place - corner) == np.unravel_index(int(mine.argmax()), mine.shape)


def test_principal_axes_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(50, 3, 3))
    matrices = half @ half.transpose(0, 2, 1)
    matrices[0] = np.diag([1.0, 3.0, 2.0])
    values, vectors = shapes.principal_axes(matrices)
    assert np.allclose(values, np.linalg.eigvalsh(matrices)[:, ::-1], rtol=1e-12, atol=1e-12)
    assert np.allclose(np.einsum("nij,nkj->nki", matrices, vectors), values[:, :, None] * vectors, atol=1e-12)
    assert np.allclose(vectors @ vectors.transpose(0, 2, 1), np.eye(3), atol=1e-12)


def ball(radius: float) -> NDArray[np.bool_]:
    """Offsets within a radius, nm, as an array."""
    n = [math.floor(radius / v) for v in VOXEL]
    grid = np.meshgrid(*(np.arange(-k, k + 1) * v for k, v in zip(n, VOXEL, strict=True)), indexing="ij")
    inside: NDArray[np.bool_] = sum(g * g for g in grid) <= radius * radius
    return inside


@pytest.mark.parametrize("radius", [32.0, 70.0])
def test_morphology_is_that_of_a_ball(radius: float) -> None:
    rng = np.random.default_rng(5)
    mask = ndimage.gaussian_filter(rng.normal(size=(14, 18, 20)), 1.5) > 0
    element = ball(radius)
    assert np.array_equal(dilated(mask, radius, VOXEL), ndimage.binary_dilation(mask, element))
    assert np.array_equal(eroded(mask, radius, VOXEL), ndimage.binary_erosion(mask, element, border_value=1))
    assert np.all(opened(mask, radius, VOXEL) <= mask)
    assert np.all(closed(mask, radius, VOXEL) >= mask)
    twice = opened(opened(mask, radius, VOXEL), radius, VOXEL)
    assert np.array_equal(twice, opened(mask, radius, VOXEL))


def test_cells_grow_to_the_nearest() -> None:
    """Two walls with a gap of four voxels meet in its middle at half the gap, and not before."""
    values = np.zeros((3, 3, 12), np.uint16)
    values[..., :4], values[..., 8:] = 7, 5
    assert np.all(grown(values, 64.0, VOXEL)[1, 1] == [7] * 6 + [5] * 6)
    assert np.all(grown(values, 63.0, VOXEL)[1, 1] == [7] * 6 + [5] * 6)  # centres lie half a voxel inside
    assert np.all(grown(values, 47.0, VOXEL)[1, 1] == [7] * 5 + [0, 0] + [5] * 5)
    values[..., 7] = 5  # three voxels: the one in the middle is as near to both, and goes to the smaller id
    assert np.all(grown(values, 48.0, VOXEL)[1, 1] == [7] * 5 + [5] * 7)
    assert grow_reach(48.0, VOXEL) == (1, 2, 2)
