"""Maps of the whole specimen on disk: resumed, verified and repaired like all else that a run stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from simexm.api import Simulation
from simexm.errors import OutputError, RunError
from simexm.geometry.grid import Box
from simexm.result.place import Place
from simexm.run import maps
from simexm.run.repair import repair
from simexm.run.verify import Verification
from simexm.sources.arrays import ArrayVolume
from simexm.stages.contract import Counted
from tests.build import VOXEL_NM, layer, spec
from tests.stages.test_haze import OPTICS, labels


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    array = zarr.create_array(
        store=str(tmp_path / "labels.zarr"), shape=labels().shape, dtype="u8", chunks=(32, 32, 32), config={}
    )
    array[...] = labels()
    made = spec(layer(density_per_um2=60, linker_nm=5), optics=OPTICS, keep=["expected"], seed=3)
    source = {"path": str(tmp_path / "labels.zarr"), "voxel_size_nm": list(VOXEL_NM)}
    return Simulation.from_mapping({**made, "source": source})


def bytes_of(where: Path) -> dict[str, bytes]:
    """Content of all files of a result's image and labels."""
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()}


def test_a_run_that_was_stopped_in_the_map_goes_on_to_the_same_bytes(
    simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / "whole.zarr", tmp_path / "resumed.zarr"
    simulation.run(whole, quiet=True)
    write = maps.write_block

    def failing(*arguments: Any) -> dict[str, Any]:
        if arguments[-1] == 2:
            raise ValueError("stopped")
        return write(*arguments)

    monkeypatch.setattr(maps, "write_block", failing)
    with pytest.raises(RunError):
        simulation.run(resumed, quiet=True)
    files = tmp_path / "resumed.run/passes/haze/nodes"
    before = {p.name: p.stat().st_mtime_ns for p in files.iterdir()}
    assert before
    monkeypatch.undo()
    simulation.run(resumed, quiet=True)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in files.iterdir()}.items()
    assert bytes_of(resumed) == bytes_of(whole)


def test_a_damaged_map_is_found_and_made_again_and_a_missing_one_is_no_darkness(
    simulation: Simulation, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    simulation.run(out, quiet=True)
    plan, where = simulation.plan(), Place.at(out)
    stored = maps.on_disk(plan, where)["haze"]
    made = maps.in_memory(plan, ArrayVolume(labels(), VOXEL_NM), Counted())["haze"]
    for level in range(3):
        box = Box((-2, -5, -5), (25, 11, 30))
        np.testing.assert_array_equal(stored.read(level, box), made.read(level, box))
    file = tmp_path / "out.run/passes/haze/nodes/block-0000001.0"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert [d.path for d in Verification(where)] == [file]
    repair(out, lambda damage: None, quiet=True)
    assert file.read_bytes() == good
    assert not list(Verification(where))
    file.unlink()
    assert [d.path for d in Verification(where)] == [file]
    with pytest.raises(OutputError, match="missing"):
        stored.read(0, Box.of_shape((10, 20, 20)))
