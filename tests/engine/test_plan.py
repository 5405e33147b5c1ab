"""What the plan promises: blocks, boxes, memory, and the hash."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm.engine.blocks import FEWEST, LARGEST, choose_block
from simexm.engine.plan import Plan
from simexm.errors import SpecError
from simexm.grid import Box
from simexm.simulation import Simulation
from tests.run.conftest import spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")


def phantom(shape: tuple[int, int, int], **changes: Any) -> Simulation:
    return Simulation.from_mapping({**spec("-"), "source": {"kind": "phantom", "shape": shape}, **changes})


@given(shape=st.tuples(*[st.integers(1, 900)] * 3), halo=st.integers(0, 80), room=st.integers(10_000, 30_000_000))
@settings(max_examples=60, deadline=None)
def test_blocks_are_small_enough(shape: tuple[int, int, int], halo: int, room: int) -> None:
    block = choose_block(shape, lambda axis, n: n + 2 * halo, lambda b: math.prod(b) <= room)
    assert max(block) <= LARGEST
    count = math.prod(-(-n // b) for n, b in zip(shape, block, strict=True))
    smallest = math.prod(-(-n // a) for n, a in zip(shape, (8, 32, 32), strict=True))
    assert count >= min(FEWEST, smallest)
    assert math.prod(block) <= room or block == (8, 32, 32)


def test_each_owned_level_has_one_shard_a_block() -> None:
    plan = phantom((2000, 3000, 3000)).plan()
    for level, storage in zip(plan.levels, plan.storage, strict=True):
        if storage.owned:
            assert tuple(s * f for s, f in zip(storage.shard, level.factors, strict=True)) == plan.block
        assert all(s % c == 0 for s, c in zip(storage.shard, storage.chunk, strict=True))
    assert max(plan.levels[-1].shape) <= 64
    assert len(plan.levels) >= 3


def test_boxes_hold_all_that_a_tile_needs() -> None:
    """The labels' box covers the response's reach, the linker and the neighbourhood, at the image's middle and its borders."""
    plan = phantom((600, 800, 800)).plan()
    optics, g = plan.world.optics, plan.geometry
    assert optics is not None
    tile = Box((20, 64, 96), (36, 128, 160))
    box = plan.geometry.voxels(plan.boxes(tile)["labels"])
    for axis in range(3):
        reach = optics.range_nm if axis == 0 else optics.radius_nm
        low = (tile.start[axis] * float(g.pixel_nm[axis]) - reach) / float(g.factor) - 4 * 6
        high = (tile.stop[axis] * float(g.pixel_nm[axis]) + reach) / float(g.factor) + 4 * 6
        assert box.start[axis] <= max(0, low / float(g.voxel_nm[axis]) - 1)
        assert box.stop[axis] >= min(g.volume[axis], high / float(g.voxel_nm[axis]) + 1)


def test_a_plan_of_a_huge_volume_is_quick_and_light() -> None:
    """10^6 voxels a side: counts and memory without a look at any voxel but the first chunk."""
    plan = phantom((10**6, 10**6, 10**6)).plan()
    small = phantom((1500, 2000, 2000)).plan()
    assert len(plan.blocks) > 10**8
    assert plan.memory.total == small.memory.total
    assert plan.to_mapping()["blocks"]["count"] == len(plan.blocks)


def test_hash_follows_what_decides_bytes() -> None:
    def of(**changes: Any) -> str:
        return phantom((300, 300, 300), **changes).plan().hash

    reference = of()
    assert of() == reference
    assert of(seed=12) != reference
    assert of(crop={"shape": [200, 300, 300]}) != reference
    assert of(keep=["expected"]) != reference
    assert of(execution={"tile": [8, 32, 32]}) != reference
    # room in memory decides tile and block, and through them alone the hash
    assert of(execution={"memory_GiB": 1.6}) == of(execution={"memory_GiB": 1.7})


def test_a_tile_that_does_not_fit_is_refused_and_one_that_does_is_named() -> None:
    simulation = phantom((300, 900, 900), execution={"memory_GiB": 0.9, "tile": [200, 256, 256]})
    with pytest.raises(SpecError, match="--tile") as caught:
        simulation.plan()
    words = str(caught.value).split("--tile ")[1].replace(",", "").split()[:3]
    plan = simulation.with_tile((int(words[0]), int(words[1]), int(words[2]))).plan()
    assert plan.memory.total <= 0.9 * 2**30
    # left to itself, the plan takes one that fits
    free = phantom((300, 900, 900), execution={"memory_GiB": 0.9}).plan()
    assert free.memory.total <= 0.9 * 2**30


def test_no_tile_at_all_fits() -> None:
    data = spec("-")
    data["source"] = {"kind": "phantom", "shape": (300, 900, 900)}
    data["stages"][3] |= {"axial_range_um": 12.0, "numerical_aperture": 1.2}
    data["execution"] = {"memory_GiB": 0.7}
    with pytest.raises(SpecError, match="no tile is small enough"):
        Simulation.from_mapping(data).plan()


MEASURE = """
import sys
from pathlib import Path
from simexm.engine.block import compute_block
from simexm.simulation import Simulation
plan = Simulation.load(sys.argv[1]).plan()
compute_block(plan, plan.simulation.source.open(), len(plan.blocks) // 2)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), plan.memory.total)
"""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("plain", {}),
        ("kept", {"keep": ["expected", "labelled"]}),
        ("tiled", {"execution": {"tile": [12, 60, 60]}}),
    ],
)
def test_peak_stays_below_the_prediction(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    path = tmp_path / f"{name}.yaml"
    phantom((150, 420, 420), **changes).save(path)
    shown = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True, timeout=200
    )
    peak, predicted = map(int, shown.stdout.split())
    assert peak <= predicted


def test_plan_is_json(tmp_path: Path) -> None:
    import json

    plan: Plan = phantom((300, 300, 300)).plan()
    assert json.loads(json.dumps(plan.to_mapping()))["hash"] == plan.hash
