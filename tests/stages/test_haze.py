"""Light from beyond the near range: nothing is counted twice or left out, whatever blocks and tiles make it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple
from simexm.kernels.diffraction.tables import holding_radius_nm
from simexm.kernels.imaging import far, nodes
from simexm.run.in_memory import Simulated, simulate
from simexm.run.maps import in_memory
from simexm.sources.arrays import ArrayVolume
from simexm.stages.contract import Counted
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from tests.build import VOXEL_NM, layer, simulation
from tests.stages.field_build import image as every_channel
from tests.stages.optics_build import dye_of, microscope

Array = NDArray[np.float64]
OPTICS: dict[str, Any] = {
    "stage": "widefield", "numerical_aperture": 1.0, "pixel_size_nm": 260, "plane_spacing_nm": 1000, "axial_range_um": 6,
    "channels": [
        {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 20}
    ],
}  # fmt: skip


def image(optics: Optics, shape: Triple, points: Array, tile: Triple | None = None) -> tuple[Array, OpticsPlan]:
    """Expected image (z, y, x) of dyes at places (n, 3) in a specimen as large as the image."""
    found, plan = every_channel(optics, shape, points, tile=tile)
    return found[0].astype(np.float64), plan


def widefield(**more: Any) -> Optics:
    return microscope("widefield", pixel=260, plane=1000, na=1.0, haze=True, axial_range_um=6.0, **more)


@pytest.mark.parametrize("distance_um", [0.0, 3.1, 5.1, 5.77, 6.3, 7.6, 9.1, 13.4])
def test_every_plane_receives_all_light_of_a_dye(distance_um: float) -> None:
    """The sum over a plane is what the dye's cone of light leaves inside the field, inside and beyond the near range."""
    optics, shape = widefield(), (15, 320, 320)
    middle = 160 * 260.0
    z = (0.5 + distance_um) * 1000
    found, plan = image(optics, shape, np.array([[z, middle + 71.0, middle - 40.0]]))
    pair = plan.pairs[0]
    channel, dye = optics.all_channels[0], dye_of(optics)
    everything = float((optics.emitted(channel, dye, np.zeros(1)) * optics.collected(channel, dye))[0])
    assert holding_radius_nm(distance_um * 1000, pair.emission_nm, optics.lens, 0.99) < middle
    assert found[0].sum() == pytest.approx(everything, rel=0.01)


def test_far_light_is_that_of_a_run_whose_near_range_is_the_specimen() -> None:
    rng = np.random.default_rng(4)
    points = rng.random((300, 3)) * (13_000, 56 * 260, 48 * 260)
    shape = (13, 56, 48)
    all_near = microscope("widefield", pixel=260, plane=1000, na=1.0, axial_range_um=14.0)
    near_only = microscope("widefield", pixel=260, plane=1000, na=1.0, axial_range_um=6.0)
    a, b, c = (image(optics, shape, points)[0] for optics in (all_near, near_only, widefield()))
    haze = a - b
    assert haze.sum() > a.sum() / 5
    assert np.abs(c - a).max() < 2e-3 * a.max()
    assert math.sqrt(((c - a) ** 2).mean()) < 0.01 * math.sqrt((haze**2).mean())
    tiled, _ = image(widefield(), shape, points, (5, 30, 17))
    assert np.abs(tiled - c).max() < 2e-6 * c.max()


def test_tissue_and_bleaching_dim_far_light_as_near_light() -> None:
    rng = np.random.default_rng(5)
    points = rng.random((200, 3)) * (13_000, 32 * 260, 32 * 260)
    shape = (13, 32, 32)
    more: dict[str, Any] = {
        "tissue": {"excitation_per_mm": 20, "emission_per_mm": 30, "power_per_mm": 10},
        "bleaching": {"photons": 2e4},
    }
    all_near = microscope("widefield", pixel=260, plane=1000, na=1.0, axial_range_um=14.0, **more)
    a, c = (image(optics, shape, points)[0] for optics in (all_near, widefield(**more)))
    clear, _ = image(widefield(), shape, points)
    assert clear.sum() > 1.2 * c.sum()
    assert c.sum(axis=(1, 2)) == pytest.approx(a.sum(axis=(1, 2)), rel=5e-3)


def test_aberrations_blur_far_light_otherwise_above_a_plane_than_below() -> None:
    rng = np.random.default_rng(5)
    points = rng.random((1000, 3)) * (10_000, 32 * 260, 32 * 260)
    more: dict[str, Any] = {"zernike": [{"n": 4, "nm": 40}]}
    all_near = microscope("widefield", pixel=260, plane=1000, na=1.0, axial_range_um=11.0, **more)
    a, c = (image(optics, (10, 32, 32), points)[0] for optics in (all_near, widefield(**more)))
    assert np.abs(c - a).max() < 3e-3 * a.max()


