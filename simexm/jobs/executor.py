"""Run a function over many blocks on a Dask cluster, with no task graph.

A generator of block numbers feeds the cluster through a bounded window: client and scheduler hold a few tasks for each
thread, however many blocks there are (and the keys of the last 100,000 tasks, 30 MB, in a cache of Dask). A task is a
run of blocks worth about a second; each block is reported and journalled on its own. `retries` decides what to do with
blocks that fail.
"""

from __future__ import annotations

import time
import traceback
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import distributed

from simexm.errors import RunError
from simexm.jobs import events
from simexm.jobs.events import Failure, Message, Outcome
from simexm.jobs.journal import Journal
from simexm.jobs.retries import Retries, Task
from simexm.jobs.task import BlockFunction, BlockReport, LoadError, TaskReport, Work, run_blocks
from simexm.jobs.workers import Workers, cannot_load

TASK_S = 1.0  # target length of a task; Dask's overhead of 1 to 4 ms a task is small beside it
MOST_BLOCKS = 64  # in one task
TASKS_PER_THREAD = 4  # in the window; above 2, or Dask pushes tasks to workers that are busy
HOPELESS = 100  # failures in a row, with no block done, that end the run
TOO_SHORT = 4  # fresh workers in a row whose jobs are too short for a block; they end the run
FORGET_EVERY = 10_000  # submissions
_POLL_S = 0.01
_TICK_S = 0.2
_WORKERS_S = 2.0  # between two queries of the cluster's size
_LONELY_S = 15.0  # without any worker before a message says so


def execute(
    *,
    client: distributed.Client,
    function: BlockFunction,
    context: Any,
    blocks: Iterable[int],
    journal: Journal,
    seconds_per_block: float | None = None,
    attempts: int = 3,
    listeners: Sequence[events.Listener] = (),
    keep: Callable[[int | None], Sequence[str]] | None = None,
) -> Outcome:
    """Run `function(context, block)` for each of `blocks` and write each result to the journal.

    `function` is pure, can be run twice, and returns a small dictionary of JSON values; `context` is pickled and sent
    to each worker once. The numbers of the blocks, each once, are read as there is room; those in `journal.done` are
    run like any other. `seconds_per_block`, the expected time, sizes the first tasks only: later ones follow measured
    times. A block that raises, or kills its worker, `attempts` times is set aside. `keep` is called every two seconds
    with the number of blocks left, None while unknown, to keep up the number of workers; the texts that it returns
    become messages.

    Raises RunError if the scheduler is lost, workers cannot load the function, or so many blocks failed in a row that
    the rest would too (finished blocks are in the journal), and OutputError if the journal cannot be written. After
    Ctrl-C no more blocks are submitted and results received so far are in the journal; blocks that still run on
    workers of a foreign cluster finish unrecorded.
    """
    return _Run(client, blocks, journal, _Pace(seconds_per_block), attempts, listeners, keep).run(function, context)


class _Pace:
    """Choose how many blocks make a task."""

    def __init__(self, seconds_per_block: float | None) -> None:
        self._mean_s = seconds_per_block
        self._measured_s = 0.0
        self._most = 1 if seconds_per_block is None else 8  # the estimate may be wrong: grows with each measurement

    def measured(self, blocks: int, seconds: float) -> None:
        mean_s = seconds / blocks
        self._mean_s = mean_s if self._mean_s is None else 0.8 * self._mean_s + 0.2 * mean_s
        self._measured_s = 0.8 * self._measured_s + 0.2 * mean_s if self._measured_s else mean_s
        self._most = min(2 * self._most, MOST_BLOCKS)

    @property
    def seconds(self) -> float:
        """Measured time of a block, 0 before the first: the estimate only sizes tasks."""
        return self._measured_s

    @property
    def blocks(self) -> int:
        if self._mean_s is None:
            return 1
        return max(1, min(self._most, int(TASK_S / max(self._mean_s, 1e-9))))


