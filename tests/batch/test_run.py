"""Runs in the jobs of a real queue: the bytes of a local run, whatever happens to jobs and driver; and no job is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import Lab, cluster_file, command, fingerprint, simexm, until
from tests.markdown import block

pytestmark = [
    pytest.mark.batch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


ROOT = Path(__file__).resolve().parents[2]


def submitted(folder: Path) -> list[str]:
    """Ids of the jobs that a run wrote down."""
    path = folder / "out.run" / "jobs" / "jobs.jsonl"
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


def blocks_done(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (folder / "out.run" / "journal").glob("*.jsonl"))


def start(my_yaml: Path, file: Path, jobs: int, folder: Path) -> subprocess.Popen[str]:
    words = command("run", my_yaml, "--cluster", file, "--jobs", str(jobs), "--output", "out.zarr")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell that puts the tests aside switches off
    return subprocess.Popen(words, cwd=folder, preexec_fn=hear, **pipes)


@pytest.mark.parametrize(("kind", "cancel"), [("slurm", "scancel"), ("lsf", "bkill")])
def test_bytes_of_a_local_run_though_a_job_is_cancelled(
    lab: Lab, my_yaml: Path, reference: dict[str, str], tmp_path: Path, kind: str, cancel: str
) -> None:
    """On a site that forbids --mem, so that memory is asked for in its own way."""
    own = {"options": {"job_directives_skip": ["--mem"]}, "directives": ["--mem-per-cpu=2G"]} if kind == "slurm" else {}
    driver = start(my_yaml, cluster_file(tmp_path, kind, workers=1, **own), 2, tmp_path)
    until(lambda: blocks_done(tmp_path) >= 1, 60, "a block is done")
    victim = lab.running()[0]
    if own:
        asked = subprocess.run(["scontrol", "show", "job", victim], check=True, capture_output=True, text=True).stdout
        assert "MinMemoryCPU=2G" in asked
        assert "MinMemoryNode" not in asked
    subprocess.run([cancel, victim], check=True, stdout=subprocess.DEVNULL)
    told, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, told
    assert lab.queue() == {}
    assert fingerprint(tmp_path / "out.zarr") == reference
    assert len(submitted(tmp_path)) == 3, told  # the cancelled job was replaced, and no other
    assert f"job {victim} has ended" in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_driver_leaves_no_job(lab: Lab, my_yaml: Path, tmp_path: Path, number: int, code: int) -> None:
    """Two jobs run, three wait."""
    driver = start(my_yaml, cluster_file(tmp_path, cores_per_worker=8, workers=1, jobs=5), 5, tmp_path)
    until(lambda: blocks_done(tmp_path) >= 1, 60, "a block is done")
    assert len(lab.queue()) == 5
    driver.send_signal(number)
    told, _ = driver.communicate(timeout=60)
    assert driver.returncode == code, told
    assert lab.queue() == {}
    assert not list((tmp_path / "out.run" / "jobs").glob("tls*")), "keys are left on the disk"


def test_jobs_of_a_killed_driver_end_by_themselves(lab: Lab, my_yaml: Path, tmp_path: Path) -> None:
    """Those that run lose their scheduler; those that wait begin, find none, and end after `death_timeout_s`."""
    driver = start(my_yaml, cluster_file(tmp_path, cores_per_worker=4), 3, tmp_path)
    until(lambda: blocks_done(tmp_path) >= 1, 60, "a block is done")
    assert sorted(lab.queue().values()) == ["PENDING", "RUNNING", "RUNNING"]
    driver.kill()
    driver.communicate(timeout=60)
    until(lambda: not lab.queue(), 60, "all three have ended")


def test_next_run_cancels_what_a_killed_driver_left(
    lab: Lab, my_yaml: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    file = cluster_file(tmp_path, death_timeout_s=600, directives=["--begin=now"])
    driver = start(my_yaml, file, 2, tmp_path)
    until(lambda: blocks_done(tmp_path) >= 1, 60, "a block is done")
    first = submitted(tmp_path)
    os.kill(driver.pid, signal.SIGSTOP)  # so that its jobs do not see it go before the next run begins
    held = subprocess.run(
        ["sbatch", "--parsable", "--hold", "-J", _name(tmp_path), "--wrap", "sleep 600", "-o", "/dev/null"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    driver.kill()
    driver.communicate(timeout=60)
    again = simexm("run", my_yaml, "--cluster", file, "--jobs", "2", "--output", "out.zarr", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert lab.queue() == {}
    assert lab.ended(held) == "CANCELLED"
    assert not set(first) & set(submitted(tmp_path))
    assert fingerprint(tmp_path / "out.zarr") == reference


def _name(folder: Path) -> str:
    """What the run's jobs are called in the queue."""
    entry = json.loads((folder / "out.run" / "jobs" / "jobs.jsonl").read_text().splitlines()[0])
    return str(entry["name"])


