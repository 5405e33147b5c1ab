"""Laws of the arrays' part of registration."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simexm.kernels.registration import features, fields, similarity, warp
from simexm.kernels.registration.scattered import SmoothDisplacement

SPACING = (2.0, 0.5, 1.0)


def centres(shape: tuple[int, int, int], spacing: tuple[float, float, float] = SPACING) -> NDArray[np.float64]:
    axes = [s * (np.arange(n) + 0.5) for n, s in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def test_jacobian_of_an_affine_field_is_its_determinant() -> None:
    linear = np.array([[0.1, 0.05, -0.2], [0.3, -0.1, 0.02], [0.0, 0.15, 0.2]])
    field = np.tensordot(linear, centres((4, 5, 6)), 1).astype(np.float32)
    found = fields.smallest_jacobian(field, np.array(SPACING))
    assert found.shape == (3, 4, 5)
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + linear), atol=1e-5)


def test_unfold_leaves_no_fold_and_what_is_far_as_it_was() -> None:
    field = np.zeros((3, 24, 24, 40), np.float32)
    field[2, 12, 12, 8] = 4.0  # its neighbour along x lies 1 um further: they swap
    assert (fields.smallest_jacobian(field, np.array(SPACING)) <= 0).any()
    found, folded = fields.unfold(field, SPACING, 0.1)
    assert folded > 0
    assert fields.smallest_jacobian(found, np.array(SPACING)).min() >= 0.1
    assert np.array_equal(found[..., 30:], field[..., 30:])
    again, folded = fields.unfold(found, SPACING, 0.1)
    assert folded == 0
    assert np.array_equal(again, found)


def test_a_field_that_cannot_be_smoothed_is_weakened() -> None:
    field = (-1.5 * centres((8, 8, 8))).astype(np.float32)  # a point reflection, of no curvature
    found, _ = fields.unfold(field, SPACING, 0.1)
    assert fields.smallest_jacobian(found, np.array(SPACING)).min() >= 0.1


def test_a_point_and_its_inverse_agree_within_the_tolerance() -> None:
    random = np.random.default_rng(0)
    field = ndimage.gaussian_filter(random.standard_normal((3, 24, 40, 30)), (0, 3, 6, 4))
    field = (field / field.std() * 0.6).astype(np.float32)
    assert fields.smallest_jacobian(field, np.array(SPACING)).min() > 0
    points = random.uniform(0, 1, (3, 2000)) * np.array([48, 20, 30.0])[:, None]
    first = np.array(SPACING) / 2
    found = fields.invert(field, SPACING, points, first, 1e-4)
    again = found + fields.sample(field, (found - first[:, None]) / np.array(SPACING)[:, None])
    assert np.linalg.norm(again - points, axis=0).max() <= 1e-4


def test_matches_that_agree_are_found_among_as_many_that_do_not() -> None:
    random = np.random.default_rng(1)
    points = random.uniform(0, 100, (200, 3))
    affine = np.column_stack([np.eye(3) + random.normal(0, 0.05, (3, 3)), [5.0, -20.0, 70.0]])
    images = points @ affine[:, :3].T + affine[:, 3]
    images[::2] = random.uniform(0, 100, (100, 3))
    found = features.ransac(points, images, 0.5, 512, 0.25, seed=3)
    assert found is not None
    np.testing.assert_allclose(found[0], affine, atol=1e-9)
    assert found[1][1::2].all()
    assert not found[1][::2].any()
    mirrored = features.ransac(points, images * [1, 1, -1], 0.5, 512, 0.25, seed=3)
    assert mirrored is None or mirrored[1].sum() < 20


def test_a_similarity_is_fitted_exactly() -> None:
    random = np.random.default_rng(2)
    points = random.normal(0, 10, (50, 3))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    found = features.fit_similarity(points, 1.1 * points @ turn.T + [1, 2, 3], scaled=True)
    np.testing.assert_allclose(found, np.column_stack([1.1 * turn, [1, 2, 3]]), atol=1e-9)
    rigid = features.fit_similarity(points, 1.1 * points @ turn.T + [1, 2, 3], scaled=False)
    np.testing.assert_allclose(rigid[:, :3], turn, atol=1e-9)


def test_blobs_lie_where_they_were_drawn_and_match_after_a_shift() -> None:
    random = np.random.default_rng(3)
    image = np.zeros((24, 32, 40), np.float32)
    places = np.array([[6, 8, 9], [14, 20, 30], [18, 10, 22], [8, 25, 15]])
    image[tuple(places.T)] = [4, 3, 2, 1]
    image = ndimage.gaussian_filter(image, 1.5)
    found = features.blobs(image, (1.5,), 4, None)
    assert np.array_equal(found, places)
    mask = np.zeros(image.shape, bool)
    mask[:, :16] = True
    assert np.array_equal(features.blobs(image, (1.5,), 4, mask), places[[0, 2]])
    texture: NDArray[np.float32] = image + 0.01 * ndimage.gaussian_filter(
        random.standard_normal(image.shape).astype(np.float32), 1
    )
    moved = np.roll((0.6 * texture + 5).astype(np.float32), (1, -2, 3), (0, 1, 2))
    before, _ = features.patches(texture, places.astype(float), 4)
    after, _ = features.patches(moved, places + np.array([1.0, -2.0, 3.0]), 4)
    one, other, alike = features.matches(before, after, 0.9)
    assert np.array_equal(one, other)
    assert alike.min() > 0.99


def test_shifts_of_blocks_are_found_below_a_voxel() -> None:
    random = np.random.default_rng(4)
    image = ndimage.gaussian_filter(random.standard_normal((48, 48, 48)), 1, mode="wrap")
    image += 0.02 * random.standard_normal(image.shape)
    where = np.ones(image.shape, bool)
    shift = (1.3, -2.6, 0.4)
    moved = ndimage.shift(image, shift, order=5, mode="grid-wrap") + 0.02 * random.standard_normal(image.shape)
    centre, found = similarity.block_shifts(image, moved, where, 24)
    assert len(found) >= 20
    np.testing.assert_allclose(np.median(found, axis=0), shift, atol=0.15)
    assert centre.min() == 11.5
    where[:, :, 20:] = False
    assert not len(similarity.block_shifts(image, moved, where, 24)[1])


def test_correlations_do_not_see_gain_and_offset() -> None:
    random = np.random.default_rng(5)
    image = random.standard_normal((20, 20, 20))
    where = np.ones(image.shape, bool)
    assert similarity.correlation(image, 0.6 * image + 100, where) == pytest.approx(1)
    assert similarity.local_correlation(image, 100 - 0.6 * image, where) == pytest.approx(-1, abs=1e-6)
    assert np.isnan(similarity.correlation(image, np.ones_like(image), where))


def test_ids_above_two_to_the_fifty_third_stay_as_they_are() -> None:
    ids = (np.arange(4**3, dtype=np.uint64) + (2**53 + 1)).reshape(4, 4, 4)
    at = np.stack(np.meshgrid(*[np.arange(4) + 0.49] * 3, indexing="ij"))
    assert np.array_equal(warp.labels_at(ids, at), ids)
    small = np.full((2, 2, 2), 16777217, np.uint32)
    assert (warp.labels_at(small, np.full((3, 5), -7.0)) == 16777217).all()


def test_integers_are_rounded_and_never_wrap() -> None:
    found = warp.as_type(np.array([100.9, -3.0, 70000.0]), np.dtype(np.uint16))
    assert found.tolist() == [101, 0, 65535]
    step = np.zeros((4, 4, 24), np.uint16)
    step[..., 12:] = 65535
    at = np.stack(np.meshgrid([1.0], [1.0], np.linspace(4, 20, 65), indexing="ij"))
    cubic = warp.as_type(warp.image_at(step, at, 3), step.dtype)
    assert cubic[..., :28].max() < 20000
    assert cubic[..., -28:].min() > 45000


def test_a_smooth_displacement_passes_through_its_measurements_and_leaves_out_a_wrong_one() -> None:
    random = np.random.default_rng(6)
    points = random.uniform(0, 60, (300, 3))
    truth = np.sin(points / 15) * 2
    measured = truth.copy()
    measured[7] += 25
    smooth = SmoothDisplacement(points, measured, 15.0, 0.1)
    assert not smooth.kept[7]
    assert smooth.kept.sum() >= 290
    error = np.delete(smooth.at(points) - truth, 7, axis=0)
    assert np.sqrt((error**2).mean()) < 0.2
    assert np.abs(smooth.at(np.full((1, 3), 1000.0))).max() < 1e-6
