"""The image is the specimen's alone: no seams, no wrap-around, no mirror images, and no mark of the simulation grid."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.geometry.grid import Triple
from simexm.kernels.numbers.fields import poisson_field
from simexm.run.in_memory import Simulated, simulate
from simexm.stages.microscope.optics_plan import OpticsPlan
from tests.build import VOXEL_NM, confocal, layer, simulation
from tests.stages.optics_build import Bench, microscope

KINDS = ("confocal", "widefield", "two_photon", "light_sheet")
TWO_COLOURS = confocal(
    pixel_size_nm=192,
    plane_spacing_nm=500,
    axial_range_um=1.5,
    channels=[
        {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "laser_power_uW": 20},
        {"name": "orange", "laser_wavelength_nm": 532, "band_nm": [560, 620], "laser_power_uW": 40},
    ],
)
LAYERS = (
    layer(density_per_um2=300, linker_nm=5, cell_fraction=0.6),
    layer(name="inside", dye="ATTO550", region="cytosol", density_per_um3=3000, unspecific_per_um3=200),
)


def packed(shape: Triple) -> NDArray[np.uint64]:
    """Cells that fill the volume: the nearest of some random points."""
    rng = np.random.default_rng(6)
    points = rng.random((25, 3)) * shape
    grid = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    nearest: NDArray[np.uint64] = ((grid[..., None, :] - points) ** 2).sum(-1).argmin(-1).astype(np.uint64) + 2**40
    return nearest


def dense(tile: Triple | None = None) -> Simulated:
    """Two layers with a dye each, seen by two channels that both see both, in tiles."""
    spec: Simulation = simulation(
        *LAYERS, optics=TWO_COLOURS, camera={"read_noise_e": 0.0}, keep=["expected", "emitters"], seed=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate(packed((25, 60, 54)), spec.with_tile(tile), voxel_size_nm=VOXEL_NM)


@cache
def whole() -> Simulated:
    return dense()


def share_that_changes(a: NDArray[np.float32], b: NDArray[np.float32], draws: int = 600) -> float:
    """Share of pixels whose counts differ between two images of nearly the same means, over so many draws of both.

    One image has too few pixels to tell: a single one of them that differs is more than the law allows on average.
    """
    keys = [(draw, 1) for draw in range(draws)]
    changed = [np.count_nonzero(poisson_field(a, 0, 0, 0, k) != poisson_field(b, 0, 0, 0, k)) for k in keys]
    return sum(changed) / (draws * a.size)


@pytest.mark.parametrize("tile", [(1, 32, 32), (3, 13, 11), (8, 9, 32)])
def test_tiles_leave_no_seam(tile: Triple) -> None:
    reference, tiled = whole(), dense(tile)
    assert reference.image.shape == (2, 8, 40, 36)
    assert tiled.plan.tile == tile
    for a, b, counts_a, counts_b in zip(
        reference.kept["expected"], tiled.kept["expected"], reference.image, tiled.image, strict=True
    ):
        difference = np.abs(a.astype(float) - b)
        assert difference.max() < 2e-6 * a.max()
        assert share_that_changes(a, b) <= 2 * difference.mean() + 1e-6
        assert np.abs(counts_a.astype(int) - counts_b).max() <= 1
    for name, label in reference.labels.items():
        np.testing.assert_array_equal(label, tiled.labels[name])
    for name, column in reference.cells.items():
        np.testing.assert_array_equal(column, tiled.cells[name])
    assert tiled.emitters["dyes"].sum() == reference.emitters["dyes"].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_halving_the_simulation_grid_changes_little(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense labels: the dyes of the membranes above, under each of the microscopes."""
    monkeypatch.setattr(
        "simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.97
    )  # the grid does not matter to far rings; quicker
    e = whole().emitters
    here = e["layer"] == "membrane"
    dyes = np.stack([e["z_nm"], e["y_nm"], e["x_nm"]], axis=1)[here] * 4
    b = Bench(microscope(kind, pixel=192, plane=500, axial_range_um=1.5), (8, 40, 36))
    coarse, fine = (b.image(dyes, plan=p)[0] for p in (b.plan, b.halved()))
    assert np.abs(coarse - fine).max() < 0.01 * fine.max()


