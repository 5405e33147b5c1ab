"""A light sheet over the field: a sum of a few terms is the light of every dye at its own place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from simexm.errors import SpecError
from simexm.stages import LightSheet
from simexm.stages.microscope import sheet
from simexm.stages.microscope.sheet_profile import SheetProfile
from tests.stages.field_build import context_of, image, plan_of, scattered
from tests.stages.optics_build import GREEN, Array, Bench, microscope

PITCH = np.array([600.0, 300.0, 300.0])
SHAPE = (5, 14, 60)
LINE_UM = 0.488


def light_sheet(**more: Any) -> LightSheet:
    """A sheet in green, with pixels of 300 nm; by default its waist is 1.2 um, its Rayleigh range 12 um."""
    given: dict[str, Any] = {"haze": False, "axial_range_um": 2.0, "sheet_waist_um": 1.2, **more}
    chromatic = given.pop("chromatic", None)
    return LightSheet.model_validate(
        {
            "numerical_aperture": 0.8,
            "pixel_size_nm": 300.0,
            "plane_spacing_nm": 600.0,
            "channels": [{**GREEN, "irradiance_W_per_cm2": 20.0, "chromatic": chromatic}],
            **{k: v for k, v in given.items() if v is not None},
        }
    )


def irradiance(waist_um: float, z_um: Array, along_um: Array) -> Array:
    """A Gaussian beam's (Siegman, Lasers, 1986), in one lateral dimension."""
    rayleigh_um = math.pi * 1.333 * waist_um**2 / LINE_UM
    width = waist_um * np.sqrt(1 + (along_um / rayleigh_um) ** 2)
    return np.asarray(waist_um / width * np.exp(-2 * (z_um / width) ** 2))


def direct(points: Array, relative: Array, shape: tuple[int, int, int] = SHAPE, range_um: float = 2.0) -> Array:
    """Sum over dyes of the camera's image of each in each plane, times the light (planes, dyes) that it has there."""
    optics = microscope("widefield", pixel=300.0, plane=600.0, na=0.8, axial_range_um=range_um)
    bench, total = Bench(optics, shape, depth_nm=shape[0] * 600.0), np.zeros(shape)
    for k in range(shape[0]):
        distances = points[:, 0] - (k + 0.5) * 600
        near = np.flatnonzero((np.abs(distances) <= range_um * 1000) & (relative[k] > 1e-4))
        r, profiles = bench.profiles(distances[near])
        for n, profile in zip(near, profiles, strict=True):
            total[k] += bench._spot(CubicSpline(r, profile), points[n, 1:]) * relative[k, n]
    return total


def planes_from(points: Array, planes: int = SHAPE[0]) -> Array:
    """Distances of dyes below planes, um, (planes, dyes)."""
    return np.asarray((points[None, :, 0] - (np.arange(planes)[:, None] + 0.5) * 600) / 1000)


@pytest.mark.parametrize("axis", ["x", pytest.param("y", marks=pytest.mark.slow)])
def test_the_image_is_the_sum_over_dyes_each_in_its_own_light(axis: str) -> None:
    """The waist lies 4 um off the middle of the frame; at the other end the sheet is a third thicker."""
    shape = SHAPE if axis == "x" else (SHAPE[0], SHAPE[2], SHAPE[1])
    points = scattered(shape, PITCH, 10, 1)
    along = points[:, 2 if axis == "x" else 1] / 1000 - 9.0 + 4.0
    found, plan = image(light_sheet(sheet_along=axis, sheet_waist_at_um=-4.0), shape, points)
    exact = direct(points, irradiance(1.2, planes_from(points), along[None, :]), shape)
    assert np.abs(found[0] - exact).max() < 1.5e-3 * exact.max()
    assert plan.rank > 1
    assert plan.terms is not None
    assert plan.terms.error < 1e-3
    constant, one = image(light_sheet(), shape, points)
    assert one.rank == 1
    assert np.abs(constant[0] - exact).max() > 0.02 * exact.max()


