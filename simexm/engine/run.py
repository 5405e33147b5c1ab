"""A run from plan to finished result: output, blocks, coarse levels, and the end."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from simexm.engine import passes
from simexm.engine.events import Execute, Listener, Message
from simexm.engine.files import Layout, all_there
from simexm.engine.finish import finish
from simexm.engine.journal import Journal
from simexm.engine.levels import make_levels
from simexm.engine.lock import lock
from simexm.engine.plan import GiB, Plan
from simexm.engine.verify import Damaged
from simexm.engine.worker import Context, count_block, run_block
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
    where = Place.at(output).claimed()
    plan = simulation.plan(until=until)
    plan.warn()
    guard.refuse(plan, where, overwrite)
    means = Means.of(plan, client, workers)
    try:
        with lock(where.run / place.LOCK):
            guard.refuse(plan, where, overwrite)  # again: another run may have ended meanwhile
            _begin(plan, where, overwrite)
            carry_out(plan, where, means, quiet)
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


@dataclass(frozen=True)
class Means:
    """What computes: the user's cluster, one of our own, or threads of this process.

    Attributes
    ----------
    client
        The user's cluster, if any.
    workers
        How many, where there is none.
    here
        Whether they are threads of this process.
    """

    client: distributed.Client | None
    workers: int
    here: bool

    @classmethod
    def of(cls, plan: Plan, client: distributed.Client | None, workers: int | None) -> Means:
        """What fits a plan; see `Simulation.run` for client and workers."""
        if client is not None:
            return cls(client, 0, False)
        fitting = _fitting_workers(min(len(plan.blocks), cpus()) if workers is None else workers, plan)
        here = workers is None and plan.core_seconds < HERE_SECONDS * min(fitting, _HERE_THREADS)
        return cls(None, fitting, here)


def carry_out(plan: Plan, where: Place, means: Means, quiet: bool, damaged: Damaged | None = None) -> None:
    """Make all that is not there, and what is damaged, in a prepared place whose lock is held.

    Raises
    ------
    RunError, DiskError
        If it cannot be finished now.
    """
    try:
        _do(plan, where, means, quiet, damaged or Damaged())
    except SourceError:
        raise
    except OSError as error:
        raise guard.stopped(error, where) from error


def _do(plan: Plan, where: Place, means: Means, quiet: bool, damaged: Damaged) -> None:
    low = place.check_free(plan, where)
    if low:
        warnings.warn(low, SimexmWarning, stacklevel=2)
    journal, layout = Journal.open(where.journal, plan.hash, where.scratch), Layout.of(plan)
    journal.distrust(
        r.block
        for r in journal.records()
        if r.block in damaged.blocks or not all_there(layout.of_block(where, r.block, r.result))
    )
    with _way(means) as execute:
        _passes(plan, where, execute, quiet)
        _execute(plan, where, journal, execute, quiet, run_block, Context(plan, where), "")
        make_levels(plan, where, execute, damaged.levels)
    finish(plan, where, journal, passes.counted_on_disk(plan, where))


@contextlib.contextmanager
def _way(means: Means) -> Iterator[Execute]:
    """How blocks are run: on the user's cluster, on one of our own, or, where that would not pay, in this process."""
    if means.here:
        from simexm.engine.here import execute_here

        yield partial(execute_here, threads=means.workers)
        return
    from simexm.engine.executor import execute

    if means.client is not None:
        yield partial(execute, client=means.client)
        return
    from simexm.engine.cluster import local_client

    with _caller_hidden(), local_client(means.workers) as started:
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
            journal = Journal.open(passes.folder(where, wanted.name) / "journal", plan.hash, where.scratch)
            journal.distrust(
                r.block for r in journal.records() if not passes.part(where, wanted.name, r.block).is_file()
            )
            context = Context(plan, where, wanted.name)
            _execute(plan, where, journal, execute, quiet, count_block, context, f"counting {wanted.name}")
            passes.merge(plan, where, wanted, sum(record.result["rows"] for record in journal.records()))
        passes.forget_parts(where, wanted)
        for text in stage.counted_warnings(wanted.name, passes.table_of(where, wanted.name)):
            warnings.warn(text, SimexmWarning, stacklevel=2)


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
