"""Laws of boxes, tilings, and of the one transform that image and truth share."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm.geometry.geometry import Geometry, Sampling
from simexm.geometry.grid import Box, NmBox, Tiling, exact, exact3
from simexm.geometry.transform import UniformExpansion

COORDINATE = st.integers(-20, 20)
BOXES = st.builds(Box, st.tuples(*[COORDINATE] * 3), st.tuples(*[COORDINATE] * 3))
LENGTH = st.fractions(Fraction(1, 10), Fraction(300), max_denominator=20)


def _points(box: Box) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True))))


@settings(max_examples=40, deadline=None)
@given(BOXES, BOXES)
def test_boxes_are_the_sets_of_their_points(a: Box, b: Box) -> None:
    assert _points(a.intersect(b)) == _points(a) & _points(b)
    assert len(_points(a)) == a.size
    assert a.contains(b) == (_points(b) <= _points(a))
    hull = a.hull(b)
    assert hull.contains(a)
    assert hull.contains(b)
    if not a.is_empty and not b.is_empty:
        for axis in range(3):
            assert hull.start[axis] in (a.start[axis], b.start[axis])
            assert hull.stop[axis] in (a.stop[axis], b.stop[axis])
    assert a.shifted((1, 2, 3)).relative_to((1, 2, 3)) == a


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
)
def test_a_tiling_covers_its_box_once(
    start: tuple[int, int, int], shape: tuple[int, int, int], cell: tuple[int, int, int]
) -> None:
    box = Box.at(start, shape)
    tiling = Tiling(box, cell)
    seen = np.zeros(shape, int)
    for tile in tiling:
        assert not tile.is_empty
        seen[tile.relative_to(start).slices] += 1
    assert (seen == 1).all()
    with pytest.raises(IndexError):
        tiling[len(tiling)]


def test_numbers_are_those_that_a_person_wrote() -> None:
    assert exact(162.5) == Fraction(325, 2)
    assert exact(0.1) == Fraction(1, 10)
    assert exact(np.float64(1e-5)) == Fraction(1, 100_000)
    assert exact3((1, 0.3, Fraction(2, 3))) == (Fraction(1), Fraction(3, 10), Fraction(2, 3))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200), LENGTH, LENGTH)
def test_a_pixel_shows_the_half_open_voxel_that_holds_its_centre(voxels: int, voxel: Fraction, pixel: Fraction) -> None:
    axis = Sampling(voxels, voxel, pixel)
    extent = voxels * voxel
    assert axis.size == max(1, math.floor(extent / pixel))
    stop = min(axis.size, 50)
    found = axis.voxel_at_centre(0, stop)
    for p in range(stop):
        centre, i = (p + Fraction(1, 2)) * pixel, int(found[p])
        if centre < extent:
            assert i * voxel <= centre < (i + 1) * voxel
        else:
            assert axis.size == 1
            assert i == voxels - 1
    assert (axis.voxel_at_centre(stop // 2, stop) == found[stop // 2 :]).all()


def _geometry(volume: tuple[int, int, int], crop: Box, voxel: Fraction, factor: Fraction, pixel: Fraction) -> Geometry:
    return Geometry(
        volume, crop, (voxel, voxel * 2, voxel), exact3((7, 0, 3)), UniformExpansion(factor), (pixel, pixel, pixel / 2)
    )


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(*[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(1, 30)] * 3),
    LENGTH,
    st.fractions(1, 20, max_denominator=4),
    LENGTH,
    st.tuples(*[st.integers(1, 7)] * 3),
)
def test_tiles_of_the_image_share_out_the_crops_voxels_once(
    start: tuple[int, int, int],
    shape: tuple[int, int, int],
    voxel: Fraction,
    factor: Fraction,
    pixel: Fraction,
    tile: tuple[int, int, int],
) -> None:
    crop = Box.at(start, shape)
    volume = (start[0] + shape[0] + 1, start[1] + shape[1], start[2] + shape[2] + 4)
    g = _geometry(volume, crop, voxel, factor, pixel)
    # along each axis on its own: boxes are products
    for axis in range(3):
        cell = [10**9] * 3
        cell[axis] = max(tile[axis], -(-g.shape[axis] // 20))
        tiling = Tiling(Box.of_shape(g.shape), (cell[0], cell[1], cell[2]))
        edges = [crop.start[axis]]
        for box in tiling:
            own = g.own_voxels(box)
            assert own.start[axis] == edges[-1]
            edges.append(own.stop[axis])
            others = [a for a in range(3) if a != axis]
            assert all((own.start[a], own.stop[a]) == (crop.start[a], crop.stop[a]) for a in others)
        assert edges[-1] == crop.stop[axis]
        assert edges == sorted(edges)


@settings(max_examples=60, deadline=None)
@given(LENGTH, LENGTH, LENGTH, LENGTH)
def test_the_voxels_of_a_box_are_those_that_it_touches(
    voxel: Fraction, a: Fraction, length: Fraction, pixel: Fraction
) -> None:
    volume = (40, 40, 40)
    g = _geometry(volume, Box((3, 5, 1), (30, 31, 32)), voxel, Fraction(4), pixel)
    box = g.voxels(NmBox((a - 50,) * 3, (a - 50 + length,) * 3))
    for axis in range(3):
        size, corner = g.voxel_nm[axis], g.crop.start[axis]
        touched = [
            i for i in range(volume[axis]) if (i - corner) * size < a - 50 + length and (i + 1 - corner) * size > a - 50
        ]
        assert list(range(box.start[axis], box.stop[axis])) == touched or not touched


def test_image_and_ground_truth_lie_in_one_frame() -> None:
    """Where an image has one pixel for each voxel, pixel and voxel are at the same place, whatever the crop."""
    crop = Box((3, 5, 1), (30, 31, 32))
    four = UniformExpansion(Fraction(4))
    g = Geometry((40, 40, 40), crop, exact3((40, 32, 32)), exact3((7, 0, 3)), four, exact3((160, 128, 128)))
    assert g.shape == crop.shape
    assert g.pixel_tissue_nm == g.voxel_nm
    assert g.image_origin_nm == exact3((7 + 3 * 40, 5 * 32, 3 + 32))
    box = Box((2, 3, 4), (5, 6, 7))
    assert g.voxels(four.bound_inverse(g.pixels_nm(box))) == box.shifted(crop.start)
    assert g.own_voxels(box) == box.shifted(crop.start)