def test_a_sheet_of_great_length_is_the_constant_one_and_without_a_way_the_bytes_are_those_of_one_term() -> None:
    points = scattered(SHAPE, PITCH, 60, 2)
    constant, plain = image(light_sheet(sheet_waist_um=40.0), SHAPE, points)
    long, plan = image(light_sheet(sheet_waist_um=40.0, sheet_along="x"), SHAPE, points)
    assert plain.terms is None
    assert plan.rank == 1
    assert np.abs(constant - long).max() < 5e-4 * constant.max()
    same, _ = image(light_sheet(sheet_waist_um=40.0, sheet_numerical_aperture=None), SHAPE, points, (7, 9))
    assert constant.tobytes() == same.tobytes()


def test_the_same_power_passes_everywhere_along_the_sheet() -> None:
    """Integral over z of the terms' sum, at any place; the aperture of a sheet gives its waist, lambda / (pi NA)."""
    optics = light_sheet(sheet_waist_um=None, sheet_numerical_aperture=0.1, sheet_along="x", axial_range_um=8.0)
    context = context_of(optics, (20, 14, 200))
    plan = plan_of(context)
    assert plan.terms is not None
    lit = sheet.lit_by(optics, plan, context.dyes)
    z = np.linspace(-7_500, 7_500, 1001)
    x = np.linspace(-30_000, 30_000, 31)
    photons = np.einsum("tx,tz->xz", plan.terms.over_field(lit, np.zeros(1), x), plan.terms.along_z(lit, 0, z))
    photons /= photons.max()
    waist_um = LINE_UM / (math.pi * 0.1)
    assert np.abs(photons - irradiance(waist_um, z[None, :] / 1000, x[:, None] / 1000)).max() < 1e-3
    assert photons.sum(axis=1) * (z[1] - z[0]) / 1000 == pytest.approx(math.sqrt(math.pi / 2) * waist_um, rel=4e-3)


def test_the_sheet_stays_where_it_is_when_the_focus_moves_off_it() -> None:
    """Focus 700 nm deeper and curved: the image is that of moved dyes, their light that of the unmoved ones."""
    optics = light_sheet(
        chromatic={"axial_nm": 700}, field_curvature_radius_mm=0.12, sheet_along="x", axial_range_um=3.6
    )
    points = scattered(SHAPE, PITCH, 6, 3)
    found, plan = image(optics, SHAPE, points)
    away = points[:, 1:] - np.array(SHAPE[1:]) * 150
    moved = points.copy()
    moved[:, 0] -= 700 + (away**2).sum(1) / (2 * 0.12e6)
    exact = direct(moved, irradiance(1.2, planes_from(points), away[None, :, 1] / 1000), SHAPE, 3.6)
    assert plan.signed
    assert np.abs(found[0] - exact).max() < 1.5e-3 * exact.max()


@pytest.mark.slow
def test_tiles_and_frames_leave_no_seam() -> None:
    optics = light_sheet(sheet_along="x", field_curvature_radius_mm=0.2)
    points = scattered(SHAPE, PITCH, 300, 4)
    whole, plan = image(optics, SHAPE, points, (9, 40))
    tiled, _ = image(optics, SHAPE, points, (9, 40), (3, 8, 23))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()
    assert plan.rank > 2


@pytest.mark.slow
def test_far_light_is_that_of_a_run_whose_near_range_is_the_specimen() -> None:
    """Thick sheet at the end of the field, dyes shifted: the coarse map has them where they are seen, in their own light."""
    shape = (22, 24, 100)
    points = scattered(shape, PITCH, 200, 5)
    chromatic = {"axial_nm": 900, "lateral_nm": [500, -300]}
    common: dict[str, Any] = {
        "sheet_along": "x",
        "sheet_waist_at_um": -30.0,
        "sheet_waist_um": 0.8,
        "chromatic": chromatic,
    }
    near, _ = image(light_sheet(**common, axial_range_um=14.5), shape, points)
    cut, _ = image(light_sheet(**common, axial_range_um=6.0), shape, points)
    far, plan = image(light_sheet(**common, axial_range_um=6.0, haze=True), shape, points)
    assert plan.haze is not None
    assert plan.haze.beyond[0] == 2
    haze = near - cut
    assert haze.sum() > 0.005 * near.sum()
    assert np.abs(far - near).max() < 1e-3 * near.max()
    assert math.sqrt(((far - near) ** 2).mean()) < 0.05 * math.sqrt((haze**2).mean())


