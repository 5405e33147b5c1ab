"""Write numbers as a sharded multiscale label image, in parallel and in bounded memory.

The unit of work is a band: a box of complete shards. One thread decodes, downsamples and writes a band, so nothing is locked
and the bytes do not depend on the number of threads. (Decoding, downsampling and Zstd release Python's lock, so threads are
as fast as processes and start at once.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Tiling, Triple, three, triple
from simexm.machine import cpus, memory_limits
from simexm.sources.identity import digest_of
from simexm.sources.stack import Numbers
from simexm.store.files import Files, Stored
from simexm.store.omezarr import ShardedArray, image_attributes, label_attributes, multiscales
from simexm.store.pyramid import (
    Level,
    ceil_divide,
    downsample_labels,
    downsample_mean,
    extremes,
    plan_levels,
    plan_storage,
    pyramid,
    step_factors,
)
from simexm.store.reading import Reader
from simexm.store.shard_list import ShardList, chunk_position
from simexm.units import size, times

_CHUNK = 64
_LARGEST_SHARD = 256
_FEWEST_PLANES = 8
_BAND_BYTES = 256 * 2**20
_A = TypeVar("_A")
_B = TypeVar("_B")
_Shards = list[tuple[str, Stored]]
Reduce = Callable[[NDArray[Any], Triple], NDArray[Any]]


@dataclass(slots=True)
class Written:
    """Totals over all shards of an image, in any order."""

    levels: int  # number of levels
    attributes: dict[str, Any]  # attributes of the group
    lists: dict[str, ShardList]  # existing shards, by the path of the level's array
    smallest: int = 2**64  # of all numbers
    largest: int = 0
    nbytes: int = 0  # bytes of the shards
    digest: int = 0  # sum modulo 2^128 of a digest of each shard's path and checksum

    def add(self, shards: _Shards) -> None:
        """Count shards."""
        for key, stored in shards:
            self.nbytes += stored.nbytes
            if stored.nbytes:
                array, _, name = key.rpartition("/c/")
                self.lists[array].add(chunk_position(name))
            self.digest = (self.digest + int(digest_of(key, stored.checksum), 16)) % 2**128


class _Times(NamedTuple):
    """Time points of a series, and their unit; see `simexm.store.omezarr.TimeAxis`."""

    coordinates: tuple[float, ...]
    unit: str


def write_image(
    files: Files,
    path: str,
    name: str,
    series: Sequence[Numbers],
    voxel_size_nm: Spacing,
    origin_nm: Spacing,
    *,
    seconds_per_time: float | None = None,
    workers: int | None,
    progress: Callable[[int], None],
) -> Written:
    """Write an image of labels or of measured values and its coarser levels, without the group's own metadata.

    Those are written last, so that readers see only complete images. Each time point of `series` has its own shards.
    `path` is that of the image's group below the root, "" for the root itself; `name` is shown by viewers. Sizes and
    the lower corner of the first voxel are in nm of tissue before expansion. Without `workers`, there is a thread for
    each CPU of this process, or fewer if memory is short. `progress` is called with the voxels of each finished band.

    Raises SourceError if a grain does not fit into memory.
    """
    numbers = series[0]
    shard, band = plan_bands(numbers.shape, numbers.grain, numbers.dtype.itemsize)
    band_bytes = Box.of_shape(numbers.shape).intersect(Box.of_shape(band)).size * numbers.dtype.itemsize
    _refuse_too_large(name, numbers, band_bytes)
    levels = plan_levels(numbers.shape, voxel_size_nm)
    arrays = _create(files, path, series, levels, shard)
    written = Written(
        len(levels),
        _attributes(name, series, levels, origin_nm, seconds_per_time),
        {a.path: ShardList.empty((0,) * len(a.shape), _counts(a)) for a, _ in arrays},
    )
    reduce = downsample_mean if numbers.measured else downsample_labels
    with _threads(workers or _default_workers(band_bytes)) as threads:
        _write_bands(series, band, arrays, levels, reduce, threads, written, progress)
        _write_coarse(arrays, levels, reduce, threads, written)
    return written


def _attributes(
    name: str, series: Sequence[Numbers], levels: tuple[Level, ...], origin_nm: Spacing, seconds: float | None
) -> dict[str, Any]:
    step, unit = (1.0, "") if seconds is None else (seconds, "second")
    times = _Times(tuple(step * t for t in range(len(series))), unit) if len(series) > 1 else None
    measured = series[0].measured
    scales = multiscales(name, levels, origin_nm, channels=False, method="mean" if measured else "mode", time=times)
    return image_attributes(scales) if measured else label_attributes(scales)


def _counts(array: ShardedArray) -> tuple[int, ...]:
    """Return the number of shards along each axis."""
    return tuple(-(-n // s) for n, s in zip(array.shape, array.shard, strict=True))


def plan_bands(shape: Triple, grain: Triple, itemsize: int) -> tuple[Triple, Triple]:
    """Return level 0's shard and a band, which is complete shards along each axis and holds a grain.

    Shards are at most 256 a side, and smaller in smaller volumes or where a band would exceed 256 MiB, but never below 8 planes
    of 64 x 64, nor so small that a grain is decoded twice: if pages are single strips, a band is 8 complete pages. The result
    depends on the source alone, not on the machine, so an ingest writes the same bytes everywhere.
    """
    shard = [min(_LARGEST_SHARD, 1 << (n - 1).bit_length()) for n in shape]
    fewest = (_FEWEST_PLANES, _CHUNK, _CHUNK)

    def band() -> Triple:
        return three(min(-(-min(g, n) // s) * s, -(-n // s) * s) for g, n, s in zip(grain, shape, shard, strict=True))

    while itemsize * Box.of_shape(shape).intersect(Box.of_shape(band())).size > _BAND_BYTES:
        halves = [a for a in (1, 0, 2) if shard[a] > fewest[a] and shard[a] >= 2 * min(grain[a], shape[a])]
        if not halves:
            break
        axis = max(halves, key=lambda a: shard[a])
        shard[axis] //= 2
    return three(shard), band()


def _default_workers(band_bytes: int) -> int:
    """Return one thread per CPU, fewer if their bands (with levels and codes) would take half the memory."""
    return max(1, min(cpus(), memory_limits()[0].nbytes // (4 * band_bytes)))


def _refuse_too_large(name: str, numbers: Numbers, band_bytes: int) -> None:
    """Raise SourceError if a band does not fit into memory, however few bytes it has on disk."""
    limit = memory_limits()[0]
    if 2 * band_bytes > limit.nbytes:  # the band and its encoded bytes
        grain = times(min(n, g) for n, g in zip(numbers.shape, numbers.grain, strict=True))
        raise SourceError(
            f"{name}: {grain} voxels (z y x) are decoded together, which takes {size(2 * band_bytes)} of memory, and "
            f"{limit.in_words}. If the volume is that large, save it in tiles or chunks (a tiled TIFF, Zarr, N5), "
            "or use a machine with more memory; otherwise its header is damaged."
        )


def _create(
    files: Files, path: str, series: Sequence[Numbers], levels: tuple[Level, ...], shard: Triple
) -> list[tuple[ShardedArray, bool]]:
    """Write the arrays' metadata; return each level's array and whether bands write it."""
    arrays = []
    times = (len(series),) if len(series) > 1 else ()
    one = (1,) * len(times)
    for n, (level, stored) in enumerate(zip(levels, plan_storage(levels, shard, (_CHUNK,) * 3), strict=True)):
        where = f"{path}/{n}".lstrip("/")
        shape, shards, chunks = (*times, *level.shape), (*one, *stored.shard), (*one, *stored.chunk)
        array = ShardedArray(files, where, shape, shards, chunks, series[0].dtype.name, "tzyx"[-len(shape) :])
        array.create()
        arrays.append((array, stored.owned))
    return arrays


def _write_bands(
    series: Sequence[Numbers],
    band: Triple,
    arrays: list[tuple[ShardedArray, bool]],
    levels: tuple[Level, ...],
    reduce: Reduce,
    threads: _Threads,
    written: Written,
    progress: Callable[[int], None],
) -> None:
    """Write the levels that bands own."""
    owned = [array for array, mine in arrays if mine]
    # one layer of the finest level is in memory at a time, and fits into the CPU's cache
    depth = max(_CHUNK, *(level.factors[0] for level in levels[: len(owned)]))

    def write(place: tuple[int, Box]) -> tuple[int, int, _Shards, int]:
        time, box = place
        region = _Region(owned, levels, reduce, (time,) if len(series) > 1 else (), box)
        for layer in Tiling(box, (depth, *box.shape[1:])):
            region.add(layer, series[time].read(layer))
        return region.smallest, region.largest, region.put(), box.size

    bands = Tiling(Box.of_shape(series[0].shape), band)
    places = ((time, box) for time in range(len(series)) for box in bands)
    for smallest, largest, shards, voxels in threads.map(write, places):
        written.smallest = min(written.smallest, smallest)
        written.largest = max(written.largest, largest)
        written.add(shards)
        progress(voxels)


class _Region:
    """A band (`box`) while its shards are encoded, at an index along the time axis, if there is one.

    `arrays` and `levels` are those that bands write, the finest first; `reduce` downsamples one level to the next.
    """

    def __init__(
        self, arrays: list[ShardedArray], levels: tuple[Level, ...], reduce: Reduce, time: tuple[int, ...], box: Box
    ) -> None:
        self.arrays, self.levels, self.reduce, self.box = arrays, levels[: len(arrays)], reduce, box
        self.time = time
        self.smallest, self.largest = 2**64, 0
        z, y, x = arrays[0].shard[-3:]
        self._shards = [(shard, arrays[0].encoder()) for shard in Tiling(box, (z, y, x))]
        self._coarse = [
            np.empty(ceil_divide(box.shape, level.factors), array.dtype)
            for array, level in zip(arrays[1:], self.levels[1:], strict=True)
        ]

    def add(self, layer: Box, data: NDArray[Any]) -> None:
        """Encode a layer of the band, and downsample it."""
        if data.dtype.kind == "u":
            smallest, largest = extremes(data)
            self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)
        lead = len(self.time)
        for shard, encoder in self._shards:
            inner = shard.intersect(layer)
            if not inner.is_empty:
                part = data[inner.relative_to(layer.start).slices][(np.newaxis,) * lead]
                encoder.add((*(0,) * lead, *inner.relative_to(shard.start).start), part)
        planes = layer.start[0] - self.box.start[0]
        coarser = pyramid(data, self.levels, self.reduce)[1:]
        for level, part, complete in zip(self.levels[1:], coarser, self._coarse, strict=True):
            z = planes // level.factors[0]
            complete[z : z + len(part)] = part

    def put(self) -> _Shards:
        """Store all shards; return their paths, bytes and checksums."""
        finest = self.arrays[0]
        shards = []
        for shard, encoder in self._shards:
            position = (*self.time, *(a // s for a, s in zip(shard.start, finest.shard[-3:], strict=True)))
            shards.append((finest.key(position), finest.put(position, encoder)))
        for array, level, complete in zip(self.arrays[1:], self.levels[1:], self._coarse, strict=True):
            start = (*self.time, *(a // f for a, f in zip(self.box.start, level.factors, strict=True)))
            part = complete[(np.newaxis,) * len(self.time)]
            shards += zip(_keys(array, start, part.shape), array.write_region(start, part), strict=True)
        return shards


def _write_coarse(
    arrays: list[tuple[ShardedArray, bool]],
    levels: tuple[Level, ...],
    reduce: Reduce,
    threads: _Threads,
    written: Written,
) -> None:
    """Write the levels that bands do not write, each from the finer one."""
    for n, (array, owned) in enumerate(arrays):
        if not owned:
            above = Reader.of(arrays[n - 1][0].open())
            write = partial(_write_from_above, array, above, step_factors(levels[n - 1], levels[n]), reduce)
            for shard in threads.map(write, itertools.product(*map(range, _counts(array)))):
                written.add([shard])


def _write_from_above(
    array: ShardedArray, above: Reader, factors: Triple, reduce: Reduce, position: tuple[int, ...]
) -> tuple[str, Stored]:
    time = position[:-3]
    shard = triple(s * f for s, f in zip(array.shard[-3:], factors, strict=True))
    z, y, x = (p * s for p, s in zip(position[-3:], shard, strict=True))
    data = above.read(Box.at((z, y, x), shard).intersect(Box.of_shape(above.shape)), time)
    return array.key(position), array.write(position, reduce(data, factors)[(np.newaxis,) * len(time)])


def _keys(array: ShardedArray, start: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[str]:
    """Return the paths of a region's shards, in the order of `ShardedArray.write_region`."""
    ranges = (range(a // s, -(-(a + n) // s)) for a, n, s in zip(start, shape, array.shard, strict=True))
    return map(array.key, itertools.product(*ranges))


@dataclass(frozen=True, slots=True)
class _Threads:
    """Threads with a bounded queue, so that nothing grows with the number of bands."""

    pool: ThreadPoolExecutor
    workers: int

    def map(self, function: Callable[[_A], _B], items: Iterable[_A]) -> Iterator[_B]:
        """Yield results as they are finished."""
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
