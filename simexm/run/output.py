"""How an output is taken, begun and left: the same for a simulation and an analysis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from simexm.errors import GoneError, OutputError, SourceError
from simexm.jobs.batch.record import Record
from simexm.jobs.lock import lock
from simexm.result.place import LOCK, Place
from simexm.run import guard
from simexm.store.location import Location


@contextlib.contextmanager
def held(parameter_hash: str, reads: Iterable[Location], where: Place, overwrite: bool) -> Iterator[None]:
    """Hold the lock of an output that is not in the way; jobs that an earlier driver left in a queue are cancelled.

    See `simexm.run.guard.refuse` for the parameters and what is raised.
    """
    try:
        with lock(where.run / LOCK):
            guard.refuse(parameter_hash, reads, where, overwrite)  # another driver may have ended meanwhile
            if where.jobs.is_dir():
                Record(where.jobs).cancel_leftovers()
            yield
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # where nothing came to be in it


def begin(where: Place, overwrite: bool, prepare: Callable[[], None]) -> None:
    """Make room in a held output and prepare it; nothing is left where the disk refuses a new one.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    fresh = overwrite or where.mark() is None
    try:
        if fresh:
            guard.clear(where)
        prepare()
    except OSError as error:
        if fresh:
            guard.clear(where)
        raise OutputError(guard.why(error, f"{where.zarr} cannot be written")) from error


@contextlib.contextmanager
def kept(where: Place) -> Iterator[None]:
    """Say what was kept where a disk or a connection refuses in the middle of the work.

    Raises
    ------
    RunError, DiskError
        With what to do.
    """
    try:
        yield
    except (SourceError, GoneError):
        raise
    except OSError as error:
        raise guard.stopped(error, where) from error
