"""The worker's side: what one Dask task does."""

from __future__ import annotations

import signal
import socket
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import distributed
from distributed.protocol.pickle import dumps, loads

BlockFunction = Callable[[Any, int], Mapping[str, Any]]


class BlockReport(NamedTuple):
    """What became of one block: a result, or an error and its traceback."""

    block: int
    seconds: float
    result: Mapping[str, Any] | None
    error: str
    traceback: str


class TaskReport(NamedTuple):
    """What became of one task's blocks, and where."""

    host: str
    worker: str
    blocks: list[BlockReport]


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


_pickled: dict[str, bytes] = {}
_loaded: dict[str, tuple[BlockFunction, Any]] = {}
_loading = threading.Lock()


def _load(name: str) -> tuple[BlockFunction, Any]:
    with _loading:
        if name not in _loaded:
            try:
                _loaded[name] = loads(_pickled[name])
            except Exception as error:
                raise LoadError(f"{type(error).__name__}: {error}") from None
        return _loaded[name]


def run_blocks(name: str, blocks: array[int]) -> TaskReport:
    """Run some blocks, one after the other; a block that raises harms no other."""
    function, context = _load(name)
    reports = []
    for block in blocks:
        start = time.perf_counter()
        try:
            result, error, trace = function(context, block), "", ""
        except Exception as exception:
            result, trace = None, traceback.format_exc()
            error = "".join(traceback.format_exception_only(exception)).strip()
        reports.append(BlockReport(block, time.perf_counter() - start, result, error, trace))
    return TaskReport(socket.gethostname(), distributed.get_worker().address, reports)


def dask_setup(worker: distributed.Worker) -> None:
    """As a preload of a local worker: Ctrl-C in the terminal is for the driver, which ends the workers in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
