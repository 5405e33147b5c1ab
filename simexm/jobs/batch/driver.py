"""Submit the driver itself as a batch job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dask

from simexm.errors import OutputError
from simexm.jobs.batch import options, scripts
from simexm.jobs.batch.cluster_file import BatchFile
from simexm.jobs.batch.queues import QUEUES, Queue, SubmitError
from simexm.jobs.batch.record import Record


def script(file: BatchFile, folder: Path, here: Path, words: Sequence[str]) -> str:
    """Make the script of a job that runs `simexm WORDS` in the folder `here`, with its output in `folder`."""
    record = Record(folder)
    with dask.config.set({f"jobqueue.{file.kind}": options.defaults(file.kind)}):
        return scripts.driver_script(file, record.driver_name, record.folder, here, words)


def submit(file: BatchFile, folder: Path, here: Path, words: Sequence[str]) -> tuple[str, Queue, Path]:
    """Submit it; return the job's id, its queue, and the file of its output.

    Raises OutputError if a driver for this output is already in the queue, SubmitError if the queue refuses the job.
    """
    record, queue = Record(folder), QUEUES[file.kind]
    waiting = [job for job, state in (queue.states(record.driver_name) or {}).items() if state.phase != "ending"]
    if waiting:
        raise OutputError(
            f"job {waiting[0]} is a driver of the same output and has not ended: two would do all work twice. Wait for it, "
            f"or cancel it: {queue.cancel_command} {waiting[0]}"
        )
    text = script(file, folder, here, words)
    record.make()
    answer = queue.submit(text)
    found = re.search(r"\d+", answer)
    if found is None:
        raise SubmitError(f"{queue.submit_command} printed no job id: {answer.strip()!r}; check {queue.list_command}")
    record.write_driver(file.kind, found[0])
    return found[0], queue, record.log_of(f"driver-{found[0]}")
