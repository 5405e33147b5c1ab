"""Components across blocks: what each block shows at its borders, which of it touches, and the sets that follow.

A block numbers the components at its borders, 1, 2, ...; the driver numbers those of all blocks one after the other and joins
them by union-find, at 8 bytes each in memory. Everything else about them lies in files that are memory-mapped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import ReadPart
from simexm.compiled import njit
from simexm.geometry.grid import Box, Tiling, Triple
from simexm.kernels.objects.components import AXES_OF, Components, find, touching, unite
from simexm.kernels.objects.shapes import moments

PARTS, PAIRS = "parts", "pairs"
"""Surveys: the components of each block, and which of them touch those of later blocks."""
SIZES = ("voxels", "z0", "y0", "x0", "z1", "y1", "x1")
_LATER = [o for o in itertools.product((-1, 0, 1), repeat=3) if o > (0, 0, 0)]
_REDUCE = (np.add, *[np.minimum] * 3, *[np.maximum] * 3)
_PAIRS = 1 << 16


def voxel_ids(found: Components, box: Box, volume: Triple) -> NDArray[np.uint64]:
    """Id of each component of a box: one more than the smallest index of its voxels in the volume."""
    z, y, x = (axis + a for axis, a in zip(found.first_voxel, box.start, strict=True))
    _, ny, nx = volume
    return ((z * ny + y) * nx + x + 1).astype(np.uint64)


def at_border(found: Components, box: Box, whole: Box) -> NDArray[np.int64]:
    """Number each component that touches a side of its box inside the whole one, 1, 2, ...; 0 for others."""
    boxes = moments(found)[2]
    touches = np.zeros(len(found), np.bool_)
    for axis in range(3):
        if box.start[axis] > whole.start[axis]:
            touches |= boxes[:, axis] == 0
        if box.stop[axis] < whole.stop[axis]:
            touches |= boxes[:, axis + 3] == box.shape[axis] - 1
    return np.where(touches, np.cumsum(touches), 0)


def parts_of(found: Components, box: Box, whole: Box, volume: Triple) -> dict[str, NDArray[Any]]:
    """Describe the components at the borders of a block: values, ids, sizes, and their numbers on its six sides."""
    numbers = at_border(found, box, whole)
    some = numbers > 0
    voxels, _, boxes = moments(found)
    corner = np.array([*box.start, *box.start])
    made: dict[str, NDArray[Any]] = {
        "values": np.concatenate([[0], found.values[some]]).astype(np.uint64),
        "ids": voxel_ids(found, box, volume)[some],
        "sizes": np.column_stack([voxels[some], boxes[some] + corner]),
    }
    painted = found.painted(numbers.astype(np.int32))
    for axis in range(3):
        made[f"low_{axis}"], made[f"high_{axis}"] = (painted.take(place, axis) for place in (0, -1))
    return made


def pairs_of(tiling: Tiling, number: int, connectivity: int, read: ReadPart) -> dict[str, NDArray[Any]]:
    """Find the pairs that touch across the borders to later blocks: number here, other block, number there, (n, 3)."""
    own = read(PARTS, number)
    found = [np.empty((0, 3), np.int64)]
    for other, offset in later_blocks(tiling, number):
        spare = AXES_OF[connectivity] - sum(map(abs, offset))
        if spare < 0:
            continue
        theirs = read(PARTS, other)
        one, two = facing_layer(own, offset), facing_layer(theirs, tuple(-o for o in offset))
        pairs = _touching(one, two, own["values"], theirs["values"], spare)
        found.append(np.column_stack([pairs[:, 0], np.full(len(pairs), other), pairs[:, 1]]))
    return {"pairs": np.concatenate(found)}


def _touching(one: Any, two: Any, values_one: Any, values_two: Any, axes: int) -> NDArray[np.int64]:
    pairs = np.empty((_PAIRS, 2), np.int64)
    count = touching(one, two, values_one, values_two, axes, pairs)
    if count > len(pairs):
        pairs = np.empty((count, 2), np.int64)
        touching(one, two, values_one, values_two, axes, pairs)
    found: NDArray[np.int64] = np.unique(pairs[:count], axis=0)
    return found


def later_blocks(tiling: Tiling, number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the neighbours of a block with larger numbers, and where they lie: steps along z, y, x."""
    nz, ny, nx = tiling.counts
    for offset in _LATER:
        z, y, x = (p + o for p, o in zip(tiling.position(number), offset, strict=True))
        if 0 <= z < nz and 0 <= y < ny and 0 <= x < nx:
            yield (z * ny + y) * nx + x, offset


def facing_layer(sides: Mapping[str, NDArray[Any]], offset: Sequence[int]) -> NDArray[Any]:
    """The numbers where a block faces its neighbour at an offset: a side, an edge or a corner, as (u, v)."""
    axis = next(n for n in range(3) if offset[n])
    layer = sides[f"{'high' if offset[axis] > 0 else 'low'}_{axis}"]
    rest = [offset[n] for n in range(3) if n != axis]
    for n, o in enumerate(rest):
        if o:
            layer = layer.take([-1 if o > 0 else 0], n)
    return np.ascontiguousarray(layer)


def join(blocks: int, read: ReadPart, folder: Path, keep: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> None:
    """Write `first.npy`, where each block's components begin, (blocks + 1,), and `ids.npy`, the id of each of them.

    `keep` returns, for the sizes of whole components (n, 7), see `SIZES`, which of them are wanted; the id of others is 0.
    """
    first = np.zeros(blocks + 1, np.int64)
    for number in range(blocks):
        first[number + 1] = first[number] + len(read(PARTS, number)["ids"])
    np.save(folder / "first.npy", first)
    count = int(first[-1])
    parent = np.arange(count)
    for number in range(blocks):
        pairs = read(PAIRS, number)["pairs"]
        _unite(parent, pairs[:, 0] - 1 + first[number], pairs[:, 2] - 1 + first[pairs[:, 1]])
    ids = np.lib.format.open_memmap(folder / "ids.npy", "w+", np.uint64, (count,))
    if not count:
        return
    sizes = np.lib.format.open_memmap(folder / "sizes.npy", "w+", np.int64, (count, len(SIZES)))
    smallest = np.lib.format.open_memmap(folder / "smallest.npy", "w+", np.uint64, (count,))
    smallest[:] = np.iinfo(np.uint64).max
    sizes[:, 1:4] = np.iinfo(np.int64).max
    for number in range(blocks):
        part = read(PARTS, number)
        roots = _roots(parent, first[number], first[number + 1])
        np.minimum.at(smallest, roots, part["ids"])
        for column, how in enumerate(_REDUCE):
            how.at(sizes[:, column], roots, part["sizes"][:, column])
    for number in range(blocks):
        roots = _roots(parent, first[number], first[number + 1])
        ids[first[number] : first[number + 1]] = np.where(keep(np.asarray(sizes[roots])), smallest[roots], 0)
    ids.flush()
    del sizes, smallest
    for name in ("sizes", "smallest"):
        (folder / f"{name}.npy").unlink()


@njit(cache=True, nogil=True)
def _unite(parent, one, other):  # type: ignore[no-untyped-def]
    for n in range(one.size):
        unite(parent, one[n], other[n])


@njit(cache=True, nogil=True)
def _roots(parent, begin, end):  # type: ignore[no-untyped-def]
    out = np.empty(end - begin, np.int64)
    for n in range(out.size):
        out[n] = find(parent, begin + n)
    return out
