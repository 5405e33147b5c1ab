"""Run one Dask task on a worker."""

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
"""Environment variable, set by a batch job's script: when the queue ends the job, in seconds since the node booted."""
_MARGIN_S = 5.0  # between a block's expected end and its job's, to send results
_CAUTION = 1.5  # how much longer than expected a block may take


class BlockReport(NamedTuple):
    """Outcome of one block: a result, or an error and its traceback."""

    block: int
    seconds: float
    result: Mapping[str, Any] | None
    error: str
    traceback: str


class TaskReport(NamedTuple):
    """Outcome of one task's blocks, and where they ran."""

    host: str
    worker: str
    blocks: list[BlockReport]
    back: tuple[int, ...] = ()  # not begun, since the worker's job would end too soon
    fresh: bool = False  # whether this worker has not finished any block


class LoadError(Exception):
    """The block function or its context cannot be loaded on a worker."""


class Work(distributed.WorkerPlugin):
    """Function and context of a run, sent to each worker once.

    The scheduler sends a plugin to workers that join later, too, before their first task. Scattered data would be lost
    with the worker that holds it, and an argument would be sent with every task.
    """

    def __init__(self, name: str, function: BlockFunction, context: Any) -> None:
        self.name = name
        self.pickled = dumps((function, context))  # type: ignore[no-untyped-call]

    def setup(self, worker: distributed.Worker) -> None:
        """Store the pickle; the first task loads it, since loading here would block the worker's event loop."""
        _pickled[self.name] = self.pickled

    def teardown(self, worker: distributed.Worker) -> None:
        """Delete everything that is stored for the run."""
        _pickled.pop(self.name, None)
        _loaded.pop(self.name, None)
        _longest_s.pop(self.name, None)


_pickled: dict[str, bytes] = {}
_loaded: dict[str, tuple[BlockFunction, Any]] = {}
_longest_s: dict[str, float] = {}  # longest time of a block of the run on this worker
_loading = threading.Lock()


def _load(name: str) -> tuple[BlockFunction, Any]:
    with _loading:
        if name not in _loaded:
            try:
                _loaded[name] = loads(_pickled[name])  # type: ignore[no-untyped-call]
            except Exception as error:
                raise LoadError(f"{type(error).__name__}: {error}") from None
        return _loaded[name]


def run_blocks(name: str, blocks: array[int], expected_s: float) -> TaskReport:
    """Run some blocks, one after the other; a block that raises does not affect the others.

    `expected_s` is the measured time of a block on all workers, 0 if unknown. If the batch job would end before the next
    block does, this and the remaining blocks are handed back and the worker is paused: killed in the middle, a block
    would lose its time and count as failed.
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
    """Return the seconds until the queue ends this worker's job; infinity outside a job."""
    end_s = os.environ.get(JOB_END)
    return math.inf if end_s is None else float(end_s) - uptime_s()


def uptime_s() -> float:
    """Return seconds since boot, from the file that the job's script reads: in a container the kernel's clock may differ."""
    return float(Path("/proc/uptime").read_text().split()[0])


def dask_setup(worker: distributed.Worker) -> None:
    """Ignore Ctrl-C in a worker: the driver handles it and shuts the workers down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
