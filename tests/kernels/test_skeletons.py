"""Skeletons in an array: shapes of known length and radius, exact distances, and no rounding that depends on a place."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.objects.components import Components
from simexm.kernels.skeletons.surface import surface_distance
from simexm.kernels.skeletons.trace import Traced, trace
from simexm.kernels.skeletons.tree import degrees, oriented, running_majority
from simexm.kernels.skeletons.units import Units

VOXEL = (10.0, 10.0, 10.0)
LONGEST = 1.128
"""Most that a path of steps to 26 neighbours is longer than the straight line."""


def traced(values: NDArray[Any], scale: float = 1.5, constant_nm: float = 60.0) -> tuple[Traced, NDArray[Any]]:
    """Skeletons of an array, and the distances to the surface, nm."""
    units, found = Units.of(VOXEL), Components.of(values, 26)
    objects = found.painted(np.arange(1, len(found) + 1, dtype=np.int32))
    surface = surface_distance(values, Box.of_shape(values.shape), units.sides)
    no_gates = np.empty((0, 3), np.int64)
    made = trace(objects, surface, units, np.ones(len(found), np.bool_), no_gates, scale, constant_nm)
    return made, np.sqrt(surface) * units.nm


def cable_nm(found: Traced) -> float:
    joined = found.parent >= 0
    steps = (found.voxel[joined] - found.voxel[found.parent[joined]]) * VOXEL
    assert np.abs(steps).max() <= max(VOXEL)  # each edge is a step to a neighbour
    return float(np.sqrt((steps**2).sum(axis=1)).sum())


def near_curve(shape: tuple[int, int, int], points: NDArray[np.float64], radius: float) -> NDArray[np.uint8]:
    """Voxels whose centres are within a radius of a curve, in voxels."""
    out = np.zeros(shape, np.uint8)
    r = math.ceil(radius) + 1
    ball = np.stack(np.meshgrid(*[np.arange(-r, r + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for p in points:
        at = ball + np.round(p).astype(int)
        z, y, x = at[((at - p) ** 2).sum(axis=1) <= radius**2].T
        out[z, y, x] = 1
    return out


def line(a: tuple[float, ...], b: tuple[float, ...]) -> NDArray[np.float64]:
    t = np.linspace(0, 1, 200)[:, None]
    return np.array(a) * (1 - t) + np.array(b) * t


def test_the_distance_is_that_to_the_nearest_voxel_of_another_id() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (4, 4, 5)).repeat(2, 0).repeat(3, 1).repeat(2, 2).astype(np.uint16)
    values[values > 0] += (rng.random(values.shape) < 0.02)[values > 0]
    sides, inner = (80, 64, 70), Box((1, 2, 0), (8, 11, 10))
    got = surface_distance(values, inner, sides)
    places = np.argwhere(values >= 0)
    for at in itertools.islice(np.argwhere(np.ones(inner.shape)), 0, None, 23):
        z, y, x = at + inner.start
        others = places[values.ravel() != values[z, y, x]]
        expected = 0 if values[z, y, x] == 0 else (((others - (z, y, x)) * sides) ** 2).sum(axis=1).min()
        assert got[tuple(at)] == expected
    assert surface_distance(values, inner, sides, 100).max() == 100**2
    assert np.array_equal(surface_distance(values, inner, sides, 100), np.minimum(got, 100**2))


def test_a_straight_tube() -> None:
    r, long = 5, 90
    z, y, _ = np.indices((17, 19, long))
    found, radius = traced(((z - 8) ** 2 + (y - 9) ** 2 <= r * r).astype(np.uint8))
    degree = degrees(found.parent)
    assert (degree == 1).sum() == 2 == 2 * (found.parent < 0).sum()
    assert degree.max() == 2
    assert 0 <= cable_nm(found) - (long - 1) * 10 <= 2 * r * 10 * LONGEST  # both ends lie at rims
    middle = found.voxel[(found.voxel[:, 2] > 2 * r) & (found.voxel[:, 2] < long - 2 * r)]
    assert np.abs(middle[:, :2] - (8, 9)).max() <= 1
    assert (radius[tuple(middle.T)] - r * 10).min() >= -10
    assert (radius[tuple(middle.T)] - r * 10).max() <= 10


def test_three_arms_meet_at_one_point() -> None:
    centre, tips, r = (15, 40, 40), [(15, 6, 40), (15, 60, 10), (15, 60, 70)], 4
    values = near_curve((31, 70, 80), np.concatenate([line(centre, tip) for tip in tips]), r)
    found, _ = traced(values)
    degree = degrees(found.parent)
    assert (degree == 1).sum() == 3
    assert degree[degree > 2].tolist() == [3]
    branch = found.voxel[degree == 3][0]
    assert np.linalg.norm(branch - centre) <= 2 * r
    arms = sum(math.dist(centre, tip) for tip in tips) * 10
    assert arms <= cable_nm(found) <= LONGEST * arms + 3 * r * 10


def test_a_torus_is_cut_once() -> None:
    turn = np.linspace(0, 2 * np.pi, 600)
    big, r, scale, constant = 26, 4, 1.5, 60.0
    points = np.stack([np.full_like(turn, 9), 35 + big * np.sin(turn), 35 + big * np.cos(turn)], axis=1)
    found, _ = traced(near_curve((19, 70, 70), points, r), scale, constant)
    degree = degrees(found.parent)
    assert (found.parent < 0).sum() == 1
    assert (degree == 1).sum() == 2 + (degree > 2).sum() <= 3  # the root lies at the surface, beside the middle
    around = 2 * np.pi * big * 10
    reach = scale * (r + 1) * 10 + constant
    assert around - 2 * reach <= cable_nm(found) <= LONGEST * around + 2 * r * 10


def test_a_helix_has_its_length_and_radius() -> None:
    turn = np.linspace(0, 4 * np.pi, 1500)
    big, pitch, r = 20, 22, 4
    points = np.stack([8 + pitch * turn / (2 * np.pi), 27 + big * np.sin(turn), 27 + big * np.cos(turn)], axis=1)
    found, radius = traced(near_curve((62, 55, 55), points, r))
    length = 2 * math.hypot(2 * np.pi * big, pitch) * 10
    assert (degrees(found.parent) == 1).sum() == 2
    assert length <= cable_nm(found) <= LONGEST * length + 2 * r * 10
    along = radius[tuple(found.voxel.T)]
    assert abs(np.median(along) - r * 10) <= 10


def test_a_moved_object_has_the_moved_skeleton() -> None:
    rng = np.random.default_rng(2)
    blob = (rng.random((5, 6, 7)) < 0.4).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    skeletons = []
    for shift in ((1, 1, 1), (4, 3, 8)):  # not at the sides of the array, beyond which nothing is known
        values = np.zeros((20, 22, 30), np.uint8)
        values[tuple(slice(s, s + n) for s, n in zip(shift, blob.shape, strict=True))] = blob
        found, _ = traced(values)
        skeletons.append((found.voxel - shift, found.parent))
    assert np.array_equal(skeletons[0][0], skeletons[1][0])
    assert np.array_equal(skeletons[0][1], skeletons[1][1])
    assert len(skeletons[0][1]) > 30


def test_trees_are_ordered_from_the_largest_vertex() -> None:
    one, other = np.array([0, 1, 1, 5]), np.array([1, 2, 3, 4])
    order, parent = oriented(np.array([0, 4, 6, 7]), one, other, np.array([1, 2, 9, 3, 5, 5, 1]))
    assert order.tolist()[0] == 2  # the largest of the first object
    assert parent.tolist() == [-1, 0, 1, 1, -1, 4, -1]
    edges = {frozenset((int(order[n]), int(order[p]))) for n, p in enumerate(parent) if p >= 0}
    assert edges == {frozenset(map(int, e)) for e in zip(one, other, strict=True)}
    assert order.tolist()[4:] == [4, 5, 6]


@pytest.mark.parametrize("constant_nm", [30.0, 300.0])
def test_everything_is_within_reach_of_the_skeleton(constant_nm: float) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random((4, 5, 6)) < 0.5).repeat(5, 0).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    found, radius = traced(values, 0.0, constant_nm)
    for place in np.argwhere(values)[::37]:
        nearest = np.linalg.norm((found.voxel - place) * VOXEL, axis=1).min()
        assert nearest <= constant_nm + 1  # a straight line is no longer than a path inside; steps are rounded
    assert values[tuple(found.voxel.T)].all()
    assert (radius[tuple(found.voxel.T)] > 0).all()


def test_the_majority_along_a_tree_is_that_of_all_vertices_near_it() -> None:
    rng = np.random.default_rng(5)
    n, reach = 60, 4.0
    parent = np.array([-1, *(int(rng.integers(max(0, k - 4), k)) for k in range(1, n))])
    length = np.where(parent >= 0, rng.integers(1, 3, n), 0).astype(np.float64)
    classes, counts = rng.integers(0, 3, n), rng.random(n) < 0.9
    got = running_majority(parent, length, classes, counts, reach)
    apart = np.full((n, n), np.inf)
    np.fill_diagonal(apart, 0)
    for k in range(1, n):
        if counts[k] and counts[parent[k]]:
            apart[k, parent[k]] = apart[parent[k], k] = length[k]
    for k in range(n):
        apart = np.minimum(apart, apart[:, k : k + 1] + apart[k : k + 1])
    own = length / 2 + np.bincount(parent[1:], length[1:] / 2, n)
    for k in range(n):
        near = apart[k] <= reach
        votes = np.bincount(classes[near], own[near], 3)
        assert got[k] == (votes.argmax() if counts[k] else classes[k])
