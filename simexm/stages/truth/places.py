"""Voxels at the centres of pixels where expansion is uneven: most are found by interpolation, the same as by inversion."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box
from simexm.geometry.transform import Transform
from simexm.kernels.deformation.places import Around, Knots, Placed, cubic, voxels_between

Floats = NDArray[np.float64]
_STRIDES = ((1, 8), (1, 4), (2, 4), (4, 4), (1, 2), (2, 2))
"""Strides along z, and along y and x."""
_ROUNDING = 1e-6
"""Voxels by which interpolation and inversion differ where both are right."""
_UNLIKE = 0.3
"""Share of pixels near a face that are inverted, since its sides differ; it decides what is cheaper, not what is found."""


def planes_of_voxels(geometry: Geometry, pixels: Box, around: Around | None = None) -> Iterator[NDArray[np.int64]]:
    """Yield what `Geometry.voxels_at_centres` returns for pixels, plane by plane: (3, y, x) each.

    With labels `around`, another voxel may stand for one that has the same label and regions. Places are inverted at every
    few pixels of the image and interpolated between them. Where that comes so close to a face of a voxel that its error might
    put it beyond, the pixel's own centre is inverted. Each of those measures the error: should it exceed what was assumed, all
    pixels of the plane are inverted.
    """
    strides, error = _chosen(geometry)
    if math.prod(strides) == 1:
        yield from geometry.voxels_at_centres(pixels).swapaxes(0, 1)
        return
    z, y, x = (geometry.centres_nm(axis, pixels) for axis in range(3))
    knots = (geometry.centres_nm(axis, pixels, strides[axis > 0]) for axis in range(3))
    skipped = pixels.start[1] % strides[1], pixels.start[2] % strides[1]
    size = np.array([float(v) for v in geometry.voxel_nm])
    origin = np.array(geometry.crop.start)
    inverted = _inverted(geometry.transform, *knots)
    for n in range(z.size):
        places = Knots(_plane(inverted, n + pixels.start[0] % strides[0], strides[0]), strides[1], skipped)
        placed = voxels_between(places, (y.size, x.size), origin, 1.0 / size, error, around)
        if not _settled(geometry, placed, z[n], y, x, error):
            plane = Box((pixels.start[0] + n, *pixels.start[1:]), (pixels.start[0] + n + 1, *pixels.stop[1:]))
            yield geometry.voxels_at_centres(plane)[:, 0]
            continue
        yield placed.voxels


def _settled(geometry: Geometry, placed: Placed, z: float, y: Floats, x: Floats, error: Floats) -> bool:
    """Find the voxels of pixels that are not sure; whether none was further off than the error."""
    v, u = np.divmod(placed.unsure, x.size)
    if not v.size:
        return True
    size = np.array([float(s) for s in geometry.voxel_nm])[:, None]
    guess = placed.guess * size
    tissue = geometry.transform.invert((np.full(v.size, z), y[v], x[u]), (guess[0], guess[1], guess[2]))
    placed.voxels[:, v, u] = geometry.voxels_at(tissue)
    off = np.abs(np.stack(tissue) - guess).max(axis=1)
    return bool((off <= error * size[:, 0]).all())


def _plane(inverted: Floats, n: int, stride: int) -> Floats:
    """Interpolate knots along z, (z, 3, y, x), at pixel n from the second of them: (3, y, x)."""
    if stride == 1:
        return np.asarray(inverted[n])
    k, phase = divmod(n, stride)
    w = cubic(np.array([phase / stride]))[:, 0]
    a, b, c, d = inverted[k : k + 4]
    return np.asarray((w[0] * a + w[1] * b) + (w[2] * c + w[3] * d)) if phase else np.asarray(b)


def _inverted(transform: Transform, z: Floats, y: Floats, x: Floats) -> Floats:
    """Places of tissue that move to the points of a grid, (z, 3, y, x)."""
    w, v, u = np.meshgrid(z, y, x, indexing="ij")
    return np.stack(transform.invert((w, v, u)), axis=1)


def _chosen(geometry: Geometry) -> tuple[tuple[int, int], Floats]:
    """Strides along z, and along y and x, with the fewest inversions, at knots and near faces, and the error in voxels.

    The strides are 1 if none spares any.
    """
    voxel_nm, pixel_nm = (np.array([float(v) for v in size]) for size in (geometry.voxel_nm, geometry.pixel_nm))
    error = geometry.transform.interpolated_error_nm
    errors = {
        (k, n): (error(n * pixel_nm[1:].max()) + (error(k * pixel_nm[0]) if k > 1 else 0.0)) / voxel_nm + _ROUNDING
        for k, n in _STRIDES
    }
    share = {(k, n): 1 / (k * n * n) + 2 * _UNLIKE * float(errors[k, n].sum()) for k, n in _STRIDES}
    possible = [s for s in _STRIDES if errors[s].max() < 0.5]
    best = min(possible, key=lambda s: share[s], default=_STRIDES[-1])
    return (best, errors[best]) if possible and share[best] < 1.0 else ((1, 1), errors[best])
