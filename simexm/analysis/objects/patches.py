"""Patches of contacts across blocks: what each block shows at its borders, and which of it touches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import ReadPart
from simexm.analysis.objects.borders import PARTS, SIZES, later_blocks
from simexm.geometry.grid import Box, Tiling, Triple
from simexm.kernels.objects.patches import Patches, touching_patches


def patch_ids(found: Patches, volume: Triple) -> NDArray[np.uint64]:
    """Number of each patch: one more than the smallest index of its voxels in the volume."""
    _, ny, nx = volume
    z, y, x = found.first.T
    ids: NDArray[np.uint64] = ((z * ny + y) * nx + x + 1).astype(np.uint64)
    return ids


def border_patches(found: Patches, box: Box, whole: Box) -> NDArray[np.int64]:
    """Number each patch with a voxel at a side of its box inside the whole one, 1, 2, ...; 0 for others."""
    touches = np.zeros(len(found.first), np.bool_)
    touches[found.patch[_at_sides(found, box, whole)]] = True
    return np.where(touches, np.cumsum(touches), 0)


def _at_sides(found: Patches, box: Box, whole: Box) -> NDArray[np.bool_]:
    at = np.zeros(len(found.voxels), np.bool_)
    for axis in range(3):
        if box.start[axis] > whole.start[axis]:
            at |= found.voxels[:, axis] == box.start[axis]
        if box.stop[axis] < whole.stop[axis]:
            at |= found.voxels[:, axis] == box.stop[axis] - 1
    return at


def patch_parts(found: Patches, box: Box, whole: Box, volume: Triple) -> dict[str, NDArray[Any]]:
    """Describe the patches at the borders of a block, and their voxels there."""
    numbers, at = border_patches(found, box, whole), _at_sides(found, box, whole)
    patch, some = found.patch[at], numbers > 0
    return {
        "ids": patch_ids(found, volume)[some],
        "sizes": np.zeros((int(some.sum()), len(SIZES)), np.int64),
        "pairs": found.pairs[patch],
        "voxels": found.voxels[at],
        "numbers": numbers[patch],
    }


def touching_pairs(tiling: Tiling, number: int, volume: Triple, read: ReadPart) -> dict[str, NDArray[Any]]:
    """Find the patches that touch across the borders to later blocks: number here, other block, number there, (n, 3)."""
    own = read(PARTS, number)
    found = [np.empty((0, 3), np.int64)]
    for other, _ in later_blocks(tiling, number):
        theirs = read(PARTS, other)
        near = _near(own["voxels"], tiling[other]), _near(theirs["voxels"], tiling[number])
        one, two = ((part["pairs"][n], part["voxels"][n]) for part, n in zip((own, theirs), near, strict=True))
        rows = touching_patches(one, two, volume)
        numbers = own["numbers"][near[0]][rows[:, 0]], theirs["numbers"][near[1]][rows[:, 1]]
        found.append(np.unique(np.column_stack([numbers[0], np.full(len(rows), other), numbers[1]]), axis=0))
    return {"pairs": np.concatenate(found)}


def _near(voxels: NDArray[np.int64], box: Box) -> NDArray[np.bool_]:
    """Which voxels lie in a box or next to it."""
    wide = box.grown((1, 1, 1))
    inside: NDArray[np.bool_] = np.all((voxels >= wide.start) & (voxels < wide.stop), axis=1)
    return inside
