"""A Dask cluster whose workers run in batch jobs, and the jobs that keep up their number.

dask-jobqueue makes the job scripts, starts the scheduler, and holds the jobs. But its `adapt` never replaces a job of
several workers, nor one that was cancelled while it waited (both tried with 0.9.0), and it only logs why the queue refused
a job. So the driver asks the queue itself, one command for all jobs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distributed.core import Status

from simexm.errors import RunError
from simexm.jobs.batch import options, scripts
from simexm.jobs.batch.cluster_file import BatchFile
from simexm.jobs.batch.queues import QUEUES, JobState, SubmitError, describe
from simexm.jobs.batch.record import Record
from simexm.jobs.nodes import DashboardLink

_ASK_S, _ASK_SOON_S = 10.0, 2.0  # between two queries of the queue, normally and after a change of jobs or workers
_SOON_FOR_S = 20.0
_ASK_PER_JOB_S = 0.01  # added for each job: with many, some start or end at any time
_REPEAT_S = 60.0  # between two equal messages
_LISTED_S = 15.0  # a job that was just submitted may not be listed yet
_REFUSED_S = 60.0  # between a refused job and the next attempt
_MOST_FAILED = 3  # jobs in a row that ended without a worker, or were refused; they end the run


@functools.cache
def cluster_class(kind: str) -> Any:
    """Make a subclass of dask-jobqueue's cluster for a kind of queue."""
    base = options.cluster_class(kind)
    queue = QUEUES[kind]

    class Job(base.job_cls):  # type: ignore[name-defined, misc]
        def __init__(
            self,
            scheduler: str,
            *,
            python: str,
            job_script_prologue: list[str],
            submitted: Callable[[str], None] | None = None,
            **kwargs: Any,
        ) -> None:
            lines = [*job_script_prologue, *scripts.address_lines(python, scheduler, kwargs["interface"])]
            super().__init__(scheduler, python=python, job_script_prologue=lines, **kwargs)
            self.submitted = submitted

        async def _submit_job(self, script_filename: str) -> str:
            """Submit by standard input, which every queue reads, and record the job's id at once."""
            script = Path(script_filename).read_text(encoding="utf-8")
            answer = await asyncio.to_thread(queue.submit, script)
            if self.submitted is not None:
                self.submitted(self._job_id_from_submit_output(answer))
            return answer

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    class Cluster(DashboardLink, base):  # type: ignore[misc, valid-type]
        job_cls = Job

        def new_worker_spec(self) -> dict[str, Any]:
            """Use a new name for each job: the scheduler refuses a worker whose name it still knows."""
            self._i += 1
            spec: dict[str, Any] = super().new_worker_spec()
            return spec

        def _get_worker_security(self, security: Any) -> None:
            """Return none: certificates are set in the job script, since paths are not quoted on the command line."""

    return Cluster


