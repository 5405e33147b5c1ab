"""Drivers that die or sleep at every point, schedulers that are lost, two drivers on one output, and workers of an old run."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import psutil
import pytest

from simexm.errors import OutputError
from simexm.result.result import Result
from tests.faults.faults import (
    Fault,
    Faults,
    address_of,
    all_bytes,
    environment,
    model_of_2017,
    recorded,
    simulation,
    start_driver,
    wait_until,
)
from tests.run.conftest import fingerprint

BLOCKS = range(16)


def slept(faults: Faults, number: int = 0) -> psutil.Process:
    """The process that a fault put to sleep, the first or a later one, once it sleeps."""
    wait_until(lambda: bool(faults.fired[number:] and faults.fired[number]))
    process = psutil.Process(faults.fired[number])
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    return process


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return save(tmp_path)


JOURNAL = r"small\.run/journal/000000\.jsonl"


@pytest.mark.parametrize(
    ("fault", "torn"),
    [
        pytest.param(
            Fault("kill", "before publish", JOURNAL), 0, id="before a segment of the journal", marks=pytest.mark.slow
        ),
        pytest.param(Fault("kill", "after publish", JOURNAL), 40, id="after it, and its last line is torn"),
        pytest.param(
            Fault("kill", "before publish", r"run/tables/cells\.parquet"),
            0,
            id="before the tables",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Fault("kill", "after publish", r"run/files\.json"),
            0,
            id="before it is marked as complete",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_driver_killed(
    reference: Result, client: distributed.Client, faults: Faults, spec: Path, fault: Fault, torn: int
) -> None:
    """The same command does what the journal does not tell of, once, and nothing else."""
    output, run = spec.with_suffix(".zarr"), spec.with_suffix(".run")
    faults.set(fault)
    driver = start_driver(faults, spec, output, address_of(client))
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL, told
    if "before" in fault.point:
        assert list((run / "scratch").rglob("*.partial"))  # left over
    for segment in sorted((run / "journal").glob("*.jsonl"))[-1:]:
        segment.write_bytes(segment.read_bytes()[: -torn or None])
    done = recorded(output).keys()
    assert (len(done) < 16) == ("journal" in fault.match)
    with pytest.raises(KeyError):
        _ = Result.open(output).channels  # no viewer takes it for an image
    faults.set(None)
    wait_until(lambda: len(faults.ended()) == faults.begun().total())  # what runs comes to its end unheard
    before = faults.begun()
    result = simulation().run(output, client=client, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert faults.begun() - before == dict.fromkeys(set(BLOCKS) - done, 1)
    assert not (run / "scratch").exists()


@pytest.mark.parametrize("point", [pytest.param("before publish", marks=pytest.mark.slow), "after publish"])
def test_driver_killed_between_passes(faults: Faults, tmp_path: Path, point: str) -> None:
    """A pass whose table was whole is not made again; of the other kind, only the table is; and no part is left over."""
    model_of_2017().save(tmp_path / "small.yaml")
    faults.set(Fault("kill", point, r"simexm2017_voxels/table/about\.json"))
    driver = start_driver(faults, tmp_path / "small.yaml", tmp_path / "small.zarr")
    driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL
    counted = (tmp_path / "small.run/passes/simexm2017_voxels/journal/000000.jsonl").read_bytes()
    result = model_of_2017().run(tmp_path / "small.zarr", quiet=True)
    assert (result.place.passes / "simexm2017_voxels/journal/000000.jsonl").read_bytes() == counted
    assert not list(result.place.passes.rglob("parts"))
    undisturbed = model_of_2017().run(tmp_path / "whole" / "small.zarr", quiet=True)
    assert all_bytes(result) == all_bytes(undisturbed)


@pytest.mark.slow
def test_two_drivers_on_one_output(reference: Result, faults: Faults, spec: Path) -> None:
    """The second is refused while the first holds the lock, asleep or not; it takes the lock of a dead one over."""
    output = spec.with_suffix(".zarr")
    faults.set(Fault("stop", "before publish", r"small\.run/journal/000000\.jsonl"))
    first = start_driver(faults, spec, output)
    slept(faults)
    before = fingerprint(output)
    with pytest.raises(OutputError, match=rf"lock is held by process {first.pid} .*kill {first.pid}"):
        simulation().run(output, quiet=True)
    assert fingerprint(output) == before
    first.kill()
    first.communicate()
    assert all_bytes(simulation().run(output, quiet=True)) == all_bytes(reference)


def test_driver_that_wakes_up_after_another_took_over(reference: Result, faults: Faults, spec: Path) -> None:
    """As after a lock that looked stale from another host, or that someone removed: the first writes nothing any more."""
    output = spec.with_suffix(".zarr")
    faults.set(Fault("stop", "before publish", r"small\.run/journal/000000\.jsonl"))
    first = start_driver(faults, spec, output)
    asleep = slept(faults)
    (output.with_suffix(".run") / "lock").unlink()
    result = simulation().run(output, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    asleep.resume()
    _, told = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "another run has taken" in told
    assert all_bytes(result) == all_bytes(reference)
    assert not list(output.with_suffix(".run").rglob("*.partial"))


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after publish", marks=pytest.mark.slow),
        pytest.param("before block", marks=pytest.mark.release),
    ],
)
def test_straggler_of_a_run_with_other_parameters(
    reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path, point: str
) -> None:
    """A worker that sleeps in the middle of a block, or of its files, wakes up in an output that is another run's by now."""
    output = tmp_path / "small.zarr"
    simulation(seed=12, keep=[]).save(tmp_path / "old.yaml")
    faults.set(Fault("stop", point, block=5))
    old = start_driver(faults, tmp_path / "old.yaml", output, address_of(client))
    straggler = slept(faults)
    old.kill()
    old.communicate()
    simulation().save(tmp_path / "new.yaml")
    faults.set(Fault("stop", "before publish", r"run/tables/cells\.parquet", times=2))
    new = start_driver(faults, tmp_path / "new.yaml", output, overwrite=True)
    sleeper = slept(faults, 1)  # all blocks are written, and the run goes on
    straggler.resume()
    wait_until(lambda: any(line.startswith("5 ") for line in faults.ended()))
    (told,) = (line for line in faults.ended() if line.startswith("5 "))
    assert ("FileNotFoundError" if point == "after publish" else "belongs to another run") in told
    sleeper.resume()
    _, errors = new.communicate(timeout=60)
    assert new.returncode == 0, errors
    result = Result.open(output)
    assert all_bytes(result) == all_bytes(reference)
    assert not (result.place.run / "scratch").exists()


