"""Which blocks are to be run again, how, and which are given up: the memory of all that went wrong in a run.

No Dask in here. A block that raised is sure to be the cause; a block whose worker died is only suspected, since the
worker may have held others, met its wall time or lost its node. Suspicion grows in steps: in a run of blocks (then each
is run singly), as a task of its own (then it waits for the end), alone on a worker (then it is the cause).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_FIRST_DELAY_S = 0.25  # before a block that raised is tried again; each further time four times as long


@dataclass(frozen=True, slots=True)
class Task:
    """Blocks that are run one after the other on one worker.

    Attributes
    ----------
    worker
        Where it should run if that worker is still there; None for anywhere.
    alone
        Whether nothing else runs on that worker meanwhile.
    """

    blocks: Sequence[int]
    worker: str | None = None
    alone: bool = False


class Blame:
    """Blocks in trouble; it holds nothing about a block that never was."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self._raised: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._retries: list[tuple[float, int, str | None]] = []  # (not before, block, worker), a heap
        self._singles: deque[int] = deque()
        self._suspects: deque[int] = deque()

    @property
    def waiting(self) -> int:
        """Blocks that are to be run again before the run's end is near."""
        return len(self._retries) + len(self._singles)

    @property
    def suspects(self) -> int:
        """Blocks that are to be run again, alone, when all else is done."""
        return len(self._suspects)

    def tries(self, block: int) -> int:
        """How often the block was tried in vain, as far as it is known."""
        return self._raised.get(block, 0) + self._deaths.get(block, 0)

    def raised(self, block: int, now_s: float, elsewhere: str | None) -> bool:
        """Take note that `block` raised. True if it will be tried again, at `elsewhere`; False if it is given up."""
        count = self._raised[block] = self._raised.get(block, 0) + 1
        if count >= self.attempts:
            return False
        heapq.heappush(self._retries, (now_s + _FIRST_DELAY_S * 4 ** (count - 1), block, elsewhere))
        return True

    def worker_died(self, task: Task, workers: int) -> bool:
        """Take note that `workers` of them died with `task`. True if it will be tried again; False if given up."""
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
        """Take back a single block that was never run, to hand it out anew."""
        (self._suspects if task.alone else self._singles).extend(task.blocks)

    def settled(self, block: int) -> None:
        """Forget a block that is done or given up."""
        self._raised.pop(block, None)
        self._deaths.pop(block, None)

    def next_task(self, now_s: float) -> Task | None:
        """A block to be run again now, among others."""
        if self._retries and self._retries[0][0] <= now_s:
            _, block, elsewhere = heapq.heappop(self._retries)
            return Task((block,), elsewhere)
        return Task((self._singles.popleft(),)) if self._singles else None

    def next_alone(self, worker: str) -> Task:
        """A suspect to be run on `worker` with nothing beside it."""
        return Task((self._suspects.popleft(),), worker, alone=True)
