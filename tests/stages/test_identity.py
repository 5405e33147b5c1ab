"""Laws of the identities of emitters, as a stage from outside sees them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.kernels.emission.points import AMPLICON, PROTEIN, UNSPECIFIC
from simexm.run.in_memory import simulate
from tests import rounds_build

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

COLLECTOR = """
from dataclasses import replace
from typing import ClassVar, Literal
import numpy as np
from simexm.stages.contract import EXPANDED, Stage

FOUND = {}

class Own(Stage):
    stage: Literal["own"] = "own"
    reads: ClassVar = (EXPANDED,)
    writes: ClassVar = (EXPANDED,)
    wants_identity: ClassVar = True

    def run(self, state):
        before = state.read(EXPANDED)

        def chunks(dye):
            for chunk in before.chunks(dye):
                if chunk.layer is not None and state.frame.round <= 1:
                    e = chunk.emitters.select(chunk.emitters.own != 0)
                    rows = np.column_stack([e.identity, e.weight, e.z.view("i8"), e.y.view("i8"), e.x.view("i8")])
                    FOUND.setdefault(chunk.layer, []).append(rows)
                yield chunk

        state.write(EXPANDED, replace(before, chunks=chunks))
"""

LAYERS: list[dict[str, Any]] = [
    {"name": "linked", "dye": "ATTO550", "region": "cytosol", "density_per_um3": 300, "linker_nm": 5, "unspecific_per_um3": 50},
    {"name": "bare", "dye": "ATTO550", "region": "membrane", "density_per_um2": 20},
    {"name": "dense", "dye": "ATTO550", "region": "membrane", "density_per_um2": 100_000},
]  # fmt: skip


@pytest.fixture
def collected(site: Callable[..., None]) -> Callable[..., dict[str, NDArray[np.int64]]]:
    """Emitters by layer, those of all tiles together: identity, weight, and the bits of the position."""
    site("collector", COLLECTOR)

    def run(tile: Any = None, crop: Any = None) -> dict[str, NDArray[np.int64]]:
        data = rounds_build.spec(rounds=2)
        data["stages"][1]["layers"] = LAYERS
        data["stages"].insert(4, {"stage": "own"})
        data["execution"] = {"tile": tile}
        if crop:
            data["crop"] = crop
        spec = Simulation.from_mapping(data)
        until = next(s.tag for s in spec.stages if s.tag == "confocal")
        labels = rounds_build.cells((16, 32, 32))
        found = sys.modules["collector"].FOUND
        found.clear()
        simulate(labels, spec, voxel_size_nm=rounds_build.VOXEL_NM, until=until)
        return {layer: _sorted(np.concatenate(rows)) for layer, rows in found.items()}

    return run


def _sorted(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T[::-1])]


def test_an_emitter_has_one_identity_in_any_tiling(collected: Callable[..., dict[str, NDArray[np.int64]]]) -> None:
    """None is there twice; every tiling finds the same ones, each with the same dyes at the same place."""
    whole, tiles = collected(), collected([3, 9, 7])
    assert whole.keys() == tiles.keys() >= {"linked", "bare", "dense"}
    for layer, rows in whole.items():
        assert len(rows) > 20
        assert len(np.unique(rows[:, :6], axis=0)) == len(rows)
        np.testing.assert_array_equal(tiles[layer], rows)
    kinds = {layer: set(rows[:, 5].tolist()) for layer, rows in whole.items()}
    assert kinds.pop("linked") == {PROTEIN, UNSPECIFIC}
    assert kinds.pop("bare") == kinds.pop("dense") == {PROTEIN}
    assert len(np.unique(whole["dense"][:, 3])) > 1, "voxels were cut into parts"
    assert kinds
    assert set.union(*kinds.values()) == {AMPLICON}


def test_an_emitter_names_the_voxel_of_its_protein(collected: Callable[..., dict[str, NDArray[np.int64]]]) -> None:
    rows = collected(crop={"offset": [2, 3, 4], "shape": [13, 28, 27]})["bare"]
    place = np.ascontiguousarray(rows[:, 7:]).view(np.float64) / 4 / rounds_build.VOXEL_NM
    np.testing.assert_array_equal(np.floor(place).astype(int) + np.array([2, 3, 4]), rows[:, :3])