def test_weights_of_nodes_add_up_exactly_and_the_centroid_is_the_dye() -> None:
    rng = np.random.default_rng(0)
    place = rng.random((200, 3)) * (3, 5, 7) + 2
    out = np.zeros((8, 10, 12), np.int64)
    ones = np.ones(200, np.int32)
    z, y, x = (np.ascontiguousarray(place[:, a]) * c for a, c in enumerate((500.0, 325.0, 325.0)))
    nodes.deposit_nodes(z, y, x, ones, (1 / 500, 1 / 325, 1 / 325), (-1, -1, -1), out)
    assert out.sum() == 200 * nodes.UNIT
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        centre = (out.sum(axis=others) * (np.arange(out.shape[axis]) - 0.5)).sum() / out.sum()
        assert centre == pytest.approx(place[:, axis].mean(), abs=1e-3)


def test_finer_grids_continue_smooth_functions() -> None:
    start, stop = (5, -3), (26, 19)
    windows = [far.coarser_window(a, b) for a, b in zip(start, stop, strict=True)]
    coarse, fine = (
        [(np.arange(a, b) + 0.5) * size for a, b in ends]
        for ends, size in ((windows, 2.0), (list(zip(start, stop, strict=True)), 1.0))
    )

    def wave(y: NDArray[Any], x: NDArray[Any]) -> Array:
        return np.cos(2 * math.pi * 0.05 * y)[:, None] * np.sin(2 * math.pi * 0.04 * x + 1)[None, :]

    found = far.finer(wave(*coarse)[None], start, stop, np)
    assert np.abs(found[0] - wave(*fine)).max() < 3e-4


@cache
def labels() -> NDArray[np.uint64]:
    shape = (100, 60, 50)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    found = np.zeros(shape, np.uint64)
    for n, centre in enumerate(np.random.default_rng(1).random((8, 3)) * shape):
        found[((grid - centre) ** 2).sum(-1) < 12**2] = n + 1
    return found


def spec(tile: Triple | None = None, blocks: int | None = None, **more: Any) -> Simulation:
    made: Simulation = simulation(
        layer(density_per_um2=60, linker_nm=5), optics={**OPTICS, **more}, keep=["expected"], seed=3,
        execution={} if blocks is None else {"min_blocks": blocks},
    )  # fmt: skip
    return made.with_tile(tile)


def run(one: Simulation) -> Simulated:
    return simulate(labels(), one, voxel_size_nm=VOXEL_NM)


def test_the_map_is_the_same_whatever_blocks_and_tiles_make_it() -> None:
    source = ArrayVolume(labels(), VOXEL_NM)
    made = [run(spec(tile, blocks)) for tile, blocks in ((None, None), ((7, 20, 16), 8))]
    assert made[0].plan.block != made[1].plan.block
    box = Box((-2, -8, -8), (20, 20, 20))
    for level in range(3):
        maps = [in_memory(m.plan, source, Counted())["haze"].read(level, box) for m in made]
        assert maps[0].any()
        np.testing.assert_array_equal(maps[0], maps[1])
    dyes = int(made[0].cells["dyes_membrane"].sum())
    whole = in_memory(made[0].plan, source, Counted())["haze"].read(0, Box((-10, -50, -50), (60, 90, 90)))
    assert whole.sum() / 1024 == pytest.approx(dyes, abs=0.5 * math.sqrt(np.count_nonzero(whole)) / 100 + 1)
    first, second = (m.kept["expected"] for m in made)
    assert np.abs(first - second).max() < 2e-6 * first.max()


def test_haze_is_on_where_the_specimen_is_thicker_than_the_range_and_can_be_switched_off() -> None:
    def plan_of(**more: Any) -> OpticsPlan:
        source = ArrayVolume(labels(), VOXEL_NM)
        formation = spec(**more).plan(source=source).imaging.formation
        assert isinstance(formation, OpticsPlan)
        return formation

    assert plan_of().haze is not None
    assert plan_of().pairs[0].left_out < 0.01
    assert plan_of(haze=False).haze is None
    assert plan_of(haze=False).pairs[0].left_out > 0.1
    assert plan_of(axial_range_um=20).haze is None
    with pytest.raises(SpecError, match="axial_range_um"):
        plan_of(axial_range_um=1, haze=True)
