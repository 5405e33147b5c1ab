"""Compute the coarse levels that no block writes, level by level, each shard from the next finer level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from simexm.geometry.grid import Box, Tiling, Triple, three
from simexm.jobs.bitmap import Bitmap
from simexm.jobs.events import Execute
from simexm.jobs.job import Job, run_job
from simexm.jobs.journal import Record
from simexm.planning.outputs import Volumes
from simexm.result.place import Place
from simexm.run import guard
from simexm.run.job import job_in
from simexm.run.layout import Exists, Layout, all_exist
from simexm.run.volumes import arrays
from simexm.store.location import Location
from simexm.store.pyramid import downsample_labels, downsample_mean, step_factors
from simexm.store.reading import Reader


@dataclass(frozen=True)
class LevelTask:
    """One coarse level of all outputs."""

    volumes: Volumes
    hash: str
    place: Place
    level: int

    @property
    def shards(self) -> Tiling:
        return self.volumes.shards(self.level)


def make_shard(task: LevelTask, number: int) -> dict[str, Any]:
    """Compute shard `number` of the level for every output and channel; return its record for the level's journal."""
    volumes = task.volumes
    guard.refuse_other_run(task.hash, task.place)
    box = task.shards[number]
    position = task.shards.position(number)
    upper, lower = volumes.levels[task.level - 1], volumes.levels[task.level]
    factors = step_factors(upper, lower)
    above = Box(_times(box.start, factors), _times(box.stop, factors)).intersect(Box.of_shape(upper.shape))
    stored: dict[str, list[list[Any]]] = {output.group: [] for output in volumes.outputs}
    for output in volumes.outputs:
        levels = arrays(volumes, task.place, output)
        source = Reader.of(levels[task.level - 1].open())
        down = downsample_labels if output.is_labels else downsample_mean
        for lead in volumes.lead_shards(output):
            times = (
                range(lead[0] * volumes.span, min((lead[0] + 1) * volumes.span, output.times)) if output.times else [0]
            )
            leads = [(t, *lead[1:]) for t in times] if output.times else [lead]
            coarse = np.stack([down(source.read(above, one), factors) for one in leads])
            part = coarse.reshape(
                coarse.shape[: bool(output.times)] + (1,) * (len(lead) - bool(output.times)) + coarse.shape[1:]
            )
            written = levels[task.level].write((*lead, *position), part)
            stored[output.group].append([written.nbytes, written.checksum])
    return {"stored": stored}


def journal_of(where: Place, level: int) -> Location:
    """Return the folder of a level's journal."""
    return where.journal / "levels" / str(level)


def make_levels(
    volumes: Volumes,
    parameter_hash: str,
    where: Place,
    execute: Execute,
    layout: Layout,
    exists: Exists,
    damaged: Mapping[int, Bitmap] = MappingProxyType({}),
) -> None:
    """Compute the missing and the damaged shards of each level that no block writes, in order.

    `exists` looks up the files that existed when the run began; `damaged` holds shards by level. Raises RunError if a
    shard fails.
    """
    for level in range(volumes.owned, len(volumes.levels)):
        task = LevelTask(volumes, parameter_hash, where, level)
        run_job(_job(task, damaged.get(level, Bitmap()), layout, exists), execute)


def _job(task: LevelTask, damaged: Bitmap, layout: Layout, exists: Exists) -> Job:
    where, level = task.place, task.level

    def is_sound(record: Record) -> bool:
        files = layout.of_level(where, level, record.block, record.result)
        return record.block not in damaged and all_exist(files, exists)

    count, journal, blocks = len(task.shards), journal_of(where, level), f"shards of level {level}"
    return job_in(
        where, task.hash, count, make_shard, task, journal, blocks=blocks, shows_progress=False, is_sound=is_sound
    )


def _times(a: Triple, b: Triple) -> Triple:
    return three(m * n for m, n in zip(a, b, strict=True))
