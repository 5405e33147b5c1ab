"""A run from plan to finished result: output, blocks, coarse levels, and the end."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from simexm.engine import passes
from simexm.engine.events import Execute, Listener, Message
from simexm.engine.finish import finish
from simexm.engine.journal import Journal
from simexm.engine.levels import make_levels
from simexm.engine.lock import lock
from simexm.engine.plan import GiB, Plan
from simexm.engine.worker import Context, count_block, on_disk, run_block
from simexm.errors import OutputError, RunError, SimexmWarning, SourceError, SpecError
from simexm.machine import cpus
from simexm.result import Result
from simexm.store import guard, place
from simexm.store.place import Place

if TYPE_CHECKING:
    import distributed

    from simexm.engine.task import BlockFunction
    from simexm.simulation import Simulation

COUNT_SECONDS_PER_VOXEL = 20e-9
HERE_SECONDS = 20.0
"""Where threads of this process are thought to need less, they do the work: to start workers, and to import all in each, takes
some five seconds of every core, and hundreds of MB. Many threads would get into each other's way."""
_HERE_THREADS = 4


def run(
    simulation: Simulation,
    output: Path,
    *,
    client: distributed.Client | None = None,
    workers: int | None = None,
    until: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """See `Simulation.run`."""
    where = Place.at(output)
    plan = simulation.plan(until=until)
    plan.warn()
    guard.refuse(plan, where, overwrite)
    here = client is None and workers is None
    if client is None:
        workers = _fitting_workers(min(len(plan.blocks), cpus()) if workers is None else workers, plan)
        here &= plan.core_seconds < HERE_SECONDS * min(workers, _HERE_THREADS)
    try:
        with lock(where.run / "lock"):
            guard.refuse(plan, where, overwrite)  # again: another run may have ended meanwhile
            _begin(plan, where, overwrite)
            try:
                _do(plan, where, client, workers, here, quiet)
            except SourceError:
                raise
            except OSError as error:
                raise guard.stopped(error, where) from error
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # where nothing came to be in it
    return Result.open(where.zarr)


def _begin(plan: Plan, where: Place, overwrite: bool) -> None:
    """Make room and prepare; leaves nothing where the disk refuses."""
    mark = where.mark()
    fresh = overwrite or mark is None
    try:
        if fresh:
            guard.clear(where)
        place.prepare(plan, where)
    except OSError as error:
        if fresh:
            guard.clear(where)
        raise OutputError(guard.why(error, f"{where.zarr} cannot be written")) from error


def _do(
    plan: Plan,
    where: Place,
    client: distributed.Client | None,
    workers: int | None,
    here: bool,
    quiet: bool,
) -> None:
    low = place.check_free(plan, where)
    if low:
        warnings.warn(low, SimexmWarning, stacklevel=2)
    journal = Journal.open(where.journal, plan.hash)
    _distrust_missing(plan, where, journal)
    with _way(client, workers, here) as execute:
        _passes(plan, where, execute, quiet)
        _blocks(plan, where, journal, execute, quiet)
        make_levels(plan, where, execute)
    finish(plan, where, journal, passes.counted_on_disk(plan, where))


def _distrust_missing(plan: Plan, where: Place, journal: Journal) -> None:
    """Take back from `journal.done` the blocks of which something is not on the disk."""
    if journal.done:
        for record in journal.records():
            if not on_disk(plan, where, record.block, record.result):
                journal.done.discard(record.block)


@contextlib.contextmanager
def _way(client: distributed.Client | None, workers: int | None, here: bool) -> Iterator[Execute]:
    """How blocks are run: on the user's cluster, on one of our own, or, where that would not pay, in this process."""
    if here:
        from simexm.engine.here import execute_here

        yield partial(execute_here, threads=workers or 1)
        return
    from simexm.engine.executor import execute

    if client is not None:
        yield partial(execute, client=client)
        return
    from simexm.engine.cluster import local_client

    with _caller_hidden(), local_client(workers) as started:
        yield partial(execute, client=started)


@contextlib.contextmanager
def _caller_hidden() -> Iterator[None]:
    """Keep new processes from importing the caller's script, of which they need nothing.

    A script without `if __name__ == "__main__":` would start its run anew in each worker. (Python's multiprocessing finds
    the script by these two names when it starts a process, and Dask starts one whenever a worker has died.)
    """
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(before)


def _fitting_workers(count: int, plan: Plan) -> int:
    """As many workers as the machine's free memory holds; the tile stays as planned, for it decides bytes.

    Raises
    ------
    SpecError
        If not even one fits, or less than one is asked for.
    """
    if count < 1:
        raise SpecError(f"{count} workers would compute nothing; give 1 or more")
    needed = plan.memory.total
    free = psutil.virtual_memory().available
    if needed > free:
        raise SpecError(
            f"a worker needs {needed / GiB:.2f} GiB, but {free / GiB:.2f} GiB are free on this machine: it would be killed; "
            f"set execution.memory_GiB to {free / GiB * 0.9:.2g}, for which `simexm plan` chooses smaller tiles"
        )
    fitting = min(count, free // needed)
    if fitting < count:
        warnings.warn(
            f"{fitting} instead of {count} workers: each needs {needed / GiB:.2f} GiB and {free / GiB:.2f} GiB are free; "
            "lower execution.memory_GiB for smaller tiles and more workers",
            SimexmWarning,
            stacklevel=2,
        )
    return fitting


def _passes(plan: Plan, where: Place, execute: Execute, quiet: bool) -> None:
    """Make the passes that are not made yet, and say what they tell."""
    for stage, wanted in passes.all_passes(plan):
        if not passes.is_merged(where, wanted):
            journal = Journal.open(passes.folder(where, wanted.name) / "journal", plan.hash)
            for record in journal.records():
                if not passes.part(where, wanted.name, record.block).is_file():
                    journal.done.discard(record.block)
            context = Context(plan, where, wanted.name)
            _execute(plan, where, journal, execute, quiet, count_block, context, f"counting {wanted.name}")
            passes.merge(plan, where, wanted, sum(record.result["rows"] for record in journal.records()))
        for text in stage.counted_warnings(wanted.name, passes.table_of(where, wanted.name)):
            warnings.warn(text, SimexmWarning, stacklevel=2)


def _blocks(plan: Plan, where: Place, journal: Journal, execute: Execute, quiet: bool) -> None:
    _execute(plan, where, journal, execute, quiet, run_block, Context(plan, where), "")


def _execute(
    plan: Plan,
    where: Place,
    journal: Journal,
    execute: Execute,
    quiet: bool,
    function: BlockFunction,
    context: Context,
    what: str,
) -> None:
    """Run a function over the blocks that its journal lacks."""
    from simexm.engine.progress import FailedFile, LogFile, progress

    total = len(plan.blocks)
    log = LogFile(where.run / "log.txt")
    expected = (COUNT_SECONDS_PER_VOXEL * plan.geometry.crop.size if what else plan.core_seconds) / total
    with progress(total, plan.geometry.crop.size, len(journal.done), quiet=quiet, what=what) as bar:
        listeners: list[Listener] = [log, FailedFile(where.run / "failed.jsonl"), bar]
        if journal.done:
            for listen in listeners:
                listen(Message(f"resuming: {len(journal.done)} of {total} blocks are done"))
        outcome = execute(
            function=function, context=context, blocks=journal.done.missing(total), journal=journal,
            seconds_per_block=expected, listeners=listeners,
        )  # fmt: skip
    if journal.unreadable:
        log(Message(f"{journal.unreadable} torn lines of the journal were passed over, and their blocks done again"))
    if outcome.failed_count:
        first = outcome.failed[0]
        raise RunError(
            f"{outcome.failed_count} of {total} blocks failed, the first with: {first.error} (on {first.host}). "
            f"The others are kept; {where.run / 'failed.jsonl'} lists them. Mend the cause and type the same command again"
        )
