"""A private, real Slurm of two nodes on this machine, with a stand-in for LSF's commands on top of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from simexm.api import Simulation
from tests.run.conftest import cells, fingerprint, labels, spec, stored

__all__ = ["cells", "fingerprint", "labels", "stored"]

HERE = Path(__file__).parent
NODES, CPUS = 2, 8  # more than this machine has, which Slurm believes


@dataclass(frozen=True)
class Lab:
    """The running Slurm; its files are under `folder`."""

    folder: Path

    def queue(self) -> dict[str, str]:
        """State of every job that has not ended, by id, asked of Slurm itself."""
        out = subprocess.run(["squeue", "-h", "-a", "-o", "%A %T"], check=True, capture_output=True, text=True).stdout
        return dict(line.split() for line in out.splitlines())

    def running(self) -> list[str]:
        return sorted(job for job, state in self.queue().items() if state == "RUNNING")

    def ended(self, job: str) -> str:
        """How a job ended: COMPLETED, CANCELLED, TIMEOUT, FAILED, ...; empty while it has not."""
        log = self.folder / "log" / "jobcomp.log"
        text = log.read_text() if log.exists() else ""
        found = re.search(rf"^JobId={job} .*?JobState=(\w+)", text, flags=re.MULTILINE)
        return found[1] if found else ""


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for something to become true; the time only ends a test that hangs, so it is long enough for a slow machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def _free_ports(number: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(26800, 32000, number):
        sockets = [socket.socket() for _ in range(number)]
        try:
            for n, one in enumerate(sockets):
                one.bind(("", first + n))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise OSError("no free ports")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A Slurm of our own, from the first test that wants it to the last."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=path) is None]
    if missing and (os.getuid() != 0 or shutil.which("apt-get") is None):
        pytest.skip(
            f"no Slurm to test batch queues with: {', '.join(missing)} missing, and only root on Debian or Ubuntu can install "
            "it here; install munge, slurmctld, slurmd and slurm-client"
        )
    folder = Path(tempfile.mkdtemp(prefix="simexm-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    environment = os.environ | {"SLURM_LAB_NODES": str(NODES), "SLURM_LAB_CPUS": str(CPUS)}
    with (Path(tempfile.gettempdir()) / "simexm-start-slurm.lock").open("w") as alone:
        fcntl.flock(
            alone, fcntl.LOCK_EX
        )  # processes that test side by side would install at once, and choose the same ports
        environment["SLURM_LAB_PORT"] = str(_free_ports(NODES + 1))
        words = [HERE / "start-slurm", folder]
        started = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
        assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("LSF_ENVDIR", str(folder / "lsf"))
        patch.setenv("PATH", f"{HERE / 'lsf-shim'}:{path}")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]).strip(":"))
        lab = Lab(folder)
        try:
            yield lab
            assert lab.queue() == {}, "jobs are left in the queue"
        finally:
            subprocess.run([HERE / "stop-slurm", folder], check=False, timeout=120)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def empty_queue(lab: Lab) -> Iterator[None]:
    """Every test finds the queue empty, and leaves it so."""
    assert lab.queue() == {}
    try:
        yield
        until(lambda: not lab.queue(), 5, "the queue is empty after the test")
    finally:
        subprocess.run(["scancel", "--signal=KILL", "--full", *lab.queue()], check=False, capture_output=True)
        until(lambda: not lab.queue(), 30, "jobs are cancelled")


def cluster_file(folder: Path, kind: str = "slurm", **changes: Any) -> Path:
    """Write a cluster file for the lab: two workers a job, on the loopback interface, with TLS."""
    usual = {
        "kind": kind,
        "queue": "normal",
        "walltime": "00:10:00" if kind == "slurm" else "00:10",
        "workers": 2,
        "memory_per_worker": "2 GiB",
        "interface": "lo",
        "death_timeout_s": 10,
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**usual, **changes}.items() if v is not None}))
    return path


def command(*words: str | Path) -> list[str]:
    """`simexm WORDS`."""
    return [sys.executable, "-W", "ignore", "-m", "simexm.cli", *map(str, words)]


def simexm(*words: str | Path, cwd: Path, seconds: float = 150) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=seconds)


@pytest.fixture(scope="session")
def my_yaml(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of 18 blocks in tiles so small that each takes about a second."""
    path = tmp_path_factory.mktemp("spec") / "my.yaml"
    Simulation.from_mapping(spec(stored)).with_tile((2, 12, 12)).save(path)
    return path


@pytest.fixture(scope="session")
def reference(my_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run of it on this machine writes."""
    folder = tmp_path_factory.mktemp("reference")
    done = simexm("run", my_yaml, "--workers", "2", "--output", "out.zarr", cwd=folder)
    assert done.returncode == 0, done.stderr
    return fingerprint(folder / "out.zarr")