@pytest.mark.parametrize("pixel", [61.0, 162.5])
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_that_are_left_out_change_hardly_a_thing(kind: str, pixel: float) -> None:
    """By less than a tenth of what the grid may cost a dye, 1e-4 of its image at its brightest, in focus or out of it, wherever the dye lies in its pixel.

    Of those that the grid carries; seen on a finer one, which carries them without the grid's own error.
    """
    b = Bench(microscope(kind, pixel=pixel, plane=500, axial_range_um=1.5), (5, 40, 40))
    highest = 0.5 / float(b.plan.node_nm[1])
    everything = replace(b.halved(), whole_per_nm=highest, band_per_nm=highest)
    kept = replace(everything, whole_per_nm=b.plan.whole_per_nm, band_per_nm=b.plan.band_per_nm)
    assert b.plan.whole_per_nm < b.plan.band_per_nm <= highest
    for shift in (np.zeros(3), np.array([0.4, 0.3, 0.2]), np.array([0.0, 0.5, 0.5])):
        place = b.centre() + shift * b.pitch
        some, all_of_it = b.image(place, plan=kept)[0], b.image(place, plan=everything)[0]
        assert 0 < np.abs(some - all_of_it).max() < 1e-4 * all_of_it.max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_has_no_influence_on_what_it_shows(kind: str) -> None:
    """Dyes at the very edges look as they do in the middle of a larger frame: nothing is mirrored, nothing comes round."""
    optics = microscope(kind, pixel=162.5, plane=500, axial_range_um=1.5)
    small, large = Bench(optics, (5, 15, 14), depth_nm=10_000), Bench(optics, (11, 61, 58), depth_nm=10_000)
    assert small.plan == large.plan
    step = np.array([3, 23, 22])
    ends = np.array(small.shape) * small.pitch
    dyes = np.array(
        [[0, 0, 0], [1, ends[1] - 1, 300], [ends[0] - 1, 500, ends[2] - 1], ends / 2, [30, 30, ends[2] / 2]]
    )
    alone = small.image(dyes)[0]
    inside = large.image(dyes + step * small.pitch)[0]
    part = inside[tuple(slice(s, s + n) for s, n in zip(step, small.shape, strict=True))]
    assert np.abs(alone - part).max() < 2e-6 * alone.max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [1, 2])
def test_an_edge_does_not_light_up_the_opposite_one(kind: str, axis: int) -> None:
    """As little as tiles may differ."""
    optics = microscope(kind, pixel=500, plane=500, axial_range_um=1.0)
    shape = [3, 40, 40]
    shape[axis] = 90
    b = Bench(optics, (shape[0], shape[1], shape[2]), depth_nm=10_000)
    beyond = int(b.plan.radius_nm / 500) + 3
    assert beyond < 60
    for end in (0.0, 1.0):
        place = b.centre()
        place[axis] = end * shape[axis] * 500
        image = np.moveaxis(b.image(place)[0], axis, 0)
        far = image[beyond:] if end == 0 else image[:-beyond]
        assert np.abs(far).max() < 2e-6 * image.max()


def test_planes_beyond_the_range_are_black() -> None:
    b = Bench(microscope("confocal", pixel=162.5, plane=500, axial_range_um=1.0), (12, 20, 20))
    place = b.centre()
    place[0] = 0.25 * b.pitch[0]
    image = b.image(place)[0]
    reach = b.plan.range_nm + 2 * float(b.plan.node_nm[0])
    far = (np.arange(12) + 0.5) * b.pitch[0] - place[0] > reach
    assert far.sum() > 5
    assert not image[far].any()
    assert image[~far].max(axis=(1, 2)).min() > 0


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_an_empty_half_stays_dark_and_an_empty_specimen_black() -> None:
    labels = packed((25, 60, 54))
    labels[:, :, 27:] = 0
    spec = simulation(layer(), optics=TWO_COLOURS, keep=["expected"])
    result = simulate(labels, spec, voxel_size_nm=VOXEL_NM, until="confocal")
    optics = result.plan.imaging.formation
    assert isinstance(optics, OpticsPlan)
    # the labelled half ends with column 18
    far = result.image[0][:, :, 18 + 1 + int(optics.radius_nm / 192) :]
    assert far.size == 0 or np.abs(far).max() < 1e-6 * result.image.max()
    profile = result.image[0, 4].astype(float).mean(axis=0)
    assert profile[22:].max() < 0.02 * profile[:18].mean()
    # outside the volume there is nothing that could send light in: the other edge loses its neighbours' share alike
    assert profile[0] < 0.75 * profile[4:14].mean()


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_no_dye_at_either_end_of_the_specimen_is_lost() -> None:
    """A plane of voxels is as bright at the top of the specimen as in its middle and at its bottom."""
    optics = confocal(pixel_size_nm=192, plane_spacing_nm=160, axial_range_um=1)
    spec = simulation(layer(density_per_um2=None, density_per_um3=1e5), optics=optics)
    brightness = []
    for plane in (0, 12, 24):
        labels = np.zeros((25, 30, 30), np.uint64)
        labels[plane, 10:20, 10:20] = 9
        result = simulate(labels, spec, voxel_size_nm=VOXEL_NM, until="confocal")
        image = result.image[0].sum(axis=(1, 2), dtype=float)
        assert image.argmax() == plane
        brightness.append(image[plane] / result.cells["dyes_membrane"][0])
    np.testing.assert_allclose(brightness, brightness[1], rtol=0.01)
