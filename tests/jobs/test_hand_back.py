"""Workers whose batch job is near its end hand blocks back, and nobody is blamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from simexm.errors import RunError
from simexm.jobs.events import Event, Retried, WorkerLost
from simexm.jobs.executor import execute
from simexm.jobs.journal import Journal
from simexm.jobs.local_cluster import local_client
from simexm.jobs.task import JOB_END, uptime_s
from tests.jobs.blocks import counts, note, runs


def end_job(in_s: float) -> None:
    """Tell a worker when its job ends."""
    os.environ[JOB_END] = str(uptime_s() + in_s)


def test_blocks_of_an_ending_job_are_done_elsewhere_and_once(tmp_path: Path) -> None:
    events: list[Event] = []
    with local_client(2, dashboard=False) as client:
        threads: Any = client.nthreads
        ending, other = threads()
        client.run(end_job, 8.0, workers=[ending])  # five of them are kept for handing over
        outcome = execute(
            client=client, function=note, context={"folder": str(tmp_path), "seconds": 0.2}, blocks=range(60),
            journal=Journal.open(tmp_path / "journal", "hash"), listeners=[events.append],
        )  # fmt: skip
        assert set(threads()) == {other}, "the worker has ended, for its job to end"
    assert (outcome.done, outcome.failed_count) == (60, 0)
    assert set(counts(tmp_path).values()) == {1}
    assert {worker for _, worker in runs(tmp_path)} == {ending, other}
    assert not [e for e in events if isinstance(e, WorkerLost | Retried)]
    records = Journal(tmp_path / "journal", "hash").records()
    assert {record.attempt for record in records} == {1}


@pytest.mark.slow
def test_jobs_too_short_for_a_single_block_end_the_run(tmp_path: Path) -> None:
    with local_client(4, dashboard=False) as client:
        client.run(end_job, 3.0)
        with pytest.raises(RunError, match="longer walltime in the cluster file"):
            execute(
                client=client, function=note, context={"folder": str(tmp_path)}, blocks=range(60),
                journal=Journal.open(tmp_path / "journal", "hash"),
            )  # fmt: skip
    assert not counts(tmp_path)
