"""A Dask cluster whose workers live in batch jobs, and the keeping of their number.

dask-jobqueue makes the job scripts, starts the scheduler, and holds the jobs. What it does not do is done here. Its
`adapt` never replaces a job of several workers, nor one that was cancelled while it waited (both tried with 0.9.0), and
it only logs what the queue says to a job that it refuses. So the driver asks the queue itself, one command for all jobs.
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
from simexm.jobs.batch.queues import QUEUES, JobState, SubmitError, tell
from simexm.jobs.batch.record import Record
from simexm.jobs.nodes import DashboardLink

_ASK_S, _ASK_SOON_S = 10.0, 2.0  # how often the queue is asked, and how soon after jobs or workers came or went
_SOON_FOR_S = 20.0
_ASK_PER_JOB_S = 0.01  # the more jobs, the less often: there are always some that come or go
_TELL_S = 60.0
_LISTED_S = 15.0  # a job that was just submitted may not be listed yet
_REFUSED_S = 60.0  # until a job is submitted again after one was refused
_BARREN = 3  # so many jobs in a row that ended without a worker end the run


@functools.cache
def cluster_class(kind: str) -> Any:
    """The class of dask-jobqueue with what it lacks."""
    base = options.cluster_class(kind)
    queue = QUEUES[kind]

    class Job(base.job_cls):  # type: ignore[name-defined]
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
            """By standard input, which each queue takes; what the queue says is kept, and the id written down at once."""
            script = Path(script_filename).read_text(encoding="utf-8")
            said = await asyncio.to_thread(queue.submit, script)
            if self.submitted is not None:
                self.submitted(self._job_id_from_submit_output(said))
            return said

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    class Cluster(DashboardLink, base):  # type: ignore[misc, valid-type]
        job_cls = Job

        def new_worker_spec(self) -> dict[str, Any]:
            """Under a name that no job had: the scheduler turns away a worker whose name it still knows."""
            self._i += 1
            spec: dict[str, Any] = super().new_worker_spec()
            return spec

        def _get_worker_security(self, security: Any) -> None:
            """Not on the workers' command line, where paths would stand unquoted: see `scripts`."""

    return Cluster


class Jobs:
    """The jobs of one cluster.

    Attributes
    ----------
    cluster
        dask-jobqueue's.
    record
        Where they are written down.
    """

    def __init__(self, cluster: Any, file: BatchFile, record: Record, limits: tuple[int, int]) -> None:
        self.cluster = cluster
        self.file = file
        self.queue = QUEUES[file.kind]
        self.record = record
        self.least, self.most = limits
        self._born: dict[str, float] = {}  # when a job was first met here
        self._listed: set[str] = set()
        self._fruitful: set[str] = set()  # jobs of which a worker came
        self._barren: list[str] = []
        self._refused: SubmitError | None = None
        self._refusals = 0
        self._refused_s = 0.0
        self._asked_s = self._told_s = -1e9
        self._workers = -1
        self._changed_s = -1e9
        self._ending = False  # whether a job's workers are gone, but the job is not
        self._told = ""

    @property
    def workers(self) -> int:
        """Workers that are connected."""
        return len(self.cluster.scheduler.workers)

    def keep(self, left: int | None = None) -> list[str]:
        """See to it that as many jobs are in the queue as are wanted, if it is time to look; what a person should know.

        Parameters
        ----------
        left
            Blocks that are not done yet, where that is known.

        Raises
        ------
        RunError
            The queue takes no job, or jobs end before a worker comes.
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
            return self._say(tell(None))
        held = set(self.cluster.worker_spec)
        told: list[str] = self.cluster.sync(self._adjust, states, self._wanted(left), now)
        if held != set(self.cluster.worker_spec):
            self._changed_s = now
            states = self.queue.states(self.record.name) or {}
            self._listed |= states.keys()
        self.record.seen(self.queue.kind, states, workers)
        if self._refused is not None and self._refused_s == now:
            told.append(str(self._refused))
            if not self.cluster.worker_spec and (self._refusals >= _BARREN or not self._born):
                raise self._refused
        if len(self._barren) >= _BARREN and not workers:
            raise self._fruitless()
        return told + ([] if workers else self._say(f"no worker yet; {tell(states)}"))

    def _job_of(self, worker: Any) -> str:
        """Name of the job that a worker lives in; where there are several, each has a number behind it."""
        name = str(worker.name)
        return name.rpartition("-")[0] if self.file.workers > 1 else name

    def _wanted(self, left: int | None) -> int:
        if left is None:
            return self.most
        return max(1, self.least, min(self.most, -(-left // self.file.workers)))

    def _say(self, text: str) -> list[str]:
        if text == self._told and time.monotonic() - self._told_s < _TELL_S:
            return []
        self._told, self._told_s = text, time.monotonic()
        return [text]

    async def _adjust(self, states: Mapping[str, JobState], wanted: int, now: float) -> list[str]:
        """On the scheduler's event loop: forget jobs that have ended, and submit or cancel up to the number wanted."""
        cluster = self.cluster
        came = {self._job_of(worker) for worker in cluster.scheduler.workers.values()}
        told, alive = [], {job for job, state in states.items() if state.phase != "ending"}
        self._listed |= alive
        self._ending = False
        for name, job in list(cluster.workers.items()):
            born = self._born.setdefault(name, now)
            if name in came:
                self._fruitful.add(name)
                self._barren.clear()
            elif job.job_id in alive:
                self._ending |= name in self._fruitful
            elif job.job_id in self._listed or now - born > _LISTED_S:
                if name not in self._fruitful:
                    self._barren.append(job.job_id)
                told.append(
                    f"job {job.job_id} has ended" + ("" if name in self._fruitful else " before a worker came of it")
                )
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
                self._born.setdefault(name, now)
        return told

    async def _shrink(self, wanted: int) -> None:
        """Give back jobs that are not needed any more: those that wait, then those whose workers have nothing to do."""
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

    def _fruitless(self) -> RunError:
        job = self._barren[-1]
        tail = self.record.log_tail(job)
        said = f"; the last printed\n{tail}\n" if tail else f", and nothing is in {self.record.log_of(job)}; "
        return RunError(
            f"{len(self._barren)} jobs in a row ({', '.join(self._barren[-_BARREN:])}) ended before a worker came of them{said}"
            "Check python, prologue, interface, walltime and memory_per_worker in the cluster file"
        )
