"""What limits memory: control groups, batch jobs, the shell; each is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simexm.machine import MiB, memory_limits
from tests.run.conftest import spec

GIVEN = 3000 * MiB
USED = 1000 * MiB
CACHED = 200 * MiB


def group(folder: Path, version: int, limit: int | None) -> None:
    """Write the kernel's files of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    most, used, prefix = (
        ("memory.max", "memory.current", "")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    )
    none = "max" if version == 2 else str(2**63 - 4096)
    (folder / most).write_text(f"{none if limit is None else limit}\n")
    (folder / used).write_text(f"{USED}\n")
    (folder / "memory.stat").write_text(f"{prefix}inactive_file {CACHED - 1}\n{prefix}active_file 1\nanon 5\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limited", ["", "jobs", "jobs/mine"])
def test_a_control_group_above_limits_its_children(tmp_path: Path, version: int, limited: str) -> None:
    mount = tmp_path / "cgroup" / ("memory" if version == 1 else "")
    for name in ("", "jobs", "jobs/mine"):
        group(mount / name, version, GIVEN if name == limited else None)
    (tmp_path / "cgroup" / "memory").mkdir(exist_ok=True)
    line = "4:memory:/jobs/mine" if version == 1 else "0::/jobs/mine"
    (tmp_path / "cgroup-file").mkdir()
    (tmp_path / "cgroup-file" / "cgroup").write_text(f"12:cpu,cpuacct:/\n{line}\n")
    found = [m for m in memory_limits(tmp_path / "cgroup", tmp_path / "cgroup-file", {}) if "control group" in m.name]
    assert [m.nbytes for m in found] == [GIVEN - USED + CACHED]
    assert str(mount / limited) in found[0].name


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A control group of 900 MiB of this machine, where it lets us make one."""
    folder = Path("/sys/fs/cgroup/memory") / f"simexm-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(900 * MiB))
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_real_control_group_is_found(real_group: Path) -> None:
    code = "from simexm.machine import memory_limits as m; print(m()[0])"
    entered = f"echo $$ > {real_group / 'cgroup.procs'} && exec {sys.executable} -c '{code}'"
    told = subprocess.run(["bash", "-c", entered], capture_output=True, text=True, check=True).stdout
    assert str(real_group) in told
    assert "900 MiB" in told


@pytest.mark.parametrize(
    ("environment", "nbytes"),
    [
        ({"SLURM_MEM_PER_NODE": "4000"}, 4000 * MiB),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "6"}, 3000 * MiB),
        ({"SLURM_MEM_PER_CPU": "500"}, 500 * MiB),
        ({"LSB_MEMLIMIT": "2048000"}, 2000 * MiB),
        ({"LSB_CG_MEMLIMIT": "0x7d000000"}, 2000 * MiB),
        ({"SLURM_MEM_PER_NODE": "0"}, None),  # all of the node
        ({"SLURM_MEM_PER_NODE": "many"}, None),
    ],
)
def test_the_memory_of_a_batch_job_counts(environment: dict[str, str], nbytes: int | None, tmp_path: Path) -> None:
    before, found = (
        [m for m in memory_limits(tmp_path, tmp_path, e) if "batch job" in m.name] for e in ({}, environment)
    )
    assert not before
    if nbytes is None:
        assert not found
        return
    # less what this process holds already
    assert nbytes - 4096 * MiB < found[0].nbytes < nbytes
    assert next(iter(environment)) in found[0].name


@pytest.mark.parametrize("option", ["-v", "-d"])
def test_a_shell_that_leaves_too_little_is_named(option: str) -> None:
    words = f"ulimit {option} 100000; exec {sys.executable} -m simexm.cli fluorophores"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"ulimit {option} 100000" in done.stderr
    assert f"`ulimit {option} unlimited`" in done.stderr
    assert "fault" not in done.stderr


LOWERED = """
import json, resource, sys, warnings
from simexm.run.backend import Backend
from simexm.errors import SpecError
from simexm.machine import ADDRESS_BYTES, MiB
from simexm.api import Simulation

plan = Simulation.from_mapping(json.loads(sys.argv[1])).plan()
for most in (plan.memory.at_once(2), plan.memory.at_once(1), plan.memory.total - 2):
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES + most + 1, -1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            backend = Backend.of(plan)
            print(backend.threads, backend.workers, [str(w.message) for w in told])
        except SpecError as error:
            print(error)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two threads need two cores")
def test_little_memory_lowers_the_number_of_threads_and_names_the_limit() -> None:
    data = json.dumps(spec("-") | {"source": {"kind": "phantom", "shape": (64, 128, 128)}})
    words = [sys.executable, "-W", "ignore", "-c", LOWERED, data]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    many, one, none = told.stdout.splitlines()
    assert many.split()[0] == "True"
    assert int(many.split()[1]) >= 2
    assert one.startswith("True 1 ")
    assert "1 instead of " in one
    assert "ulimit -v" in one
    assert "a worker needs" in none
    assert "ulimit -v" in none


def test_plan_warns_where_a_run_would_be_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(spec("-") | {"source": {"kind": "phantom", "shape": (24, 64, 64)}}))
    words = f"ulimit -v 1200000; exec {sys.executable} -m simexm.cli %s {tmp_path / 'a.json'}"
    plan, run = (subprocess.run(["bash", "-c", words % w], capture_output=True, text=True) for w in ("plan", "run"))
    assert (plan.returncode, run.returncode) == (0, 2)
    assert "ulimit -v 1200000" in plan.stderr
    assert run.stderr.splitlines()[-1].removeprefix("error: ") in plan.stderr
