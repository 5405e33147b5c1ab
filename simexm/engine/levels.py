"""The coarse levels that no block owns: a small last pass, level by level, each shard from the stored level above it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np

from simexm.engine.events import Execute
from simexm.engine.journal import Journal
from simexm.engine.plan import Plan
from simexm.errors import RunError
from simexm.grid import Box, Tiling, Triple
from simexm.store import place
from simexm.store.place import Place
from simexm.store.pyramid import downsample_labels, downsample_mean, step_factors


@dataclass(frozen=True)
class LevelTask:
    """One coarse level of all outputs."""

    plan: Plan
    place: Place
    level: int

    @property
    def shards(self) -> Tiling:
        """Shards of the level."""
        return Tiling(Box.of_shape(self.plan.levels[self.level].shape), self.plan.storage[self.level].shard)


def make_shard(task: LevelTask, number: int) -> dict[str, Any]:
    """Make shard `number` of the level for every output and channel."""
    plan = task.plan
    box = task.shards[number]
    position = task.shards.position(number)
    upper, lower = plan.levels[task.level - 1], plan.levels[task.level]
    factors = step_factors(upper, lower)
    above = Box(_times(box.start, factors), _times(box.stop, factors)).intersect(Box.of_shape(upper.shape))
    stored = 0
    for output in plan.outputs:
        levels = place.arrays(plan, task.place, output)
        source = levels[task.level - 1].open()
        for c in range(max(1, len(output.channels))):
            lead: tuple[int, ...] = () if output.is_labels else (c,)
            where: Any = (*lead, *above.slices)
            data = np.asarray(source[where])
            made = (downsample_labels if output.is_labels else downsample_mean)(data, factors)
            part = made if output.is_labels else made[None]
            stored += levels[task.level].write((*lead, *position), part).nbytes
    return {"bytes": stored}


def make_levels(plan: Plan, where: Place, execute: Execute) -> None:
    """Make each level that no block owns, in order. There is little in them, so a resumed run makes them all again.

    Raises
    ------
    RunError
        If a shard cannot be made.
    """
    from simexm.engine.progress import FailedFile, LogFile

    journals = where.journal / "levels"
    shutil.rmtree(journals, ignore_errors=True)
    for level, storage in enumerate(plan.storage):
        if storage.owned:
            continue
        task = LevelTask(plan, where, level)
        outcome = execute(
            function=make_shard, context=task, blocks=range(len(task.shards)),
            journal=Journal.open(journals / str(level), plan.hash),
            listeners=[LogFile(where.run / "log.txt"), FailedFile(where.run / "failed.jsonl")],
        )  # fmt: skip
        if outcome.failed_count:
            raise RunError(
                f"level {level} cannot be made: {outcome.failed[0].error}. Mend the cause and type the same command again"
            )
    shutil.rmtree(journals, ignore_errors=True)


def _times(a: Triple, b: Triple) -> Triple:
    z, y, x = (m * n for m, n in zip(a, b, strict=True))
    return z, y, x
