"""Describe stacks of planes to write, and read their planes from Zarr slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.errors import GoneError, OutputError
from simexm.geometry.grid import Box, Tiling, Triple
from simexm.machine import cpus
from simexm.result.at_time import AtTime
from simexm.result.result import REPAIR_HINT
from simexm.store.reading import Reader

SLAB_BYTES = 1 << 28
"""Most bytes held, unless two planes are larger: of the current slab and the one being read."""
_READERS = 4

Plane = NDArray[Any]
Convert = Callable[[NDArray[Any]], NDArray[Any]]
"""Applied to each element by itself."""
Planes = Callable[[], Iterator[Plane]]
"""Reads all planes from the first on; each call starts again."""


@dataclass(frozen=True)
class Channel:
    """Display settings of a channel."""

    name: str
    color: str  # RRGGBB
    window: tuple[float, float]  # values shown as black and as full colour


@dataclass(frozen=True)
class Head:
    """Metadata that a writer needs before the first plane."""

    name: str  # of the simulation
    source: str  # the result's hash, and which part of it this is
    shape: Triple
    dtype: np.dtype[Any]
    voxel_um: tuple[float, float, float]  # of tissue before expansion
    expansion: float
    channels: tuple[Channel, ...]  # one for each pass through z; none if planes are (rows, columns, 3) in RGB
    labels: bool = False  # whether values are ids
    centre_um: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the first pixel, in tissue before expansion
    times_s: tuple[float, ...] = ()  # of a movie, whose planes are frames
    frame_s: float | None = None  # between frames, if it is the same for all

    @property
    def rgb(self) -> bool:
        """Whether planes are (rows, columns, 3)."""
        return not self.channels

    @property
    def moves(self) -> bool:
        """Whether planes are frames of a movie."""
        return bool(self.times_s)

    @property
    def count(self) -> int:
        """Number of planes."""
        return self.shape[0] * max(len(self.channels), 1)

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize * (3 if self.rgb else 1)


@dataclass(frozen=True)
class Target:
    """One file, or one folder of images."""

    path: Path  # without the format's suffix
    head: Head


@dataclass(frozen=True)
class Job:
    """Files that are written in one pass."""

    targets: tuple[Target, ...]
    parts: Callable[[], Iterator[Iterable[Plane]]]  # for each plane in turn, that plane of each file

    @property
    def count(self) -> int:
        """Number of planes to write."""
        return sum(t.head.count for t in self.targets)


def single(path: Path, head: Head, planes: Planes) -> Job:
    """Return a job of one file."""
    return Job((Target(path, head),), lambda: ((plane,) for plane in planes()))


def read_planes(
    array: zarr.Array[Any], channel: int | None = None, share: int = 1, convert: Convert | None = None
) -> Iterator[Plane]:
    """Yield the planes (rows, columns) of one channel, or with None of an array without channels.

    Two slabs are held: one is read while the other is used. A slab is at most a shard deep, and smaller if both would pass
    `SLAB_BYTES` / `share`, where `share` is the number of arrays or channels that are read side by side. `convert` is applied
    to the elements as soon as they are read. Raises OutputError if they cannot be read.
    """
    dtype = array.dtype if convert is None else convert(np.zeros(1, array.dtype)).dtype
    series, before = (array.series, (array.time,)) if isinstance(array, AtTime) else (array, ())
    reader = Reader.of(series)
    planes, rows, columns = array.shape[-3:]
    depth = slab_depth(array, SLAB_BYTES // (2 * share), dtype.itemsize)

    def fill(slab: NDArray[Any], box: Box) -> None:
        try:
            part = reader.read(box, before if channel is None else (*before, channel))
        except GoneError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # of the disk, of checksums, of decoders
            raise OutputError(
                f"{array.store_path} cannot be read at planes {box.start[0]} to {box.stop[0]}: {error}. {REPAIR_HINT}"
            ) from error
        slab[(slice(None), *box.slices[1:])] = part if convert is None else convert(part)

    with ThreadPoolExecutor(min(cpus(), _READERS), "planes") as pool:

        def begin(start: int, stop: int) -> tuple[NDArray[Any], list[Future[None]]]:
            box = Box((start, 0, 0), (stop, rows, columns))
            slab = np.empty(box.shape, dtype)
            pieces = Tiling(box, (depth, *reader.piece[1:]))
            return slab, [pool.submit(fill, slab, pieces[n]) for n in range(len(pieces))]

        slabs = _slabs(planes, depth, (array.shards or array.chunks)[-3])
        try:
            following = begin(*slabs[0])
            for n in range(len(slabs)):
                slab, pending = following
                for each in pending:
                    each.result()
                if n + 1 < len(slabs):
                    following = begin(*slabs[n + 1])
                for plane in slab:
                    yield plane.copy()  # a caller that holds a plane does not hold the slab
                del slab, plane
        finally:
            pool.shutdown(cancel_futures=True)


def _slabs(planes: int, depth: int, shard: int) -> list[tuple[int, int]]:
    """Return start and stop of each slab; none crosses the border of a shard."""
    return [
        (z, min(z + depth, first + shard, planes))
        for first in range(0, planes, shard)
        for z in range(first, min(first + shard, planes), depth)
    ]


def slab_depth(array: zarr.Array[Any], budget: int, itemsize: int) -> int:
    """Return how many planes to read at once: a shard's if they fit into `budget` bytes, else full chunks, else at least 1."""
    shard = (array.shards or array.chunks)[-3]
    chunk = array.chunks[-3]
    fitting = budget // (array.shape[-2] * array.shape[-1] * itemsize)
    if fitting >= shard:
        return shard
    # A chunk that is read in parts is decoded several times.
    return fitting // chunk * chunk if fitting >= chunk else max(fitting, 1)


def largest(planes: Planes) -> float:
    """Return the largest value of a stack, in one pass."""
    return float(max(plane.max() for plane in planes()))
