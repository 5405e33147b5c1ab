"""Each pixel of each plane is the response, integrated over that pixel at the dye's exact distance: nothing is rounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from simexm.run.in_memory import simulate
from simexm.stages.microscope.optics import Optics
from tests.build import VOXEL_NM, confocal, layer, simulation
from tests.stages.optics_build import Array, Bench, microscope

KINDS = ("confocal", "widefield", "two_photon", "light_sheet")
SINGLE = 1e-3
"""What the grid may cost a single dye, as a share of its image's maximum."""


def bench(kind: str, pixel: float, plane: float, pixels: int = 20) -> Bench:
    return Bench(microscope(kind, pixel=pixel, plane=plane), (5, pixels, pixels))


def scattered(b: Bench, n: int, seed: int, spread: float = 0.5) -> Array:
    """Dyes at random places, up to `spread` pixels and planes from the middle, within the specimen."""
    rng = np.random.default_rng(seed)
    places: Array = b.centre() + rng.uniform(-spread, spread, (n, 3)) * b.pitch
    return np.clip(places, 0, np.array(b.shape) * b.pitch)


# voxels of 160 x 128 x 128 nm: 1.5 of them in a pixel of 192, 3.125 in planes of 500; (m_z, m) are odd and even
SAMPLINGS = [(192.0, 500.0), (120.0, 300.0), (61.0, 150.0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("pixel", "plane"), SAMPLINGS)
def test_a_dye_anywhere_between_nodes_gives_each_pixel_what_quadrature_does(
    kind: str, pixel: float, plane: float
) -> None:
    b = bench(kind, pixel, plane)
    for place in scattered(b, 3, seed=1):
        exact = b.direct(place)
        assert np.abs(b.image(place)[0] - exact).max() < SINGLE * exact.max()


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_between_nodes_costs_a_dye_a_thousandth_of_its_image(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the pixels and planes of the benchmark; its grid has 0.45 of the nodes of 54 x 54 x 167 nm, which B-splines need."""
    monkeypatch.setattr("simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.97)  # far rings do not matter; quicker
    b = Bench(microscope(kind, pixel=162.5, plane=500.0), (3, 14, 14), depth_nm=2500)
    assert b.plan.subdivision[1] == 2
    assert 4 * b.plan.subdivision[0] <= 0.45 * 27
    for place in scattered(b, 36, seed=4):
        exact = b.direct(place)
        assert np.abs(b.image(place)[0] - exact).max() < SINGLE * exact.max()


@pytest.mark.parametrize(
    ("kind", "more", "axis"),
    [
        ("confocal", {"power": 5000.0}, 1),
        ("confocal", {"power": 5000.0}, 0),
        ("light_sheet", {"sheet_waist_um": 0.5}, 0),
    ],
)
def test_a_response_with_finer_detail_than_its_width_tells_gets_a_finer_grid(
    kind: str, more: dict[str, float], axis: int
) -> None:
    """Saturated dyes have wide images with steep edges; a thin sheet cuts the cone of light short."""
    plain, b = (
        Bench(microscope(kind, pixel=162.5, plane=500.0, axial_range_um=1.5, **m), (3, 14, 14), depth_nm=2500)
        for m in ({}, more)
    )
    assert b.plan.subdivision[axis] > plain.plan.subdivision[axis]
    for place in scattered(b, 4, seed=5):
        exact = b.direct(place)
        assert np.abs(b.image(place)[0] - exact).max() < SINGLE * exact.max()


@pytest.mark.parametrize("pixel", [720.0, 860.0, 1120.0])
def test_coarse_pixels_are_cut_so_that_transforms_are_fast(pixel: float) -> None:
    """Into a number of nodes that splits into 2, 3, 5 and 7, about three for an FWHM."""
    b = bench("widefield", pixel, 1500.0)
    m = b.plan.subdivision[1]
    assert 2**9 * 3**5 * 5**3 * 7**2 % m == 0
    assert 2.3 < b.pair.fwhm_nm[1] / float(b.plan.node_nm[1]) < 3.4
    place = b.centre() + np.array([0.0, 100.0, -150.0])
    assert np.abs(b.image(place)[0, 2] - b.direct(place, [2])[0]).max() < SINGLE * b.direct(place).max()


def test_subdivisions_of_both_parities_were_among_them() -> None:
    found = {bench(k, *s).plan.subdivision[:2] for k in KINDS for s in SAMPLINGS}
    assert {m % 2 for m, _ in found if m > 1} == {m % 2 for _, m in found if m > 1} == {0, 1}
    assert 1 in {m for m, _ in found} & {m for _, m in found}


@pytest.mark.parametrize("kind", KINDS)
def test_many_dyes_average_what_is_left_of_the_error(kind: str) -> None:
    b = bench(kind, 192.0, 500.0, 14)
    dyes = scattered(b, 250, seed=2, spread=2.4)
    exact = b.direct(dyes, [2])[0]
    assert np.abs(b.image(dyes)[0, 2] - exact).max() < 0.5 * SINGLE * exact.max()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_the_grids_and_vanishes_with_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.97
    )  # the grid does not matter to far rings; quicker
    b = Bench(microscope(kind, pixel=192.0, plane=500.0, axial_range_um=1), (3, 14, 14))
    dyes = scattered(b, 2, seed=3)
    exact = b.direct(dyes)
    coarse, fine = (np.abs(b.image(dyes, plan=p)[0] - exact).max() for p in (b.plan, b.halved()))
    assert fine < coarse / 5 or fine < 3e-4 * exact.max()


def test_the_pipeline_samples_what_does_not_divide_the_voxel() -> None:
    """From labels to pixels of 1.5 voxels and planes of 3.125: exact sizes, each pixel as its dyes have it."""
    labels = np.zeros((25, 36, 42), np.uint64)
    labels[0, 14:20, 20:22] = 5  # the very first plane of voxels
    labels[11:14, 17:19, 15:27] = 2**40 + 7
    optics = confocal(pixel_size_nm=192, plane_spacing_nm=500, axial_range_um=4)
    camera = {"quantum_efficiency": 1}  # as on the bench
    spec = simulation(layer(density_per_um2=12, linker_nm=4.0), optics=optics, camera=camera, keep=["emitters"])
    result = simulate(labels, spec, voxel_size_nm=VOXEL_NM, until="confocal")
    assert result.plan.shape == (8, 24, 28)
    e = result.emitters
    dyes = np.repeat(np.stack([e["z_nm"], e["y_nm"], e["x_nm"]], axis=1) * 4, e["dyes"], axis=0)
    microscope = spec.microscope
    assert isinstance(microscope, Optics)
    b = Bench(microscope, (8, 24, 28))
    assert b.plan == result.plan.imaging.formation
    planes = [0, 2, 4, 6]
    exact = b.direct(dyes, planes)
    assert exact[0].max() > 0.1 * exact.max()
    assert np.abs(result.image[0, planes] - exact).max() < SINGLE * exact.max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_dye_is_as_wide_as_the_table(kind: str) -> None:
    tables = Bench(microscope(kind, pixel=100, plane=100, axial_range_um=3), (60, 4, 4))
    axial, lateral = tables.pair.fwhm_nm
    assert axial is not None
    pixel, plane = lateral / 10, axial / 10
    b = Bench(microscope(kind, pixel=pixel, plane=plane, axial_range_um=1.5), (21, 31, 31))
    image = b.image(b.centre() + np.array([0.2 * plane, -0.3 * pixel, 0.4 * pixel]))[0].astype(float)
    k, i, j = np.unravel_index(image.argmax(), image.shape)
    assert width(image[k, i]) * pixel == pytest.approx(lateral, rel=0.01)
    assert width(image[k, :, j]) * pixel == pytest.approx(lateral, rel=0.01)
    assert width(image[:, i, j]) * plane == pytest.approx(axial, rel=0.01)


@pytest.mark.parametrize("na", [0.2, 0.5])
def test_widefield_images_of_a_dye_are_half_a_wavelength_wide_over_the_aperture(na: float) -> None:
    b = Bench(microscope("widefield", pixel=27 / na, plane=500, na=na), (1, 31, 31))
    image = b.image(b.centre())[0, 0].astype(float)
    assert width(image[15]) * 27 / na == pytest.approx(0.51 * b.pair.emission_nm / na, rel=0.05)


def width(profile: Array) -> float:
    """Full width at half the maximum of a finely interpolated profile, in samples."""
    curve = CubicSpline(np.arange(profile.size), profile)
    fine = np.linspace(0, profile.size - 1, 200 * profile.size)
    top = float(curve(fine).max())
    middle = float(fine[curve(fine).argmax()])
    crossings = curve.solve(top / 2, extrapolate=False)
    return float(crossings[crossings > middle].min() - crossings[crossings < middle].max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0.0, 0.37])
def test_a_dye_moved_by_a_third_of_a_pixel_moves_its_image_so_far(kind: str, start: float) -> None:
    b = Bench(microscope(kind, pixel=162.5, plane=300, axial_range_um=1), (9, 61, 61))
    place = b.centre() + start * b.pitch
    before = centroid(b.image(place)[0])
    # in widefield every plane receives as much, so that along z there is no centroid
    for axis in range(kind == "widefield", 3):
        moved = place.copy()
        moved[axis] += 0.3 * b.pitch[axis]
        shift = centroid(b.image(moved)[0]) - before
        expected = np.zeros(3)
        expected[axis] = 0.3
        np.testing.assert_allclose(shift, expected, atol=0.02)


def centroid(image: NDArray[np.float32]) -> Array:
    """Centroid of an image, z y x, pixels."""
    exact = image.astype(np.float64)
    axes = np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij")
    return np.array([float((exact * a).sum() / exact.sum()) for a in axes])
