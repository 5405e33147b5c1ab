"""An analysis as a job: its blocks on workers, a journal, tables and scores."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from simexm.analysis.contract import Analysis, Bench, Score
from simexm.analysis.plan import AnalysisPlan
from simexm.errors import GoneError
from simexm.jobs.batch.record import Record as BatchRecord
from simexm.jobs.job import Job, run_job
from simexm.jobs.journal import Journal
from simexm.jobs.lock import lock
from simexm.jobs.sums_by_id import merged, write_part
from simexm.result.place import COMPLETE, INCOMPLETE, LOCK, MARK, PLAN, SCORES, SCRATCH, Place, retire_scratch
from simexm.result.result import Result
from simexm.run import guard
from simexm.run.backend import Backend
from simexm.run.job import job_in
from simexm.run.layout import write_manifest
from simexm.run.worker import peak_bytes
from simexm.store.claims import claim
from simexm.store.files import Files, remove_tree, writing
from simexm.store.listing import presence
from simexm.store.location import Location
from simexm.store.omezarr import group_bytes, write_group
from simexm.store.remote import Remote

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster


@dataclass(frozen=True)
class _Context:
    """What a worker needs: the analysis, its inputs, the output, the parameter hash, and the memory that was predicted."""

    analysis: Analysis
    inputs: tuple[Result, ...]
    place: Place
    hash: str
    predicted_bytes: int


def run_analysis(
    analysis: Analysis,
    inputs: tuple[Result, ...],
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
    plan = AnalysisPlan.of(analysis, inputs)
    refuse(plan, where, overwrite)
    backend = Backend.of(plan, client, cluster, workers)
    try:
        with lock(where.run / LOCK):
            refuse(plan, where, overwrite)  # again: another may have ended meanwhile
            if where.jobs.is_dir():
                BatchRecord(where.jobs).cancel_leftovers()
            try:
                _prepare(plan, where, overwrite)
                with backend.way(where, len(plan.blocks), quiet) as execute:
                    run_job(_job(plan, where, backend), execute, quiet=quiet)
            except GoneError:
                raise
            except OSError as error:
                raise guard.stopped(error, where) from error
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # where nothing came to be in it
    return Result.open(where.zarr)


def refuse(plan: AnalysisPlan, where: Place, overwrite: bool) -> None:
    """Refuse an output that is in the way; see `simexm.run.guard.refuse`."""
    reads = [place for one in plan.inputs for place in (one.place.zarr, one.place.run)]
    guard.refuse(plan.hash, reads, where, overwrite)


def _prepare(plan: AnalysisPlan, where: Place, overwrite: bool) -> None:
    """Make room, and mark the output as ours before anything is in it."""
    if overwrite or where.mark() is None:
        guard.clear(where)
    retire_scratch(where)
    claim(where.scratch)
    Files(where.run, where.scratch).put(PLAN, (json.dumps(plan.to_mapping(), indent=2) + "\n").encode())
    write_group(where.files, "", {MARK: _mark(plan, INCOMPLETE)})
    for folder in (where.journal, where.tables):
        folder.mkdir(exist_ok=True)


def _mark(plan: AnalysisPlan, status: str) -> dict[str, Any]:
    about = {
        k: v for k, v in plan.to_mapping().items() if k in ("hash", "format", "kind", "inputs", "settings", "versions")
    }
    return {**about, "status": status}


def _job(plan: AnalysisPlan, where: Place, backend: Backend) -> Job:
    is_there = presence(*(_part(where, name, 0).parent for name in plan.bench.columns))
    predicted = plan.memory.at_once(backend.at_once)
    return job_in(
        where,
        plan.hash,
        len(plan.blocks),
        measure_block,
        _Context(plan.analysis, plan.inputs, where, plan.hash, predicted),
        where.journal,
        what=plan.analysis.tag,
        voxels=plan.bench.voxels,
        core_seconds=plan.core_seconds,
        is_sound=lambda record: all(is_there(str(_part(where, name, record.block))) for name in plan.bench.columns),
        merge=lambda journal: _finish(plan, where, journal),
    )


def measure_block(context: _Context, number: int) -> dict[str, Any]:
    """Measure one block and write its sums; what is returned goes to the journal."""
    guard.refuse_strange(context.hash, context.place)
    rows = {}
    for name, sums in _bench_of(context).measure(number).items():
        write_part(sums, _part(context.place, name, number), context.place.scratch)
        rows[name] = int(sums.ids.size)
    return {"rows": rows, "peak_bytes": peak_bytes(), "predicted_bytes": context.predicted_bytes}


_benches: dict[str, Bench] = {}
_opening = threading.Lock()


def _bench_of(context: _Context) -> Bench:
    """The opened inputs, once in each process for each driver."""
    name = context.hash + context.place.claim
    with _opening:
        if name not in _benches:
            _benches.clear()
            _benches[name] = context.analysis.open(context.inputs)
        return _benches[name]


def _part(where: Place, name: str, number: int) -> Location:
    return where.passes / name / "parts" / f"block-{number:07d}.parquet"


def _finish(plan: AnalysisPlan, where: Place, journal: Journal) -> None:
    """Add up the blocks' sums, conclude, and write tables, scores and metadata; the parts are removed."""
    rows = dict.fromkeys(plan.bench.columns, 0)
    for record in journal.records():
        for name in rows:
            rows[name] += record.result["rows"][name]
    sums = {
        name: merged((_part(where, name, n) for n in plan.blocks), rows[name], columns, where.scratch)
        for name, columns in plan.bench.columns.items()
    }
    found = plan.bench.conclude(sums)
    tables = {f"tables/{name}.parquet": table for name, table in found.tables.items()}
    tables[SCORES] = _scores(plan, found.scores)
    for name, table in tables.items():
        with writing(where.run / name, where.scratch) as partial:
            pq.write_table(table, partial, compression="zstd")
    attributes = {MARK: {**_mark(plan, COMPLETE), "tables": sorted(found.tables)}}
    write_manifest(where, (), [where.run / name for name in (PLAN, *tables)], group_bytes(attributes))
    write_group(where.files, "", attributes)
    remove_tree(where.passes)
    remove_tree(where.run / SCRATCH, ignore_errors=True)


def _scores(plan: AnalysisPlan, scores: tuple[Score, ...]) -> pa.Table:
    """One row for each score; `inputs` holds the hashes of what it was computed from, as JSON."""
    inputs = json.dumps(dict(plan.bench.inputs), sort_keys=True)
    rows: list[Mapping[str, Any]] = [{"kind": plan.analysis.tag, **asdict(s), "inputs": inputs} for s in scores]
    names = ("kind", "score", "subset", "value", "unit", "definition", "inputs")
    types = [pa.float64() if name == "value" else pa.string() for name in names]
    columns = zip(names, types, strict=True)
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns})
