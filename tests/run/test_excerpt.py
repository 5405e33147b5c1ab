"""A part of the image is, bit for bit, what the whole image holds there: wherever it lies, and whatever made it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm import Simulated, Simulation, simulate
from simexm.geometry.grid import Box, Triple
from simexm.run.block import compute_box
from simexm.run.excerpt import excerpt, tiles_of
from simexm.run.passes import counted_in_memory
from simexm.sources.arrays import ArrayVolume
from simexm.stages.contract import Counted
from tests import rounds_build
from tests.build import VOXEL_NM, confocal, layer
from tests.build import spec as tiny
from tests.model2017 import small_2017
from tests.run.conftest import cells, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

GREEN = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550]}
CYTOSOL = layer(name="cytosol", region="cytosol", density_per_um3=4000, unspecific_per_um3=30)


def camera(stage: str, **changes: Any) -> dict[str, Any]:
    """A microscope that lights whole planes."""
    lit = {"irradiance_W_per_cm2": 50}
    return {
        **{k: v for k, v in confocal().items() if k not in ("stage", "channels")},
        "stage": stage,
        "exposure_s": 0.02,
        "channels": [{**GREEN, **lit}],
        **changes,
    }


TWO_PHOTON = {
    **confocal(),
    "stage": "two_photon",
    "repetition_MHz": 80,
    "pulse_fs": 150,
    "channels": [{**GREEN, "laser_wavelength_nm": 920, "laser_power_uW": 10_000}],
}
UNEVEN = {
    "stage": "scmos", "illumination": {"edge": 0.5}, "frame_pixels": [20, 30], "autofluorescence_e": 2, "gain_spread": 0.1,
    "hot_pixel_share": 0.02, "hot_pixel_e": 40,
}  # fmt: skip

KINDS: dict[str, dict[str, Any]] = {
    "confocal": spec("memory", keep=["expected", "labelled"]),
    "stained after expansion": tiny(layer(stained="after_expansion", linker_nm=10), factor=4.5),
    "uneven light": tiny(CYTOSOL, camera=UNEVEN),
    "counted at once": tiny(layer(density_per_um3=4e6)),
    "multiplied": tiny(CYTOSOL, camera={"stage": "emccd"}),
    "widefield": tiny(CYTOSOL, optics=camera("widefield")),
    "light sheet": tiny(CYTOSOL, optics=camera("light_sheet", sheet_waist_um=1.5)),
    "two photons": tiny(CYTOSOL, optics=TWO_PHOTON, dyes={"ATTO488": {"like": "ATTO488", "two_photon_GM": 50}}),
    "model of 2017": small_2017(labeling_density=0.5),
    "rounds": {**rounds_build.spec(), "keep": ["expected", "labelled"]},
}


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint64]:
    return cells((32, 48, 60))


def whole(kind: str, labels: NDArray[np.uint64], tile: Triple | None) -> Simulated:
    return simulate(labels, Simulation.from_mapping(KINDS[kind]).with_tile(tile), voxel_size_nm=VOXEL_NM)


def boxes(shape: Triple) -> list[Box]:
    """The first and the last corner, and something in the middle that begins and ends within tiles."""
    z, y, x = shape
    return [
        Box.at((0, 0, 0), (3, 9, 21)),
        Box((z - 2, y - 20, x - 9), shape),
        Box.at((z // 3, y // 3, x // 3), (z // 2, y // 2, x // 3)),
    ]


@pytest.mark.parametrize(
    ("kind", "tile"), [*((kind, (5, 16, 24)) for kind in KINDS), ("confocal", None), ("rounds", None)]
)
def test_it_is_what_the_whole_holds(kind: str, tile: Triple | None, labels: NDArray[np.uint64]) -> None:
    made = whole(kind, labels, tile)
    plan, source = made.plan, ArrayVolume(labels, VOXEL_NM)
    counted = counted_in_memory(plan, source)
    assert len(plan.blocks) > 1
    for box in boxes(plan.shape):
        for n, frame in enumerate(plan.frames):
            found = excerpt(plan, source, counted, box, frame)
            for path, image in {"": made.image, **made.kept}.items():
                there = image[n] if plan.acquisition.axes else image
                np.testing.assert_array_equal(found[path], there[(..., *box.slices)])
            if n == 0:
                for name, ids in made.labels.items():
                    np.testing.assert_array_equal(found[f"labels/{name}"], ids[box.slices])


@pytest.mark.parametrize("until", ["labelling", "expansion", "confocal"])
def test_of_a_run_that_stops_earlier(until: str, labels: NDArray[np.uint64]) -> None:
    simulation = Simulation.from_mapping(spec("memory"))
    made = simulate(labels, simulation, voxel_size_nm=VOXEL_NM, until=until)
    source = ArrayVolume(labels, VOXEL_NM)
    for box in boxes(made.plan.shape):
        np.testing.assert_array_equal(excerpt(made.plan, source, Counted(), box)[""], made.image[(..., *box.slices)])


def test_the_same_draws_in_other_tiles_are_not_enough(labels: NDArray[np.uint64]) -> None:
    """What the law above is for: a box computed for itself differs in its last bits."""
    made = whole("confocal", labels, None)
    box = boxes(made.plan.shape)[-1]
    alone = compute_box(made.plan, ArrayVolume(labels, VOXEL_NM), Counted(), box).arrays["expected"]
    there = made.kept["expected"][(..., *box.slices)]
    assert not np.array_equal(alone, there)
    np.testing.assert_allclose(alone, there, atol=2e-6 * there.max())


def test_only_the_tiles_that_are_met_are_computed(labels: NDArray[np.uint64]) -> None:
    plan = whole("confocal", labels, (5, 16, 24)).plan
    for box in boxes(plan.shape):
        met = list(tiles_of(plan, box))
        assert len(set(met)) == len(met)
        assert all(not tile.intersect(box).is_empty for tile in met)
        assert sum(tile.intersect(box).size for tile in met) == box.size
