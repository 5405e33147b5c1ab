"""Displacement fields on a grid: sampling, composition, inversion, folds and their repair.

A field is (3, z, y, x): displacements along z, y, x at the centres of voxels. Between centres it is linear along each axis,
and beyond the outer centres it stays as it is there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm.compiled import njit

Field = NDArray[np.float32]
Floats = NDArray[np.float64]


def sample(field: Field, voxels: Floats) -> Floats:
    """Displacements at voxel coordinates (3, ...) that count from the centre of the first voxel."""
    shape = voxels.shape[1:]
    flat = voxels.reshape(3, -1)
    parts = [ndimage.map_coordinates(part, flat, order=1, mode="nearest", output=np.float64) for part in field]
    return np.stack(parts).reshape(3, *shape)


def smooth(field: Field, sigma: tuple[float, float, float]) -> Field:
    """Smooth each component by a Gaussian of these standard deviations, voxels along z, y, x."""
    return np.stack([ndimage.gaussian_filter(part, sigma, mode="nearest") for part in field])


@njit(cache=True, nogil=True)
def smallest_jacobian(field: Field, spacing: Floats) -> NDArray[np.float32]:
    """Smallest determinant of 1 + du/dp in each cell between eight neighbouring centres, over the eight corners of the cell.

    `spacing` is the distance of centres along z, y, x in the unit of the field. The result is (z - 1, y - 1, x - 1).
    """
    _, nz, ny, nx = field.shape
    found = np.empty((nz - 1, ny - 1, nx - 1), np.float32)
    for z in range(nz - 1):
        for y in range(ny - 1):
            for x in range(nx - 1):
                least = np.inf
                for corner in range(8):
                    a, b, c = z + (corner >> 2), y + ((corner >> 1) & 1), x + (corner & 1)
                    zz = 1 + (field[0, z + 1, b, c] - field[0, z, b, c]) / spacing[0]
                    zy = (field[0, a, y + 1, c] - field[0, a, y, c]) / spacing[1]
                    zx = (field[0, a, b, x + 1] - field[0, a, b, x]) / spacing[2]
                    yz = (field[1, z + 1, b, c] - field[1, z, b, c]) / spacing[0]
                    yy = 1 + (field[1, a, y + 1, c] - field[1, a, y, c]) / spacing[1]
                    yx = (field[1, a, b, x + 1] - field[1, a, b, x]) / spacing[2]
                    xz = (field[2, z + 1, b, c] - field[2, z, b, c]) / spacing[0]
                    xy = (field[2, a, y + 1, c] - field[2, a, y, c]) / spacing[1]
                    xx = 1 + (field[2, a, b, x + 1] - field[2, a, b, x]) / spacing[2]
                    det = zz * (yy * xx - yx * xy) - zy * (yz * xx - yx * xz) + zx * (yz * xy - yy * xz)
                    least = min(least, det)
                found[z, y, x] = least
    return found


def unfold(field: Field, spacing: tuple[float, float, float], least: float) -> tuple[Field, int]:
    """Change a field around cells whose Jacobian is below `least` until there is none.

    There it is smoothed, further at each attempt. If that does not suffice, the whole field is halved until it does, which
    always ends: a field of 0 has a Jacobian of 1.

    Returns
    -------
    tuple
        The field, and the number of cells that were below `least`.
    """
    steps = np.array(spacing, np.float64)
    found, first = field, -1
    for attempt in range(_ATTEMPTS):
        bad = smallest_jacobian(found, steps) < least
        first = int(bad.sum()) if first < 0 else first
        if not bad.any():
            return found, first
        near = np.zeros(field.shape[1:], bool)
        near[:-1, :-1, :-1] = bad
        sigma = 1.0 + 0.25 * attempt
        near = ndimage.binary_dilation(near, np.ones((3, 3, 3), bool), iterations=1 + round(2 * sigma))
        weight = ndimage.gaussian_filter(near.astype(np.float32), 1.0, mode="nearest")
        found = (found + weight * (smooth(found, (sigma, sigma, sigma)) - found)).astype(np.float32)
    while (smallest_jacobian(found, steps) < least).any():
        found = (found / 2).astype(np.float32)
    return found, first


_ATTEMPTS = 24


def invert(
    field: Field, spacing: tuple[float, float, float], points: Floats, first: Floats, tolerance: float
) -> Floats:
    """Find the points p with p + u(p) = `points`, by fixed-point iteration with a damped step where it diverges.

    Parameters
    ----------
    field
        Displacements, um.
    spacing, first
        Spacing of the centres, and the centre of the first voxel (3,), um.
    points
        Points, (3, n), um.
    tolerance
        Largest distance of p + u(p) from `points`, um.

    Returns
    -------
    ndarray
        The points p, (3, n); NaN where the tolerance was not reached.
    """
    step = np.array(spacing)[:, None]
    found = points.copy()
    damping = np.ones(points.shape[1])
    before = np.full(points.shape[1], np.inf)
    for _ in range(_ITERATIONS):
        missing = points - found - sample(field, (found - first[:, None]) / step)
        error = np.sqrt((missing**2).sum(axis=0))
        if (error <= tolerance).all():
            return found
        damping = np.where(error >= before, damping / 2, damping)
        before = error
        found = found + damping * missing
    missing = points - found - sample(field, (found - first[:, None]) / step)
    return np.where(np.sqrt((missing**2).sum(axis=0)) <= tolerance, found, np.nan)


_ITERATIONS = 200
