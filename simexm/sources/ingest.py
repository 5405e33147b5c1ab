"""From a TIFF stack to a sharded multiscale OME-Zarr 0.5 label image, in parallel and in bounded memory.

The unit of work is a band: the planes of one row of shards, all of x. A band is decoded, downsampled and written by
one thread and by no other, so nothing is locked and the bytes do not depend on the number of threads. (Decoding,
downsampling and Zstd all run outside Python's lock, so threads are as fast as processes and need no start-up.)
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr

from simexm.errors import SourceError, SpecError
from simexm.grid import Spacing, Triple, exact3
from simexm.sources.identity import INGESTED, digest_of
from simexm.sources.tiff import TiffStack
from simexm.store.appearing import appearing
from simexm.store.omezarr import ShardedArray, create_group, label_attributes, multiscales
from simexm.store.pyramid import (
    Level,
    downsample_labels,
    plan_levels,
    plan_storage,
    pyramid,
    step_factors,
)
from simexm.store.shards import LocalFiles, Stored

_CHUNK = 64
_LARGEST_SHARD = 256
_FEWEST_PLANES = 8
_BAND_BYTES = 256 * 2**20
_A = TypeVar("_A")
_B = TypeVar("_B")
_Shards = list[tuple[str, Stored]]


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest wrote.

    Attributes
    ----------
    path
        The OME-Zarr label image.
    shape
        Voxels along z, y, x.
    dtype
        Data type of the ids.
    levels
        Number of levels.
    largest_id
        The largest id of all.
    nbytes
        Bytes of all shards on disk.
    seconds
        Wall time.
    """

    path: Path
    shape: Triple
    dtype: str
    levels: int
    largest_id: int
    nbytes: int
    seconds: float


