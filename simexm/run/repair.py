"""Making again what is damaged in a result, and nothing else."""

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
from simexm.run import folders, guard, passes, volumes
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
    tell: Callable[[Damage], None],
    *,
    simulation: Spec | None = None,
    client: distributed.Client | None = None,
    workers: int | None = None,
    quiet: bool = False,
    progress: Progress = lambda done, total: None,
    finished: Callable[[Place], None] = lambda place: None,
) -> Verification:
    """Verify a result and make again the blocks, coarse shards, tables and metadata that are damaged.

    Every other file keeps its bytes. A pass that came before the images is made again as a whole, since its parts are not
    kept. A result that was never finished is finished.

    Parameters
    ----------
    output
        The result.
    tell
        Called with each damage before anything is mended.
    simulation
        Where the source has moved: the spec that names its new place; None for the one that the result keeps.
    client, workers, quiet
        As in `Simulation.run`.
    progress
        Called with blocks verified and all blocks.
    finished
        Called when the result is complete again.

    Raises
    ------
    OutputError
        If there is no result, or it is of another format, or was made by other versions.
    """
    where = Place.where(output).claimed()
    Verification(where)  # refuses before a lock or folder is made
    guard.refuse_links(where)
    told = where.mark() or read_plan(where) or {}
    kind = told.get("kind", place.SIMULATION)
    if kind != place.SIMULATION:
        raise OutputError(
            f"{where.zarr} was made by `simexm {kind}`, and only simulations can be repaired; type that command again with "
            "--overwrite"
        )
    place.refuse_other_format(where.zarr, told, "what a repair makes again would not fit its other files")
    with lock(where.run / LOCK):
        plan = _plan_again(where, simulation)
        place.retire_scratch(where)
        claim(where.scratch)
        try:
            plan_is_new = not folders.has_plan(plan, where)
            if plan_is_new:
                tell(Damage(where.run / place.PLAN, "is not the plan of this result"))
                folders.write_plan(plan, where)
            found = Verification(where, progress, plan_is_new=plan_is_new)
            for damage in found:
                tell(damage)
            if not found.sound:
                _mend_named(plan, where, found.damaged.files)
                backend = Backend.of(plan, client, workers=workers)
                carry_out(plan, where, backend, quiet, found.damaged, finished=finished)
        finally:
            remove_tree(where.run / place.SCRATCH, ignore_errors=True)
    return found


def _plan_again(where: Place, simulation: Spec | None) -> Plan:
    """The plan by which the result was made."""
    from simexm.spec.simulation import Spec

    kept = [k for k in (read_plan(where), where.mark()) if k and {"hash", "until", "spec"} <= k.keys()]
    if not kept:
        raise OutputError(
            f"neither {where.zarr} nor {where.run} holds the spec any more; run it again with --overwrite"
        )
    for n, told in enumerate(kept):  # if one of the two is damaged, the other is not
        try:
            plan = make_plan(simulation or Spec.from_mapping(told["spec"]), until=told["until"])
        except SourceError as error:
            raise OutputError(
                f"nothing can be made again without the labels: {error}. Where they have moved, type --spec SPEC with a spec "
                "that names their new place"
            ) from error
        except SpecError:
            if n + 1 < len(kept):
                continue
            raise
        if plan.hash == told["hash"]:
            return plan
    raise OutputError(
        f"{where.zarr} was made by other parameters, labels or versions (hash {told['hash'][:12]}, now {plan.hash[:12]}), so "
        f"what would be made now does not fit in: {_differences(told, plan)}. Use those, or make all anew with "
        "`simexm run --overwrite`"
    )


def _differences(kept: dict[str, Any], plan: Plan) -> str:
    then, now = kept.get("versions", {}), plan.versions
    told = [f"{name} {then[name]}, now {now.get(name)}" for name in then if then[name] != now.get(name)]
    return "it was made with " + ", ".join(told) if told else "its spec or its labels are others"


def _mend_named(plan: Plan, where: Place, files: list[Location]) -> None:
    """Write metadata anew, and let passes be made anew; all else that has a name is written when a run ends.

    Groups are still empty then, too, but Zarr would stumble over one that it cannot read.
    """
    damaged = set(files)
    if where.run / place.MANIFEST in damaged:  # so that nothing tells whether the files that it names are sound
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


def _ends_pass(path: Location, wanted: CountPass, where: Place) -> bool:
    """Whether a pass must be made again for a damaged file; before its table is there, its journal tells which blocks."""
    return path.parent.name != "journal" or passes.is_merged(where, wanted)
