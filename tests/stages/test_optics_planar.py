"""Images by objectives whose responses have no symmetry about the axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.interpolate import RectBivariateSpline

from simexm.kernels.diffraction.pupil import Square
from simexm.stages.microscope.objectives import INTERPOLATION_ERROR
from tests.stages.optics_build import Array, Bench, microscope
from tests.stages.test_haze import image as imaged

ASTIGMATIC: dict[str, Any] = {"zernike": [{"n": 2, "m": 2, "nm": 40}, {"n": 3, "m": -1, "nm": 25}]}
SLOW = pytest.mark.slow
KINDS = ("widefield", "light_sheet", "confocal", "two_photon", "image_scanning")


SINGLE = 1e-3
"""What the grid may cost a single dye, as a share of its image's maximum: as much as of symmetric responses."""


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far rings do not matter here; quicker."""
    monkeypatch.setattr("simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.98)
    monkeypatch.setattr("simexm.stages.microscope.optics_grid.ABERRATED_SHARE", 0.97)


@SLOW
@pytest.mark.parametrize("kind", KINDS)
def test_hardly_any_aberration_gives_the_image_without(kind: str) -> None:
    """By transfer functions over both frequencies instead of one radius: to what the grid may cost both, and rarely does."""
    options: dict[str, Any] = {"pixel": 130, "plane": 400, "axial_range_um": 0.8}
    plain = Bench(microscope(kind, **options), (5, 18, 16), depth_nm=6000)
    ours = Bench(microscope(kind, **options, zernike=[{"n": 3, "m": 3, "nm": 1e-6}]), (5, 18, 16), depth_nm=6000)
    assert plain.pair.planar is None
    assert ours.pair.planar is not None
    assert ours.pair.fwhm_nm == pytest.approx(plain.pair.fwhm_nm, rel=2e-3)
    place = ours.centre() + np.array([30.0, 41.0, -22.0])
    found, expected = ours.image(place)[0], plain.image(place)[0]
    difference = np.abs(found - expected)[1:-1]  # the outermost planes lie half in the range
    assert difference.max() < SINGLE * expected.max()


def direct(b: Bench, place: Array, k: int, step: float = 20.0) -> Array:
    """What each pixel of plane k expects of a dye: the response integrated over it, by splines of degree five."""
    size = 2 * math.ceil(1.1 * max(b.shape[1:]) * b.pitch[1] / step) + 1
    at_dye = b.response(np.array([place[0] - (k + 0.5) * b.pitch[0]]), Square(step, size), k)[0]  # type: ignore[arg-type]
    line = (np.arange(size) - size // 2) * step
    curve = RectBivariateSpline(line, line, at_dye[::-1, ::-1], kx=5, ky=5)
    y, x = (np.arange(n + 1) * p - c for n, p, c in zip(b.shape[1:], b.pitch[1:], place[1:], strict=True))
    return np.array(
        [[curve.integral(y[i], y[i + 1], x[j], x[j + 1]) for j in range(b.shape[2])] for i in range(b.shape[1])]
    )


@pytest.mark.parametrize(
    ("kind", "more", "dyes"),
    [
        ("widefield", ASTIGMATIC, 2),
        *(pytest.param(kind, ASTIGMATIC, 36, marks=SLOW) for kind in ("widefield", "light_sheet", "confocal")),
        pytest.param("two_photon", {"polarisation_deg": 30.0}, 36, marks=SLOW),
        pytest.param("image_scanning", ASTIGMATIC, 6, marks=SLOW),
    ],
)
def test_no_place_between_nodes_costs_a_dye_a_thousandth_of_its_image(
    kind: str, more: dict[str, Any], dyes: int
) -> None:
    """On the pixels and planes of the benchmark."""
    b = Bench(microscope(kind, pixel=162.5, plane=500, axial_range_um=1.0, **more), (5, 14, 12), depth_nm=6000)
    assert b.pair.planar is not None
    rng = np.random.default_rng(7)
    for _ in range(dyes):
        place = b.centre() + rng.uniform(-0.5, 0.5, 3) * b.pitch
        image = b.image(place)[0]
        assert np.abs(image[2] - direct(b, place, 2)).max() < SINGLE * image.max()


@SLOW
@pytest.mark.parametrize("kind", ["widefield", "confocal"])
def test_under_layers_depths_are_blended(kind: str) -> None:
    """To what the grid may cost a dye, and the interpolation between depths."""
    layers: dict[str, Any] = {"na": 1.05, "immersion_index": 1.406, "depth_um": 20.0}
    optics = microscope(kind, pixel=162.5, plane=500, axial_range_um=1.5, **layers, **ASTIGMATIC)
    b = Bench(optics, (5, 14, 12), depth_nm=6000)
    surface = b.response(np.linspace(-500, 500, 11), Square(30.0, 21)).max()  # type: ignore[arg-type]
    rng = np.random.default_rng(8)
    for _ in range(6):
        place = b.centre() + rng.uniform(-0.5, 0.5, 3) * b.pitch
        image = b.image(place)[0]
        allowed = SINGLE * image.max() + INTERPOLATION_ERROR * surface * b.pitch[1] ** 2
        assert np.abs(image[2] - direct(b, place, 2)).max() < allowed


@pytest.mark.parametrize("kind", ["widefield", pytest.param("confocal", marks=SLOW)])
def test_tiles_leave_no_seam(kind: str) -> None:
    b = Bench(microscope(kind, pixel=130, plane=400, axial_range_um=0.8, **ASTIGMATIC), (5, 24, 20))
    dyes = b.centre() + np.random.default_rng(2).uniform(-0.5, 0.5, (300, 3)) * b.pitch * b.shape
    whole, tiled = b.image(dyes), b.image(dyes, tile=(3, 13, 12))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()


@SLOW
def test_far_light_is_nearly_that_of_a_run_whose_near_range_is_the_specimen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the near range the cone of light counts as without these aberrations.

    Rays are displaced by as much as at the focus, here 0.2 um RMS, where the radius of the cone is 3.7 um or more.
    """
    monkeypatch.setattr("simexm.stages.microscope.haze._SHARE", 0.98)  # as in the near range
    shape, pixel, plane = (12, 36, 32), 200, 600
    points = np.random.default_rng(4).random((300, 3)) * (shape[0] * plane, shape[1] * pixel, shape[2] * pixel)
    options: dict[str, Any] = {"pixel": pixel, "plane": plane, "na": 0.9, **ASTIGMATIC}
    all_near, near = (microscope("widefield", axial_range_um=um, **options) for um in (7.5, 4.0))
    hazy = microscope("widefield", axial_range_um=4.0, haze=True, **options)
    (a, _), (b, _), (c, plan) = (imaged(optics, shape, points) for optics in (all_near, near, hazy))
    assert plan.haze is not None
    far = a - b
    assert far.sum() > a.sum() / 20
    assert math.sqrt(((c - a) ** 2).mean()) < 0.2 / 3.7 * math.sqrt((far**2).mean())
    assert np.abs(c - a).max() < 0.015 * a.max()
    np.testing.assert_allclose(c.sum(axis=(1, 2)), a.sum(axis=(1, 2)), rtol=5e-3)
    tiled, _ = imaged(hazy, shape, points, (5, 20, 17))
    assert np.abs(tiled - c).max() < 2e-6 * c.max()


