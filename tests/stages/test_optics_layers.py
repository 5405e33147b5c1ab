"""Images through layers: each plane at its true depth, with the response of that depth."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simexm.kernels.diffraction import tables
from simexm.stages import Confocal
from simexm.stages.microscope.objectives import OBJECTIVES, focus_at
from tests.stages.optics_build import Array, Bench, microscope

SILICONE: dict[str, Any] = {"na": 1.05, "immersion_index": 1.406, "depth_um": 33.0}
AIR: dict[str, Any] = {"na": 0.8, "immersion_index": 1.0, "depth_um": 21.0}
WATER: dict[str, Any] = {"na": 1.2, "refractive_index": 1.34, "immersion_index": 1.333}
GLASS: dict[str, Any] = {"na": 1.0, "cover_glass": {"thickness_um": 165}, "zernike": [{"n": 4, "nm": 20}]}


@pytest.mark.parametrize("kind", ["confocal", "widefield", "two_photon"])
@pytest.mark.parametrize("layers", [SILICONE, AIR, GLASS], ids=["silicone", "air", "glass"])
def test_each_plane_has_the_response_of_its_own_depth(kind: str, layers: dict[str, Any]) -> None:
    """Against the response at that depth itself, not interpolated; errors relative to the peak without layers."""
    b = Bench(microscope(kind, pixel=130, plane=400, axial_range_um=4, **layers), (6, 16, 16))
    plain = Bench(microscope(kind, pixel=130, plane=400, na=layers["na"], axial_range_um=4), (6, 16, 16))
    peak = plain.direct(plain.centre(), [3]).max()
    rng = np.random.default_rng(1)
    for place in b.centre() + rng.uniform(-0.9, 0.9, (2, 3)) * b.pitch:
        assert np.abs(b.image(place)[0] - b.direct(place)).max() < 8e-3 * peak


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["widefield", "confocal"])
@pytest.mark.parametrize("layers", [SILICONE, AIR, WATER], ids=["silicone", "air", "water"])
def test_planes_between_tabulated_depths_err_little(kind: str, layers: dict[str, Any]) -> None:
    """Planes at random in 100 um of gel, as they are blended, against tables of their own depth."""
    optics = microscope(kind, pixel=130, plane=400, axial_range_um=4, **{**layers, "depth_um": 0.0})
    b = Bench(optics, (1, 8, 8), depth_nm=1e5)
    depths, r, z = b.plan.depths, np.arange(0, 1500, 50.0), np.arange(-3000, 3001, 100.0)
    assert depths is not None

    def response(focus: tables.Focus) -> Array:
        return optics.response(b.channel, b.dye, b.pair.emission_nm, z, r, focus)

    peak = response(tables.SURFACE).max()
    for k in np.random.default_rng(5).integers(0, round(1e5 / depths.plane_nm), 20).tolist():
        (first,), (share,) = depths.at(range(k, k + 1))
        blended = (1 - share) * response(depths.foci[first]) + share * response(depths.foci[first + 1])
        own = response(focus_at(optics.lens, optics.focus_nm, depths.start_nm + k * depths.plane_nm))
        assert np.abs(blended - own).max() < 2e-3 * peak


@pytest.mark.parametrize("layers", [SILICONE, AIR, GLASS], ids=["silicone", "air", "glass"])
def test_tiles_leave_no_seam(layers: dict[str, Any]) -> None:
    b = Bench(microscope("confocal", pixel=130, plane=400, axial_range_um=4, **layers), (17, 30, 24))
    dyes = b.centre() + np.random.default_rng(2).uniform(-0.5, 0.5, (300, 3)) * b.pitch * b.shape
    whole, tiled = b.image(dyes), b.image(dyes, tile=(5, 13, 12))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()


def test_planes_lie_where_the_gel_puts_them() -> None:
    """Stage steps times a fraction near the ratio of the indices; the plane's own depth is the sharpest one there."""
    optics = microscope("widefield", pixel=130, plane=400, na=0.5, immersion_index=1.0)
    assert isinstance(optics.focus_scale, Fraction)
    assert optics.spacing_nm[0] == 400 * optics.focus_scale
    # the paraxial ratio of the indices, a little more for the marginal rays
    assert 1.333 < optics.focus_scale < 1.45
    b = Bench(optics, (120, 4, 4))
    assert b.plan.depths is not None
    assert max(np.abs(b.plan.depths.off_nm)) < 300.0
    for depth in (10_000.0, 60_000.0):
        focus = focus_at(optics.lens, optics.focus_nm, depth)
        around = np.linspace(-3000.0, 3000.0, 61)
        axis = tables.emission_table(around, np.zeros(1), optics.focus_nm, optics.lens, focus)[:, 0]
        assert abs(around[np.argmax(axis)]) < 300.0
    matched = microscope("widefield", pixel=130, plane=400, na=0.5)
    assert matched.spacing_nm[0] == 400
    assert matched.focus_scale == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_by_name_is_its_numbers(name: str) -> None:
    channel = {"name": "green", "laser_wavelength_nm": 488, "band_nm": (500, 550), "laser_power_uW": 20}
    common = {"objective": name, "pixel_size_nm": 160, "plane_spacing_nm": 500, "channels": [channel]}
    optics = Confocal.model_validate(common)
    assert optics.numerical_aperture == OBJECTIVES[name].numerical_aperture == float(name.split("_")[-1])
    assert optics.immersion_index == OBJECTIVES[name].immersion_index
    assert Confocal.model_validate({**common, "numerical_aperture": 0.3}).numerical_aperture == 0.3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"refractive_index": 1.0}, "immersion_index"),
    ({"na": 1.4}, "immersion_index of the objective"),
    ({"na": 1.45, "immersion_index": 1.406}, "not below immersion_index"),
    ({"objective": "silicon_1.05"}, "no objective 'silicon_1.05'; did you mean silicone_1.05"),
    ({"zernike": [{"n": 3, "nm": 20}]}, "zernike"),
    ({"psf_model": "psf", "immersion_index": 1.406}, "one refractive index"),
]


@pytest.mark.parametrize(("wrong", "names"), WRONG)
def test_optics_that_cannot_be_are_refused(wrong: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        microscope("confocal", pixel=130, plane=400, **wrong)
