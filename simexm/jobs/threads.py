"""Run a function over a few blocks in threads of this very process, where starting workers would take longer than the work.

The same blocks, journal and events as `executor`, and the same bytes; but no worker can die alone, and memory is shared.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from simexm.jobs.events import (
    KEPT_FAILURES,
    BlockDone,
    BlockFailed,
    Event,
    Failure,
    Listener,
    Outcome,
    Retried,
    RunFinished,
    RunStarted,
)
from simexm.jobs.journal import Journal

_TICK_S = 0.2


def execute_here(
    *,
    threads: int,
    function: Callable[[Any, int], Mapping[str, Any]],
    context: Any,
    blocks: Iterable[int],
    journal: Journal,
    seconds_per_block: float | None = None,
    attempts: int = 2,
    listeners: Sequence[Listener] = (),
) -> Outcome:
    """Run `function(context, block)` for each of `blocks`; see `executor.execute` for the parameters and what is raised.

    Parameters
    ----------
    threads
        How many blocks run at once.
    """
    outcome, host, start_s = Outcome(), socket.gethostname(), time.monotonic()
    tried: dict[int, int] = {}
    feed = iter(blocks)

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    def run(block: int) -> tuple[float, Mapping[str, Any]]:
        begin = time.perf_counter()
        result = function(context, block)
        return time.perf_counter() - begin, result

    tell(RunStarted(1, threads, None))
    complete = False
    pool = ThreadPoolExecutor(threads, thread_name_prefix="simexm")
    running: dict[Future[tuple[float, Mapping[str, Any]]], int] = {}
    try:
        while True:
            for block in islice(feed, threads - len(running)):
                running[pool.submit(run, block)] = block
            if not running:
                break
            for future in wait(running, timeout=_TICK_S, return_when=FIRST_COMPLETED).done:
                block = running.pop(future)
                tried[block] = tried.get(block, 0) + 1
                try:
                    seconds, result = future.result()
                except Exception as error:
                    text = "".join(traceback.format_exception_only(error)).strip()
                    if tried[block] < attempts:
                        tell(Retried(block, tried[block], text, host))
                        running[pool.submit(run, block)] = block
                        continue
                    failure = Failure(block, text, "".join(traceback.format_exception(error)), tried.pop(block), host)
                    outcome.failed_count += 1
                    if len(outcome.failed) < KEPT_FAILURES:
                        outcome.failed.append(failure)
                    tell(BlockFailed(failure))
                    continue
                attempt = tried.pop(block)
                journal.append(block, attempt=attempt, host=host, seconds=seconds, result=result)
                outcome.done += 1
                tell(BlockDone(block, attempt, result, host, seconds))
            journal.commit_if_due()
        complete = True
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        journal.commit()
        tell(RunFinished(outcome.done, outcome.failed_count, time.monotonic() - start_s, complete))
    return outcome
