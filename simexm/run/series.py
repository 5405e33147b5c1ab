"""Series of cells, made before the images for some cells at a time: in memory, or as arrays of the result.

A group of cells is computed from the first frame to the last, so that states with memory are exact wherever a movie is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.stages.contract import CellSeries, Counted, SeriesPass, Stage
from simexm.store.location import Location
from simexm.store.omezarr import ShardedArray, write_group

CELLS, FRAMES, CHUNK = 256, 1024, 256
"""Cells and frames of a shard, and frames of a chunk."""


def all_series(plan: Plan) -> Iterator[tuple[Stage, SeriesPass]]:
    """Yield every series with the stage that makes it."""
    for stage in plan.stages:
        for wanted in stage.series(plan.context):
            yield stage, wanted


def folder(where: Place, wanted: SeriesPass) -> Location:
    """Return the folder of a series' journal."""
    return where.passes / wanted.name


def groups(cells: int) -> int:
    """Return the number of groups into which so many cells are divided."""
    return max(1, -(-cells // CELLS))


# ---------------------------------------------------------------- in memory


@dataclass(frozen=True)
class InMemory:
    """A series in memory; see `CellSeries`."""

    ids: NDArray[np.uint64]
    columns: Mapping[str, NDArray[Any]]

    def read(self, column: str, first: int, frames: int) -> NDArray[Any]:
        """See `CellSeries`."""
        return self.columns[column][:, first : first + frames]


def in_memory(plan: Plan, counted: Counted) -> dict[str, CellSeries]:
    """Make all series."""
    found: dict[str, CellSeries] = {}
    for stage, wanted in all_series(plan):
        ids = counted[wanted.cells].all_ids()
        times = plan.acquisition.length("time")
        columns = {name: np.zeros((ids.size, times), dtype) for name, dtype in wanted.columns.items()}
        for start in range(0, ids.size, CELLS):
            first = 0
            for part in stage.follow(wanted, ids[start : start + CELLS], plan.context):
                for name, values in part.items():
                    columns[name][start : start + CELLS, first : first + values.shape[1]] = values
                first += next(iter(part.values())).shape[1]
        found[wanted.name] = InMemory(ids, columns)
    return found


# ---------------------------------------------------------------- in the result


@dataclass(frozen=True)
class Stored:
    """A series in the result; see `CellSeries`."""

    plan: Plan
    where: Place
    wanted: SeriesPass
    cells: int

    @cached_property
    def ids(self) -> NDArray[np.uint64]:
        """Ids of the rows."""
        return np.asarray(self.array("id").open()[:], np.uint64)

    def read(self, column: str, first: int, frames: int) -> NDArray[Any]:
        """See `CellSeries`."""
        return np.asarray(self.array(column).open()[:, first : first + frames])

    def array(self, column: str) -> ShardedArray:
        """Return the array of a column, (cell, t), or of the ids, (cell,)."""
        path, times = f"{self.wanted.name}/{column}", self.plan.acquisition.length("time")
        if column == "id":
            return ShardedArray(self.where.files, path, (self.cells,), (CELLS,), (CELLS,), "uint64", ("cell",))
        shape, shard, chunk = (self.cells, times), (CELLS, FRAMES), (CELLS, CHUNK)
        return ShardedArray(self.where.files, path, shape, shard, chunk, self.wanted.columns[column], ("cell", "t"))

    @property
    def arrays(self) -> list[ShardedArray]:
        """All its arrays."""
        return [self.array(column) for column in ("id", *self.wanted.columns)]

    @property
    def files(self) -> list[Location]:
        """All files that it may have; a shard of zeros has none."""
        found = [self.where.zarr / self.wanted.name / "zarr.json"]
        spans = range(max(1, -(-self.plan.acquisition.length("time") // FRAMES)))
        for array in self.arrays:
            found.append(self.where.zarr / array.path / "zarr.json")
            for group in range(groups(self.cells)):
                positions = [(group,)] if len(array.shape) == 1 else [(group, n) for n in spans]
                found += [self.where.zarr / array.key(position) for position in positions]
        return found


def stored(plan: Plan, where: Place, counted: Mapping[str, Any]) -> Iterator[Stored]:
    """Yield all series of a run, with the tables of whose count passes it is `counted`."""
    for _, wanted in all_series(plan):
        yield Stored(plan, where, wanted, counted[wanted.cells].all_ids().size)


def on_disk(plan: Plan, where: Place, counted: Mapping[str, Any]) -> dict[str, CellSeries]:
    """Open the series of a run."""
    return {one.wanted.name: one for one in stored(plan, where, counted)}


def create(one: Stored) -> None:
    """Write the metadata of its arrays."""
    time = one.plan.acquisition.time
    assert time is not None
    axis = {"coordinates_start": time.coordinates[0], "unit": time.unit, "frames": len(time.coordinates)}
    step = {"step": time.coordinates[1] - time.coordinates[0]} if len(time.coordinates) > 1 else {}
    write_group(one.where.files, one.wanted.name, {"axes": ["cell", "t"], "t": axis | step})
    for array in one.arrays:
        if not array.is_created():
            array.create()


def write_group_of_cells(
    plan: Plan, where: Place, counted: Mapping[str, Any], name: str, number: int
) -> dict[str, Any]:
    """Make a series of one group of cells and write its shards; return its record for the series' journal."""
    stage = next(s for s, w in all_series(plan) if w.name == name)
    one = next(s for s in stored(plan, where, counted) if s.wanted.name == name)
    ids = counted[one.wanted.cells].all_ids()[number * CELLS : (number + 1) * CELLS]
    for n, part in enumerate(stage.follow(one.wanted, ids, plan.context)):
        for column, values in part.items():
            one.array(column).write((number, n), values)
    one.array("id").write((number,), ids)
    return {"cells": int(ids.size)}
