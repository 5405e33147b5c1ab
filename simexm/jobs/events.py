"""What the executor tells those who listen: progress bar, log file, list of failures, tests.

A listener is any callable that takes one event. It is called in the driver's main thread, in the order in which things
became known, and what it raises ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LOG, FAILURES = "log.txt", "failed.jsonl"
"""Files of a job's listeners, in its folder."""

KEPT_FAILURES = 100  # in the outcome; all of them go to the listeners


@dataclass(frozen=True, slots=True)
class Failure:
    """A block that was set aside.

    Attributes
    ----------
    block
        Number of the block.
    error
        Type and message of the last error, one line.
    traceback
        The worker's traceback, empty where a worker died and could not give one.
    attempts
        How many times the block was tried in this run.
    host
        Where it was tried last.
    """

    block: int
    error: str
    traceback: str
    attempts: int
    host: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first block is about to be handed out."""

    workers: int
    threads: int
    dashboard: str | None


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block is finished; its record reaches the journal within a second.

    Attributes
    ----------
    result
        What the block function returned.
    seconds
        Time that the block took on its worker.
    """

    block: int
    attempt: int
    result: Mapping[str, Any]
    host: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Retried:
    """A block raised and is tried again; `attempt` is the one that failed."""

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
    """No block is left, or the run was stopped; the journal holds all that is counted here."""

    done: int
    failed: int
    seconds: float
    complete: bool


@dataclass(slots=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    done
        Blocks finished in this run.
    failed_count
        Blocks set aside in this run.
    failed
        The first hundred of them.
    """

    done: int = 0
    failed_count: int = 0
    failed: list[Failure] = field(default_factory=list)


Event = RunStarted | BlockDone | Retried | BlockFailed | WorkerLost | Message | RunFinished
Listener = Callable[[Event], None]

Execute = Callable[..., Outcome]
"""How blocks are run: `executor.execute` with a client, or `here.execute_here` with threads."""
