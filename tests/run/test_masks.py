"""Many masks are as good as one: a layer labels its own region alike, whatever other masks are read beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import digests
from simexm import Simulated, Simulation, simulate
from simexm.errors import SpecError
from simexm.kernels.labels.regions import MOST_MASKS
from tests import rounds_build
from tests.build import VOXEL_NM, layer, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
IDS = rounds_build.cells((14, 26, 28))
NAMES = [f"m{n}" for n in range(20)]
MASKS = {name: np.random.default_rng(n).random(IDS.shape) < 0.2 for n, name in enumerate(NAMES)}


def physical(names: list[str]) -> dict[str, Any]:
    """A layer in each of these masks; the dyes of each are kept, and the cells in each mask."""
    layers = [layer(name=f"in-{name}", region=name, density_per_um3=8000.0) for name in names]
    made = spec(*layers, keep=["labelled"])
    made["stages"][-1]["regions"] = names
    return made


def legacy(names: list[str]) -> dict[str, Any]:
    """The same in the model of 2017, which keeps no image of dyes."""
    made = digests.simexm2017("memory")
    stage = made["stages"][0]
    stage["layers"] = [{**stage["layers"][0], "name": f"in-{name}", "region": name} for name in names]
    return made


def simulated(made: dict[str, Any], names: list[str]) -> Simulated:
    """What comes of it, with these masks beside the labels."""
    made["source"] = {"path": "memory", "regions": dict.fromkeys(names, "-")}
    masks = {name: MASKS[name] for name in names}
    return simulate(IDS, Simulation.from_mapping(made), voxel_size_nm=VOXEL_NM, regions=masks)


def test_twenty_masks_are_as_each_alone() -> None:
    together = simulated(physical(NAMES), NAMES)
    assert together.kept["labelled"].sum(axis=(1, 2, 3)).min() > 100
    for n in (0, 5, 6, 13, 19):
        alone = simulated(physical([NAMES[n]]), [NAMES[n]])
        np.testing.assert_array_equal(together.kept["labelled"][n], alone.kept["labelled"][0])
        for name, found in alone.labels.items():
            np.testing.assert_array_equal(together.labels[name], found)


@pytest.mark.slow  # compiles the whole model for wide bits
def test_twenty_masks_of_the_model_of_2017_are_as_each_alone() -> None:
    together = simulated(legacy(NAMES), NAMES)
    for n in (0, 6, 19):
        alone = simulated(legacy([NAMES[n]]), [NAMES[n]])
        column = f"dyes_in-{NAMES[n]}"
        assert alone.cells[column].sum() > 100
        np.testing.assert_array_equal(together.cells[column], alone.cells[column])


def test_masks_beyond_the_limit_are_refused_where_they_are_used() -> None:
    names = [f"r{n}" for n in range(MOST_MASKS + 1)]
    masks = dict.fromkeys(names, MASKS["m0"])
    source = {"path": "memory", "regions": dict.fromkeys(names, "-")}
    few, many = (Simulation.from_mapping({**physical(part), "source": source}) for part in (names[:2], names))
    assert simulate(IDS, few, voxel_size_nm=VOXEL_NM, regions=masks).plan.context.masks == tuple(names[:2])
    with pytest.raises(SpecError, match=rf"{MOST_MASKS + 1} regions .* at most {MOST_MASKS} are"):
        simulate(IDS, many, voxel_size_nm=VOXEL_NM, regions=masks)
