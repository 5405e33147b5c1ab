"""Whether this process can start workers."""

from __future__ import annotations

import multiprocessing
import os

_with_workers: set[int] = set()  # this process, once it has started some, and those that it was forked from


def have_workers() -> None:
    """Note that this process starts workers."""
    _with_workers.add(os.getpid())


def why_none() -> str | None:
    """Why this process cannot start workers, if so: Dask would wait for them for ever.

    Python lets a daemonic process start no other; and threads in which Dask works are not there in a fork of their process.
    """
    if multiprocessing.current_process().daemon:
        return "this is a process of a multiprocessing.Pool, which Python lets start no others"
    if _with_workers - {os.getpid()}:
        return "this process was forked from one that had workers, which Dask does not survive"
    return None
