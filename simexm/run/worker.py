"""The worker's side of a run: compute a block and put it in its place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from simexm.errors import RunError
from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_device import DeviceMemoryError
from simexm.kernels.devices.device import device
from simexm.planning.gpu import tile_for
from simexm.planning.memory import WRITERS
from simexm.planning.plan import Output, Plan
from simexm.result.place import Place
from simexm.run import folders, guard, passes, tables
from simexm.run.block import BlockResult, compute_frames
from simexm.run.tables import EmitterFile
from simexm.sources.base import LabelSource
from simexm.stages.contract import EMITTERS
from simexm.stages.frames import Frame
from simexm.store.omezarr import ShardedArray
from simexm.store.pyramid import downsample_labels, downsample_mean, pyramid
from simexm.store.shard_list import ShardList
from simexm.timing import PROFILE, Stopwatch, moved, timed, timed_threads


@dataclass(frozen=True)
class Context:
    """What a worker is told.

    Attributes
    ----------
    plan, place
        What to do, and where the result stands.
    counting
        Which pass is being made, if any.
    profile
        Whether to time it all.
    listed
        Which chunk files of the labels ("") and of the masks existed when the driver began.
    at_once
        How many blocks are computed in one process at the same time.
    """

    plan: Plan
    place: Place
    counting: str | None = None
    profile: bool = False
    listed: Mapping[str, ShardList] = field(default_factory=dict)
    at_once: int = 1


def run_block(context: Context, number: int) -> dict[str, Any]:
    """Compute one block and write its shards, coarse level first; what is returned goes to the journal.

    Raises
    ------
    RunError
        If the GPU's memory is too small for its tiles, even when it was emptied before.
    """
    try:
        with Stopwatch() if context.profile else nullcontext() as watch:
            told = device(context.plan.context.device).attempt(lambda: _run_block(context, number))
        return {**told, PROFILE: watch.to_mapping()} if watch else told
    except DeviceMemoryError as error:
        raise RunError(
            f"a tile needs more memory than the GPU of {socket.gethostname()} has free ({error}); "
            f"{tile_for(context.plan, cupy_device.free_bytes())}, or end other programs on that GPU"
        ) from error


def _run_block(context: Context, number: int) -> dict[str, Any]:
    plan, where = context.plan, context.place
    with timed("open labels and output"):
        guard.refuse_strange(plan.hash, where)
        source = _source_of(context)
        counted = passes.counted_on_disk(plan, where)
    stored: dict[str, list[list[Any]]] = {}
    with EmitterFile(plan, where, number) as emitters:
        for result in compute_frames(plan, source, counted, plan.blocks[number], emitters.sink):
            with timed("open labels and output"):
                guard.refuse_strange(plan.hash, where)  # again: another run may have taken the output meanwhile
            for group, shards in _write(plan, where, number, result).items():
                stored.setdefault(group, []).extend(shards)
            result.arrays = {}  # before the next frame is made
    parts = {EMITTERS.name: emitters.stored} if emitters.sink else {}
    with timed("tables"):
        parts |= tables.write_parts(plan, where, number, result)
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
    """Count one block for the pass that is being made."""
    assert context.counting is not None
    guard.refuse_strange(context.plan.hash, context.place)
    return passes.write_block(context.plan, context.place, _source_of(context), context.counting, number)


def peak_bytes() -> int:
    """Largest resident memory of this process so far, bytes; 0 where the system does not tell (VmHWM of Linux).

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
    """The run's source, opened once in each worker for each driver: before the next one begins it may be edited."""
    name = context.plan.hash + context.place.claim
    with _opening:
        if name not in _sources:
            _sources.clear()
            _sources[name] = context.plan.simulation.source.open().expecting(context.listed)
        return _sources[name]


def _shards(
    plan: Plan, where: Place, output: Output, number: int, frame: Frame
) -> Iterator[tuple[ShardedArray, int, int, tuple[int, ...]]]:
    """(array, level, channel, position) of every shard that a block writes of a frame of one output, in the order of writing."""
    levels = folders.arrays(plan, where, output)
    position = plan.blocks.position(number)
    for n in reversed([n for n, s in enumerate(plan.storage) if s.owned]):
        for c in range(max(1, len(output.channels))):
            yield levels[n], n, c, (*output.at(frame), *(() if output.is_labels else (c,)), *position)


def _write(plan: Plan, where: Place, number: int, result: BlockResult) -> dict[str, list[list[Any]]]:
    """Write one frame's levels that the block owns, coarse ones first; [bytes, checksum] of each shard, by output."""
    owned = sum(s.owned for s in plan.storage)
    outputs = [o for o in plan.outputs if o.made_in(result.frame)]
    made: dict[str, list[list[NDArray[Any]]]] = {}
    for output in outputs:
        data = result.arrays[output.path]
        down = downsample_labels if output.is_labels else downsample_mean
        parts = data[None] if output.is_labels else data
        with timed("pyramid"):
            made[output.group] = [list(pyramid(part, plan.levels[:owned], down)) for part in parts]
    stored: dict[str, list[list[Any]]] = {o.group: [] for o in outputs}

    def write(shard: tuple[Output, tuple[ShardedArray, int, int, tuple[int, ...]]]) -> list[Any]:
        output, (array, n, c, position) = shard
        data = made[output.group][c][n]
        with timed_there(_row(output)):
            found = array.write(position, data.reshape((1,) * (len(output.axes) - 3) + data.shape))
        return [found.nbytes, found.checksum]

    with timed_threads() as timed_there, ThreadPoolExecutor(WRITERS) as pool:
        for level in reversed(range(owned)):
            shards = [(o, s) for o in outputs for s in _shards(plan, where, o, number, result.frame) if s[1] == level]
            for (output, _), told in zip(shards, pool.map(write, shards), strict=True):
                stored[output.group].append(told)
                moved(_row(output), written=told[0])
    return stored


def _row(output: Output) -> str:
    return "write labels" if output.is_labels else "write images"
