"""Events that the executor sends to listeners: progress bar, log file, list of failures, tests.

A listener is any callable that takes one event. It is called in the driver's main thread, in order of arrival; an
exception in it ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LOG, FAILURES = "log.txt", "failed.jsonl"
"""Files of a job's listeners, in its folder."""

_KEPT_FAILURES = 100  # in the outcome; listeners get all of them


@dataclass(frozen=True, slots=True)
class Failure:
    """A block that was set aside."""

    block: int
    error: str  # type and message of the last error, one line
    traceback: str  # from the worker; empty where it died
    attempts: int
    host: str  # of the last attempt


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first block is about to be submitted."""

    workers: int
    threads: int
    dashboard: str | None


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block is finished; its record reaches the journal within a second."""

    block: int
    attempt: int
    result: Mapping[str, Any]  # of the block function
    host: str
    seconds: float  # on its worker


@dataclass(frozen=True, slots=True)
class Retried:
    """A block raised in its attempt number `attempt` and is tried again."""

    block: int
    attempt: int
    error: str
    host: str


@dataclass(frozen=True, slots=True)
class BlockFailed:
    """A block was set aside; the run goes on without it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died while it held these blocks, which are run again one by one."""

    worker: str
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """Something a person should read."""

    text: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """No block is left, or the run was stopped; the journal holds all blocks counted here."""

    done: int
    failed: int
    seconds: float
    complete: bool


@dataclass(slots=True)
class Outcome:
    """Blocks that a run finished, blocks that it set aside, and the first hundred of these."""

    done: int = 0
    failed_count: int = 0
    failed: list[Failure] = field(default_factory=list)

    def add_failure(self, failure: Failure) -> None:
        """Count a failure."""
        self.failed_count += 1
        if len(self.failed) < _KEPT_FAILURES:
            self.failed.append(failure)


Event = RunStarted | BlockDone | Retried | BlockFailed | WorkerLost | Message | RunFinished
Listener = Callable[[Event], None]

Execute = Callable[..., Outcome]
"""How blocks are run: `executor.execute` with a client, or `threads.execute_in_threads`."""
