"""Run a function over many blocks on a Dask cluster, with no task graph.

A generator of block numbers feeds the cluster through a bounded window, so that neither client nor scheduler holds more
than a few tasks for each thread, however many blocks there are (and the keys of the last 100,000 tasks, 30 MB, in a
cache of Dask's). A task is a run of blocks worth about a second; each block is reported and written to the journal on
its own. What becomes of blocks that fail is decided in `blame`.
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
from simexm.jobs.events import (
    KEPT_FAILURES,
    BlockDone,
    BlockFailed,
    Event,
    Failure,
    Listener,
    Message,
    Outcome,
    Retried,
    RunFinished,
    RunStarted,
    WorkerLost,
)
from simexm.jobs.journal import Journal
from simexm.jobs.retries import Blame, Task
from simexm.jobs.task import BlockFunction, BlockReport, LoadError, TaskReport, Work, run_blocks
from simexm.jobs.workers import Workers

TASK_S = 1.0  # a task should be worth this much time, so that Dask's 1 to 4 ms for it do not count
MOST_BLOCKS = 64  # in one task
TASKS_PER_THREAD = 4  # in the window; above 2, or Dask pushes tasks to workers that are busy
HOPELESS = 100  # so many failures with no block done between them end the run
TOO_SHORT = 4  # so many fresh workers that find their job too short for a block, likewise
FORGET_EVERY = 10_000  # submissions
_POLL_S = 0.01
_TICK_S = 0.2
_WORKERS_S = 2.0  # how often the cluster's size is asked for
_LONELY_S = 15.0  # without any worker, until a person is told


def execute(
    *,
    client: distributed.Client,
    function: BlockFunction,
    context: Any,
    blocks: Iterable[int],
    journal: Journal,
    seconds_per_block: float | None = None,
    attempts: int = 3,
    listeners: Sequence[Listener] = (),
    keep: Callable[[int | None], Sequence[str]] | None = None,
) -> Outcome:
    """Run `function(context, block)` for each of `blocks` and write each result to the journal.

    Parameters
    ----------
    client
        Any Dask client.
    function
        A pure function that can be run twice and returns a small dictionary of JSON values.
    context
        Its first argument; pickled, sent to each worker once.
    blocks
        Numbers of the blocks, each once, taken as there is room. Those in `journal.done` are run like any other.
    seconds_per_block
        What a block is expected to take; it only shapes the first tasks, after which measured times are used.
    attempts
        How often a block may raise, or kill its worker, before it is set aside.
    listeners
        Called with each event; see `simexm.jobs.events`.
    keep
        Called every two seconds with the number of blocks that are left, None while it is unknown, to keep up the number of
        workers; what it returns is told as messages.

    Raises
    ------
    RunError
        The scheduler is lost, workers cannot load the function, or so many blocks failed in a row that the rest would
        too. What was finished is in the journal.
    OutputError
        The journal cannot be written.
    KeyboardInterrupt
        Ctrl-C. Nothing more is handed out, what came back is in the journal, and blocks that still run on workers of a
        foreign cluster come to their end unheard.
    """
    return _Run(client, blocks, journal, _Pace(seconds_per_block), attempts, listeners, keep).run(function, context)


class _Pace:
    """How many blocks make a task."""

    def __init__(self, seconds_per_block: float | None) -> None:
        self._mean_s = seconds_per_block
        self._measured_s = 0.0
        self._most = 1 if seconds_per_block is None else 8  # an estimate may be wrong: trusted more and more

    def measured(self, blocks: int, seconds: float) -> None:
        mean_s = seconds / blocks
        self._mean_s = mean_s if self._mean_s is None else 0.8 * self._mean_s + 0.2 * mean_s
        self._measured_s = 0.8 * self._measured_s + 0.2 * mean_s if self._measured_s else mean_s
        self._most = min(2 * self._most, MOST_BLOCKS)

    @property
    def seconds(self) -> float:
        """What a block took so far, 0 where none was done: an estimate decides nothing but the size of tasks."""
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
        listeners: Sequence[Listener],
        keep: Callable[[int | None], Sequence[str]] | None,
    ) -> None:
        self.name = f"simexm-{uuid.uuid4().hex}"
        self.client = client
        self.workers = Workers(client)
        self.feed: Iterator[int] | None = iter(blocks)  # None when it has ended
        self.journal = journal
        self.pace = pace
        self.listeners = listeners
        self.keep = keep
        self.leaving: set[str] = set()  # workers whose jobs are near their end
        self.too_short: set[str] = set()  # of them, fresh ones, since a block was done last
        self.outcome = Outcome()
        self.blame = Blame(attempts)
        self.in_flight: dict[distributed.Future, Task] = {}
        self.completed = distributed.as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self.submitted = 0
        self.failures_in_a_row = 0

    def run(self, function: BlockFunction, context: Any) -> Outcome:
        """Run all blocks; see `execute`."""
        start_s = time.monotonic()
        complete = False
        self.workers.install(Work(self.name, function, context))
        try:
            self._tell(RunStarted(len(self.workers.threads), self.workers.total_threads, self.workers.dashboard))
            while self._fill():
                self._collect()
                self.journal.commit_if_due()
                if self.workers.refresh(max_age_s=_TICK_S if self.blame.suspects else _WORKERS_S):
                    self._call_back_stranded()
                    self._release_leaving()
                    self._keep_workers()
                if self.workers.absent_s > _LONELY_S:
                    self._tell(Message(f"no worker is connected to {self.workers.scheduler}; waiting for one"))
                    self.workers.absent_s = 0.0
            complete = True
        finally:
            if not complete:
                self._save_what_came_back()
            self._clean_up()
            self.journal.commit()
            seconds = time.monotonic() - start_s
            self._tell(RunFinished(self.outcome.done, self.outcome.failed_count, seconds, complete))
        return self.outcome

    def _release_leaving(self) -> None:
        """Again: a worker is not let go while it holds a report that no other can take over, even one already read."""
        self.leaving &= self.workers.threads.keys()
        for worker in self.leaving:
            self.workers.retire(worker)

    def _keep_workers(self) -> None:
        if self.keep is None:
            return
        running = sum(len(task.blocks) for task in self.in_flight.values())
        left = running + self.blame.waiting + self.blame.suspects if self.feed is None else None
        for text in self.keep(left):
            self._tell(Message(text))

    # Handing out

    def _fill(self) -> bool:
        """Submit what there is room for. False when all is done."""
        window = TASKS_PER_THREAD * max(2, self.workers.total_threads)
        while len(self.in_flight) < window:
            task = self._next_task(window)
            if task is None:
                break
            self._submit(task)
        return bool(self.in_flight or self.feed is not None or self.blame.waiting or self.blame.suspects)

    def _next_task(self, window: int) -> Task | None:
        last = next(reversed(self.in_flight.values()), None)
        if last is None or not last.alone:  # whoever is alone stays so
            if task := self.blame.next_task(time.monotonic()):
                return task
            if self.feed is not None and self.blame.waiting < window:
                if blocks := tuple(islice(self.feed, self.pace.blocks)):
                    return Task(blocks)
                self.feed = None
        if self.blame.suspects and self.feed is None and not self.blame.waiting and (last is None or last.alone):
            taken = self.leaving | {task.worker for task in self.in_flight.values()}
            free = next((worker for worker in self.workers.threads if worker not in taken), None)
            return None if free is None else self.blame.next_alone(free)
        return None

    def _submit(self, task: Task) -> None:
        where: dict[str, Any] = {"workers": [task.worker], "allow_other_workers": True} if task.worker else {}
        # An array, since Dask would look through a list or tuple for keys of other tasks.
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
        """Hand out anew what waits for a worker that is gone: if no other was there then, Dask would wait for ever."""
        for future, task in list(self.in_flight.items()):
            if task.worker and task.worker not in self.workers.threads and future.status == "pending":
                del self.in_flight[future]
                self.client.cancel([future])
                self.blame.called_back(task)

    # Taking back

    def _collect(self) -> None:
        until_s = time.monotonic() + _TICK_S
        while not self.completed.has_ready() and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        for future, result in self.completed.next_batch(block=False):
            task = self.in_flight.pop(future, None)
            if task is None:  # was called back
                continue
            # Not by the future's status: it turns to "lost" when the worker that had the result dies after giving it.
            if isinstance(result, TaskReport):
                self._report(result)
                if result.back:
                    self._handed_back(task, result)
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

    def _handed_back(self, task: Task, report: TaskReport) -> None:
        """Blocks for which a worker's job is too near its end: nobody is to blame."""
        self.blame.called_back(Task(report.back, alone=task.alone))
        if report.worker not in self.leaving:
            self.leaving.add(report.worker)
            self._tell(Message(f"worker {report.worker} hands back what its job would not finish, and ends"))
            self.workers.retire(report.worker)
        if report.fresh:
            self.too_short.add(report.worker)
            if len(self.too_short) >= TOO_SHORT:
                takes = f", which takes {self.pace.seconds:.0f} s" if self.pace.seconds else ""
                raise RunError(
                    f"the jobs of {TOO_SHORT} workers would have ended before a single block{takes}: nothing would ever be "
                    "done. Give a longer walltime in the cluster file, or smaller blocks by a smaller --tile"
                )

    def _done(self, report: BlockReport, host: str) -> None:
        assert report.result is not None
        attempt = self.blame.tries(report.block) + 1
        self.journal.append(report.block, attempt=attempt, host=host, seconds=report.seconds, result=report.result)
        self.blame.settled(report.block)
        self.outcome.done += 1
        self.failures_in_a_row = 0
        self.too_short.clear()
        self._tell(BlockDone(report.block, attempt, report.result, host, report.seconds))

    def _raised(self, report: BlockReport, host: str, worker: str) -> None:
        if self.blame.raised(report.block, time.monotonic(), self.workers.other_than(worker, self.submitted)):
            self._tell(Retried(report.block, self.blame.tries(report.block), report.error, host))
        else:
            self._set_aside(report.block, report.error, report.traceback, host)

    def _task_failed(self, task: Task, error: BaseException) -> None:
        """A task came back without a report: its worker died, or could not even begin."""
        if isinstance(error, distributed.KilledWorker):
            worker = error.last_worker.address
            self.workers.threads.pop(worker, None)
            self._tell(WorkerLost(worker, tuple(task.blocks)))
            if self.blame.worker_died(task, error.allowed_failures + 1):
                self._count_failure(f"worker {worker} died")
            else:
                reason = "its worker died each time: out of memory, or a crash in compiled code; see the worker's log"
                self._set_aside(task.blocks[0], reason, "", worker)
            return
        if isinstance(error, LoadError) and not self.outcome.done:
            raise RunError(
                f"workers cannot load the work ({error}): nothing can run. Install the same simexm and Python "
                "packages on every worker, then type the same command again"
            )
        text = "".join(traceback.format_exception_only(error)).strip()
        trace = "".join(traceback.format_exception(error))
        for block in task.blocks:
            self._raised(BlockReport(block, 0.0, None, text, trace), "unknown host", "")

    def _set_aside(self, block: int, error: str, trace: str, host: str) -> None:
        failure = Failure(block, error, trace, self.blame.tries(block), host)
        self.blame.settled(block)
        self.outcome.failed_count += 1
        if len(self.outcome.failed) < KEPT_FAILURES:
            self.outcome.failed.append(failure)
        self._tell(BlockFailed(failure))
        self._count_failure(error)

    def _count_failure(self, error: str) -> None:
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= max(HOPELESS, TASKS_PER_THREAD * self.workers.total_threads):
            raise RunError(
                f"{self.failures_in_a_row} failures with no block done between them, the last: {error}. The rest would "
                "fail alike, so the run was stopped. Mend the cause, then type the same command again: blocks already "
                "done are kept"
            )

    # The end

    def _save_what_came_back(self) -> None:
        """After Ctrl-C or an error: take finished tasks, but raise nothing that would hide the cause."""
        try:
            for _, result in self.completed.next_batch(block=False):
                if isinstance(result, TaskReport):
                    self._report(result)
        except Exception as error:
            self._tell(Message(f"while the run was being stopped: {type(error).__name__}: {error}"))

    def _clean_up(self) -> None:
        self.completed.clear()
        self.workers.dismiss(self.name, list(self.in_flight))

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
