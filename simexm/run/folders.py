"""Prepare the folders of a result and write its metadata, as a plan asks for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
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
    """Make the folders and the arrays' metadata. The image's own metadata come last, so that viewers see no half result.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    retire_scratch(place)
    claim(place.scratch)
    mark = place.mark()
    if mark is None or mark.get("status") == PREPARING:
        _write_all(plan, place)
    else:
        _mend_metadata(plan, place)
    for folder in (place.journal, place.tables):
        folder.mkdir(exist_ok=True)


def write_plan(plan: Plan, place: Place) -> None:
    """Write `plan.json`: the plan, and the spec that it came from."""
    Files(place.run, place.scratch).put(PLAN, _plan_bytes(plan))


def has_plan(plan: Plan, place: Place) -> bool:
    """Whether `plan.json` is as `write_plan` would write it."""
    try:
        return (place.run / PLAN).read_bytes() == _plan_bytes(plan)
    except OSError:
        return False


def _plan_bytes(plan: Plan) -> bytes:
    return (json.dumps({**plan.to_mapping(), "spec": plan.simulation.to_mapping()}, indent=2) + "\n").encode()


def write_mark(plan: Plan, place: Place, status: str) -> None:
    """Mark a result as ours, and say how far it is."""
    write_attributes(
        place, "", {MARK: {"hash": plan.hash, "format": FORMAT_VERSION, **contents(plan), "status": status}}
    )


def _write_all(plan: Plan, place: Place) -> None:
    write_plan(plan, place)
    # a result is marked as ours before anything is in it, so that one that was never finished is known by its mark, too
    write_mark(plan, place, PREPARING)
    for path in place.zarr.iterdir():  # of one that was stopped here
        if path.is_dir():
            remove_tree(path)
    volumes.create(plan.volumes, place)
    write_mark(plan, place, INCOMPLETE)


def contents(plan: Plan) -> dict[str, list[Any]]:
    """What stands below the root beside the main image's own arrays: the outputs' groups, those of frames, and tables."""
    frames = {"frames": plan.acquisition.groups} if plan.acquisition.groups else {}
    axes = {"acquisition": plan.acquisition.to_mapping()} if plan.acquisition.axes else {}
    tables = [table.product.name for table in plan.tables]
    return {"outputs": [o.group for o in plan.outputs if o.group], **frames, **axes, "tables": tables}


def write_attributes(place: Place, path: str, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group in one step."""
    write_group(place.files, path, attributes)


def check_free(plan: Plan, place: Place) -> str | None:
    """A warning where the disk seems too small for the result, else None; object stores do not tell."""
    if isinstance(place.zarr, Remote):
        return None
    folder = next(p for p in (place.zarr, *place.zarr.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    needed = plan.stored_bytes // 2  # counts compress to about half
    if needed > free:
        return f"about {size(needed)} will be written, but {folder} has {size(free)} free; the run may stop halfway"
    return None


def _mend_metadata(plan: Plan, place: Place) -> None:
    """Write again what was damaged since an earlier run wrote it: the end of this one would take it for sound."""
    if not has_plan(plan, place):
        write_plan(plan, place)
    volumes.mend(plan.volumes, place)