@pytest.mark.parametrize("kind", ["slurm", "lsf"])
def test_refused_job_is_told_in_the_queues_own_words(my_yaml: Path, tmp_path: Path, kind: str) -> None:
    done = simexm("run", my_yaml, "--cluster", cluster_file(tmp_path, kind, queue="no such; touch x"), cwd=tmp_path)
    assert done.returncode == 1
    assert "invalid partition specified: no such; touch x" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_jobs_that_end_before_a_worker_comes_end_the_run(my_yaml: Path, tmp_path: Path) -> None:
    file = cluster_file(tmp_path, prologue=["echo here is why; exit 1"])
    done = simexm("run", my_yaml, "--cluster", file, "--output", "out.zarr", cwd=tmp_path)
    assert done.returncode == 1
    assert "here is why" in done.stderr
    assert "prologue" in done.stderr


def test_readme_block(lab: Lab, my_yaml: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """As a user would: the file edited in the three places that it names, and fewer workers for this little machine."""
    text = (ROOT / "cluster_configs" / "slurm.yaml").read_text(encoding="utf-8")
    for old, new in (
        (r"account: .*\n", ""),
        ("queue: normal", "queue: normal"),
        ('"04:00:00"', '"00:20:00"'),
        ("workers: 8", "workers: 1"),
    ):
        text, changed = re.subn(f"(?m)^({old})" if old.startswith("account") else old, new, text, count=1)
        assert changed == 1
    (tmp_path / "cluster_configs").mkdir()
    (tmp_path / "cluster_configs" / "slurm.yaml").write_text(text)
    (tmp_path / "my.yaml").write_text(my_yaml.read_text())
    first, second, third, fourth = (
        shlex.split(line, comments=True)[1:] for line in block("docs/running.md", "simexm submit").text.splitlines()
    )
    assert simexm(*first, cwd=tmp_path).stdout.startswith("#!")
    assert lab.queue() == {}
    assert simexm(*second, cwd=tmp_path).returncode == 0
    assert fingerprint(tmp_path / "big.zarr") == reference
    assert simexm(*third, cwd=tmp_path).returncode == 0
    until(lambda: "blocks done" in simexm(*fourth, cwd=tmp_path).stdout, 60, "the status of the submitted run")
    driver = next(job for job in sorted(lab.queue(), key=int))
    subprocess.run(["scancel", driver], check=True)
    until(lambda: not lab.queue(), 60, "a cancelled driver cancels its jobs")
    assert simexm(*fourth, cwd=tmp_path).returncode == 0


def test_submitted_driver_runs_in_the_queue(lab: Lab, my_yaml: Path, reference: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "a folder's name"  # every value in a job script is quoted
    folder.mkdir()
    words: list[str | Path] = [
        "submit",
        my_yaml,
        "--cluster",
        cluster_file(tmp_path, workers=1),
        "--jobs",
        "1:2",
        "--output",
        "out.zarr",
    ]
    wrong = simexm(*words, cwd=folder)
    assert wrong.returncode == 2
    assert "choose another --output" in wrong.stderr
    folder = tmp_path / "a folder"
    folder.mkdir()
    done = simexm(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    (job,) = lab.queue()
    assert f"submitted job {job}" in done.stdout
    twice = simexm(*words, cwd=folder)
    assert twice.returncode == 2
    assert f"scancel {job}" in twice.stderr
    until(lambda: blocks_done(folder) >= 1, 90, "a block is done")
    told = json.loads(simexm("status", folder / "out.zarr", "--json", cwd=tmp_path).stdout)
    assert told["driver"]["alive"] is True
    assert told["blocks"] == 18
    assert told["done"] >= 1
    assert told["driver_job"]["id"] == job
    assert 1 <= sum(told["jobs"].values()) <= 2
    until(lambda: not lab.queue(), 120, "the driver's job has ended")
    assert lab.ended(job) == "COMPLETED"
    assert fingerprint(folder / "out.zarr") == reference
    assert "complete" in simexm("status", "out.zarr", cwd=folder).stdout
