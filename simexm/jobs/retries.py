"""Decide which failed blocks run again, how, and which are given up.

No Dask here. A block that raised is certainly the cause. A block whose worker died is only a suspect: the worker may
have held others, reached its wall time or lost its node. A suspect in a run of blocks is next run as a task of its own;
if that dies too, alone on a worker at the end of the run; only then is it known to be the cause.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_FIRST_DELAY_S = 0.25  # before a block that raised is tried again; each further time four times as long


@dataclass(frozen=True, slots=True)
class Task:
    """Blocks that are run one after the other on one worker."""

    blocks: Sequence[int]
    worker: str | None = None  # preferred one, if it is still connected; None for any
    alone: bool = False  # nothing else runs on that worker meanwhile


class Retries:
    """Failed blocks of a run; memory grows with these only."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self._raised: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._delayed: list[tuple[float, int, str | None]] = []  # (not before, block, worker), a heap
        self._singles: deque[int] = deque()
        self._suspects: deque[int] = deque()

    @property
    def waiting(self) -> int:
        """Number of blocks to run again among others."""
        return len(self._delayed) + len(self._singles)

    @property
    def suspects(self) -> int:
        """Number of blocks to run again alone, when all others are done."""
        return len(self._suspects)

    def tries(self, block: int) -> int:
        """Count the failed attempts of a block."""
        return self._raised.get(block, 0) + self._deaths.get(block, 0)

    def raised(self, block: int, now_s: float, elsewhere: str | None) -> bool:
        """Record that `block` raised. True if it will be tried again, at `elsewhere`; False if it is given up."""
        count = self._raised[block] = self._raised.get(block, 0) + 1
        if count >= self.attempts:
            return False
        heapq.heappush(self._delayed, (now_s + _FIRST_DELAY_S * 4 ** (count - 1), block, elsewhere))
        return True

    def worker_died(self, task: Task, workers: int) -> bool:
        """Record that `workers` workers died with `task`. True if it will be tried again; False if given up."""
        if len(task.blocks) > 1:
            self._singles.extend(task.blocks)
            return True
        (block,) = task.blocks
        self._deaths[block] = self._deaths.get(block, 0) + workers
        if task.alone and self._deaths[block] >= self.attempts:
            return False
        self._suspects.append(block)
        return True

    def called_back(self, task: Task) -> None:
        """Queue blocks again that were submitted but never run."""
        (self._suspects if task.alone else self._singles).extend(task.blocks)

    def settled(self, block: int) -> None:
        """Forget a block that is done or given up."""
        self._raised.pop(block, None)
        self._deaths.pop(block, None)

    def next_task(self, now_s: float) -> Task | None:
        """Take the next block that is due to run again among others."""
        if self._delayed and self._delayed[0][0] <= now_s:
            _, block, elsewhere = heapq.heappop(self._delayed)
            return Task((block,), elsewhere)
        return Task((self._singles.popleft(),)) if self._singles else None

    def next_alone(self, worker: str) -> Task:
        """Take the next suspect, to run on `worker` with nothing else."""
        return Task((self._suspects.popleft(),), worker, alone=True)
