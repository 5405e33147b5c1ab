"""Passes over the specimen before the images: sums by cell that stages need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from simexm.geometry.grid import Box, Tiling
from simexm.jobs.sums_by_id import CellSums, StoredSums, add_up, is_stored, merged, store, write_part
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.run import maps, series
from simexm.run.block import by_id
from simexm.run.labels import read_part
from simexm.run.layout import Exists
from simexm.sources.base import LabelSource
from simexm.stages.contract import Counted, CountPass, Stage, Tile
from simexm.store.files import remove_tree
from simexm.store.listing import presence
from simexm.store.location import Location


def all_passes(plan: Plan) -> Iterator[tuple[Stage, CountPass]]:
    """Yield every pass, in order, with the stage that needs it."""
    for stage in plan.stages:
        for one in stage.passes():
            yield stage, one


def count_box(plan: Plan, source: LabelSource, counted: Counted, stage: Stage, wanted: CountPass, box: Box) -> CellSums:
    """Count the voxels that belong to a box of pixels, tile by tile."""
    parts = [CellSums.none(wanted.columns)]
    for tile in Tiling(box, plan.tile):
        own = plan.geometry.own_voxels(tile)
        reads = None if own.is_empty else stage.count_box(wanted.name, own, plan.context)
        if reads is None:
            continue
        part = read_part(source, reads, plan.context.masks)
        columns = stage.count(wanted.name, own, part, Tile(plan.context, tile, counted=counted).of(stage))
        some = np.any([columns[name] != 0 for name in wanted.columns], axis=0)
        parts.append(by_id(part.cells.ids, some, columns))
    return add_up(parts)


def counted_in_memory(plan: Plan, source: LabelSource, around: Box | None = None) -> Counted:
    """Run all passes in memory, and make the series; make maps only as far as a box of pixels needs them, by default whole."""
    counted: dict[str, CellSums] = {}
    for stage, wanted in all_passes(plan):
        blocks = [count_box(plan, source, Counted(counted), stage, wanted, b) for b in plan.blocks]
        counted[wanted.name] = add_up(blocks)
    found = Counted(counted)
    return Counted(counted, maps.in_memory(plan, source, found, around), series.in_memory(plan, found))


def folder(where: Place, name: str) -> Location:
    """Return the folder of a pass, with its journal, parts, and table."""
    return where.passes / name


def part(where: Place, name: str, number: int) -> Location:
    """Return the file of one block's sums."""
    return _parts(where, name) / f"block-{number:07d}.parquet"


def list_parts(where: Place, name: str) -> Exists:
    """List the parts once; return a function that looks a file up."""
    return presence(_parts(where, name))


def _parts(where: Place, name: str) -> Location:
    return folder(where, name) / "parts"


def _table(where: Place, name: str) -> Location:
    return folder(where, name) / "table"


def table_of(where: Place, name: str) -> StoredSums:
    """Open the table of a finished pass."""
    return StoredSums(_table(where, name))


def counted_on_disk(plan: Plan, where: Place) -> Counted:
    """Open the tables of all passes, the maps and the series."""
    tables = tables_on_disk(plan, where)
    return Counted(tables, maps.on_disk(plan, where), series.on_disk(plan, where, tables))


def tables_on_disk(plan: Plan, where: Place, before: str | None = None) -> dict[str, StoredSums]:
    """Open the tables of all passes, or of those before `before`."""
    counted: dict[str, StoredSums] = {}
    for _, wanted in all_passes(plan):
        if wanted.name == before:
            break
        counted[wanted.name] = table_of(where, wanted.name)
    return counted


def write_block(plan: Plan, where: Place, source: LabelSource, name: str, number: int) -> dict[str, Any]:
    """Count one block for pass `name` and write its part; return its record for the pass's journal."""
    stage, wanted = next((s, p) for s, p in all_passes(plan) if p.name == name)
    sums = count_box(plan, source, Counted(tables_on_disk(plan, where, name)), stage, wanted, plan.blocks[number])
    write_part(sums, part(where, name, number), where.scratch)
    return {"rows": sums.ids.size}


def merge(plan: Plan, where: Place, wanted: CountPass, rows: int) -> None:
    """Add up the parts of all blocks."""
    parts = (part(where, wanted.name, n) for n in range(len(plan.blocks)))
    shares = merged(parts, rows, wanted.columns, where.scratch)
    store(_table(where, wanted.name), shares, wanted.columns, where.scratch)


def remove_parts(where: Place, wanted: CountPass) -> None:
    """Remove the parts of a merged pass."""
    remove_tree(_parts(where, wanted.name), ignore_errors=True)


def is_merged(where: Place, wanted: CountPass) -> bool:
    """Return whether a pass's table is complete."""
    return is_stored(_table(where, wanted.name))
