"""Run a simulation from plan to finished result: output, passes, blocks, coarse levels, metadata."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.errors import SimexmWarning
from simexm.jobs.events import Execute
from simexm.jobs.job import Job, run_job
from simexm.jobs.journal import Journal, Record
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run import folders, guard, maps, passes, series
from simexm.run import output as outputs
from simexm.run.backend import Backend, check_types, workers_have_gpus
from simexm.run.finish import finish
from simexm.run.job import job_in
from simexm.run.layout import Layout, all_exist, list_files
from simexm.run.levels import make_levels
from simexm.run.same_source import SameSource
from simexm.run.verify import Damaged
from simexm.run.worker import Context, count_block, follow_cells, map_block, run_block
from simexm.stages.contract import CountPass, MapPass
from simexm.store.location import Location

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster
    from simexm.jobs.task import BlockFunction
    from simexm.spec.simulation import Spec

COUNT_SECONDS_PER_VOXEL = 20e-9
MAP_SECONDS_PER_VOXEL = 100e-9
SERIES_SECONDS_PER_VALUE = 100e-9


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
    Place.at(output)  # its name is checked before anything is planned
    check_types(client, cluster)
    plan = make_plan(simulation, until=until, gpu=workers_have_gpus(client, cluster))
    plan.warn()
    shown: dict[str, Any] = {"quiet": quiet, "profile": profile, "finished": finished}
    return run_plan(plan, output, client=client, cluster=cluster, workers=workers, overwrite=overwrite, **shown)


def run_plan(
    plan: Plan,
    output: str | Path | Location,
    *,
    client: distributed.Client | None = None,
    cluster: Cluster | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    profile: bool = False,
    finished: Callable[[Place], None] = lambda place: None,
) -> Result:
    """Run what was planned; see `Simulation.run` for the parameters."""
    where = Place.at(output).claimed()
    reads = tuple(guard.labels_read(plan.simulation.source))
    guard.refuse(plan.hash, reads, where, overwrite)
    backend = Backend.of(plan, client, cluster, workers)
    with outputs.held(plan.hash, reads, where, overwrite):
        outputs.begin(where, overwrite, lambda: folders.prepare(plan, where))
        carry_out(plan, where, backend, quiet, profile=profile, finished=finished)
    return Result.open(where.zarr)


def carry_out(
    plan: Plan,
    where: Place,
    backend: Backend,
    quiet: bool,
    damaged: Damaged | None = None,
    profile: bool = False,
    finished: Callable[[Place], None] = lambda place: None,
) -> None:
    """Compute everything that is missing or damaged in a prepared output whose lock is held; then call `finished`.

    Raises RunError or DiskError if it cannot be finished now.
    """
    with outputs.kept(where):
        _do(plan, where, backend, quiet, damaged or Damaged(), profile)
        finished(where)


def _do(plan: Plan, where: Place, backend: Backend, quiet: bool, damaged: Damaged, profile: bool) -> None:
    low = folders.check_free(plan, where)
    if low:
        warnings.warn(low, SimexmWarning, stacklevel=2)
    layout = Layout.of(plan.to_mapping())
    exists = list_files(where, layout)
    source = SameSource.begin(plan, where)
    context = Context(plan, where, profile=profile, listed=source.listed, at_once=backend.at_once)

    def is_sound(record: Record) -> bool:
        files = layout.of_block(where, record.block, record.result)
        return record.block not in damaged.blocks and all_exist(files, exists)

    with backend.start(where, plan.count, quiet) as execute:
        _run_passes(context, execute, quiet)
        images = _job(context, run_block, where.journal, plan.count, core_seconds=plan.core_seconds, is_sound=is_sound)
        journal = run_job(images, execute, quiet=quiet)
        make_levels(plan.volumes, plan.hash, where, execute, layout, exists, damaged.levels)
    source.end()
    finish(plan, where, journal, passes.counted_on_disk(plan, where))


def _run_passes(context: Context, execute: Execute, quiet: bool) -> None:
    """Run the passes that are not finished, and issue the stages' warnings about their tables; then make maps and series."""
    plan, where = context.plan, context.place
    for stage, wanted in passes.all_passes(plan):
        if not passes.is_merged(where, wanted):
            run_job(_pass_job(context, wanted), execute, quiet=quiet)
        passes.remove_parts(where, wanted)
        for text in stage.counted_warnings(wanted.name, passes.table_of(where, wanted.name)):
            warnings.warn(text, SimexmWarning, stacklevel=2)
    for _, mapped in maps.all_maps(plan):
        run_job(_map_job(context, mapped), execute, quiet=quiet)
    for one in series.stored(plan, where, passes.tables_on_disk(plan, where)):
        series.create(one)
        run_job(_series_job(context, one), execute, quiet=quiet)


def _map_job(context: Context, wanted: MapPass) -> Job:
    """Make the job that makes one map."""
    plan, where = context.plan, context.place
    exists = maps.list_files(where, wanted)

    def is_sound(record: Record) -> bool:
        return all(exists(str(path)) for path in maps.files_of(where, wanted, record.block))

    making, path = replace(context, counting=wanted.name), maps.folder(where, wanted) / "journal"
    seconds = MAP_SECONDS_PER_VOXEL * plan.geometry.crop.size
    return _job(
        making,
        map_block,
        path,
        len(plan.blocks),
        what=f"mapping {wanted.name}",
        core_seconds=seconds,
        is_sound=is_sound,
    )


def _series_job(context: Context, one: series.Stored) -> Job:
    """Make the job that makes one series."""
    plan, where, name = context.plan, context.place, one.wanted.name

    def is_sound(record: Record) -> bool:
        return (where.zarr / one.array("id").key((record.block,))).exists()

    making, path, total = (
        replace(context, counting=name),
        series.folder(where, one.wanted) / "journal",
        series.groups(one.cells),
    )
    values = one.cells * plan.acquisition.length("time")
    what, seconds = f"following {name}", SERIES_SECONDS_PER_VALUE * values
    return job_in(
        where,
        plan.hash,
        total,
        follow_cells,
        making,
        path,
        voxels=values,
        what=what,
        core_seconds=seconds,
        is_sound=is_sound,
    )


def _pass_job(context: Context, wanted: CountPass) -> Job:
    """Make the job that counts for one pass and merges its table."""
    plan, where, name = context.plan, context.place, wanted.name
    exists = passes.list_parts(where, name)

    def is_sound(record: Record) -> bool:
        return exists(str(passes.part(where, name, record.block)))

    def merge(journal: Journal) -> None:
        passes.merge(plan, where, wanted, sum(record.result["rows"] for record in journal.records()))

    counting, path, what = replace(context, counting=name), passes.folder(where, name) / "journal", f"counting {name}"
    seconds = COUNT_SECONDS_PER_VOXEL * plan.geometry.crop.size
    return _job(
        counting, count_block, path, len(plan.blocks), what=what, core_seconds=seconds, is_sound=is_sound, merge=merge
    )


def _job(context: Context, function: BlockFunction, journal: Location, total: int, **more: Any) -> Job:
    plan, where, voxels = context.plan, context.place, context.plan.geometry.crop.size
    return job_in(where, plan.hash, total, function, context, journal, voxels=voxels, **more)
