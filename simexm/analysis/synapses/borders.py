"""Synapses across blocks: what each block shows near its borders, and which of it is near what another shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import ReadPart
from simexm.analysis.objects.borders import PARTS, SIZES
from simexm.geometry.grid import Box, Tiling, Triple
from simexm.kernels.objects.clusters import clusters, reach_of


@dataclass(frozen=True)
class Found:
    """The parts of synapses in a block, numbered 0, 1, ... by cells, junction and smallest voxel index."""

    keys: NDArray[np.uint64]
    """(parts, 3): smaller and larger id, and junction."""
    voxels: NDArray[np.int64]
    """(n, 3): z, y, x in the volume of the voxels of smaller ids at faces, once for each face."""
    part: NDArray[np.int64]
    """(n,): the part that each belongs to."""
    first: NDArray[np.int64]
    """(parts,): row of the voxel of the smallest index."""

    @classmethod
    def of(
        cls, keys: NDArray[np.uint64], voxels: NDArray[np.int64], voxel_nm: tuple[float, float, float], join_nm: float
    ) -> Found:
        """Join faces, with keys (n, 3) and voxels (n, 3) in the order of the voxels, to parts."""
        group = np.unique(keys, axis=0, return_inverse=True)[1]
        roots = clusters(group.reshape(-1), voxels, voxel_nm, join_nm)
        first, part = np.unique(roots, return_inverse=True)
        order = np.lexsort((first, *keys[first].T[::-1]))
        rank = np.argsort(order)
        return cls(keys[first][order].reshape(-1, 3), voxels, rank[part], first[order])

    def __len__(self) -> int:
        return self.first.size

    def numbers(self, volume: Triple) -> NDArray[np.uint64]:
        """One more than the smallest index of the voxels of each part in the volume."""
        _, ny, nx = volume
        z, y, x = self.voxels[self.first].T
        found: NDArray[np.uint64] = ((z * ny + y) * nx + x + 1).astype(np.uint64)
        return found

    def near_border(self, box: Box, whole: Box, reach: Triple) -> NDArray[np.bool_]:
        """Which voxels lie so near a side of the box, inside the whole one, that what is beyond may be joined."""
        near = np.zeros(len(self.voxels), np.bool_)
        for axis, r in enumerate(reach):
            if box.start[axis] > whole.start[axis]:
                near |= self.voxels[:, axis] < box.start[axis] + r
            if box.stop[axis] < whole.stop[axis]:
                near |= self.voxels[:, axis] >= box.stop[axis] - r
        return near

    def border_numbers(self, near: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Number each part with a voxel near a border, 1, 2, ...; 0 for others."""
        some = np.zeros(len(self), np.bool_)
        some[self.part[near]] = True
        return np.where(some, np.cumsum(some), 0)


def parts_of(found: Found, box: Box, whole: Box, volume: Triple, reach: Triple) -> dict[str, NDArray[Any]]:
    """Describe the parts near the borders of a block, and their voxels there."""
    near = found.near_border(box, whole, reach)
    numbers = found.border_numbers(near)
    part, voxels = found.part[near], found.voxels[near]
    _, once = np.unique(np.column_stack([part, voxels]), axis=0, return_index=True)
    some = numbers > 0
    return {
        "ids": found.numbers(volume)[some],
        "sizes": np.zeros((int(some.sum()), len(SIZES)), np.int64),
        "keys": found.keys[part[once]],
        "voxels": voxels[once],
        "numbers": numbers[part[once]],
    }


def near_pairs(
    tiling: Tiling, number: int, voxel_nm: tuple[float, float, float], join_nm: float, read: ReadPart
) -> dict[str, NDArray[Any]]:
    """Find the parts of later blocks near those of a block: number here, other block, number there, (n, 3)."""
    own, reach = read(PARTS, number), reach_of(join_nm, voxel_nm)
    found = [np.empty((0, 3), np.int64)]
    for other in later_within(tiling, number, reach):
        theirs = read(PARTS, other)
        rows = _near(own, tiling[other], reach), _near(theirs, tiling[number], reach)
        keys, voxels, numbers = (
            np.concatenate([part[name][some] for part, some in zip((own, theirs), rows, strict=True)])
            for name in ("keys", "voxels", "numbers")
        )
        is_own = np.arange(len(numbers)) < rows[0].sum()
        pairs = _linked(keys, voxels, numbers, is_own, voxel_nm, join_nm)
        found.append(np.column_stack([pairs[:, 0], np.full(len(pairs), other), pairs[:, 1]]))
    return {"pairs": np.concatenate(found)}


def later_within(tiling: Tiling, number: int, reach: Triple) -> Iterator[int]:
    """Numbers of the later blocks that come so near to a block."""
    most = [-(-r // c) for r, c in zip(reach, tiling.cell, strict=True)]
    steps = [range(-n, n + 1) for n in most]
    _, ny, nx = tiling.counts
    for offset in itertools.product(*steps):
        place = [p + o for p, o in zip(tiling.position(number), offset, strict=True)]
        if offset > (0, 0, 0) and all(0 <= p < n for p, n in zip(place, tiling.counts, strict=True)):
            yield (place[0] * ny + place[1]) * nx + place[2]


def _near(part: Mapping[str, NDArray[Any]], box: Box, reach: Sequence[int]) -> NDArray[np.bool_]:
    low, high = np.array(box.start) - reach, np.array(box.stop) + reach
    near: NDArray[np.bool_] = np.all((part["voxels"] >= low) & (part["voxels"] < high), axis=1)
    return near


def _linked(
    keys: NDArray[np.uint64],
    voxels: NDArray[np.int64],
    numbers: NDArray[np.int64],
    is_own: NDArray[np.bool_],
    voxel_nm: tuple[float, float, float],
    join_nm: float,
) -> NDArray[np.int64]:
    """Pairs of numbers, own and other, (n, 2), that link all parts of each cluster with voxels of both."""
    if is_own.all() or not is_own.any():
        return np.empty((0, 2), np.int64)
    group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    root = clusters(group, voxels, voxel_nm, join_nm)
    sides = [np.unique(np.column_stack([root[some], numbers[some]]), axis=0) for some in (is_own, ~is_own)]
    first = [side[np.unique(side[:, 0], return_index=True)[1]] for side in sides]
    pairs = []
    for n in (0, 1):  # all of one side with the first of the other
        at = np.searchsorted(first[1 - n][:, 0], sides[n][:, 0])
        at = np.minimum(at, len(first[1 - n]) - 1)
        both = first[1 - n][at, 0] == sides[n][:, 0]
        columns = [sides[n][both, 1], first[1 - n][at[both], 1]]
        pairs.append(np.column_stack(columns if n == 0 else columns[::-1]))
    found: NDArray[np.int64] = np.unique(np.concatenate(pairs), axis=0)
    return found
