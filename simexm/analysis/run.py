"""Run an analysis as a job: blocks on workers, journal, coarse levels, tables and scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.analysis.blocks import Context, measure_block
from simexm.analysis.contract import Analysis
from simexm.analysis.finish import finish, mark_of
from simexm.analysis.plan import AnalysisPlan
from simexm.analysis.same_inputs import SameInputs
from simexm.analysis.survey import survey
from simexm.jobs.job import Job, run_job
from simexm.result.place import INCOMPLETE, MARK, PLAN, Place, retire_scratch
from simexm.result.result import Result
from simexm.run import guard, volumes
from simexm.run.backend import Backend, check_types
from simexm.run.job import job_in
from simexm.run.layout import Exists, Layout, all_exist, list_files
from simexm.run.levels import make_levels
from simexm.run.output import begin, held, kept
from simexm.store.claims import claim
from simexm.store.files import Files, remove_tree
from simexm.store.location import Location
from simexm.store.omezarr import write_group
from simexm.store.remote import Remote
from simexm.units import count, duration, size

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster


def run_analysis(
    analysis: Analysis,
    inputs: tuple[Any, ...],
    output: str | Path | Remote,
    client: distributed.Client | None = None,
    cluster: Cluster | None = None,
    workers: int | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """See `Analysis.run`."""
    where = Place.at(output).claimed()
    check_types(client, cluster)
    plan = AnalysisPlan.of(analysis, inputs)
    refuse(plan, where, overwrite)
    backend = Backend.of(plan, client, cluster, workers)
    with held(plan.hash, _reads(plan), where, overwrite):
        begin(where, overwrite, lambda: _prepare(plan, where))
        with kept(where):
            _do(plan, where, backend, quiet)
    return Result.open(where.zarr)


def refuse(plan: AnalysisPlan, where: Place, overwrite: bool) -> None:
    """Raise if the output must not be written; see `simexm.run.guard.refuse`."""
    guard.refuse(plan.hash, _reads(plan), where, overwrite)


def _reads(plan: AnalysisPlan) -> list[Location]:
    return [place for one in plan.inputs for place in one.places]


def _do(plan: AnalysisPlan, where: Place, backend: Backend, quiet: bool) -> None:
    layout = Layout.of(plan.to_mapping())
    exists = list_files(where, layout)
    predicted = plan.memory.at_once(backend.at_once)
    context = Context(plan.analysis, plan.inputs, where, plan.hash, predicted)
    if not quiet:
        print(
            f"{plan.analysis.tag}: {count(len(plan.blocks), 'block')}, {size(plan.memory.total)} a worker, about "
            f"{duration(plan.core_seconds)} of one core",
            file=sys.stderr,
            flush=True,
        )
    same = SameInputs.begin(plan, where)
    with backend.start(where, len(plan.blocks), quiet) as execute:
        survey(plan, context, execute, quiet)
        journal = run_job(_job(plan, context, layout, exists), execute, quiet=quiet)
        make_levels(plan.volumes, plan.hash, where, execute, layout, exists)
    same.end()
    finish(plan, where, journal)
    remove_tree(where.passes, ignore_errors=True)


def _prepare(plan: AnalysisPlan, where: Place) -> None:
    """Mark the output as simexm's before anything else is written, then create its folders and arrays."""
    retire_scratch(where)
    claim(where.scratch)
    Files(where.run, where.scratch).put(PLAN, (json.dumps(plan.to_mapping(), indent=2) + "\n").encode())
    fresh = where.mark() is None
    write_group(where.files, "", {MARK: mark_of(plan, INCOMPLETE)})
    if fresh:
        volumes.create(plan.volumes, where)
    else:
        volumes.create_missing(plan.volumes, where)
    for folder in (where.journal, where.tables):
        folder.mkdir(exist_ok=True)


def _job(plan: AnalysisPlan, context: Context, layout: Layout, exists: Exists) -> Job:
    where = context.place
    return job_in(
        where,
        plan.hash,
        len(plan.blocks),
        measure_block,
        context,
        where.journal,
        what=plan.analysis.tag,
        voxels=plan.bench.voxels,
        core_seconds=plan.core_seconds,
        is_sound=lambda record: all_exist(layout.of_block(where, record.block, record.result), exists),
    )