class _Run:
    def __init__(
        self,
        client: distributed.Client,
        blocks: Iterable[int],
        journal: Journal,
        pace: _Pace,
        attempts: int,
        listeners: Sequence[events.Listener],
        keep: Callable[[int | None], Sequence[str]] | None,
    ) -> None:
        self.name = f"simexm-{uuid.uuid4().hex}"
        self.client: Any = client  # its methods are untyped, and those of `completed`
        self.workers = Workers(client)
        self.feed: Iterator[int] | None = iter(blocks)  # None when it has ended
        self.journal = journal
        self.pace = pace
        self.listeners = listeners
        self.keep = keep
        self.leaving: set[str] = set()  # workers whose jobs end soon
        self.too_short: set[str] = set()  # those of them that never finished a block; emptied when a block is done
        self.outcome = Outcome()
        self.retries = Retries(attempts)
        self.in_flight: dict[distributed.Future[Any], Task] = {}
        as_completed: Any = distributed.as_completed
        self.completed = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self.submitted = 0
        self.failures_in_a_row = 0

    def run(self, function: BlockFunction, context: Any) -> Outcome:
        start_s = time.monotonic()
        complete = False
        self.workers.install(Work(self.name, function, context))
        try:
            workers = self.workers
            self._emit(events.RunStarted(len(workers.threads), workers.total_threads, workers.dashboard))
            while self._fill():
                self._collect()
                self.journal.commit_if_due()
                if self.workers.refresh(max_age_s=_TICK_S if self.retries.suspects else _WORKERS_S):
                    self._call_back_stranded()
                    self._retire_leaving()
                    self._keep_workers()
                if self.workers.absent_s > _LONELY_S:
                    self._emit(Message(f"no worker is connected to {self.workers.scheduler}; waiting for one"))
                    self.workers.absent_s = 0.0
            complete = True
        finally:
            if not complete:
                self._record_finished_tasks()
            self.completed.clear()
            self.workers.dismiss(self.name, list(self.in_flight))
            self.journal.commit()
            seconds = time.monotonic() - start_s
            self._emit(events.RunFinished(self.outcome.done, self.outcome.failed_count, seconds, complete))
        return self.outcome

    def _retire_leaving(self) -> None:
        """Retire leaving workers again: Dask refuses while one holds a report that no other can take, even a read one."""
        self.leaving &= self.workers.threads.keys()
        for worker in self.leaving:
            self.workers.retire(worker)

    def _keep_workers(self) -> None:
        if self.keep is None:
            return
        running = sum(len(task.blocks) for task in self.in_flight.values())
        left = running + self.retries.waiting + self.retries.suspects if self.feed is None else None
        for text in self.keep(left):
            self._emit(Message(text))

    # Submitting

    def _fill(self) -> bool:
        """Submit tasks up to the window. False when all blocks are done."""
        window = TASKS_PER_THREAD * max(2, self.workers.total_threads)
        while len(self.in_flight) < window:
            task = self._next_task(window)
            if task is None:
                break
            self._submit(task)
        return bool(self.in_flight or self.feed is not None or self.retries.waiting or self.retries.suspects)

    def _next_task(self, window: int) -> Task | None:
        last = next(reversed(self.in_flight.values()), None)
        if last is None or not last.alone:  # nothing runs beside a suspect
            if task := self.retries.next_task(time.monotonic()):
                return task
            if self.feed is not None and self.retries.waiting < window:
                if blocks := tuple(islice(self.feed, self.pace.blocks)):
                    return Task(blocks)
                self.feed = None
        if self.retries.suspects and self.feed is None and not self.retries.waiting and (last is None or last.alone):
            busy = self.leaving | {task.worker for task in self.in_flight.values()}
            free = next((worker for worker in self.workers.threads if worker not in busy), None)
            return None if free is None else self.retries.next_alone(free)
        return None

    def _submit(self, task: Task) -> None:
        where: dict[str, Any] = {"workers": [task.worker], "allow_other_workers": True} if task.worker else {}
        # An array, since Dask would search a list or tuple for keys of other tasks.
        blocks = array("q", task.blocks)
        future = self.client.submit(
            run_blocks, self.name, blocks, self.pace.seconds, key=(self.name, self.submitted), pure=False, **where
        )
        self.submitted += 1
        if self.submitted % FORGET_EVERY == 0:
            self.workers.forget_history()
        self.in_flight[future] = task
        self.completed.add(future)

    def _call_back_stranded(self) -> None:
        """Submit again what waits for a worker that is gone: if it was the only one, Dask would wait forever."""
        for future, task in list(self.in_flight.items()):
            if task.worker and task.worker not in self.workers.threads and future.status == "pending":
                del self.in_flight[future]
                self.client.cancel([future])
                self.retries.called_back(task)

    # Collecting

    def _collect(self) -> None:
        until_s = time.monotonic() + _TICK_S
        while not self.completed.has_ready() and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        for future, result in self.completed.next_batch(block=False):
            task = self.in_flight.pop(future, None)
            if task is None:  # was called back
                continue
            # Not by the future's status: it turns to "lost" when the worker dies after it has sent the result.
            if isinstance(result, TaskReport):
                self._report(result)
                if result.back:
                    self._resubmit(task, result)
            elif isinstance(result, BaseException):
                raise self.workers.lost(result)
            else:
                self._task_failed(task, result[1])
            future.release()

    def _report(self, report: TaskReport) -> None:
        if report.blocks:
            self.pace.measured(len(report.blocks), sum(block.seconds for block in report.blocks))
        for block in report.blocks:
            if block.result is None:
                self._raised(block, report.host, report.worker)
            else:
                self._done(block, report.host)

    def _resubmit(self, task: Task, report: TaskReport) -> None:
        """Run blocks again that a worker handed back because its job ends too soon; this counts as no attempt."""
        self.retries.called_back(Task(report.back, alone=task.alone))
        if report.worker not in self.leaving:
            self.leaving.add(report.worker)
            self._emit(Message(f"worker {report.worker} hands back blocks that its job would not finish, and ends"))
            self.workers.retire(report.worker)
        if report.fresh:
            self.too_short.add(report.worker)
            if len(self.too_short) >= TOO_SHORT:
                takes = f" ({self.pace.seconds:.0f} s)" if self.pace.seconds else ""
                raise RunError(
                    f"the jobs of {TOO_SHORT} workers are too short for a single block{takes}: the run would never end. "
                    "Set a longer walltime in the cluster file, or a smaller --tile for smaller blocks"
                )

    def _done(self, report: BlockReport, host: str) -> None:
        assert report.result is not None
        attempt = self.retries.tries(report.block) + 1
        self.journal.append(report.block, attempt=attempt, host=host, seconds=report.seconds, result=report.result)
        self.retries.settled(report.block)
        self.outcome.done += 1
        self.failures_in_a_row = 0
        self.too_short.clear()
        self._emit(events.BlockDone(report.block, attempt, report.result, host, report.seconds))

    def _raised(self, report: BlockReport, host: str, worker: str) -> None:
        if self.retries.raised(report.block, time.monotonic(), self.workers.other_than(worker, self.submitted)):
            self._emit(events.Retried(report.block, self.retries.tries(report.block), report.error, host))
        else:
            self._set_aside(report.block, report.error, report.traceback, host)

    def _task_failed(self, task: Task, error: BaseException) -> None:
        """Handle a task without a report: its worker died, or could not even begin."""
        if isinstance(error, distributed.KilledWorker):
            worker = error.last_worker.address
            self.workers.threads.pop(worker, None)
            self._emit(events.WorkerLost(worker, tuple(task.blocks)))
            if self.retries.worker_died(task, error.allowed_failures + 1):
                self._count_failure(f"worker {worker} died")
            else:
                reason = "its worker died each time: out of memory, or a crash in compiled code; see the worker's log"
                self._set_aside(task.blocks[0], reason, "", worker)
            return
        if isinstance(error, LoadError) and not self.outcome.done:
            raise cannot_load(str(error))
        text = "".join(traceback.format_exception_only(error)).strip()
        trace = "".join(traceback.format_exception(error))
        for block in task.blocks:
            self._raised(BlockReport(block, 0.0, None, text, trace), "unknown host", "")

    def _set_aside(self, block: int, error: str, trace: str, host: str) -> None:
        failure = Failure(block, error, trace, self.retries.tries(block), host)
        self.retries.settled(block)
        self.outcome.add_failure(failure)
        self._emit(events.BlockFailed(failure))
        self._count_failure(error)

    def _count_failure(self, error: str) -> None:
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= max(HOPELESS, TASKS_PER_THREAD * self.workers.total_threads):
            raise RunError(
                f"{self.failures_in_a_row} failures in a row with no block done, the last: {error}. The other blocks would "
                "probably fail too, so the run was stopped. Fix the cause, then type the same command again: finished "
                "blocks are kept"
            )

    def _record_finished_tasks(self) -> None:
        """Journal finished tasks after Ctrl-C or an error, and raise nothing that would hide the cause."""
        try:
            for _, result in self.completed.next_batch(block=False):
                if isinstance(result, TaskReport):
                    self._report(result)
        except Exception as error:
            self._emit(Message(f"while the run was being stopped: {type(error).__name__}: {error}"))

    def _emit(self, event: events.Event) -> None:
        for listener in self.listeners:
            listener(event)
