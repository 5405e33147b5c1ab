"""Create the images and label images of a result, and write blocks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from simexm.planning.memory import WRITERS
from simexm.planning.outputs import Output, Volumes
from simexm.result.place import Place
from simexm.stages.frames import Frame
from simexm.store.omezarr import ShardedArray, write_group
from simexm.store.pyramid import downsample_labels, downsample_mean, pyramid
from simexm.timing import moved, timed, timed_threads


def arrays(volumes: Volumes, place: Place, output: Output) -> tuple[ShardedArray, ...]:
    """Return the levels of one output. A shard holds one channel at one time; see `Volumes.storage` for its other axes."""
    before = tuple(n for n in (output.times, len(output.channels)) if n)
    lead = (1,) * len(before)
    return tuple(
        ShardedArray(
            place.files,
            f"{output.group}/{n}".lstrip("/"),
            (*before, *level.shape),
            (*lead, *storage.shard),
            (*lead, *storage.chunk),
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


def _shards(
    volumes: Volumes, where: Place, output: Output, number: int, frame: Frame
) -> Iterator[tuple[ShardedArray, int, int, tuple[int, ...]]]:
    """Yield (array, level, channel, position) of a block's shards of one frame and output, in the order of writing."""
    levels = arrays(volumes, where, output)
    position = volumes.blocks.position(number)
    for n in reversed([n for n, s in enumerate(volumes.storage) if s.owned]):
        for c in range(max(1, len(output.channels))):
            yield levels[n], n, c, (*output.at(frame), *(() if output.is_labels else (c,)), *position)


def write(
    volumes: Volumes, where: Place, number: int, frame: Frame, made: Mapping[str, NDArray[Any]]
) -> dict[str, list[list[Any]]]:
    """Write one frame of a block on all levels that blocks write, coarse ones first.

    `made` are the arrays by the output's path: (channels, z, y, x) for images, (z, y, x) for label images. Returns
    [bytes, checksum] of each shard, in the order of writing, by the output's group.
    """
    owned = volumes.owned
    outputs = [o for o in volumes.outputs if o.made_in(frame)]
    levels: dict[str, list[list[NDArray[Any]]]] = {}
    for output in outputs:
        data = made[output.path]
        down = downsample_labels if output.is_labels else downsample_mean
        parts = data[None] if output.is_labels else data
        with timed("pyramid"):
            levels[output.group] = [list(pyramid(part, volumes.levels[:owned], down)) for part in parts]
    stored: dict[str, list[list[Any]]] = {o.group: [] for o in outputs}

    def put(shard: tuple[Output, tuple[ShardedArray, int, int, tuple[int, ...]]]) -> list[Any]:
        output, (array, n, c, position) = shard
        data = levels[output.group][c][n]
        with timed_there(_row(output)):
            found = array.write(position, data.reshape((1,) * (len(output.axes) - 3) + data.shape))
        return [found.nbytes, found.checksum]

    with timed_threads() as timed_there, ThreadPoolExecutor(WRITERS) as pool:
        for level in reversed(range(owned)):
            shards = [(o, s) for o in outputs for s in _shards(volumes, where, o, number, frame) if s[1] == level]
            for (output, _), written in zip(shards, pool.map(put, shards), strict=True):
                stored[output.group].append(written)
                moved(_row(output), written=written[0])
    return stored


def _row(output: Output) -> str:
    return "write labels" if output.is_labels else "write images"
