"""What the plan promises: blocks, boxes, memory, and the hash."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simexm import compiled
from simexm.api import Simulation
from simexm.errors import SimexmWarning, SourceError, SpecError
from simexm.geometry.grid import Box, Tiling, triple
from simexm.ingestion.ingest import ingest
from simexm.planning import planner
from simexm.planning.blocks import ALIGN, ENOUGH, FEWEST, LARGEST, choose_block
from simexm.planning.plan import Plan
from simexm.planning.planner import smaller_tile
from simexm.run import folders
from simexm.stages.microscope.optics_plan import OpticsPlan
from tests.run.conftest import spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")


def phantom(shape: tuple[int, int, int], **changes: Any) -> Simulation:
    return Simulation.from_mapping(
        {**spec("-"), "source": {"kind": "phantom", "shape": shape}, "execution": {}, **changes}
    )


def held(shape: Sequence[int], block: Sequence[int], cost: Callable[[int, int], float], workers: int) -> float:
    """Core time during which workers are held who each take the next block in order, one step after the other."""
    ends = [0.0] * workers
    for one in Tiling(Box.of_shape(triple(shape)), triple(block)):
        ends[ends.index(min(ends))] += math.prod(cost(axis, n) for axis, n in enumerate(one.shape))
    return workers * max(ends)


@given(shape=st.tuples(*[st.integers(1, 900)] * 3), halo=st.integers(0, 80), room=st.integers(10_000, 30_000_000))
@settings(max_examples=25, deadline=None)
def test_blocks_are_small_enough(shape: tuple[int, int, int], halo: int, room: int) -> None:
    block = choose_block(shape, lambda axis, n: n + 2 * halo, lambda b: math.prod(b) <= room, 0.0)
    assert max(block) <= LARGEST
    assert math.prod(-(-n // b) for n, b in zip(shape, block, strict=True)) >= min(FEWEST, most_blocks(shape))
    assert math.prod(block) <= room or block == ALIGN


@given(shape=st.tuples(*[st.integers(1, 900)] * 3), seconds=st.floats(0, 1000))
@settings(max_examples=25, deadline=None)
def test_more_work_makes_more_blocks_each_worth_five_seconds(shape: tuple[int, int, int], seconds: float) -> None:
    """Work is cost alone here, without a halo, so that it is the same in all blocks together however they are cut."""
    block = choose_block(shape, lambda axis, n: n, lambda b: True, seconds / math.prod(shape))
    count = math.prod(-(-n // b) for n, b in zip(shape, block, strict=True))
    assert count >= min(max(FEWEST, min(ENOUGH, seconds / 5)), most_blocks(shape))


@given(shape=st.tuples(st.integers(1, 24), st.integers(1, 64), st.integers(1, 64)), halo=st.integers(0, 80))
@settings(max_examples=40, deadline=None)
def test_no_other_block_holds_two_and_four_workers_much_shorter(shape: tuple[int, int, int], halo: int) -> None:
    def cost(axis: int, n: int) -> float:
        return n + 2 * halo

    def both(block: Sequence[int]) -> float:
        return held(shape, block, cost, 2) + held(shape, block, cost, 4)

    options = itertools.product(*(range(a, n + a, a) for n, a in zip(shape, ALIGN, strict=True)))
    enough = [b for b in options if len(Tiling(Box.of_shape(shape), triple(b))) >= FEWEST]
    block = choose_block(shape, cost, lambda b: True, 0.0)
    assert not enough or both(block) <= 1.03 * min(map(both, enough)) * (1 + 1e-9)
    smaller = [b for b in enough if math.prod(b) < math.prod(block)]
    assert all(both(b) >= 1.03 * min(map(both, enough)) * (1 - 1e-9) for b in smaller)


def most_blocks(shape: Sequence[int]) -> int:
    return math.prod(-(-n // a) for n, a in zip(shape, ALIGN, strict=True))


def test_each_owned_level_has_one_shard_a_block() -> None:
    plan = phantom((2000, 3000, 3000)).plan()
    for level, storage in zip(plan.levels, plan.volumes.storage, strict=True):
        if storage.owned:
            assert tuple(s * f for s, f in zip(storage.shard, level.factors, strict=True)) == plan.block
        assert all(s % c == 0 for s, c in zip(storage.shard, storage.chunk, strict=True))
    assert max(plan.levels[-1].shape) <= 64
    assert len(plan.levels) >= 3


def test_boxes_hold_all_that_a_tile_needs() -> None:
    """The labels' box covers the response's reach, the linker and the neighbourhood, at the image's middle and its borders."""
    plan = phantom((600, 800, 800)).plan()
    optics, g = plan.imaging.formation, plan.geometry
    assert isinstance(optics, OpticsPlan)
    tile = Box((20, 64, 96), (36, 128, 160))
    box = plan.geometry.voxels(plan.boxes(tile)["labels"])
    for axis in range(3):
        reach = optics.range_nm if axis == 0 else optics.radius_nm
        low = (tile.start[axis] * float(g.pixel_nm[axis]) - reach) / float(g.transform.scale) - 4 * 6
        high = (tile.stop[axis] * float(g.pixel_nm[axis]) + reach) / float(g.transform.scale) + 4 * 6
        assert box.start[axis] <= max(0, low / float(g.voxel_nm[axis]) - 1)
        assert box.stop[axis] >= min(g.volume[axis], high / float(g.voxel_nm[axis]) + 1)