def ingest(
    tiff: Path,
    output: Path,
    voxel_size_nm: Spacing | tuple[float, float, float],
    *,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestResult:
    """Write a TIFF stack of ids as a multiscale OME-Zarr 0.5 label image; every id stays what it is.

    The result appears under its name when it is whole, and not before.

    Parameters
    ----------
    tiff
        The stack.
    output
        Folder to make, such as cortex.zarr.
    voxel_size_nm
        Size of a voxel along z, y, x, nm of tissue before expansion.
    workers
        Threads; 0 for as many as there are CPUs for this process.
    overwrite
        Replace what an earlier ingest wrote there. Nothing else is ever replaced.
    progress
        Called with the voxels done and the voxels of the volume.

    Raises
    ------
    SpecError
        If the voxel size is not positive.
    SourceError
        If the stack cannot be read, is no stack of ids, or holds no cell.
    OutputError
        If the output exists, or cannot be written.
    """
    begin = time.perf_counter()
    if not all(0 < s < math.inf for s in voxel_size_nm):
        raise SpecError(
            f"voxel size {[float(s) for s in voxel_size_nm]}: a voxel has a positive size along z, y and x, in nm. "
            "Type --voxel-size Z Y X, such as --voxel-size 40 32 32."
        )
    spacing = exact3(voxel_size_nm)
    with TiffStack(Path(tiff)) as stack, appearing(Path(output), overwrite=overwrite, writer=INGESTED) as files:
        shard, band_rows = _plan_bands(stack.shape, stack.rows, stack.dtype.itemsize)
        levels = plan_levels(stack.shape, spacing)
        arrays = _create(files, stack, levels, shard, Path(output).name.removesuffix(".zarr"))
        with _threads(workers or _default_workers(stack, shard[0] * band_rows)) as threads:
            written = _Written()
            largest = _write_bands(stack, band_rows, arrays, levels, threads, written, progress)
            if largest == 0:
                raise SourceError(f"{tiff}: every voxel is 0, so there is no cell in it. Is this the segmentation?")
            _write_coarse(arrays, levels, threads, written)
        mark = {"written_by": INGESTED, "digest": f"{written.digest:032x}"}
        zarr.open_group(files.root, mode="r+").update_attributes({"simexm": mark})
    return IngestResult(
        Path(output), stack.shape, stack.dtype.name, len(levels), largest, written.nbytes, time.perf_counter() - begin
    )


def _plan_bands(shape: Triple, segment_rows: int, itemsize: int) -> tuple[Triple, int]:
    """Return level 0's shard and the rows of a band, a whole number of shards that holds a strip or tile of the file.

    Shards are at most 256 a side, and smaller where the volume is or where a band would be larger than 256 MiB, but
    never below 8 planes: of a file whose pages are single strips, a band is 8 whole pages, so that none is decoded
    twice. All follows from the file alone, never from this machine, so that an ingest gives the same bytes everywhere.
    """
    depth, rows, width = (min(_LARGEST_SHARD, 1 << (n - 1).bit_length()) for n in shape)

    def band() -> int:
        return -(-segment_rows // rows) * rows

    while depth * min(band(), shape[1]) * shape[2] * itemsize > _BAND_BYTES:
        if rows > _CHUNK and rows >= max(depth, 2 * segment_rows):
            rows //= 2
        elif depth > _FEWEST_PLANES:
            depth //= 2
        else:
            break
    return (depth, rows, width), band()


def _default_workers(stack: TiffStack, band_area: int) -> int:
    """As many threads as CPUs, fewer where their bands (each with its levels and codes) would take half the memory."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cpus, memory // (4 * band_area * stack.shape[2] * stack.dtype.itemsize)))


def _create(
    files: LocalFiles, stack: TiffStack, levels: tuple[Level, ...], shard: Triple, name: str
) -> list[tuple[ShardedArray, bool]]:
    """Write all metadata; returns each level's array and whether the bands write it."""
    zero = Fraction(0)
    scales = multiscales(name, levels, (zero, zero, zero), channels=False, method="mode")
    create_group(files, "", label_attributes(scales))
    arrays = []
    for n, (level, stored) in enumerate(zip(levels, plan_storage(levels, shard, (_CHUNK,) * 3), strict=True)):
        array = ShardedArray(files, str(n), level.shape, stored.shard, stored.chunk, stack.dtype.name, "zyx")
        array.create()
        arrays.append((array, stored.owned))
    return arrays


def _write_bands(
    stack: TiffStack,
    band_rows: int,
    arrays: list[tuple[ShardedArray, bool]],
    levels: tuple[Level, ...],
    threads: _Threads,
    written: _Written,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Write the levels that bands own; returns the largest id."""
    owned = [array for array, mine in arrays if mine]
    depth = owned[0].shard[0]
    nz, ny, nx = stack.shape

    def write(corner: tuple[int, int]) -> tuple[int, _Shards, int]:
        z, y = corner
        band = stack.read(range(z, min(z + depth, nz)), range(y, min(y + band_rows, ny)))
        shards: _Shards = []
        made = pyramid(band, levels[: len(owned)], downsample_labels)
        for array, level, data in zip(owned, levels, made, strict=False):
            start = (z // level.factors[0], y // level.factors[1], 0)
            shards += zip(_keys(array, start, data.shape), array.write_region(start, data), strict=True)
        return int(band.max()), shards, band.size

    largest = done = 0
    corners = itertools.product(range(0, nz, depth), range(0, ny, band_rows))
    for band_largest, shards, voxels in threads.map(write, corners):
        largest = max(largest, band_largest)
        written.add(shards)
        done += voxels
        if progress is not None:
            progress(done, nz * ny * nx)
    return largest


def _write_coarse(
    arrays: list[tuple[ShardedArray, bool]], levels: tuple[Level, ...], threads: _Threads, written: _Written
) -> None:
    """Write the levels that are left, each from the one above."""
    for n, (array, owned) in enumerate(arrays):
        if not owned:
            counts = (-(-a // b) for a, b in zip(array.shape, array.shard, strict=True))
            write = partial(_write_from_above, array, arrays[n - 1][0].open(), step_factors(levels[n - 1], levels[n]))
            for shard in threads.map(write, itertools.product(*(range(c) for c in counts))):
                written.add([shard])


def _write_from_above(
    array: ShardedArray, above: zarr.Array[Any], factors: Triple, position: tuple[int, ...]
) -> tuple[str, Stored]:
    start = [p * s * f for p, s, f in zip(position, array.shard, factors, strict=True)]
    stop = [a + s * f for a, s, f in zip(start, array.shard, factors, strict=True)]
    data = np.asarray(above[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])
    return array.key(position), array.write(position, downsample_labels(data, factors))


def _keys(array: ShardedArray, start: Triple, shape: tuple[int, ...]) -> Iterator[str]:
    """Paths of the shards of a region, in the order in which `ShardedArray.write_region` writes them."""
    ranges = (range(a // s, -(-(a + n) // s)) for a, n, s in zip(start, shape, array.shard, strict=True))
    return map(array.key, itertools.product(*ranges))


@dataclass(slots=True)
class _Written:
    """What all shards come to, in whatever order they are added.

    Attributes
    ----------
    nbytes
        Their bytes.
    digest
        Sum modulo 2^128 of a digest of each one's path and checksum.
    """

    nbytes: int = 0
    digest: int = 0

    def add(self, shards: _Shards) -> None:
        for key, stored in shards:
            self.nbytes += stored.nbytes
            self.digest = (self.digest + int(digest_of(key, stored.checksum), 16)) % 2**128


@dataclass(frozen=True, slots=True)
class _Threads:
    """Threads that are handed no more than they can start on, so that nothing grows with the number of bands."""

    pool: ThreadPoolExecutor
    workers: int

    def map(self, function: Callable[[_A], _B], items: Iterable[_A]) -> Iterator[_B]:
        """Yield the results as they come."""
        waiting: set[Future[_B]] = set()
        for item in items:
            if len(waiting) > self.workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            waiting.add(self.pool.submit(function, item))
        yield from (future.result() for future in as_completed(waiting))


@contextmanager
def _threads(workers: int) -> Iterator[_Threads]:
    pool = ThreadPoolExecutor(workers, "ingest")
    try:
        yield _Threads(pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
