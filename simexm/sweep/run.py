"""Run a sweep: points side by side on the same workers, each with its own journal, then one table."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError, RunError, SimexmError, SimexmWarning
from simexm.machine import cpus
from simexm.result.place import COMPLETE, INCOMPLETE, MARK, PLAN, SCORES, SCRATCH, Place
from simexm.result.result import Result
from simexm.run import guard
from simexm.run import output as outputs
from simexm.run.backend import Backend, check_types
from simexm.run.driver import run_plan
from simexm.run.layout import write_manifest
from simexm.spec.simulation import Spec
from simexm.store import omezarr
from simexm.store.claims import claim
from simexm.store.files import Files, remove_tree, writing
from simexm.store.remote import Remote
from simexm.sweep.measuring import measured
from simexm.sweep.points import Point, points_of
from simexm.sweep.settings import Sweep
from simexm.sweep.table import cost_of, points_table, scores_table
from simexm.units import count
from simexm.version import FORMAT_VERSION, RESULTS_VERSION

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster

KIND = "sweep"
POINTS = "points"
"""Folder below NAME.run with what each point left, by its parameter hash."""
_AT_ONCE = 8
"""Most points that are in progress at the same time."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep with all its points, validated and planned."""

    sweep: Sweep
    points: list[Point]

    @classmethod
    def of(cls, spec: Spec, sweep: Sweep) -> SweepPlan:
        """Plan; raises SpecError with the problems of all points."""
        return cls(sweep, points_of(spec, sweep))

    @property
    def unique(self) -> list[Point]:
        """One point of each parameter hash, in order."""
        return list({point.hash: point for point in reversed(self.points)}.values())[::-1]

    @property
    def core_seconds(self) -> float:
        """Rough work of all simulations; what is measured on them comes on top."""
        return sum(point.plan.core_seconds for point in self.unique)

    @property
    def nbytes(self) -> int:
        """Bytes of all images and label images before compression."""
        return sum(int(point.plan.to_mapping()["bytes_uncompressed"]) for point in self.unique)

    @property
    def hash(self) -> str:
        """Hash of all that decides the table."""
        text = json.dumps([[p.hash, p.number, p.specimen, p.noise] for p in self.points])
        text += self.sweep.model_dump_json() + str(RESULTS_VERSION)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_mapping(self) -> dict[str, Any]:
        """The plan as plain data, for `plan.json`."""
        return {
            "hash": self.hash,
            "format": FORMAT_VERSION,
            "kind": KIND,
            "inputs": {},
            "settings": self.sweep.model_dump(mode="json"),
            "versions": {"simexm": importlib.metadata.version("simexm"), "results": str(RESULTS_VERSION)},
            "points": [
                {"point": p.number, "hash": p.hash, "values": dict(p.values), "specimen": p.specimen, "noise": p.noise}
                for p in self.points
            ],
            "core_seconds": round(self.core_seconds, 1),
            "bytes_uncompressed": self.nbytes,
        }


