"""Compute a block on a worker and store it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simexm.errors import RunError
from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_device import DeviceMemoryError
from simexm.kernels.devices.device import device
from simexm.planning.gpu import tile_for
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.run import guard, maps, passes, series, tables, volumes
from simexm.run.block import compute_frames
from simexm.run.tables import EmitterFile
from simexm.sources.base import LabelSource
from simexm.stages.contract import EMITTERS, Counted
from simexm.store.shard_list import ShardList
from simexm.timing import PROFILE, Stopwatch, moved, timed


@dataclass(frozen=True)
class Context:
    """Input of every block of a run."""

    plan: Plan
    place: Place
    counting: str | None = None  # name of the pass, map or series, if this is one
    profile: bool = False  # whether to time each kind of work
    listed: Mapping[str, ShardList] = field(default_factory=dict)  # chunk files when the driver began; "" is labels
    at_once: int = 1  # blocks that one process computes at the same time


def run_block(context: Context, number: int) -> dict[str, Any]:
    """Compute one block and write its shards, coarse level first; return its record for the journal.

    Raises RunError if the GPU's memory is too small for its tiles, even after it was emptied.
    """
    try:
        with Stopwatch() if context.profile else nullcontext() as watch:
            record = device(context.plan.context.device).attempt(lambda: _run_block(context, number))
        return {**record, PROFILE: watch.to_mapping()} if watch else record
    except DeviceMemoryError as error:
        raise RunError(
            f"a tile needs more memory than the GPU of {socket.gethostname()} has free ({error}); "
            f"{tile_for(context.plan, cupy_device.free_bytes())}, or end other programs on that GPU"
        ) from error


def _run_block(context: Context, number: int) -> dict[str, Any]:
    plan, where = context.plan, context.place
    with timed("open labels and output"):
        guard.refuse_other_run(plan.hash, where)
        source = _source_of(context)
        counted = passes.counted_on_disk(plan, where)
    stored: dict[str, list[list[Any]]] = {}
    box, frames = plan.part_of(number)
    writer = volumes.Writer(plan.volumes, where, number % len(plan.blocks))
    with EmitterFile(plan, where, number) as emitters:
        for result in compute_frames(plan, source, counted, box, emitters.sink, frames):
            if writer.completes(result.frame):
                with timed("open labels and output"):
                    guard.refuse_other_run(plan.hash, where)  # again: another run may have taken the output meanwhile
            for group, shards in writer.add(result.frame, result.arrays).items():
                stored.setdefault(group, []).extend(shards)
            result.arrays = {}  # free them before the next frame is computed
    parts = {EMITTERS.name: emitters.stored} if emitters.sink else {}
    with timed("tables"):
        # most tables are of the specimen, so that the first frames make them
        parts |= tables.write_parts(plan, where, number, result, frames_only=number >= len(plan.blocks))
        moved(written=sum(part.nbytes for part in parts.values()))
    return {
        **result.statistics,
        "rows": {name: sums.ids.size for name, sums in result.sums.items()},
        "stored": stored,
        "tables": {folder: [part.nbytes, part.checksum] for folder, part in parts.items()},
        "peak_bytes": peak_bytes(),
        "predicted_bytes": plan.memory.at_once(context.at_once),
    }


def count_block(context: Context, number: int) -> dict[str, Any]:
    """Count one block for the context's pass."""
    assert context.counting is not None
    guard.refuse_other_run(context.plan.hash, context.place)
    return passes.write_block(context.plan, context.place, _source_of(context), context.counting, number)


def map_block(context: Context, number: int) -> dict[str, Any]:
    """Make the context's map of one block."""
    assert context.counting is not None
    plan, where = context.plan, context.place
    guard.refuse_other_run(plan.hash, where)
    counted = Counted(passes.tables_on_disk(plan, where))
    return device(plan.context.device).attempt(
        lambda: maps.write_block(plan, where, _source_of(context), counted, str(context.counting), number)
    )


def follow_cells(context: Context, number: int) -> dict[str, Any]:
    """Make the context's series of one group of cells."""
    assert context.counting is not None
    plan, where = context.plan, context.place
    guard.refuse_other_run(plan.hash, where)
    return series.write_group_of_cells(plan, where, passes.tables_on_disk(plan, where), context.counting, number)


def peak_bytes() -> int:
    """Read the largest resident memory of this process so far, bytes (VmHWM of Linux); 0 on other systems.

    Not ru_maxrss, which a child inherits from its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


_sources: dict[str, LabelSource] = {}
_opening = threading.Lock()


def _source_of(context: Context) -> LabelSource:
    """Open the run's source once in each worker for each driver; it may be edited between two drivers."""
    name = context.plan.hash + context.place.claim
    with _opening:
        if name not in _sources:
            _sources.clear()
            _sources[name] = context.plan.simulation.source.open().expecting(context.listed)
        return _sources[name]
