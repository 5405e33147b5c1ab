"""Cluster files: what is wrong is told before anything starts, and no value can become a line of its own in a job script."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import simexm
from simexm.errors import SpecError
from simexm.jobs.batch.cluster_file import BatchFile, LsfFile, SlurmFile
from simexm.jobs.batch.driver import script
from simexm.jobs.batch.queues import JobState, describe
from simexm.jobs.batch.values import parse_jobs
from simexm.jobs.clusters import Cluster
from simexm.jobs.task import JOB_END
from tests.build import spec

CONFIGS = Path(__file__).resolve().parents[2] / "cluster_configs"
SLURM: dict[str, Any] = {"kind": "slurm", "walltime": "01:00:00", "memory_per_worker": "2 GiB"}
LSF: dict[str, Any] = {"kind": "lsf", "walltime": "01:00", "memory_per_worker": "2 GiB"}


@pytest.fixture(autouse=True)
def lsf_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lsf.conf").write_text("LSF_UNIT_FOR_LIMITS=MB\n")
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))


def load(folder: Path, data: dict[str, Any]) -> Cluster:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(data))
    return simexm.cluster(path)


@pytest.mark.parametrize("name", ["local", "slurm", "slurm_gpu", "lsf", "lsf_gpu"])
def test_shipped_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the scripts name the working directory
    made = simexm.cluster(CONFIGS / f"{name}.yaml")
    text = made.job_script()
    assert bool(text) == (name != "local")
    assert ("gpu" in re.sub(r"(?m)^#\w+ -[pqJ] .*", "", text)) == name.endswith("gpu")
    if name == "slurm":
        for line in ("-p normal", "-A my-account", "-t 04:00:00", "--cpus-per-task=8", "--mem=16G", "--no-requeue"):
            assert f"#SBATCH {line}\n" in text
    if name == "lsf":
        for line in ("-q normal", '-P "my-project"', "-W 04:00", "-n 8", '-R "span[hosts=1]"', "-M 17180"):
            assert f"#BSUB {line}\n" in text


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({**SLURM, "kind": "slrum"}, "'slrum' is unknown; the kind of a cluster is one of local, slurm, lsf"),
        ({**SLURM, "acount": "a"}, "the cluster file: there is no key 'acount'; did you mean 'account'?"),
        ({**SLURM, "project": "a"}, "there is no key 'project'"),
        ({**SLURM, "walltime": "60"}, "walltime: should be \"HH:MM:SS\""),
        ({**SLURM, "walltime": 43200}, "walltime: should be in quotes: without them YAML reads a time as a number"),
        ({**SLURM, "walltime": "00:00:59"}, "less than a minute"),
        ({**LSF, "walltime": "01:00:00"}, 'walltime: should be "HH:MM", as LSF counts'),
        ({**LSF, "walltime": "00:00"}, "less than a minute"),
        ({**SLURM, "memory_per_worker": 2}, "memory_per_worker: should be a number with its unit"),
        ({**SLURM, "memory_per_worker": "2 GBit"}, "memory_per_worker: should be a number with its unit"),
        ({**SLURM, "memory_per_worker": "10 MB"}, "less than any worker needs"),
        ({**SLURM, "jobs": "5:2"}, "jobs: in MIN:MAX jobs"),
        ({**SLURM, "jobs": "many"}, "jobs: should be a number of jobs"),
        ({**SLURM, "workers": 0}, "workers"),
        ({**SLURM, "gpu": "--gres=gpu:2"}, "should request one GPU, as --gres=gpu:1 does"),
        ({**SLURM, "gpu": "--gres=gpu:1", "workers": 2}, "set workers: 1"),
        ({**LSF, "gpu": "num=1"}, "gpu: should be an option of the queue"),
        ({**SLURM, "queue": "a\n#SBATCH --uid=0"}, "a line break would add lines to the job script"),
        ({**SLURM, "queue": "$(touch x)"}, "holds $"),
        ({**LSF, "project": 'a" -x "'}, 'holds "'),
        ({**SLURM, "directives": ["--exclusive\nrm"]}, "a line break"),
        ({**SLURM, "directives": ["exclusive"]}, "should be an option of the queue"),
        ({**SLURM, "options": {"local_dir": "/x"}}, "has no option 'local_dir' here; did you mean 'local_directory'?"),
        ({**SLURM, "options": {"cores": 4}}, "cores is set by the cluster file's own key 'workers'"),
        ({**SLURM, "options": {"lsf_units": "mb"}}, "SLURMCluster of the installed dask-jobqueue has no option 'lsf_units'"),
        ({**LSF, "options": {"header_skip": ["-n"]}}, "has no option 'header_skip'"),
        ({**SLURM, "options": {"job_directives_skip": "--mem"}}, "should be a list of options that the job scripts leave out"),
        ({**SLURM, "options": {"job_directives_skip": [""]}}, "should be a list of options"),
        ({**LSF, "options": {"job_directives_skip": ["-J"]}}, "holds -J, the job's name"),
        ({"kind": "slurm"}, "walltime is missing"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path: Path, data: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as error:
        load(tmp_path, data)
    assert told in str(error.value)


def test_options_of_the_installed_class_reach_the_job(tmp_path: Path) -> None:
    text = load(
        tmp_path, {**SLURM, "options": {"local_directory": "/scratch dir", "job_directives_skip": ["-n 1"]}}
    ).job_script()
    assert "--local-directory '/scratch dir'" in text
    assert "#SBATCH -n 1\n" not in text


@pytest.mark.parametrize(("data", "option"), [(SLURM, "--mem"), (LSF, "-M")], ids=["slurm", "lsf"])
def test_what_a_site_forbids_is_left_out_of_all_jobs(tmp_path: Path, data: dict[str, Any], option: str) -> None:
    """From the workers' jobs and the driver's; and no other line goes with it."""
    usual = load(tmp_path, {**data, "options": {}})
    without = load(tmp_path, {**data, "options": {"job_directives_skip": [option]}})
    for text_of in (
        lambda made: made.job_script(tmp_path / "x-M--mem.run/jobs"),
        lambda made: script(made.file, tmp_path / "x-M--mem.run/jobs", tmp_path, ["run"]),
    ):
        lines = [line for line in text_of(usual).splitlines() if line not in text_of(without).splitlines()]
        assert [line.split()[1].split("=")[0] for line in lines] == [option]


def test_the_queue_library_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    code = "from simexm.jobs.batch import options; options.names('slurm'); import dask; print(dask.config.PATH)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == str(tmp_path / ".config/dask")  # where the user's own settings are read
    assert not (tmp_path / ".config").exists()


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("kind: !!python/object/apply:os.system ['touch x']\n")
    with pytest.raises(SpecError, match="not valid YAML"):
        simexm.cluster(path)


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="\"'`$\\\x85\u2028\u2029"), min_size=1
).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(queue=words, account=words, python=words, scratch=words)
def test_every_value_is_quoted(queue: str, account: str, python: str, scratch: str) -> None:
    """What a queue and a shell read back from the script are the very values of the file."""
    options = {"local_directory": scratch}
    common = {"memory_per_worker": "2 GiB", "python": python, "queue": queue, "options": options, "interface": "lo"}
    for file, prefix, pays in (
        (
            SlurmFile.model_validate({**common, "kind": "slurm", "walltime": "01:00:00", "account": account}),
            "#SBATCH",
            "-A",
        ),
        (LsfFile.model_validate({**common, "kind": "lsf", "walltime": "01:00", "project": account}), "#BSUB", "-P"),
    ):
        lines = Cluster(file).job_script(Path("/some where/jobs")).splitlines()
        found = dict(
            shlex.split(line)[1:3] for line in lines if line.startswith(f"{prefix} -") and len(shlex.split(line)) == 3
        )
        assert found["-p" if prefix == "#SBATCH" else "-q"] == queue
        assert found[pays] == account
        assert found["-o"].startswith("/some where/jobs/%")
        last = shlex.split(next(line for line in reversed(lines) if line))
        assert last[:3] == [python, "-m", "distributed.cli.dask_worker"]
        assert last[last.index("--local-directory") + 1] == scratch
        told = ["run", "it's.yaml", "--output", queue]
        driven = script(file, Path("/some where/jobs"), Path(f"/{scratch}"), told).splitlines()
        assert shlex.split(driven[-1]) == ["exec", python, "-m", "simexm.cli", *told]
        assert shlex.split(driven[-2]) == ["cd", str(Path(f"/{scratch}"))]


def test_job_knows_its_end(tmp_path: Path) -> None:
    line = next(x for x in load(tmp_path, {**LSF, "walltime": "02:30"}).job_script().splitlines() if JOB_END in x)
    ends = subprocess.run(
        ["bash", "-c", f"cut -d. -f1 /proc/uptime; {line}; echo ${JOB_END}"], capture_output=True, text=True, check=True
    )
    now, end = map(int, ends.stdout.split())
    assert end - now in (9000, 9001)


@pytest.mark.parametrize(("given", "jobs"), [(4, (4, 4)), ("4", (4, 4)), ("2:10", (2, 10)), ((0, 3), (0, 3))])
def test_number_of_jobs(given: Any, jobs: tuple[int, int]) -> None:
    assert parse_jobs(given) == jobs


def test_ctrl_c_is_pythons_own() -> None:
    """Importing dask-jobqueue would make it end the program with status 0."""
    code = (
        "import signal, simexm; signal.signal(2, signal.default_int_handler); simexm.cluster('slurm.yaml'); "
        "print(signal.getsignal(2) is signal.default_int_handler)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CONFIGS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_users_configuration_of_dask_changes_no_job(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.yaml").write_text("jobqueue: {slurm: {shebang: '#!/bin/evil', account: theirs}}\n")
    code = f"import simexm; print(simexm.cluster({str(CONFIGS / 'slurm.yaml')!r}).job_script())"
    environment = os.environ | {"DASK_CONFIG": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "#!/usr/bin/env bash" in done.stdout
    assert "evil" not in done.stdout


def test_queue_in_one_line() -> None:
    states = {
        "1": JobState("running", where="n1"),
        "2": JobState("waiting", "Priority"),
        "3": JobState("waiting", "Resources"),
    }
    assert describe(states) == "jobs 1 running: 1; 2 waiting (Priority, Resources): 2, 3"
    assert describe(None) == "the queue does not answer"


def test_every_key_is_explained() -> None:
    """The docstring is the reference of the keys."""
    assert BatchFile.__doc__ is not None
    for name in BatchFile.model_fields:
        assert name == "kind" or re.search(rf"(?m)^    .*\b{name}\b", BatchFile.__doc__), name


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_plan_that_needs_more_memory_than_a_worker_has_is_refused(tmp_path: Path) -> None:
    """Before anything starts, with what to set instead."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({**SLURM, "memory_per_worker": "300 MiB"}))
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    simulation = simexm.Simulation.from_mapping(spec() | {"source": phantom})
    with pytest.raises(SpecError, match=r"set memory_per_worker to 0\.\d GiB or more"):
        simulation.run(tmp_path / "out.zarr", cluster=simexm.cluster(tmp_path / "cluster.yaml"))
    assert not (tmp_path / "out.zarr").exists()
