"""Faces between ids, and the value of a map along them: sums of whole numbers, which add up over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box

EDGE_COLUMNS = ("faces_z", "faces_y", "faces_x", "sum_z", "sum_y", "sum_x")
"""Faces across each axis; and the sums of the values of the two voxels of each."""


def edges(ids: NDArray[Any], values: NDArray[np.int64], own: Box) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Count the faces between different ids other than 0.

    Parameters
    ----------
    ids, values
        (z, y, x), with one voxel behind the box along each axis, where the volume goes on.
    own
        The box in these arrays: a face belongs to the box that holds its first voxel.

    Returns
    -------
    pairs
        (n, 2): smaller and larger id, in ascending order.
    counts
        (n, 6): see `EDGE_COLUMNS`.
    """
    pairs, counts = [np.zeros((0, 2), np.uint64)], [np.zeros((0, 6), np.int64)]
    for axis in range(3):
        first = list(own.slices)
        second = list(own.slices)
        stop = min(own.stop[axis], ids.shape[axis] - 1)
        first[axis], second[axis] = slice(own.start[axis], stop), slice(own.start[axis] + 1, stop + 1)
        one, other = ids[tuple(first)], ids[tuple(second)]
        at = np.flatnonzero((one != other) & (one != 0) & (other != 0))
        one, other = one.reshape(-1)[at].astype(np.uint64), other.reshape(-1)[at].astype(np.uint64)
        row = np.zeros((at.size, 6), np.int64)
        row[:, axis] = 1
        row[:, 3 + axis] = values[tuple(first)].reshape(-1)[at] + values[tuple(second)].reshape(-1)[at]
        keys, sums = reduced(np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1), row)
        pairs.append(keys)
        counts.append(sums)
    return reduced(np.concatenate(pairs), np.concatenate(counts))


def reduced(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Add the counts of equal pairs, in ascending order of these."""
    if not len(pairs):
        return pairs, counts
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, counts = pairs[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], np.any(pairs[1:] != pairs[:-1], axis=1)]))
    return pairs[starts], np.add.reduceat(counts, starts, axis=0)


def means(
    counts: NDArray[np.int64], voxel_nm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the area of edges by faces, um^2, and the mean of the values along them, weighted by area; both (n,)."""
    z, y, x = voxel_nm
    area, total = np.zeros(len(counts)), np.zeros(len(counts))
    for n, face in enumerate((y * x, z * x, z * y)):
        area += counts[:, n] * (face * 1e-6)
        total += counts[:, n + 3] * (face * 1e-6 / 2)
    return area, total / area
