"""Runs in whatever a user's program is: threads, an event loop, forks, a pool, a script without a guard; and put to sleep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simexm.api import Simulation
from simexm.result.result import Result
from tests.faults.faults import ROOT, all_bytes, simulation

HEAD = """
import asyncio, multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore")
import simexm
simulation = simexm.Simulation.load("small.yaml")

def run(name, workers=2):
    simulation.run(f"{name}.zarr", workers=workers, quiet=True)

"""
PROGRAMS = {
    "module level, without a guard": "run('a')",
    "a running event loop": """
async def inside():
    run('a')

asyncio.run(inside())
""",
    "two threads": """
before = dict(os.environ)
names = {name: vars(sys.modules["__main__"])[name] for name in ("__file__", "__spec__")}
threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
threads[0].start()
threading.Event().wait(1.0)  # they overlap, and the first does not end last
threads[1].start()
for thread in threads:
    thread.join()
assert dict(os.environ) == before
assert {name: vars(sys.modules["__main__"])[name] for name in names} == names
""",
    "forks, before and after there were workers": """
def fork(name, workers):
    child = os.fork()
    if not child:
        try:
            run(name, workers)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

fork('a', None)
fork('b', 1)
run('c', 1)
fork('d', 1)
fork('e', None)
""",
    "a pool": """
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            pool.starmap(run, [(f"{method}-none", None), (f"{method}-one", 1)])
""",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tiny().run(tmp_path_factory.mktemp("reference") / "small.zarr", quiet=True)


@pytest.fixture(scope="module")
def slow_reference(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return simulation().run(tmp_path_factory.mktemp("slow") / "small.zarr", quiet=True)


def tiny() -> Simulation:
    return simulation(source={"kind": "phantom", "shape": (20, 70, 70)})


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
@pytest.mark.parametrize("program", [pytest.param(text, id=name) for name, text in PROGRAMS.items()])
def test_a_run_works_in(program: str, reference: Result, tmp_path: Path) -> None:
    tiny().save(tmp_path / "small.yaml")
    (tmp_path / "program.py").write_text(HEAD + program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results = sorted(tmp_path.glob("*.zarr"))
    assert results
    for path in results:
        assert all_bytes(Result.open(path)) == all_bytes(reference), path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_a_run_goes_on_after_it_slept(slow_reference: Result, tmp_path: Path) -> None:
    """For longer than Dask's connections may be silent (30 s): the driver alone, a worker alone, and all; three runs at once."""
    simulation().save(tmp_path / "small.yaml")
    runs: dict[str, subprocess.Popen[str]] = {}
    asleep: list[psutil.Process] = []
    for who in ("driver", "worker", "all"):
        driver = runs[who] = start(tmp_path, f"{who}.zarr")
        assert driver.stderr is not None
        assert any("running on 2 workers" in line for line in driver.stderr)
        workers = [p for p in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        assert len(workers) == 2
        chosen = {"driver": [], "worker": workers[:1], "all": workers}[who]
        chosen += [psutil.Process(driver.pid)] if who != "worker" else []
        for process in chosen:
            process.suspend()
        asleep += chosen
    time.sleep(40)
    assert all(driver.poll() is None for driver in runs.values())
    for process in asleep:
        process.resume()
    for who, driver in runs.items():
        _, told = driver.communicate(timeout=120)
        assert driver.returncode == 0, told
        assert "died" not in told
        assert all_bytes(Result.open(tmp_path / f"{who}.zarr")) == all_bytes(slow_reference), who


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    """Begin a run of two workers."""
    command = [sys.executable, "-m", "simexm.cli", "run", "small.yaml", "--output", output, "--workers", "2"]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
