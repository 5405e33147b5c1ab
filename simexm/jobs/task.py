"""The worker's side: what one Dask task does."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import distributed
from distributed.core import Status
from distributed.protocol.pickle import dumps, loads

BlockFunction = Callable[[Any, int], Mapping[str, Any]]

JOB_END = "SIMEXM_JOB_END"
"""Variable in which a batch job's script tells when the queue will end it, in seconds since the node was booted."""
_MARGIN_S = 5.0  # between a block's expected end and its job's, to hand over what is done
_CAUTION = 1.5  # how much longer than expected a block may take


class BlockReport(NamedTuple):
    """What became of one block: a result, or an error and its traceback."""

    block: int
    seconds: float
    result: Mapping[str, Any] | None
    error: str
    traceback: str


class TaskReport(NamedTuple):
    """What became of one task's blocks, and where.

    Attributes
    ----------
    back
        Blocks that were not begun, since the worker's job would have ended before they did.
    fresh
        Whether this worker has not done a single block.
    """

    host: str
    worker: str
    blocks: list[BlockReport]
    back: tuple[int, ...] = ()
    fresh: bool = False


class LoadError(Exception):
    """The block function or its context cannot be loaded on a worker."""


class Work(distributed.WorkerPlugin):
    """Function and context of a run, sent to each worker once.

    The scheduler hands a plugin to workers that join or return later, before their first task; scattered data would be
    lost with the worker that holds it, and an argument would travel with every task.
    """

    def __init__(self, name: str, function: BlockFunction, context: Any) -> None:
        self.name = name
        self.pickled = dumps((function, context))

    def setup(self, worker: distributed.Worker) -> None:
        """Keep the pickle; it is loaded by the first task, since loading would hold up the worker's event loop."""
        _pickled[self.name] = self.pickled

    def teardown(self, worker: distributed.Worker) -> None:
        """Forget the run."""
        _pickled.pop(self.name, None)
        _loaded.pop(self.name, None)
        _longest_s.pop(self.name, None)


_pickled: dict[str, bytes] = {}
_loaded: dict[str, tuple[BlockFunction, Any]] = {}
_longest_s: dict[str, float] = {}  # that a block of the run took here
_loading = threading.Lock()


def _load(name: str) -> tuple[BlockFunction, Any]:
    with _loading:
        if name not in _loaded:
            try:
                _loaded[name] = loads(_pickled[name])
            except Exception as error:
                raise LoadError(f"{type(error).__name__}: {error}") from None
        return _loaded[name]


def run_blocks(name: str, blocks: array[int], expected_s: float) -> TaskReport:
    """Run some blocks, one after the other; a block that raises harms no other.

    `expected_s` is what others took for a block, 0 where nobody knows. In a batch job that would end before the next block
    does, this and the rest are handed back, and the worker takes nothing more: to be killed in the middle would cost the
    time and put the blame on the block.
    """
    function, context = _load(name)
    worker = distributed.get_worker()
    reports: list[BlockReport] = []
    for n, block in enumerate(blocks):
        longest_s = _longest_s.get(name, 0.0)
        if _CAUTION * max(expected_s, longest_s) + _MARGIN_S > _left_s():
            worker.loop.add_callback(setattr, worker, "status", Status.paused)
            return TaskReport(socket.gethostname(), worker.address, reports, tuple(blocks[n:]), not longest_s)
        start = time.perf_counter()
        try:
            result, error, trace = function(context, block), "", ""
        except Exception as exception:
            result, trace = None, traceback.format_exc()
            error = "".join(traceback.format_exception_only(exception)).strip()
        seconds = time.perf_counter() - start
        reports.append(BlockReport(block, seconds, result, error, trace))
        _longest_s[name] = max(longest_s, seconds)
    return TaskReport(socket.gethostname(), worker.address, reports)


def _left_s() -> float:
    """Seconds until the queue ends this worker's job; without end, where there is none."""
    end_s = os.environ.get(JOB_END)
    return math.inf if end_s is None else float(end_s) - uptime_s()


def uptime_s() -> float:
    """Seconds since boot, read where the job's script reads them: containers may show another number than the kernel's clock."""
    return float(Path("/proc/uptime").read_text().split()[0])


def dask_setup(worker: distributed.Worker) -> None:
    """As a preload of a worker: Ctrl-C in the terminal is for the driver, which ends the workers in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
