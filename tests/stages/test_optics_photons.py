"""How much light arrives in each plane, and what the plan says of it before anything runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate

from simexm.api import Simulation
from simexm.kernels.diffraction.tables import lateral_radius_nm
from simexm.run.in_memory import simulate
from tests.build import VOXEL_NM, confocal, layer, simulation
from tests.stages.optics_build import ATTO488, Bench, microscope

KINDS = ("confocal", "widefield", "two_photon", "light_sheet")


def wide(kind: str, scanner_nm: float) -> float:
    """Pixels so large that some 60 of them hold all the rings of a camera's response, 25 um on each side."""
    return scanner_nm if kind in ("confocal", "two_photon") else 1000.0


def energy(b: Bench, distances_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Photo-electrons that planes at these distances receive of one dye, each: Simpson's rule over the response."""
    r = np.linspace(0, b.plan.radius_nm, 2 * math.ceil(b.plan.radius_nm / 20) + 1)
    return np.asarray(integrate.simpson(2 * math.pi * r * b.response(distances_nm, r), x=r, axis=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plane", [500.0, 320.0])
def test_a_plane_receives_of_every_dye_what_its_distance_lets_it(kind: str, plane: float) -> None:
    b = Bench(microscope(kind, pixel=wide(kind, 250), plane=plane, axial_range_um=3), (5, 60, 60), depth_nm=10_000)
    rng = np.random.default_rng(4)
    dyes = b.centre() + rng.uniform(-2.4, 2.4, (6, 3)) * b.pitch
    distances = np.abs((np.arange(5) + 0.5)[:, None] * plane - dyes[:, 0])
    received = energy(b, distances.ravel()).reshape(distances.shape)
    for some in (slice(1), slice(1, 2), slice(None)):
        sums = b.image(dyes[some])[0].sum(axis=(1, 2), dtype=float)
        np.testing.assert_allclose(sums, received[:, some].sum(axis=1), rtol=5e-3)


CAMERAS = [("widefield", 1.15, {"axial_range_um": 2.0}), ("widefield", 0.5, {}), ("light_sheet", 1.15, {})]


@pytest.mark.parametrize(("kind", "na", "more"), CAMERAS)
def test_a_camera_plane_receives_all_that_is_collected(kind: str, na: float, more: dict[str, float]) -> None:
    """Against infinite planes, not the table's: what a dye emits into the aperture, exp(-2 z^2 / w^2) of it in a sheet."""
    pixel, plane = 1000.0, 500.0
    b = Bench(microscope(kind, pixel=pixel, plane=plane, na=na, **more), (3, 76, 76), depth_nm=10_000)
    assert 38 * pixel > b.plan.radius_nm
    peak = 34.4e-21 * ATTO488.extinction_per_M_per_cm / 90000 * ATTO488.excitation_at(488)
    flux = 20e4 / (6.62607015e-34 * 299792458 / 488e-9)
    sine = na / b.optics.refractive_index
    share = (1 - math.sqrt(1 - sine**2)) / 2 * 0.8 * ATTO488.emission_share(500, 550)
    photons = peak * flux * 0.1 * ATTO488.quantum_yield * share
    dyes = b.centre() + np.array([[-0.6 * plane, 0, 0], [0, 300, 0], [0.3 * plane, 0, -200.0]])
    z = (np.arange(3) + 0.5) * plane
    distances = np.abs(z[:, None] - dyes[None, :, 0])
    profile = np.exp(-2 * (distances / 2000) ** 2) if kind == "light_sheet" else np.ones_like(distances)
    expected = photons * profile.sum(axis=1)  # all well within the range
    sums = b.image(dyes)[0].sum(axis=(1, 2), dtype=float)
    np.testing.assert_allclose(sums, expected, rtol=5e-3)
    assert b.pair.in_focus == pytest.approx(photons, rel=5e-3)
    assert b.pair.in_focus < photons


@pytest.mark.parametrize("kind", ["confocal", "two_photon", "light_sheet"])
def test_the_sum_over_planes_varies_with_depth_but_not_in_the_mean(kind: str) -> None:
    """Planes sample: at 1.5 um they miss much of a dye between them, and its neighbours in depth make up for it."""
    plane = 1500.0
    b = Bench(microscope(kind, pixel=wide(kind, 162.5), plane=plane), (7, 56, 56))
    depths = b.centre()[0] + (np.arange(24) / 24 - 0.5) * plane
    dyes = np.column_stack([depths, *(np.full(24, c) for c in b.centre()[1:])])
    totals = np.array([b.image(d)[0].sum(dtype=float) for d in dyes])
    z = np.linspace(0, b.plan.range_nm, 61)
    whole = 2 * integrate.simpson(energy(b, z), x=z)
    assert totals.mean() == pytest.approx(whole / plane, rel=5e-3)
    if kind == "confocal":
        assert np.ptp(totals) > 0.2 * totals.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_in_focus_is_the_sum_over_the_image_of_a_dye_in_its_plane(kind: str) -> None:
    b = Bench(microscope(kind, pixel=wide(kind, 162.5), plane=500, axial_range_um=1.5), (1, 90, 90), depth_nm=5000)
    assert float(b.image(b.centre())[0].sum(dtype=float)) == pytest.approx(b.pair.in_focus, rel=5e-3)


CASES = [
    ("confocal", {}),
    ("confocal", {"axial_range_um": 0.8}),
    ("confocal", {"axial_range_um": 5.0}),
    ("confocal", {"pinhole_airy_units": 4.0}),
    ("confocal", {"na": 0.6}),
    ("two_photon", {}),
    ("two_photon", {"axial_range_um": 0.5}),
    ("light_sheet", {"na": 0.8}),
    ("light_sheet", {"na": 0.8, "axial_range_um": 1.0}),
    ("light_sheet", {"na": 0.8, "sheet_waist_um": 30.0}),
    ("widefield", {"na": 0.8}),
    ("widefield", {"na": 0.8, "axial_range_um": 0.5}),
]


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_the_share_left_out_is_that_of_a_uniformly_stained_stack(kind: str, changes: dict[str, float]) -> None:
    depth = 20_000.0
    b = Bench(microscope(kind, pixel=162.5, plane=500, **{"na": 1.15, **changes}), (40, 4, 4))
    optics = b.optics
    if kind in ("widefield", "light_sheet"):
        whole = b.optics.emitted(b.channel, b.dye, np.linspace(0, depth, 201)) * optics.collected(b.channel, b.dye)
        z = np.linspace(0, b.plan.range_nm, 21)
        kept = integrate.simpson(energy(b, z), x=z)
        assert b.pair.left_out == pytest.approx(1 - kept / integrate.simpson(whole, dx=depth / 200), abs=1e-3)
    else:
        radius = lateral_radius_nm(depth, 800, optics.lens)
        r = np.arange(0, radius, 25.0)
        z = np.arange(50, depth, 100.0)
        plane = np.trapezoid(b.response(z, r) * 2 * np.pi * r, dx=25.0, axis=1)
        assert b.pair.left_out == pytest.approx(plane[z > b.plan.range_nm].sum() / plane.sum(), abs=0.01)
    if "axial_range_um" not in changes and kind in ("confocal", "two_photon"):
        assert b.pair.left_out <= 0.05


def test_a_range_that_is_too_short_is_told_however_short_it_is() -> None:
    spec = simulation(layer(), optics=confocal(axial_range_um=0.3))
    labels = np.ones((60, 8, 8), np.uint8)
    labels[:, :, 4:] = 2
    with pytest.warns(UserWarning, match="leaves out"):
        simulate(labels, spec, voxel_size_nm=VOXEL_NM, until="confocal")


@pytest.mark.parametrize("kind", KINDS)
def test_photons_emitted_over_the_stack_are_those_of_all_its_planes(kind: str) -> None:
    """Against what the detector would get of them, plane by plane, over the share of light that it gets."""
    planes, pixel, spacing = 9, 100.0, 1000.0
    b = Bench(microscope(kind, pixel=pixel, plane=spacing, na=1.0), (planes, 4, 4))
    # all that the dye sends into the objective and through the filter, were there no pinhole
    open_pinhole = {"pinhole_airy_units": 20.0} if kind == "confocal" else {}
    wide = Bench(microscope(kind, pixel=pixel, plane=spacing, na=1.0, **open_pinhole), (planes, 4, 4))
    z = np.abs(np.arange(planes) - planes // 2) * spacing
    r = np.arange(0, 14_000, 20.0)
    collected = np.trapezoid(wide.response(z, r) * 2 * np.pi * r, dx=20.0, axis=1).sum()
    share = wide.optics.collected(wide.channel, wide.dye)
    # confocal: dyes saturate in the focus, and some light passes beside even a wide pinhole
    assert b.pair.emitted_in_stack == pytest.approx(collected / share, rel=0.06 if kind == "confocal" else 0.02)


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_the_table_of_cells_adds_up_to_what_the_dyes_give() -> None:
    labels = np.zeros((20, 30, 30), np.uint64)
    labels[4:16, 5:25, 5:15], labels[4:16, 5:25, 15:25] = 7, 2**50
    spec: Simulation = simulation(layer(), keep=["emitters"])
    result = simulate(labels, spec, voxel_size_nm=VOXEL_NM, until="confocal")
    optics = result.plan.imaging.formation
    in_focus = optics.pairs[0].in_focus
    np.testing.assert_allclose(result.cells["photons_green"], result.cells["dyes_membrane"] * in_focus)
    assert result.emitters["photons_green"].sum() == pytest.approx(result.cells["photons_green"].sum(), rel=1e-5)


def test_a_line_among_lines_is_that_of_a_laser() -> None:
    base: dict[str, Any] = {"pixel": 200, "plane": 500, "na": 0.8, "axial_range_um": 1}
    laser = microscope("widefield", **base)
    given = laser.model_dump(exclude_none=True)
    (channel,) = given["channels"]
    del channel["laser_wavelength_nm"]
    lines = type(laser).model_validate({**given, "channels": [{**channel, "source": {"lines_nm": {488: 2}}}]})
    one, other = (Bench(optics, (3, 10, 10)) for optics in (laser, lines))
    assert (one.image(one.centre()) == other.image(other.centre())).all()
