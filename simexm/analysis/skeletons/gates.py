"""Gates: where the skeletons of neighbouring blocks are joined, so that each connected object has one tree.

Two components that touch across a border may be joined where their common cross-section is widest. Of all gates the driver
keeps a spanning forest, the widest first: what it leaves out would close a loop. A block's skeletons then pass its gates, so
nothing is joined that does not touch, and nothing that touches is left apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import ReadPart
from simexm.analysis.objects.borders import PAIRS, PARTS, facing_layer, later_blocks
from simexm.compiled import njit
from simexm.geometry.grid import Box, Tiling
from simexm.kernels.objects.components import find
from simexm.kernels.skeletons.surface import surface_distance
from simexm.kernels.skeletons.units import Units

Layers = tuple[NDArray[Any], NDArray[Any]]


def gates_of(tiling: Tiling, number: int, units: Units, read: ReadPart) -> dict[str, NDArray[Any]]:
    """Find a gate for each pair of components that touch across the borders to later blocks.

    Returns `pairs`, (n, 3): number here, other block, number there; `voxels`, (n, 6): z, y, x of the voxel here and of that
    there; `width`, (n,): square of the distance from the gate to the edge of the common cross-section, 0 if they touch by edges
    or corners.
    """
    own, box = read(PARTS, number), tiling[number]
    pairs, voxels, widths = [np.empty((0, 3), np.int64)], [np.empty((0, 6), np.int64)], [np.empty(0, np.int64)]
    for other, offset in later_blocks(tiling, number):
        theirs = read(PARTS, other)
        layers = facing_layer(own, offset), facing_layer(theirs, tuple(-o for o in offset))
        free = _free_axes(offset)
        sides = [units.sides[axis] for axis in free]
        for one, two, place, shift, width in _touches(layers, (own["values"], theirs["values"]), offset, sides):
            pairs.append(np.column_stack([one, np.full(one.size, other), two]))
            here, there = _corner(box, offset, 1), _corner(tiling[other], offset, -1)
            a, b = np.tile(here, (one.size, 1)), np.tile(there, (one.size, 1))
            for n, axis in enumerate(free):
                if not offset[axis]:
                    a[:, axis] += place[n]
                    b[:, axis] += place[n] + shift[n]
            voxels.append(np.hstack([a, b]))
            widths.append(width)
    return {"pairs": np.concatenate(pairs), "voxels": np.concatenate(voxels), "width": np.concatenate(widths)}


def _free_axes(offset: Sequence[int]) -> list[int]:
    """The axes of a layer between two blocks: all but the first along which they differ."""
    first = next(n for n in range(3) if offset[n])
    return [n for n in range(3) if n != first]


def _corner(box: Box, offset: Sequence[int], sign: int) -> NDArray[np.int64]:
    """The voxel of a box from which a layer at its border is counted."""
    ends = zip(box.start, box.stop, offset, strict=True)
    return np.array([b - 1 if sign * o > 0 else a for a, b, o in ends], np.int64)


def _touches(
    layers: Layers, values: Layers, offset: Sequence[int], sides: Sequence[int]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], NDArray[Any]], tuple[int, int], NDArray[np.int64]]]:
    """Yield numbers here, there, places in the layer, the shift of the places there, and widths; each pair once."""
    known = np.zeros(0, np.int64)
    is_face = sum(map(abs, offset)) == 1
    reach = [range(-1, 2) if layer > 1 else range(1) for layer in layers[0].shape]
    for shift in sorted(itertools.product(*reach), key=lambda s: (abs(s[0]) + abs(s[1]), s)):
        (u, v), (du, dv) = layers[0].shape, shift
        here = tuple(slice(max(0, -d), n - max(0, d)) for n, d in ((u, du), (v, dv)))
        there = tuple(slice(max(0, d), n + min(0, d)) for n, d in ((u, du), (v, dv)))
        one, two = layers[0][here], layers[1][there]
        same = (one > 0) & (two > 0) & (values[0][one] == values[1][two])
        key = np.where(same, one.astype(np.int64) << 32 | two, 0)
        found, first, image = np.unique(key, return_index=True, return_inverse=True)
        width = np.zeros(found.size, np.int64)
        if is_face and shift == (0, 0):
            image = image.reshape(key.shape).astype(np.int32) + (found[0] != 0)  # 0 is where nothing touches
            flat = surface_distance(image[None], Box.of_shape((1, *key.shape)), (1, *sides))[0].ravel()
            order = np.lexsort((np.arange(flat.size), -flat, key.ravel()))
            first = order[np.searchsorted(key.ravel()[order], found)]
            width = flat[first].astype(np.int64)
        new = (found != 0) & ~np.isin(found, known)
        known = np.concatenate([known, found[new]])
        if new.any():
            place = np.unravel_index(first[new], key.shape)
            at = (place[0] + here[0].start, place[1] + here[1].start)
            yield found[new] >> 32, found[new] & 0xFFFFFFFF, at, (du, dv), width[new]


def keep_gates(blocks: int, read: ReadPart, folder: Path) -> None:
    """Choose the gates that are kept, with 16 bytes of memory for each.

    Writes `gates.npy`, (n, 6): the voxel in a block and the one beyond its border, and `gate_first.npy`, (blocks + 1,): where
    each block's begin. A gate is listed in both blocks.
    """
    first, ids = np.load(folder / "first.npy"), np.load(folder / "ids.npy", mmap_mode="r")
    counts = [len(read(PAIRS, number)["width"]) for number in range(blocks)]
    total, at = sum(counts), np.concatenate([[0], np.cumsum(counts)])
    rows = np.lib.format.open_memmap(folder / "all.npy", "w+", np.int64, (max(1, total), 10))
    width = np.empty(total, np.int64)
    for number in range(blocks):
        part = read(PAIRS, number)
        pairs, some = part["pairs"], slice(at[number], at[number + 1])
        rows[some, 0] = first[number] + pairs[:, 0] - 1
        rows[some, 1] = first[pairs[:, 1]] + pairs[:, 2] - 1
        rows[some, 2], rows[some, 3] = number, pairs[:, 1]
        rows[some, 4:] = part["voxels"]
        width[some] = part["width"]
    order = np.argsort(-width, kind="stable")
    kept = _forest(rows, order, np.arange(max(1, ids.size)))
    if ids.size:
        kept &= ids[rows[order, 0]] > 0
    chosen = order[kept]
    block = np.concatenate([rows[chosen, 2], rows[chosen, 3]])
    voxels = np.concatenate([rows[chosen, 4:], rows[chosen][:, [7, 8, 9, 4, 5, 6]]])
    by_block = np.argsort(block, kind="stable")
    np.save(folder / "gates.npy", voxels[by_block])
    np.save(folder / "gate_first.npy", np.searchsorted(block[by_block], np.arange(blocks + 1)))
    del rows
    (folder / "all.npy").unlink()


@njit(cache=True, nogil=True)
def _forest(rows, order, parent):  # type: ignore[no-untyped-def]
    """Which gates join two sets that are still apart, in this order."""
    kept = np.zeros(order.size, np.bool_)
    for n in range(order.size):
        one, other = find(parent, rows[order[n], 0]), find(parent, rows[order[n], 1])
        if one != other:
            kept[n] = True
            parent[max(one, other)] = min(one, other)
    return kept


def gates_in(joined: Mapping[str, NDArray[Any]], number: int) -> NDArray[np.int64]:
    """The gates of a block, (n, 6), widest first."""
    begin, end = joined["gate_first"][number : number + 2]
    return np.asarray(joined["gates"][begin:end])
