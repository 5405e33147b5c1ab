"""Input of the peers of simexm: dyes on the membranes of some cells, with NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VOXEL_NM = (40, 32, 32)
"""Of tissue."""
FACTOR = 4
SHARE_OF_CELLS = 0.5
DYES_PER_VOXEL = 800 * 32 * 36e-6
"""200 proteins with 4 dyes each per um^2, on about one face of a voxel."""


def membrane(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Voxels of a cell that touch another id, across faces, (z, y, x)."""
    found: NDArray[np.bool_] = np.zeros(labels.shape, bool)
    for axis in range(3):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        differ = labels[low] != labels[high]
        found[low] |= differ
        found[high] |= differ
    found &= labels != 0
    return found


def labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Voxels of the labelled cells: a random share, decided by the id alone."""
    mixed = labels.astype(np.uint32) * np.uint32(2654435761)
    return mixed < np.uint32(SHARE_OF_CELLS * 2**32)


def dyes(labels: NDArray[Any], seed: tuple[int, ...], mean: float = DYES_PER_VOXEL) -> NDArray[np.float32]:
    """Number of dyes in each voxel, (z, y, x), `mean` in a voxel of membrane."""
    where = np.nonzero(membrane(labels) & labelled(labels))
    number = np.zeros(labels.shape, np.float32)
    number[where] = np.random.default_rng(seed).poisson(mean, where[0].size)
    return number
