"""Prepare the folders of a result and write its metadata."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simexm.planning.plan import Plan
from simexm.result.place import INCOMPLETE, MARK, PLAN, PREPARING, Place, retire_scratch
from simexm.run import volumes
from simexm.store.claims import claim
from simexm.store.files import Files, remove_tree
from simexm.store.omezarr import write_group
from simexm.store.remote import Remote
from simexm.units import size
from simexm.version import FORMAT_VERSION


def prepare(plan: Plan, place: Place) -> None:
    """Make the folders and the arrays' metadata; the image's own come last, so that viewers show no unfinished result."""
    retire_scratch(place)
    claim(place.scratch)
    mark = place.mark()
    if mark is None or mark.get("status") == PREPARING:
        _write_all(plan, place)
    else:  # an earlier run wrote it; repair what was damaged since, which this run's end would accept
        if not has_plan(plan, place):
            write_plan(plan, place)
        volumes.create_missing(plan.volumes, place)
    for folder in (place.journal, place.tables):
        folder.mkdir(exist_ok=True)


def write_plan(plan: Plan, place: Place) -> None:
    """Write `plan.json`: the plan, and the spec that it came from."""
    Files(place.run, place.scratch).put(PLAN, plan_bytes(plan))


def has_plan(plan: Plan, place: Place) -> bool:
    """Return whether `plan.json` is as `write_plan` would write it."""
    try:
        return (place.run / PLAN).read_bytes() == plan_bytes(plan)
    except OSError:
        return False


def plan_bytes(plan: Plan) -> bytes:
    """Return `plan.json`, the same on all machines."""
    steady = replace(plan.memory, compiling=0)  # compiled code depends on the machine's cache
    memory = {"memory_per_worker_bytes": steady.total, "memory_parts_bytes": steady.parts_bytes}
    mapping = {**plan.to_mapping(), **memory, "spec": plan.simulation.to_mapping()}
    return (json.dumps(mapping, indent=2) + "\n").encode()


def write_mark(plan: Plan, place: Place, status: str) -> None:
    """Mark a result as simexm's, with its status."""
    mark = {"hash": plan.hash, "format": FORMAT_VERSION, **contents(plan), "status": status}
    write_attributes(place, "", {MARK: mark})


def _write_all(plan: Plan, place: Place) -> None:
    write_plan(plan, place)
    write_mark(plan, place, PREPARING)  # first, so that unfinished results are recognised, too
    for path in place.zarr.iterdir():  # of a run that was stopped while preparing
        if path.is_dir():
            remove_tree(path)
    volumes.create(plan.volumes, place)
    write_mark(plan, place, INCOMPLETE)


def contents(plan: Plan) -> dict[str, list[Any]]:
    """List what is below the root beside the main image's arrays: groups of outputs and of frames, and tables."""
    frames = {"frames": plan.acquisition.groups} if plan.acquisition.groups else {}
    axes = {"acquisition": plan.acquisition.to_mapping()} if plan.acquisition.axes else {}
    tables = [table.product.name for table in plan.tables]
    return {"outputs": [o.group for o in plan.outputs if o.group], **frames, **axes, "tables": tables}


def write_attributes(place: Place, path: str, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group atomically."""
    write_group(place.files, path, attributes)


def check_free(plan: Plan, place: Place) -> str | None:
    """Return a warning if the disk seems too small for the result, else None."""
    if isinstance(place.zarr, Remote):
        return None  # object stores do not report free space
    folder = next(p for p in (place.zarr, *place.zarr.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    needed = plan.stored_bytes // 2  # counts compress to about half
    if needed > free:
        return f"about {size(needed)} will be written, but {folder} has {size(free)} free; the run may stop halfway"
    return None
