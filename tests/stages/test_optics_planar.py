"""Images by objectives whose responses have no symmetry about the axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simexm.kernels.diffraction.pupil import Square
from tests.stages.optics_build import Array, Bench, microscope

ASTIGMATIC: dict[str, Any] = {"zernike": [{"n": 2, "m": 2, "nm": 40}, {"n": 3, "m": -1, "nm": 25}]}
SLOW = pytest.mark.slow
KINDS = (
    "widefield",
    "two_photon",
    *(pytest.param(kind, marks=SLOW) for kind in ("light_sheet", "confocal", "image_scanning")),
)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far rings do not matter here; quicker."""
    monkeypatch.setattr("simexm.stages.microscope.optics.LATERAL_SHARE", 0.97)
    monkeypatch.setattr("simexm.stages.microscope.optics.ABERRATED_SHARE", 0.95)


@pytest.mark.parametrize("kind", KINDS)
def test_hardly_any_aberration_gives_the_image_without(kind: str) -> None:
    """By transfer functions over both frequencies instead of one radius."""
    options: dict[str, Any] = {"pixel": 130, "plane": 400, "axial_range_um": 0.8}
    plain = Bench(microscope(kind, **options), (5, 18, 16), depth_nm=6000)
    ours = Bench(microscope(kind, **options, zernike=[{"n": 3, "m": 3, "nm": 1e-6}]), (5, 18, 16), depth_nm=6000)
    assert plain.pair.planar is None
    assert ours.pair.planar is not None
    assert ours.pair.fwhm_nm == pytest.approx(plain.pair.fwhm_nm, rel=2e-3)
    place = ours.centre() + np.array([30.0, 41.0, -22.0])
    found, expected = ours.image(place)[0], plain.image(place)[0]
    difference = np.abs(found - expected)[1:-1]  # the outermost planes lie half in the range
    assert difference.max() < (1e-4 if kind in ("confocal", "two_photon") else 1e-3) * expected.max()


@pytest.mark.parametrize("kind", ["widefield", pytest.param("confocal", marks=SLOW)])
@pytest.mark.parametrize(
    "layers", [{}, {"na": 1.05, "immersion_index": 1.406, "depth_um": 20.0}], ids=["matched", "layers"]
)
def test_each_pixel_is_the_response_integrated_over_it(kind: str, layers: dict[str, Any]) -> None:
    pixel, parts = 130.0, 10
    b = Bench(
        microscope(kind, pixel=pixel, plane=400, axial_range_um=1.2, **ASTIGMATIC, **layers), (5, 14, 12), depth_nm=6000
    )
    step = pixel / parts
    offset = np.array([150.0, 3.5 * step, -2.5 * step])
    place = b.centre() + offset
    image = b.image(place)[0]
    scale = image.max()
    size = 2 * int(14 * parts) + 1
    for k in (1, 2, 3):
        z = place[0] - (k + 0.5) * b.pitch[0]
        seen = b.response(np.array([z]), Square(step, size), k)[0][::-1, ::-1]  # type: ignore[arg-type]
        expected = np.empty(image.shape[1:])
        for (i, j), _ in np.ndenumerate(expected):
            first = [round(((p * pixel + step / 2) - c) / step) + size // 2 for p, c in ((i, place[1]), (j, place[2]))]
            expected[i, j] = seen[first[0] : first[0] + parts, first[1] : first[1] + parts].sum() * step**2
        assert np.abs(image[k] - expected).max() < 1e-2 * scale


@pytest.mark.parametrize("kind", ["widefield", pytest.param("confocal", marks=SLOW)])
def test_tiles_leave_no_seam(kind: str) -> None:
    b = Bench(microscope(kind, pixel=130, plane=400, axial_range_um=0.8, **ASTIGMATIC), (7, 30, 24))
    dyes = b.centre() + np.random.default_rng(2).uniform(-0.5, 0.5, (300, 3)) * b.pitch * b.shape
    whole, tiled = b.image(dyes), b.image(dyes, tile=(3, 13, 12))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()


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


def test_a_polarised_laser_lengthens_the_spot_along_itself() -> None:
    for angle in (0.0, 90.0):
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
