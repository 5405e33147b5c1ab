"""Create the images and label images of a result, and write blocks of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.planning.blocks import FRAME_ALIGN
from simexm.planning.memory import WRITERS
from simexm.planning.outputs import Output, Volumes
from simexm.result.place import Place
from simexm.stages.frames import Frame
from simexm.store.omezarr import ShardedArray, write_group
from simexm.store.pyramid import downsample_labels, downsample_mean, pyramid
from simexm.timing import moved, timed, timed_threads


def arrays(volumes: Volumes, place: Place, output: Output) -> tuple[ShardedArray, ...]:
    """Return the levels of one output. A shard holds one channel in a span of time; see `Volumes.storage` for its other axes."""
    before = tuple(n for n in (output.times, len(output.channels)) if n)
    chunk_frames = math.gcd(volumes.span, FRAME_ALIGN)
    lead, lead_chunk = (
        (*((n,) if output.times else ()), *((1,) if output.channels else ())) for n in (volumes.span, chunk_frames)
    )
    return tuple(
        ShardedArray(
            place.files,
            f"{output.group}/{n}".lstrip("/"),
            (*before, *level.shape),
            (*lead, *storage.shard),
            (*lead_chunk, *storage.chunk),
            output.dtype,
            output.axes,
        )
        for n, (level, storage) in enumerate(zip(volumes.levels, volumes.storage, strict=True))
    )


def create(volumes: Volumes, place: Place) -> None:
    """Write the metadata of all arrays, and groups without attributes, so that viewers show no unfinished result."""
    for output in volumes.outputs:
        for array in arrays(volumes, place, output):
            array.create()
    for group in (*volumes.labels_groups, *(o.group for o in volumes.outputs if o.group)):
        write_group(place.files, group, {})


def create_missing(volumes: Volumes, place: Place) -> None:
    """Write missing or damaged metadata of arrays."""
    for output in volumes.outputs:
        for array in arrays(volumes, place, output):
            if not array.is_created():
                array.create()


class Writer:
    """Write a block frame after frame; frames that share a shard are written together."""

    def __init__(self, volumes: Volumes, where: Place, number: int) -> None:
        self._volumes, self._where = volumes, where
        self._position = volumes.blocks.position(number)
        # by group, channel and level: what is written together, (frames, z, y, x), and how many frames of it are there
        self._held: dict[str, list[list[NDArray[Any]]]] = {}
        self._count: dict[str, int] = {}

    def completes(self, frame: Frame) -> bool:
        """Return whether a shard is complete with this frame, so that `add` writes."""
        outputs = [o for o in self._volumes.outputs if o.made_in(frame)]
        return any(not o.times or frame.time % self._volumes.span == 0 or frame.time == o.times for o in outputs)

    def add(self, frame: Frame, made: Mapping[str, NDArray[Any]]) -> dict[str, list[list[Any]]]:
        """Add a frame on all levels that blocks write, and write shards that are complete, coarse levels first.

        `made` are the arrays by the output's path: (channels, z, y, x) for images, (z, y, x) for label images. Returns
        [bytes, checksum] of each shard, in the order of writing, by the output's group.
        """
        outputs = [o for o in self._volumes.outputs if o.made_in(frame)]
        with timed("pyramid"):
            for output in outputs:
                self._hold(output, frame, made[output.path])
        ready = [o for o in outputs if self._count[o.group] == len(self._held[o.group][0][0])]
        stored: dict[str, list[list[Any]]] = {o.group: [] for o in ready}
        shards = [
            (o, n, c)
            for n in reversed(range(self._volumes.owned))
            for o in ready
            for c in range(max(1, len(o.channels)))
        ]

        def put(shard: tuple[Output, int, int]) -> list[Any]:
            output, n, c = shard
            data = self._held[output.group][c][n]
            time = ((frame.time - 1) // self._volumes.span,) if output.times else ()
            data = data.reshape((len(data),) * bool(time) + (1,) * bool(output.channels) + data.shape[1:])
            position = (*time, *((c,) if output.channels else ()), *self._position)
            with timed_there(_row(output)):
                found = arrays(self._volumes, self._where, output)[n].write(position, data)
            return [found.nbytes, found.checksum]

        with timed_threads() as timed_there, ThreadPoolExecutor(WRITERS) as pool:
            for (output, _, _), written in zip(shards, pool.map(put, shards), strict=True):
                stored[output.group].append(written)
                moved(_row(output), written=written[0])
        for output in ready:
            del self._held[output.group]
        return stored

    def _hold(self, output: Output, frame: Frame, data: NDArray[Any]) -> None:
        """Downsample a frame of an output, and keep it until its shard is complete."""
        volumes, group = self._volumes, output.group
        down = downsample_labels if output.is_labels else downsample_mean
        first = (frame.time - 1) // volumes.span * volumes.span if output.times else 0
        frames = min(volumes.span, output.times - first) if output.times else 1
        parts = data if output.channels else data[None]
        if group not in self._held:
            self._count[group] = 0
            self._held[group] = [[] for _ in parts]
        for c, part in enumerate(parts):
            levels = pyramid(part, volumes.levels[: volumes.owned], down)
            held = self._held[group][c]
            if not held:
                held += [
                    level[None] if frames == 1 else np.empty((frames, *level.shape), level.dtype) for level in levels
                ]
            for into, level in zip(held, levels, strict=True) if frames > 1 else ():
                into[self._count[group]] = level
        self._count[group] += 1


def _row(output: Output) -> str:
    return "write labels" if output.is_labels else "write images"