class Jobs:
    """The jobs of one cluster of dask-jobqueue."""

    def __init__(self, cluster: Any, file: BatchFile, record: Record, limits: tuple[int, int]) -> None:
        self.cluster = cluster
        self.file = file
        self.queue = QUEUES[file.kind]
        self.record = record
        self.least, self.most = limits
        self._first_seen_s: dict[str, float] = {}
        self._listed: set[str] = set()
        self._successful: set[str] = set()  # jobs that had a worker
        self._failed: list[str] = []  # jobs in a row that ended without a worker
        self._refused: SubmitError | None = None
        self._refusals = 0
        self._refused_s = 0.0
        self._asked_s = self._message_s = -1e9
        self._workers = -1
        self._changed_s = -1e9
        self._ending = False  # whether the workers of a listed job are gone
        self._message = ""

    @property
    def workers(self) -> int:
        """Number of connected workers."""
        return len(self.cluster.scheduler.workers)

    def keep(self, left: int | None = None) -> list[str]:
        """Submit or cancel jobs up to the number wanted, if a query is due; return messages for the user.

        `left` is the number of blocks that are not done yet, if known. Raises RunError if the queue accepts no job, or jobs
        end before a worker connects.
        """
        now, workers = time.monotonic(), self.workers
        if workers != self._workers or self._ending:
            self._workers, self._changed_s = workers, now
        pause = _ASK_SOON_S if now - self._changed_s < _SOON_FOR_S else _ASK_S
        if now - self._asked_s < pause + _ASK_PER_JOB_S * len(self.cluster.worker_spec):
            return []
        self._asked_s = now
        states = self.queue.states(self.record.name)
        if states is None:
            return self._once(describe(None))
        before = set(self.cluster.worker_spec)
        messages: list[str] = self.cluster.sync(self._adjust, states, self._wanted(left), now)
        if before != set(self.cluster.worker_spec):
            self._changed_s = now
            states = self.queue.states(self.record.name) or {}
            self._listed |= states.keys()
        self.record.write_state(self.queue.kind, states, workers)
        if self._refused is not None and self._refused_s == now:
            messages.append(str(self._refused))
            if not self.cluster.worker_spec and (self._refusals >= _MOST_FAILED or not self._first_seen_s):
                raise self._refused
        if len(self._failed) >= _MOST_FAILED and not workers:
            raise self._no_worker_error()
        return messages + ([] if workers else self._once(f"no worker yet; {describe(states)}"))

    def _job_of(self, worker: Any) -> str:
        """Return the name of a worker's job; with several workers a job, their names end with a number."""
        name = str(worker.name)
        return name.rpartition("-")[0] if self.file.workers > 1 else name

    def _wanted(self, left: int | None) -> int:
        if left is None:
            return self.most
        return max(1, self.least, min(self.most, -(-left // self.file.workers)))

    def _once(self, text: str) -> list[str]:
        if text == self._message and time.monotonic() - self._message_s < _REPEAT_S:
            return []
        self._message, self._message_s = text, time.monotonic()
        return [text]

    async def _adjust(self, states: Mapping[str, JobState], wanted: int, now: float) -> list[str]:
        """Drop jobs that have ended, and submit or cancel up to the number wanted; runs on the scheduler's event loop."""
        cluster = self.cluster
        connected = {self._job_of(worker) for worker in cluster.scheduler.workers.values()}
        messages, alive = [], {job for job, state in states.items() if state.phase != "ending"}
        self._listed |= alive
        self._ending = False
        for name, job in list(cluster.workers.items()):
            first_seen_s = self._first_seen_s.setdefault(name, now)
            if name in connected:
                self._successful.add(name)
                self._failed.clear()
            elif job.job_id in alive:
                self._ending |= name in self._successful
            elif job.job_id in self._listed or now - first_seen_s > _LISTED_S:
                if name in self._successful:
                    messages.append(f"job {job.job_id} has ended")
                else:
                    self._failed.append(job.job_id)
                    messages.append(f"job {job.job_id} has ended before a worker connected")
                job.job_id = None  # nothing to cancel
                cluster.worker_spec.pop(name, None)
        await self._shrink(wanted)
        if self._refused is None or now - self._refused_s > _REFUSED_S:
            while len(cluster.worker_spec) < wanted:
                cluster.worker_spec.update(cluster.new_worker_spec())
        try:
            await cluster._correct_state()
        except SubmitError as error:
            self._refused, self._refused_s = error, now
            self._refusals += 1
        else:
            if len(cluster.worker_spec) >= wanted and self._refused_s != now:
                self._refused, self._refusals = None, 0
        for name, job in list(cluster.workers.items()):
            if job.job_id is None:
                job.status = Status.failed
                del cluster.workers[name]
                cluster.worker_spec.pop(name, None)
            else:
                self._first_seen_s.setdefault(name, now)
        return messages

    async def _shrink(self, wanted: int) -> None:
        """Cancel jobs that are not needed any more: waiting ones first, then those with idle workers."""
        cluster = self.cluster
        surplus = len(cluster.worker_spec) - wanted
        if surplus <= 0:
            return
        of_job: dict[str, list[Any]] = {name: [] for name in cluster.worker_spec}
        for worker in cluster.scheduler.workers.values():
            if (name := self._job_of(worker)) in of_job:
                of_job[name].append(worker)
        idle = [name for name, workers in of_job.items() if not any(worker.processing for worker in workers)]
        idle.sort(key=lambda name: len(of_job[name]))
        for name in idle[:surplus]:
            addresses = [worker.address for worker in of_job[name]]
            if addresses:
                await cluster.scheduler.retire_workers(addresses, close_workers=True)
            cluster.worker_spec.pop(name, None)  # `_correct_state` cancels it

    def _no_worker_error(self) -> RunError:
        job = self._failed[-1]
        tail = self.record.log_tail(job)
        printed = f"; the last printed\n{tail}\n" if tail else f", and {self.record.log_of(job)} is empty; "
        return RunError(
            f"{len(self._failed)} jobs in a row ({', '.join(self._failed[-_MOST_FAILED:])}) ended before a worker connected"
            f"{printed}Check python, prologue, interface, walltime and memory_per_worker in the cluster file"
        )
