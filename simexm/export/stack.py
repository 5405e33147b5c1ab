"""What is written: stacks of planes that come one after the other, and the reading of them from Zarr slab by slab."""

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
"""Bytes that are held at most, unless two planes are larger: of the slab that is used, and of that which is being read."""
_READERS = 4

Plane = NDArray[Any]
Convert = Callable[[NDArray[Any]], NDArray[Any]]
"""What is done to each element on its own."""
Planes = Callable[[], Iterator[Plane]]
"""Reads all planes from the first one on, each time that it is called."""


@dataclass(frozen=True)
class Channel:
    """How a channel is shown.

    Attributes
    ----------
    name
        Its name.
    color
        RRGGBB.
    window
        Values shown as black and as full colour.
    """

    name: str
    color: str
    window: tuple[float, float]


@dataclass(frozen=True)
class Head:
    """What a writer must know before the first plane.

    Attributes
    ----------
    name
        Of the simulation.
    source
        The result's hash and what was taken of it.
    shape
        Pixels along z, y, x.
    dtype
        Of the planes.
    voxel_um
        Size of a pixel along z, y, x, micrometres of tissue before expansion.
    expansion
        Linear factor.
    channels
        One for each run through z; none where the planes are (rows, columns, 3) in red, green and blue.
    labels
        Whether values are ids.
    centre_um
        Position of the first pixel's centre along z, y, x, micrometres of tissue before expansion.
    """

    name: str
    source: str
    shape: Triple
    dtype: np.dtype[Any]
    voxel_um: tuple[float, float, float]
    expansion: float
    channels: tuple[Channel, ...]
    labels: bool = False
    centre_um: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def rgb(self) -> bool:
        """Whether planes are (rows, columns, 3)."""
        return not self.channels

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
    """One file, or one folder of images.

    Attributes
    ----------
    path
        Without the format's suffix.
    head
        What it holds.
    """

    path: Path
    head: Head


@dataclass(frozen=True)
class Job:
    """Files that are written in one pass.

    Attributes
    ----------
    targets
        The files.
    parts
        For each plane in turn, that plane of each file.
    """

    targets: tuple[Target, ...]
    parts: Callable[[], Iterator[Iterable[Plane]]]

    @property
    def count(self) -> int:
        """Number of planes that are written."""
        return sum(t.head.count for t in self.targets)


def single(path: Path, head: Head, planes: Planes) -> Job:
    """A job of one file."""
    return Job((Target(path, head),), lambda: ((plane,) for plane in planes()))


def read_planes(
    array: zarr.Array[Any],
    channel: int | None = None,
    share: int = 1,
    convert: Convert | None = None,
) -> Iterator[Plane]:
    """Yield the planes of one channel, (rows, columns); of an array without channels where `channel` is None.

    Two slabs of at most a shard's depth are held, of which one is being read while the other is used; less where one would
    be more than `SLAB_BYTES` over `share`, the number of arrays or channels that are read side by side.

    Parameters
    ----------
    convert
        What is done to the elements, whatever their shape, as soon as they are read.

    Raises
    ------
    OutputError
        If they cannot be read.
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
                for i in range(len(slab)):
                    yield slab[
                        i
                    ].copy()  # whoever holds on to a plane does not keep the slab while the next one is read
                del slab
        finally:
            pool.shutdown(cancel_futures=True)


def _slabs(planes: int, depth: int, shard: int) -> list[tuple[int, int]]:
    """First and last plane but one of each slab; none passes the border of a shard."""
    return [
        (z, min(z + depth, first + shard, planes))
        for first in range(0, planes, shard)
        for z in range(first, min(first + shard, planes), depth)
    ]


def slab_depth(array: zarr.Array[Any], budget: int, itemsize: int) -> int:
    """Planes to read at once: a shard's where they fit into `budget` bytes, else whole chunks, else what fits, at least 1.

    An element takes `itemsize` bytes.
    """
    shard = (array.shards or array.chunks)[-3]
    chunk = array.chunks[-3]
    fitting = budget // (array.shape[-2] * array.shape[-1] * itemsize)
    if fitting >= shard:
        return shard
    # A chunk that is read in parts is decoded several times.
    return fitting // chunk * chunk if fitting >= chunk else max(fitting, 1)


def largest(planes: Planes) -> float:
    """The largest value of a stack, in one pass."""
    return float(max(plane.max() for plane in planes()))