@pytest.mark.slow
def test_scheduler_killed(reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path) -> None:
    """What was done is kept; on a new cluster the same command does the rest."""
    output = tmp_path / "small.zarr"
    faults.set(Fault("stop", "before block", block=12))
    with cluster(faults, tmp_path / "one") as (scheduler, address):
        driver = start_driver(faults, save(tmp_path), output, address)
        slept(faults)
        wait_until(lambda: bool(list(output.with_suffix(".run").glob("journal/*.jsonl"))), driver)
        scheduler.kill()
        _, told = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "scheduler" in told
    assert "type the same command" in told
    done = recorded(output).keys()
    assert 0 < len(done) < 16
    faults.set(None)
    before = faults.begun()
    with (
        cluster(faults, tmp_path / "two") as (_, address),
        distributed.Client(address, security=client.security, set_as_default=False) as other,  # type: ignore[no-untyped-call]
    ):
        result = simulation().run(output, client=other, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert faults.begun() - before == dict.fromkeys(set(BLOCKS) - done, 1)


def save(folder: Path) -> Path:
    """The spec as a file."""
    simulation().save(folder / "small.yaml")
    return folder / "small.yaml"


@contextlib.contextmanager
def cluster(faults: Faults, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler and a worker as `dask scheduler` and `dask worker` start them; yields the scheduler and its address."""
    folder.mkdir()
    file = folder / "scheduler.json"
    both = ["--host", "127.0.0.1", "--scheduler-file", str(file), "--no-dashboard", "--protocol", "tls"]

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", "dask", *arguments, *both]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=environment(faults.folder), cwd=folder, stdout=quiet, stderr=quiet)

    scheduler = start("scheduler", "--port", "0")
    worker = start("worker", "--nthreads", "1", "--no-nanny", "--death-timeout", "20")
    try:
        wait_until(file.exists, scheduler)
        yield scheduler, json.loads(file.read_text())["address"]
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
