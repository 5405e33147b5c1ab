"""Lock, prepare and release an output, for simulations and analyses alike."""

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
    """Hold the lock of an output, and cancel jobs that an earlier driver left in a queue.

    See `simexm.run.guard.refuse` for parameters and errors.
    """
    try:
        with lock(where.run / LOCK):
            guard.refuse(parameter_hash, reads, where, overwrite)  # again: another driver may have finished meanwhile
            if where.jobs.is_dir():
                Record(where.jobs).cancel_leftovers()
            yield
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # if it is empty


def begin(where: Place, overwrite: bool, prepare: Callable[[], None]) -> None:
    """Clear and prepare a locked output; raise OutputError and leave nothing new if that fails."""
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
    """Turn errors of disk and network during the work into RunError or DiskError that say what was kept."""
    try:
        yield
    except (SourceError, GoneError):
        raise
    except OSError as error:
        raise guard.stopped(error, where) from error