# ---------------------------------------------------------------- measured sheets


def written(folder: Path, text: str) -> Path:
    path = folder / "sheet.csv"
    path.write_text(text)
    return path


def test_a_measured_sheet_lights_as_its_file_says(tmp_path: Path) -> None:
    """Smooth between the rows, linear between the places; rows in any order; one side brighter, with side lobes."""

    def sheet_at(z: Array, place: float) -> Array:
        lobes = 0.2 * np.exp(-4 * (np.abs(z) - 1.7) ** 2)
        return np.asarray(np.exp(-(z**2) / (1 + place**2 / 400)) * (1 + 0.2 * np.tanh(z)) + lobes)

    rows = [
        (z, place, 100 * float(sheet_at(np.array(z), place)))
        for z in np.arange(-4, 4.01, 0.25)
        for place in (-10.0, 0.0, 12.0)
    ]
    text = "# of beads\nz_um,along_um,intensity\n" + "\n".join(f"{z},{p},{v}" for z, p, v in reversed(rows))
    optics = light_sheet(
        sheet_waist_um=None, sheet_profile=written(tmp_path, text), sheet_along="x", axial_range_um=3.4
    )
    optics = optics.resolved({})
    assert LightSheet.model_validate(optics.model_dump(mode="json")) == optics
    points = scattered(SHAPE, PITCH, 6, 6)
    found, plan = image(optics, SHAPE, points)
    below, most = planes_from(points), max(v for *_, v in rows) / 100
    relative = np.empty(below.shape)
    for n, x in enumerate(points[:, 2]):
        along = x / 1000 - 9.0
        at, share = ((-10.0, 0.0), (along + 10) / 10) if along < 0 else ((0.0, 12.0), along / 12)
        low, high = (sheet_at(below[:, n], place) / most for place in at)
        relative[:, n] = low * (1 - share) + high * share
    exact = direct(points, relative, SHAPE, 3.4)
    assert np.abs(found[0] - exact).max() < 3e-3 * exact.max()
    assert plan.rank == 3
    assert plan.subdivision[0] < 5


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "nothing"),
        ("z,intensity\n-1,1\n1,1\n", "unit"),
        ("z_um,intensity\n", "rows"),
        ("z_um,intensity\n-1,0\n0,nan\n1,0\n", "line 3"),
        ("z_um,intensity\n-1,0\n0,-0.1\n1,0\n", "negative"),
        ("z_um,intensity\n-1,0\n0,bright\n1,0\n", "not 2 numbers"),
        ("z_um,intensity\n0,1\n1,0\n2,0\n", "one side"),
        ("z_um,intensity\n-1,0\n-1,0.1\n1,0\n", "two intensities"),
        ("z_um,intensity\n-1,0\n0,0\n1,0\n", "dark"),
        ("z_um,along_um,intensity\n-1,0,0\n1,0,1\n-1,5,0\n1,5,0\n", "sheet_along"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        light_sheet(sheet_waist_um=None, sheet_profile=written(tmp_path, text)).resolved({})


def test_a_profile_that_ends_within_the_range_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "z_um,intensity\n-1.5,0.3\n0,1\n1.5,0.3\n")
    with pytest.raises(SpecError, match="measure further"):
        context_of(light_sheet(sheet_waist_um=None, sheet_profile=path).resolved({}), SHAPE)
    with pytest.raises(SpecError, match="path"):
        SheetProfile(csv=tmp_path / "none.csv").read()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"sheet_waist_um": None}, "one of"),
        ({"sheet_numerical_aperture": 0.1}, "one of"),
        ({"sheet_waist_um": 0.1}, "limit of diffraction"),
        ({"sheet_waist_at_um": 3.0}, "sheet_along"),
        ({"sheet_along": "x", "bleaching": {}}, "bleaching"),
        ({"field_curvature_radius_mm": 5.0, "bleaching": {}}, "bleaching"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        light_sheet(**more)
