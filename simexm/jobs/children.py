"""Check whether this process can start workers."""

from __future__ import annotations

import multiprocessing
import os

_with_workers: set[int] = set()  # this process, once it has started workers, and its parents by fork that have


def note_workers() -> None:
    """Note that this process starts workers."""
    _with_workers.add(os.getpid())


def why_no_workers() -> str | None:
    """Return why this process cannot start workers, None if it can; Dask would wait for them forever.

    Python lets a daemonic process start no other, and a fork lacks the threads in which Dask works.
    """
    if multiprocessing.current_process().daemon:
        return "this is a process of a multiprocessing.Pool, which Python lets start no others"
    if _with_workers - {os.getpid()}:
        return "this process was forked from one that had workers, which Dask does not survive"
    return None