def run_sweep(
    spec: Spec,
    sweep: Sweep,
    output: str | Path,
    *,
    client: distributed.Client | None = None,
    cluster: Cluster | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """See `Simulation.sweep`."""
    check_types(client, cluster)
    where = checked_place(output)
    plan = SweepPlan.of(spec, sweep)
    reads = [place for point in plan.unique for place in guard.labels_read(point.plan.simulation.source)]
    guard.refuse(plan.hash, reads, where, overwrite)
    for point in plan.unique:  # whether a worker's memory suffices for each
        Backend.of(point.plan, client, cluster)
    backend = Backend(client, cluster, workers or cpus(), threads=False)
    with outputs.held(plan.hash, reads, where, overwrite):
        outputs.begin(where, overwrite, lambda: _prepare(plan, where))
        with outputs.kept(where):
            failed = _run_points(plan, where, backend, quiet)
            _finish(plan, where, failed)
    return Result.open(where.zarr)


def checked_place(output: str | Path) -> Place:
    """Check the output's name; raises OutputError for a URL, since programs read and write files."""
    where = Place.at(output)
    if isinstance(where.zarr, Remote):
        raise OutputError(f"a sweep is written to a disk, and {output} is a URL; name a folder, and copy it afterwards")
    return where.claimed()


def _prepare(plan: SweepPlan, where: Place) -> None:
    claim(where.scratch)
    Files(where.run, where.scratch).put(PLAN, (json.dumps(plan.to_mapping(), indent=2) + "\n").encode())
    omezarr.write_group(where.files, "", {MARK: _mark(plan, INCOMPLETE)})
    for folder in (where.run / POINTS, where.tables):
        folder.mkdir(exist_ok=True)


def _mark(plan: SweepPlan, status: str) -> dict[str, Any]:
    about = plan.to_mapping()
    return {
        **{key: about[key] for key in ("hash", "format", "kind", "inputs", "settings", "versions")},
        "outputs": [],
        "status": status,
    }


def _run_points(plan: SweepPlan, where: Place, backend: Backend, quiet: bool) -> dict[str, str]:
    """Run all points that are not done; return why those failed that did, by hash."""
    waiting = [point for point in plan.unique if not _record(where, point).exists()]
    failed: dict[str, str] = {}
    if not waiting:
        return failed
    blocks = sum(point.plan.count for point in waiting)
    _tell(
        f"{count(len(waiting), 'point')} of {len(plan.unique)} to run, about {plan.core_seconds:.0f} core-seconds",
        quiet,
    )
    with backend.connected(where, blocks, quiet) as client:
        at_once = min(_AT_ONCE, len(waiting), 1 + max(1, len(client.scheduler_info()["workers"])))
        stopped = threading.Event()
        with ThreadPoolExecutor(at_once, thread_name_prefix="point") as pool:
            running = {pool.submit(_point, plan.sweep, point, where, client, stopped): point for point in waiting}
            try:
                for done, future in enumerate(as_completed(running), 1):
                    point, why = running[future], future.result()
                    if why:
                        failed[point.hash] = why
                        warnings.warn(f"{point.name} failed, and the others go on: {why}", SimexmWarning, stacklevel=2)
                    _tell(f"{done} of {len(waiting)}: {point.name}", quiet)
            except BaseException:
                stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    if len(failed) == len(plan.unique):
        raise RunError(f"all points failed; the first: {next(iter(failed.values()))}")
    return failed


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        print(f"sweep: {text}", file=sys.stderr, flush=True)


def _record(where: Place, point: Point) -> Path:
    """Scores of a point, written last."""
    return Path(str(where.run / POINTS / f"{point.hash}.json"))


def _point(sweep: Sweep, point: Point, where: Place, client: distributed.Client, stopped: threading.Event) -> str:
    """Simulate a point and measure it; return why it failed, empty if it did not."""
    if stopped.is_set():
        return "stopped"
    folder = Path(str(where.run / POINTS))
    image, spec = folder / f"{point.hash}.zarr", folder / f"{point.hash}.yaml"
    try:
        point.spec.save(spec)
        if not (image.exists() and Result.open(image).complete):
            run_plan(point.plan, image, client=client, quiet=True)
        rows = []
        for name, what in sweep.measure.items():
            if stopped.is_set():
                return "stopped"
            rows += measured(name, what, image, spec, folder / f"{point.hash}-{name}.zarr", client)
    except (SimexmError, OSError) as error:
        return str(error)
    if sweep.keep == "scores":
        for path in _left_by(folder, point):
            remove_tree(path)
    record = json.dumps({"scores": rows, "cost": cost_of(point)}, indent=1, sort_keys=True)
    Files(where.run, where.scratch).put(f"{POINTS}/{point.hash}.json", record.encode())
    return ""


def _left_by(folder: Path, point: Point) -> Iterator[Path]:
    """All that a point and its measurements wrote, but its spec."""
    yield from (path for path in sorted(folder.glob(f"{point.hash}*")) if path.suffix != ".yaml")


def _finish(plan: SweepPlan, where: Place, failed: dict[str, str]) -> None:
    """Write the tables; with failed points the sweep remains incomplete, so that the same command tries them again."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    records = {p.hash: json.loads(_record(where, p).read_text()) for p in plan.unique if p.hash not in failed}
    tables = {
        f"tables/{POINTS}.parquet": points_table(plan.sweep, plan.points, records, failed),
        SCORES: scores_table(plan.sweep, plan.points, records),
    }
    for name, table in tables.items():
        with writing(where.run / name, where.scratch) as file:
            pq.write_table(table, file, compression="zstd")
    root = {MARK: {**_mark(plan, INCOMPLETE if failed else COMPLETE), "tables": [POINTS]}}
    if not failed:
        write_manifest(where, [], [where.run / name for name in (PLAN, *tables)], omezarr.group_bytes(root))
    omezarr.write_group(where.files, "", root)
    if not failed:
        remove_tree(where.run / SCRATCH, ignore_errors=True)
