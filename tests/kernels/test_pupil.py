"""Beams and images of dyes on squares: equal to the radial tables where those hold, and to theory where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simexm.kernels.diffraction import plane_spectrum, pupil, response, scanning, tables
from simexm.kernels.diffraction.objective import Objective, zernike
from simexm.kernels.diffraction.pupil import Square
from simexm.kernels.diffraction.special import Array

WATER = Objective(1.15, 1.333)
LAYERS = Objective(1.3, 1.333, immersion=1.406, spherical=((4, 30.0),), fill=1.0)
SQUARE = Square(55.0, 81)
NM = 520.0


def places(at: Square) -> tuple[Array, Array]:
    """Radii and angles."""
    line = (np.arange(at.size) - at.size // 2) * at.pitch_nm
    return np.hypot(line[:, None], line), np.arctan2(line[:, None], line)


@pytest.mark.parametrize(
    "objective",
    [LAYERS, *(pytest.param(o, marks=pytest.mark.slow) for o in (WATER, Objective(0.8, 1.333, immersion=1.0)))],
)
def test_a_symmetric_pupil_gives_the_tables(objective: Objective) -> None:
    z, r = np.array([0.0, -700.0, 1500.0]), places(SQUARE)[0]
    for focus in (tables.SURFACE, tables.Focus(20_000.0, 21_000.0)):
        for ours, theirs in ((pupil.excitation, tables.excitation_table), (pupil.emission, tables.emission_table)):
            found, expected = ours(z, SQUARE, NM, objective, focus), theirs(z, r.ravel(), NM, objective, focus)
            assert np.abs(found.reshape(expected.shape) - expected).max() < 2e-6 * expected.max()


def test_symmetric_aberrations_are_those_of_the_tables() -> None:
    ours, theirs = (
        WATER._replace(aberrations=((4, 0, 40.0), (6, 0, -20.0))),
        WATER._replace(spherical=((4, 40.0), (6, -20.0))),
    )
    z = np.array([-500.0, 300.0])
    found, expected = (pupil.emission(z, SQUARE, NM, o) for o in (ours, theirs))
    assert np.abs(found - expected).max() < 1e-6 * expected.max()


def test_polynomials_are_orthonormal() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(40)
    radius, angle = np.sqrt((nodes + 1) / 2), 2 * math.pi * np.arange(64) / 64
    terms = [(n, m) for n in range(7) for m in range(-n, n + 1, 2)]
    values = [zernike(n, m, radius[:, None], np.sin(angle), np.cos(angle)) * np.ones((40, 64)) for n, m in terms]
    products = np.einsum("aij,bij,i->ab", np.array(values), np.array(values), weights / 2 / 64)
    np.testing.assert_allclose(products, np.eye(len(terms)), atol=1e-12)


def test_weak_aberrations_dim_the_peak_as_marechal_says() -> None:
    """By (2 pi rms / wavelength)^2 at low aperture, where all rays count alike."""
    low, at = Objective(0.2, 1.333), Square(300.0, 41)
    perfect = pupil.emission(np.zeros(1), at, NM, low).max()
    for n, m in ((2, 2), (3, 3), (4, -2)):
        aberrated = pupil.emission(np.zeros(1), at, NM, low._replace(aberrations=((n, m, 15.0),))).max()
        assert 1 - aberrated / perfect == pytest.approx((2 * math.pi * 15 / NM) ** 2, rel=0.04)


@pytest.mark.parametrize("m", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_coma_moves_the_centroid_but_not_the_light(m: int) -> None:
    """The centroid is the mean slope of the wavefront: of sqrt(8) (3 r^3 - 2 r) cos(phi) over the disc, sqrt(8) times the RMS."""
    low, at, nm = Objective(0.2, 1.333), Square(400.0, 401), 30.0
    image = pupil.emission(np.zeros(1), at, NM, low._replace(aberrations=((3, m, nm),)))[0]
    line = (np.arange(at.size) - at.size // 2) * at.pitch_nm
    # first moments converge slowly over the rings: the transform's slope at frequency 0 is the centroid
    step = 0.004 * low.aperture / NM
    spectrum = [np.exp(-2j * math.pi * step * line) @ (image if a == 0 else image.T) @ np.ones(at.size) for a in (0, 1)]
    y, x = (-np.angle(s) / (2 * math.pi * step) for s in spectrum)
    moved, still = (x, y) if m == 1 else (y, x)
    assert moved == pytest.approx(-math.sqrt(8) * nm / low.aperture, rel=0.03)
    assert abs(still) < 1e-3 * abs(moved)


@pytest.mark.parametrize(("m", "turned"), [(2, 0.0), (-2, 45.0)])
def test_astigmatism_turns_the_ellipse_through_focus(m: int, turned: float) -> None:
    lens = WATER._replace(aberrations=((2, m, 40.0),))
    above, focus, below = pupil.emission(np.array([-300.0, 0.0, 300.0]), SQUARE, NM, lens)
    r, angle = places(SQUARE)
    near = np.exp(-((r / 500) ** 4))

    def along(image: Array) -> float:
        """Second moment of the spot by direction: positive if it is longer along `turned` than across."""
        moments = image * near * r**2
        return float((moments * np.cos(2 * (angle - math.radians(turned)))).sum() / moments.sum())

    assert abs(along(focus)) < 1e-3
    assert along(above) == pytest.approx(-along(below), rel=1e-3)
    # below focus: a ray that travels towards +x with more path has its wavefront's curvature there added to that of defocus
    assert abs(along(below)) > 0.2
    assert np.abs(above - below.T if m == 2 else above - below[:, ::-1]).max() < 1e-5 * above.max()


@pytest.mark.slow
def test_light_in_a_plane_does_not_depend_on_aberrations() -> None:
    wide = Square(80.0, 301)
    lens = WATER._replace(aberrations=((2, 2, 40.0), (3, 1, 30.0)))
    perfect, aberrated = (pupil.emission(np.array([0.0, 800.0]), wide, NM, o).sum(axis=(1, 2)) for o in (WATER, lens))
    np.testing.assert_allclose(aberrated, perfect, rtol=2e-3)


def test_polarised_light_averages_to_unpolarised_and_lengthens_the_focus_along_itself() -> None:
    lens = Objective(1.2, 1.333, fill=1.0)
    along_x, along_y, slanted = (
        pupil.excitation(np.zeros(1), SQUARE, NM, lens._replace(polarisation_deg=a))[0] for a in (0.0, 90.0, 45.0)
    )
    unpolarised = pupil.excitation(np.zeros(1), SQUARE, NM, lens)[0]
    assert np.abs((along_x + along_y) / 2 - unpolarised).max() < 1e-6 * unpolarised.max()
    assert np.abs(along_x - along_y.T).max() < 1e-6 * unpolarised.max()
    assert np.abs(slanted - slanted.T).max() < 1e-6 * unpolarised.max()
    r, angle = places(SQUARE)
    near = r < 300
    moments = along_x[near] * r[near] ** 2
    assert (moments * np.cos(2 * angle[near])).sum() > 0.1 * moments.sum()
    dim, at = Objective(0.1, 1.333), Square(600.0, 41)
    low, same = (pupil.excitation(np.zeros(1), at, NM, dim._replace(polarisation_deg=a)) for a in (0.0, None))
    assert np.abs(low - same).max() < 2e-3 * low.max()


def test_a_pinhole_and_detectors_of_symmetric_light_are_those_of_the_tables() -> None:
    z, at = np.array([0.0, 900.0]), Square(27.0, 101)
    r = np.arange(400, dtype=np.float64) * (at.pitch_nm / 4)
    found = pupil.through_pinhole(z, at, NM, WATER, 276.0)[:, 50, 50:]
    assert np.abs(found - response.pinhole_table(z, r, NM, WATER, 276.0)[:, : 51 * 4 : 4]).max() < 2e-6
    wide = at._replace(size=at.size + 2 * pupil.reassigned_margin(345.0, at.pitch_nm))
    ours = pupil.reassigned(pupil.excitation(z, wide, 488.0, WATER), pupil.emission(z, wide, NM, WATER), 27.0, 345.0)
    beam, image = tables.excitation_table(z, r, 488.0, WATER), tables.emission_table(z, r, NM, WATER)
    theirs = scanning.reassigned(beam, image, at.pitch_nm / 4, 345.0)[:, : 51 * 4 : 4]
    assert np.abs(ours[:, 50, 50:] - theirs).max() < 1e-4 * theirs.max()


def test_transforms_at_any_frequency() -> None:
    rng = np.random.default_rng(1)
    image, pitch = rng.normal(size=(2, 31, 31)), 70.0
    grid = plane_spectrum.lattice(31, pitch, 0.45 / pitch)
    found = np.stack([plane_spectrum.tabulate(i, pitch, grid).astype(np.complex64) for i in image])
    y, x = rng.uniform(-0.44, 0.44, 40) / pitch, rng.uniform(0, 0.44, 30) / pitch
    out = np.empty((2, 40, 30), np.complex64)
    plane_spectrum.interpolate(found, grid, y, x, out)
    line = (np.arange(31) - 15) * pitch
    exact = np.exp(-2j * math.pi * np.outer(y, line)) @ image @ np.exp(-2j * math.pi * np.outer(line, x)) * pitch**2
    assert np.abs(out - exact).max() < 5e-7 * np.abs(exact).max()


def test_the_mean_over_directions_is_that_of_a_turned_image() -> None:
    line = (np.arange(61) - 30) * 50.0
    r, angle = np.hypot(line[:, None], line), np.arctan2(line[:, None], line)
    image = np.exp(-((r / 400) ** 2)) * (1 + (r / 400) ** 2 * np.cos(2 * angle) + r / 400 * np.sin(angle))
    at = np.arange(120, dtype=np.float64) * 10.0
    found = plane_spectrum.mean_over_directions(image[None], 50.0, at)[0]
    assert np.abs(found - np.exp(-((at / 400) ** 2))).max() < 1e-4
