"""A displacement as cubic B-spline coefficients on a lattice that all blocks of a volume share.

Node k of an axis lies at the voxel coordinate `STRIDE` k, counted from the centre of the volume's first voxel. Each block has
coefficients of its own; their means, by weights that sum to one at every node, are the coefficients of one smooth displacement,
so that no border of a block shows in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
STRIDE = 2
"""Voxels between nodes."""
_SUPPORT = 4
"""Nodes along an axis that a voxel depends on."""


def nodes(start: int, stop: int) -> tuple[int, int]:
    """First node, and the one after the last, on which the voxels [start, stop) depend."""
    return start // STRIDE - 1, (stop - 1) // STRIDE + 3


def coefficients(field: Floats, start: Sequence[int]) -> Floats:
    """Coefficients of a field (3, z, y, x) whose first voxel is `start`, at all nodes of its voxels; see `nodes`."""
    ranges = [nodes(a, a + n) for a, n in zip(start, field.shape[1:], strict=True)]
    axes = [
        np.clip(STRIDE * np.arange(*r) - a, 0, n - 1).astype(np.intp)
        for r, a, n in zip(ranges, start, field.shape[1:], strict=True)
    ]
    at: tuple[Any, ...] = np.ix_(*axes)
    values = field[:, *at]
    return np.stack([ndimage.spline_filter(part, 3, output=np.float32, mode="mirror") for part in values])


def spread(values: Floats, first: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Floats:
    """The displacement (3, z, y, x) at the voxels from `start` to `stop`; `first` is the first node of `values` (3, ...).

    Each voxel is computed alike, to the bit, whatever box it is part of.
    """
    for axis in range(3):
        voxels = np.arange(start[axis], stop[axis])
        place = voxels // STRIDE - 1 - first[axis]
        weights = _cubic(voxels % STRIDE / STRIDE)
        shape = tuple(-1 if a == axis + 1 else 1 for a in range(4))
        values = np.asarray(
            sum(weights[n].reshape(shape) * values.take(place + n, axis + 1) for n in range(_SUPPORT)), np.float32
        )
    return values


def _cubic(t: NDArray[np.float64]) -> Floats:
    """Weights of the four nodes around places at the share `t` between the middle two, (4, n)."""
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return np.asarray(np.stack(weights) / 6, np.float32)


def weight(first: int, count: int, start: int, stop: int, whole: int, reach: float) -> Floats:
    """Weight along an axis of the block [start, stop) of an axis of `whole` voxels at nodes from `first` on, (count,).

    It falls from 1 to 0 between `reach` voxels inside and outside of the block's borders, but not at the volume's own; the
    weights of all blocks sum to one if none but the last is shorter than 2 `reach`.
    """
    place: NDArray[np.float64] = (
        STRIDE * np.arange(first, first + count, dtype=np.float64) + 0.5
    )  # the voxel's lower side is the whole number
    rising = np.ones(count) if start <= 0 else _step((place - start) / reach)
    falling = np.zeros(count) if stop >= whole else _step((place - stop) / reach)
    return np.asarray(rising - falling, np.float32)


def _step(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth step from 0 at -1 to 1 at 1, with a continuous derivative."""
    s = np.clip((t + 1) / 2, 0, 1)
    return np.asarray(s * s * (3 - 2 * s))