def test_a_plan_of_a_huge_volume_is_quick_and_light() -> None:
    """10^6 voxels a side: counts and memory without a look at any voxel but the first chunk."""
    plan = phantom((10**6, 10**6, 10**6)).plan()
    small = phantom((3000, 2000, 2000)).plan()
    assert len(plan.blocks) > 10**8
    # but for the block, which is chosen to divide the image well
    assert plan.memory.total == pytest.approx(small.memory.total, rel=0.03)
    assert plan.to_mapping()["blocks"]["count"] == len(plan.blocks)


@pytest.mark.parametrize("share", [0.75, 0.9, 0.97])
def test_a_tile_that_is_named_fits_when_it_is_typed(share: float) -> None:
    """Of a large volume, too, of whose labels a plan holds as many at once as its own memory allows."""
    simulation = phantom((1500, 2000, 2000))
    plan = simulation.plan()
    enough = int(share * plan.memory.total)
    remedy = smaller_tile(plan, enough)
    if tile := re.findall(r"--tile (\d+) (\d+) (\d+)", remedy):
        again = simulation.with_tile(triple(tile[0]))
    else:  # the block's own arrays are most of it
        (limit,) = re.findall(r"set execution.memory_GiB to ([\d.]+)", remedy)
        again = phantom((1500, 2000, 2000), execution={"memory_GiB": float(limit)})
    assert again.plan().memory.total <= enough
    assert "execution.memory_GiB" in smaller_tile(plan, int(1.3 * plan.memory.base))  # the block alone needs more
    assert "no tile" in smaller_tile(plan, plan.memory.base)
    told = plan.to_mapping()
    assert sum(told["memory_parts_bytes"].values()) >= told["memory_per_worker_bytes"]
    assert not any(isinstance(n, bool) for n in told["memory_parts_bytes"].values())


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
    assert plan.memory.steady <= 0.9 * 2**30
    # left to itself, the plan takes one that fits
    free = phantom((300, 900, 900), execution={"memory_GiB": 0.9}).plan()
    assert free.memory.steady <= 0.9 * 2**30


