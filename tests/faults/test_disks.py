"""Disks that are full, or fail for a while: the run tries again or stops and says why, and nothing half-written looks whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from simexm.errors import SimexmError
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run.verify import Verification
from tests.faults.faults import Fault, Faults, all_bytes, recorded, simulation, start_driver

BLOCKS = range(16)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; `mount -o remount,size=...` makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("to mount a small disk takes the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    "here", [pytest.param(True, id="threads", marks=pytest.mark.slow), pytest.param(False, id="cluster")]
)
def test_full_disk(reference: Result, client: distributed.Client, faults: Faults, small_disk: Path, here: bool) -> None:
    output = small_disk / "small.zarr"
    means = None if here else client
    with pytest.raises(SimexmError, match=r"(?i)no space left.*same command again") as told:
        simulation().run(output, client=means, quiet=True)
    assert told.value.exit_code == 1
    assert not Result.open(output).complete
    done = recorded(output).keys()
    assert len(done) < 16  # none where the journal itself had no room
    found = Verification(Place(output))
    assert list(found) == []  # what counts as done is whole
    assert found.unfinished == 16 - len(done)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    faults.clear()
    result = simulation().run(output, client=means, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert set(faults.begun()) == (set() if here else set(BLOCKS) - done)


def test_disk_that_fails_for_a_moment(
    reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path
) -> None:
    """A block whose file could not be written is done again by itself, and alone."""
    faults.set(Fault("EIO", "before publish", r"/0/c/", block=7, times=2))
    result = simulation().run(tmp_path / "small.zarr", client=client, quiet=True)
    assert len(faults.fired) == 2
    assert all_bytes(result) == all_bytes(reference)
    begun = faults.begun()
    assert 2 <= begun.pop(7) <= 3
    assert begun == dict.fromkeys(set(BLOCKS) - {7}, 1)


@pytest.mark.slow
def test_disk_that_fails_for_long(
    reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path
) -> None:
    output = tmp_path / "small.zarr"
    faults.set(Fault("EIO", "before publish", r"/[01]/c/|parquet", times=10_000))
    with pytest.raises(SimexmError, match=r"(?i)input/output error.*same command again") as told:
        simulation().run(output, client=client, quiet=True)
    assert told.value.exit_code == 1
    assert not recorded(output)
    assert not list((output.with_suffix(".run") / "scratch").rglob("*.partial"))
    faults.clear()
    result = simulation().run(output, client=client, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert faults.begun() == dict.fromkeys(BLOCKS, 1)


@pytest.mark.slow
def test_journal_that_cannot_be_written(reference: Result, faults: Faults, tmp_path: Path) -> None:
    """The driver stops and says so; what was done before stays done, and is written once the disk is back."""
    output = tmp_path / "small.zarr"
    simulation().save(tmp_path / "small.yaml")
    faults.set(Fault("EIO", "before publish", r"journal/000000\.jsonl"))
    driver = start_driver(faults, tmp_path / "small.yaml", output)
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "cannot write the journal" in told
    assert "same command again" in told
    done = recorded(output).keys()
    assert 0 < len(done) < 16
    before = faults.begun()
    driver = start_driver(faults, tmp_path / "small.yaml", output)
    driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert all_bytes(Result.open(output)) == all_bytes(reference)
    assert faults.begun() - before == dict.fromkeys(set(BLOCKS) - done, 1)