def lengths(image: Array) -> tuple[float, float]:
    """Second moments of a spot along y and x, pixels."""
    near = image * (image > 0.2 * image.max())
    y, x = (
        np.arange(n)[shape] for n, shape in zip(image.shape, ((slice(None), None), (None, slice(None))), strict=True)
    )
    cy, cx = ((near * a).sum() / near.sum() for a in (y, x))
    return float((near * (y - cy) ** 2).sum() / near.sum()), float((near * (x - cx) ** 2).sum() / near.sum())


def test_a_bead_in_an_astigmatic_microscope_turns_with_depth() -> None:
    """Deeper dyes are long along y, for a positive coefficient; widefield, as used to find depth."""
    optics = microscope("widefield", pixel=100, plane=300, axial_range_um=0.8, zernike=[{"n": 2, "m": 2, "nm": 60}])
    b = Bench(optics, (5, 21, 21), depth_nm=6000)
    image = b.image(b.centre())[0].astype(float)
    (above_y, above_x), (here_y, here_x), (below_y, below_x) = (lengths(image[k]) for k in (1, 2, 3))
    assert here_y == pytest.approx(here_x, rel=0.01)
    # plane 1 lies above the dye, plane 3 below it
    assert above_y > 1.5 * above_x
    assert below_x > 1.5 * below_y


@pytest.mark.parametrize("angle", [90.0, pytest.param(0.0, marks=SLOW)])
def test_a_polarised_laser_lengthens_the_spot_along_itself(angle: float) -> None:
    optics = microscope("two_photon", pixel=60, plane=300, axial_range_um=0.6, polarisation_deg=angle)
    b = Bench(optics, (3, 21, 21), depth_nm=6000)
    y, x = lengths(b.image(b.centre())[0, 1].astype(float))
    assert (x / y > 1.1) if angle == 0 else (y / x > 1.1)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("spinning_disk", ASTIGMATIC, "symmetric aberrations only"),
    ("confocal", {"zernike": [{"n": 3, "m": 2, "nm": 20}]}, "m is one of -3, -1, 1, 3"),
    ("confocal", {"psf_model": "psf", "polarisation_deg": 0.0}, "polarisation_deg"),
    ("widefield", {"polarisation_deg": 0.0}, "polarisation_deg"),
]


@pytest.mark.parametrize(("kind", "wrong", "names"), WRONG)
def test_what_is_not_computed_is_refused(kind: str, wrong: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        microscope(kind, pixel=130, plane=400, **wrong)
