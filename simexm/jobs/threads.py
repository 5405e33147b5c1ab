"""Run a function over a few blocks in threads of this process, where starting workers would take longer than the work.

Blocks, journal, events and bytes are those of `executor`; but no worker can die alone, and memory is shared.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from simexm.jobs import events
from simexm.jobs.events import Failure, Outcome
from simexm.jobs.journal import Journal

_TICK_S = 0.2


def execute_in_threads(
    *,
    threads: int,
    function: Callable[[Any, int], Mapping[str, Any]],
    context: Any,
    blocks: Iterable[int],
    journal: Journal,
    seconds_per_block: float | None = None,
    attempts: int = 2,
    listeners: Sequence[events.Listener] = (),
) -> Outcome:
    """Run `function(context, block)` for each of `blocks`, `threads` at once; see `executor.execute`."""
    outcome, host, start_s = Outcome(), socket.gethostname(), time.monotonic()
    tried: dict[int, int] = {}
    feed = iter(blocks)

    def emit(event: events.Event) -> None:
        for listener in listeners:
            listener(event)

    def run(block: int) -> tuple[float, Mapping[str, Any]]:
        begin = time.perf_counter()
        result = function(context, block)
        return time.perf_counter() - begin, result

    emit(events.RunStarted(1, threads, None))
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
                        emit(events.Retried(block, tried[block], text, host))
                        running[pool.submit(run, block)] = block
                        continue
                    failure = Failure(block, text, "".join(traceback.format_exception(error)), tried.pop(block), host)
                    outcome.add_failure(failure)
                    emit(events.BlockFailed(failure))
                    continue
                attempt = tried.pop(block)
                journal.append(block, attempt=attempt, host=host, seconds=seconds, result=result)
                outcome.done += 1
                emit(events.BlockDone(block, attempt, result, host, seconds))
            journal.commit_if_due()
        complete = True
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        journal.commit()
        emit(events.RunFinished(outcome.done, outcome.failed_count, time.monotonic() - start_s, complete))
    return outcome