def test_no_tile_at_all_fits() -> None:
    data = spec("-")
    data["source"] = {"kind": "phantom", "shape": (300, 900, 900)}
    data["stages"][3] |= {"axial_range_um": 12.0, "numerical_aperture": 1.2}
    data["execution"] = {"memory_GiB": 0.7}
    with pytest.raises(SpecError, match="no tile is small enough"):
        Simulation.from_mapping(data).plan()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain", marks=pytest.mark.release),
        pytest.param({"keep": ["expected", "labelled", "emitters"]}, id="kept", marks=pytest.mark.release),
        pytest.param(
            {"keep": ["expected", "labelled", "emitters"], "crop": {"shape": [60, 160, 160]}},
            id="small",
            marks=pytest.mark.slow,
        ),
        pytest.param({"execution": {"tile": [16, 128, 128]}}, id="tiled", marks=pytest.mark.slow),
    ],
)
def test_peak_of_a_worker_stays_below_the_prediction(tmp_path: Path, changes: dict[str, Any]) -> None:
    """VmHWM of real workers, compiling included where nothing is cached yet."""
    simulation = phantom((120, 330, 330), **changes)
    result = simulation.run(tmp_path / "out.zarr", workers=1, quiet=True)
    lines = [line for p in result.place.journal.glob("*.jsonl") for line in p.read_text().splitlines()]
    peak = max(json.loads(line)["result"]["peak_bytes"] for line in lines)
    assert 0.3 * simulation.plan().memory.total < peak <= simulation.plan().memory.total


def test_plan_is_json(tmp_path: Path) -> None:
    plan: Plan = phantom((300, 300, 300)).plan()
    assert json.loads(json.dumps(plan.to_mapping()))["hash"] == plan.hash


def _stored(path: Path, ids: NDArray[np.uint32], **source: Any) -> Simulation:
    zarr.create_array(path, shape=ids.shape, dtype=ids.dtype, chunks=(32, 32, 32), compressors=None)[...] = ids
    return Simulation.from_mapping(
        {**spec("-"), "source": {"path": str(path), "voxel_size_nm": [40, 32, 32], **source}, "name": "x"}
    )


def test_hash_follows_the_source_and_not_its_place(tmp_path: Path) -> None:
    """Other ids at the same path: another hash, even where files keep their sizes. The same ids elsewhere: the same."""
    ids = np.full((64, 64, 64), 5, np.uint32)
    ids[40:] = 6
    first = _stored(tmp_path / "a", ids).plan().hash
    assert _stored(tmp_path / "elsewhere" / "b", ids).plan().hash == first
    shutil.rmtree(tmp_path / "a")
    ids[63, 63, 63] = 7
    assert _stored(tmp_path / "a", ids).plan().hash != first


def test_hash_follows_the_masks_and_not_their_place(tmp_path: Path) -> None:
    ids = np.full((64, 64, 64), 5, np.uint32)
    hashes = []
    for n, place in ((0, "a"), (0, "b"), (1, "c")):
        mask = zarr.create_array(tmp_path / place / "mask", shape=ids.shape, dtype="bool")
        mask[n] = True
        simulation = _stored(tmp_path / place / "ids", ids, regions={"soma": str(tmp_path / place / "mask")})
        hashes.append(simulation.plan().hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_empty_labels_are_refused_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many chunks to read them all, a coarser level tells."""
    ids = np.zeros((80, 200, 200), np.uint32)
    ids[:40, :40, :40] = 5
    tifffile.imwrite(tmp_path / "a.tif", ids)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", (40, 32, 32))
    whole = Simulation.from_mapping(spec(tmp_path / "a.zarr"))
    empty = whole.replace(crop={"offset": (0, 80, 0), "shape": (80, 120, 200)})
    monkeypatch.setattr(planner, "_SCAN_CHUNKS", 100)
    assert whole.plan().shape
    with pytest.raises(SourceError, match="every label in the crop is 0, so"):
        empty.plan()
    # more chunks than are looked at: thin cells may be lost in the copy that is looked at instead, so it is no proof
    monkeypatch.setattr(planner, "_SCAN_CHUNKS", 6)
    assert whole.plan().shape
    with pytest.warns(SimexmWarning, match="downsampled to .* is all 0"):
        assert empty.plan().shape


def test_a_stored_plan_does_not_follow_the_compilers_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are those of any machine and day; the memory that is checked before a run has room for the compiler."""
    plans = []
    for cached in (False, True):
        monkeypatch.setattr(compiled, "is_cached", lambda cached=cached: cached)
        plans.append(phantom((20, 60, 60)).plan())
    cold, warm = plans
    assert cold.memory.total > warm.memory.total
    assert folders.plan_bytes(cold) == folders.plan_bytes(warm)
