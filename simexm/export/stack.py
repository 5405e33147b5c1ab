"""What is written: stacks of planes that come one after the other, and the reading of them from Zarr slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.grid import Triple

SLAB_BYTES = 1 << 28
"""Bytes that are read at once at most, unless a single plane is larger."""

Plane = NDArray[Any]
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
    """

    name: str
    source: str
    shape: Triple
    dtype: np.dtype[Any]
    voxel_um: tuple[float, float, float]
    expansion: float
    channels: tuple[Channel, ...]
    labels: bool = False

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


def read_planes(array: zarr.Array[Any], channel: int | None = None, share: int = 1) -> Iterator[Plane]:
    """Yield the planes of one channel, (rows, columns); of an array without channels where `channel` is None.

    At most a shard's depth is held, less where that would be more than `SLAB_BYTES` over `share`, the number of arrays or
    channels that are read side by side.

    Raises
    ------
    OutputError
        If they cannot be read.
    """
    planes = array.shape[-3]
    depth = slab_depth(array, SLAB_BYTES // share)
    for z in range(0, planes, depth):
        part = slice(z, min(z + depth, planes))
        try:
            slab = np.asarray(array[part] if channel is None else array[channel, part])
        except (OSError, ValueError, RuntimeError) as error:  # of the disk, of checksums, of decoders
            raise OutputError(
                f"{array.store_path} cannot be read at planes {part.start} to {part.stop}: {error}. Make it again with "
                "`simexm run SPEC --overwrite`."
            ) from error
        for i in range(len(slab)):
            yield slab[i].copy()  # whoever holds on to a plane does not keep the slab while the next one is read
        del slab


def slab_depth(array: zarr.Array[Any], budget: int) -> int:
    """Planes to read at once: a shard's where they fit into `budget` bytes, else whole chunks, else what fits, at least 1."""
    shard = (array.shards or array.chunks)[-3]
    chunk = array.chunks[-3]
    fitting = budget // (array.shape[-2] * array.shape[-1] * array.dtype.itemsize)
    if fitting >= shard:
        return shard
    # A chunk that is read in parts is decoded several times.
    return fitting // chunk * chunk if fitting >= chunk else max(fitting, 1)


def largest(planes: Planes) -> float:
    """The largest value of a stack, in one pass."""
    return max(plane.max() for plane in planes())
