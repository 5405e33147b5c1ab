"""A run from plan to finished result: output, blocks, coarse levels, and the end."""

from __future__ import annotations

import contextlib
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.errors import GoneError, OutputError, RunError, SimexmWarning, SourceError, SpecError
from simexm.jobs.batch.record import Record
from simexm.jobs.events import Execute, Listener, Message
from simexm.jobs.journal import Journal, damaged_lines
from simexm.jobs.lock import lock
from simexm.jobs.progress import FailedFile, LogFile, progress
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.result import place
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run import folders, guard, passes
from simexm.run.backend import Means, workers_have_gpus
from simexm.run.finish import finish
from simexm.run.layout import Layout, all_there, look_at
from simexm.run.levels import make_levels
from simexm.run.same_source import SameSource
from simexm.run.verify import Damaged
from simexm.run.worker import Context, count_block, run_block

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster
    from simexm.jobs.task import BlockFunction
    from simexm.spec.simulation import Spec

COUNT_SECONDS_PER_VOXEL = 20e-9


def run(
    simulation: Spec,
    output: str | Path,
    *,
    client: distributed.Client | None = None,
    cluster: Cluster | None = None,
    workers: int | None = None,
    until: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    profile: bool = False,
    finished: Callable[[Place], None] = lambda place: None,
) -> Result:
    """See `Simulation.run`; `finished` is called when the result is complete, before the lock is released."""
    where = Place.at(output).claimed()
    _refuse_strange_means(client, cluster)
    plan = make_plan(simulation, until=until, gpu=workers_have_gpus(client, cluster))
    plan.warn()
    guard.refuse(plan, where, overwrite)
    means = Means.of(plan, client, cluster, workers)
    try:
        with lock(where.run / place.LOCK):
            guard.refuse(plan, where, overwrite)  # again: another run may have ended meanwhile
            if where.jobs.is_dir():
                Record(where.jobs).cancel_leftovers()
            _begin(plan, where, overwrite)
            carry_out(plan, where, means, quiet, profile=profile)
            finished(where)
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # where nothing came to be in it
    return Result.open(where.zarr)


def _refuse_strange_means(client: Any, cluster: Any) -> None:
    if client is not None:
        from distributed import Client

        if not isinstance(client, Client):
            raise SpecError(f"client is {reprlib.repr(client)}; give a distributed.Client, or leave it out")
    if cluster is not None:
        from simexm.jobs.clusters import Cluster

        if not isinstance(cluster, Cluster):
            raise SpecError(
                f"cluster is {reprlib.repr(cluster)}; give what simexm.cluster(path) returns, or leave it out"
            )


def _begin(plan: Plan, where: Place, overwrite: bool) -> None:
    """Make room and prepare; leaves nothing where the disk refuses."""
    mark = where.mark()
    fresh = overwrite or mark is None
    try:
        if fresh:
            guard.clear(where)
        folders.prepare(plan, where)
    except OSError as error:
        if fresh:
            guard.clear(where)
        raise OutputError(guard.why(error, f"{where.zarr} cannot be written")) from error


def carry_out(
    plan: Plan, where: Place, means: Means, quiet: bool, damaged: Damaged | None = None, profile: bool = False
) -> None:
    """Make all that is not there, and what is damaged, in a prepared place whose lock is held.

    Raises
    ------
    RunError, DiskError
        If it cannot be finished now.
    """
    try:
        _do(plan, where, means, quiet, damaged or Damaged(), profile)
    except (SourceError, GoneError):
        raise
    except OSError as error:
        raise guard.stopped(error, where) from error


def _do(plan: Plan, where: Place, means: Means, quiet: bool, damaged: Damaged, profile: bool) -> None:
    low = folders.check_free(plan, where)
    if low:
        warnings.warn(low, SimexmWarning, stacklevel=2)
    journal, layout = Journal.open(where.journal, plan.hash, where.scratch, len(plan.blocks)), Layout.of(plan)
    is_there = look_at(where, layout)
    journal.distrust(
        r.block
        for r in journal.records()
        if r.block in damaged.blocks or not all_there(layout.of_block(where, r.block, r.result), is_there)
    )
    source = SameSource.begin(plan, where)
    context = Context(plan, where, profile=profile, listed=source.listed, at_once=means.at_once)
    with means.way(where, len(plan.blocks), quiet) as execute:
        _passes(context, execute, quiet)
        _execute(journal, execute, quiet, run_block, context, "")
        make_levels(plan, where, execute, damaged.levels, is_there)
    source.end()
    finish(plan, where, journal, passes.counted_on_disk(plan, where))


def _passes(context: Context, execute: Execute, quiet: bool) -> None:
    """Make the passes that are not made yet, and say what they tell."""
    plan, where = context.plan, context.place
    for stage, wanted in passes.all_passes(plan):
        if not passes.is_merged(where, wanted):
            folder = passes.folder(where, wanted.name) / "journal"
            journal = Journal.open(folder, plan.hash, where.scratch, len(plan.blocks))
            is_there = passes.parts_there(where, wanted.name)
            journal.distrust(
                r.block for r in journal.records() if not is_there(str(passes.part(where, wanted.name, r.block)))
            )
            counting = replace(context, counting=wanted.name)
            _execute(journal, execute, quiet, count_block, counting, f"counting {wanted.name}")
            passes.merge(plan, where, wanted, sum(record.result["rows"] for record in journal.records()))
        passes.forget_parts(where, wanted)
        for text in stage.counted_warnings(wanted.name, passes.table_of(where, wanted.name)):
            warnings.warn(text, SimexmWarning, stacklevel=2)


def _execute(
    journal: Journal,
    execute: Execute,
    quiet: bool,
    function: BlockFunction,
    context: Context,
    what: str,
) -> None:
    """Run a function over the blocks that its journal lacks."""
    plan, where = context.plan, context.place
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
        log(Message(damaged_lines(journal)))
    if outcome.failed_count:
        if guard.is_lost(where) or guard.is_gone(where):
            raise guard.lost(where)
        first = outcome.failed[0]
        raise RunError(
            f"{outcome.failed_count} of {total} blocks failed, the first with: {first.error} (on {first.host}). "
            f"The others are kept; {where.run / 'failed.jsonl'} lists them. Mend the cause and type the same command again"
        )
