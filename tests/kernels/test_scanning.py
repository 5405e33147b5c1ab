"""Laws of the spinning disk and of image scanning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.kernels.diffraction import hankel, response, scanning, tables
from simexm.kernels.diffraction.objective import Objective

Array = NDArray[np.float64]
LENS, STEP = Objective(1.15, 1.333), 10.0
Z = np.array([0.0, 400.0, 1500.0])


def radii(end: float) -> Array:
    return np.arange(0.0, end, STEP, dtype=np.float64)


def beam(end: float) -> Array:
    return tables.excitation_table(Z, radii(end), 488.0, LENS)


def share(hole_nm: float, spacing_nm: float, r: Array) -> Array:
    return scanning.disk_share(beam(40_000.0), radii(40_000.0), r, hole_nm, spacing_nm, 2 * 1.15 / 488)


def test_a_disk_is_the_sum_over_its_holes() -> None:
    """Against the sum itself, hole by hole, averaged over directions; holes beyond 25 um light as evenly as they lie."""
    hole, spacing, end = 300.0, 2500.0, 25_000.0
    one = response.pinhole_share(response.pinhole_share(beam(60_000.0), STEP, hole), STEP, hole)
    one = one / (math.pi * hole**2) / hankel.plane_energy(beam(60_000.0), radii(60_000.0))[:, None]
    i, j = np.meshgrid(np.arange(-15, 16), np.arange(-15, 16))
    places = spacing * np.hypot(i + j / 2, j * math.sqrt(0.75)).ravel()
    places = places[places < end]
    angle = (np.arange(256) + 0.5) / 256 * 2 * math.pi
    for r in (0.0, 150.0, 700.0):
        apart = np.sqrt(np.maximum(0, r**2 + places[:, None] ** 2 - 2 * r * places[:, None] * np.cos(angle)))
        direct = np.array([np.interp(apart, radii(one.shape[1] * STEP), row).mean(axis=1).sum() for row in one])
        found = share(hole, spacing, np.array([r]))[:, 0]
        np.testing.assert_allclose(found, direct, atol=2e-4 * found.max(), rtol=2e-2)


def test_one_hole_alone_is_a_confocal_microscope() -> None:
    """Far apart, up to the light that reaches other holes, which falls off with their distance."""
    hole, r = 250.0, radii(800.0)
    one = response.pinhole_share(response.pinhole_share(beam(9000.0), STEP, hole), STEP, hole)[:, : r.size]
    one = one / (math.pi * hole**2) / tables.plane_fluence(LENS)
    found = share(hole, 12_000.0, r)
    np.testing.assert_allclose(found[:2], one[:2], atol=3e-3)


def test_far_from_focus_the_disk_passes_its_open_share() -> None:
    hole, spacing = 250.0, 1500.0
    z = np.array([12_000.0])
    wide = np.arange(0.0, 60_000.0, 20.0)
    table = tables.excitation_table(z, wide, 488.0, LENS)
    found = scanning.disk_share(table, wide, radii(2000.0), hole, spacing, 2 * 1.15 / 488)
    np.testing.assert_allclose(found, math.pi * hole**2 / (spacing**2 * math.sqrt(0.75)), rtol=1e-2)


@pytest.mark.parametrize("radius", [120.0, 350.0])
def test_moving_images_back_keeps_their_light_and_makes_them_narrower(radius: float) -> None:
    """As much in each plane as an open pinhole of that size detects."""
    r = radii(12_000.0)
    table, image = beam(12_000.0), tables.emission_table(Z, r, 520.0, LENS)
    moved = scanning.reassigned(table, image, STEP, radius)
    still = table * np.pad(
        response.pinhole_share(image, STEP, radius), ((0, 0), (0, response.pinhole_margin(radius, STEP)))
    )
    energy = [hankel.plane_energy(t, radii(t.shape[1] * STEP)) for t in (moved, still)]
    np.testing.assert_allclose(energy[0], energy[1], rtol=2e-3)
    widths = [response.fwhm_lateral_nm(response.Response(Z, radii(t.shape[1] * STEP), t)) for t in (moved, still)]
    assert widths[0] < widths[1]


def test_a_small_detector_array_is_a_small_pinhole() -> None:
    r = radii(2000.0)
    table, image = beam(2000.0), tables.emission_table(Z, r, 520.0, LENS)
    moved = scanning.reassigned(table, image, STEP, 8.0)
    product = (table * image)[:, : moved.shape[1]] * math.pi * 64.0
    np.testing.assert_allclose(moved, product, atol=2e-3 * product.max())
