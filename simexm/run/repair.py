"""Repair a result: compute again what is damaged, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError, SourceError, SpecError
from simexm.jobs.lock import lock
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.result import place
from simexm.result.place import LOCK, Place
from simexm.run import folders, guard, maps, passes, series, volumes
from simexm.run.backend import Backend
from simexm.run.driver import carry_out
from simexm.run.layout import array_key, metadata_keys
from simexm.run.verify import Damage, Progress, Verification, read_plan
from simexm.stages.contract import CountPass
from simexm.store.claims import claim
from simexm.store.files import remove_tree
from simexm.store.location import Location

if TYPE_CHECKING:
    import distributed

    from simexm.spec.simulation import Spec


def repair(
    output: str | Path,
    report: Callable[[Damage], None],
    *,
    simulation: Spec | None = None,
    client: distributed.Client | None = None,
    workers: int | None = None,
    quiet: bool = False,
    progress: Progress = lambda done, total: None,
    finished: Callable[[Place], None] = lambda place: None,
) -> Verification:
    """Verify a result and compute damaged blocks, coarse shards, tables and metadata again.

    All other files keep their bytes. A pass before the images is repeated completely, since its parts are not kept. An
    unfinished result is finished.

    `report` is called with each damage before anything is repaired, `progress` with the numbers of verified and of all
    blocks. `simulation` is a spec with the new path of the source if that has moved; by default, that in the result.
    The others are as in `driver.run`.

    Raises OutputError if there is no result, or it has another format or was computed by other versions.
    """
    where = Place.where(output).claimed()
    Verification(where)  # raises before a lock or folder is made
    guard.refuse_links(where)
    attributes = where.mark() or read_plan(where) or {}
    kind = attributes.get("kind", place.SIMULATION)
    if kind != place.SIMULATION:
        raise OutputError(
            f"{where.zarr} was written by `simexm {kind}`, and only simulations can be repaired; type that command again "
            "with --overwrite"
        )
    place.refuse_other_format(where.zarr, attributes, "repaired files would not fit its other files")
    with lock(where.run / LOCK):
        plan = _plan_again(where, simulation)
        place.retire_scratch(where)
        claim(where.scratch)
        try:
            plan_is_new = not folders.has_plan(plan, where)
            if plan_is_new:
                report(Damage(where.run / place.PLAN, "is not the plan of this result"))
                folders.write_plan(plan, where)
            found = Verification(where, progress, plan_is_new=plan_is_new)
            for damage in found:
                report(damage)
            if not found.sound:
                _repair_metadata(plan, where, found.damaged.files)
                backend = Backend.of(plan, client, workers=workers)
                carry_out(plan, where, backend, quiet, found.damaged, finished=finished)
        finally:
            remove_tree(where.run / place.SCRATCH, ignore_errors=True)
    return found


def _plan_again(where: Place, simulation: Spec | None) -> Plan:
    """Plan the result's run again."""
    from simexm.spec.simulation import Spec

    stored = [k for k in (read_plan(where), where.mark()) if k and {"hash", "until", "spec"} <= k.keys()]
    if not stored:
        raise OutputError(
            f"the spec is missing in both {where.zarr} and {where.run}; compute the result again with --overwrite"
        )
    for n, known in enumerate(stored):  # one of the two may be damaged
        try:
            plan = make_plan(simulation or Spec.from_mapping(known["spec"]), until=known["until"])
        except SourceError as error:
            raise OutputError(
                f"nothing can be repaired without the labels: {error}. If they have moved, type --spec SPEC with a spec that "
                "names their new path"
            ) from error
        except SpecError:
            if n + 1 < len(stored):
                continue
            raise
        if plan.hash == known["hash"]:
            return plan
    raise OutputError(
        f"{where.zarr} was computed with other parameters, labels or versions (hash {known['hash'][:12]}, now "
        f"{plan.hash[:12]}), so repaired blocks would not fit the others: {_differences(known, plan)}. Use those, or compute "
        "all of it again with `simexm run --overwrite`"
    )


def _differences(stored: dict[str, Any], plan: Plan) -> str:
    then, now = stored.get("versions", {}), plan.versions
    changed = [f"{name} {then[name]}, now {now.get(name)}" for name in then if then[name] != now.get(name)]
    return "it was computed with " + ", ".join(changed) if changed else "its spec or its labels differ"


def _repair_metadata(plan: Plan, where: Place, files: list[Location]) -> None:
    """Write damaged metadata again, and remove damaged passes; the run's end writes everything else again.

    Groups stay empty until that end, but Zarr could not open a damaged one.
    """
    damaged = set(files)
    if where.run / place.MANIFEST in damaged:  # then the files that it lists cannot be checked
        damaged |= {where.zarr / key for key in metadata_keys(plan)} | {
            where.passes / w.name for _, w in passes.all_passes(plan)
        }
    if where.mark() is None:
        folders.write_mark(plan, where, place.INCOMPLETE)
    arrays = {
        where.zarr / array_key(output.group, level): array
        for output in plan.outputs
        for level, array in enumerate(volumes.arrays(plan.volumes, where, output))
    }
    for key in metadata_keys(plan):
        if where.zarr / key in damaged - arrays.keys() - {where.zarr / "zarr.json"}:
            folders.write_attributes(where, str(PurePosixPath(key).parent), {})
    for path in damaged & arrays.keys():
        arrays[path].create()
    for _, wanted in passes.all_passes(plan):
        folder = passes.folder(where, wanted.name)
        if any(folder in (path, *path.parents) and _ends_pass(path, wanted, where) for path in damaged):
            remove_tree(folder)
    for _, mapped in maps.all_maps(plan):
        folder = maps.folder(where, mapped)
        if any(folder in path.parents for path in damaged):
            remove_tree(folder)
    for _, followed in series.all_series(plan):
        if where.run / place.MANIFEST in damaged or any(where.zarr / followed.name in path.parents for path in damaged):
            remove_tree(series.folder(where, followed), ignore_errors=True)


def _ends_pass(path: Location, wanted: CountPass, where: Place) -> bool:
    """Return whether a damaged file makes a pass start again; without a table, its journal still lists its blocks."""
    return path.parent.name != "journal" or passes.is_merged(where, wanted)
