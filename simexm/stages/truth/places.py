"""Voxels at the centres of pixels where expansion is uneven: most are found by interpolation, the same as by inversion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box
from simexm.geometry.transform import Transform
from simexm.kernels.deformation.places import Knots, voxels_between

Floats = NDArray[np.float64]
_STRIDES = (8, 4, 2)
_ROUNDING = 1e-6
"""Voxels by which interpolation and inversion differ where both are right."""


def planes_of_voxels(geometry: Geometry, pixels: Box) -> Iterator[NDArray[np.int64]]:
    """Yield what `Geometry.voxels_at_centres` returns for pixels, plane by plane: (3, y, x) each.

    Places are inverted at every few pixels of the image and interpolated between them. Where that comes so close to a face
    of a voxel that its error might put it beyond, the pixel's own centre is inverted.
    """
    stride, error = _chosen(geometry)
    if stride == 1:
        yield from geometry.voxels_at_centres(pixels).swapaxes(0, 1)
        return
    z, *knots = (geometry.centres_nm(axis, pixels, stride if axis else 1) for axis in range(3))
    y, x = (geometry.centres_nm(axis, pixels) for axis in (1, 2))
    skipped = pixels.start[1] % stride, pixels.start[2] % stride
    per_nm = 1.0 / np.array([float(v) for v in geometry.voxel_nm])
    corner = np.array(geometry.crop.start)[:, None, None]
    for n, places in enumerate(_inverted(geometry.transform, z, *knots)):
        found, unsure = voxels_between(Knots(places, stride, skipped), (y.size, x.size), per_nm, error)
        found += corner
        v, u = np.divmod(unsure, x.size)
        tissue = geometry.transform.invert((np.full(v.size, z[n]), y[v], x[u]))
        found[:, v, u] = geometry.voxels_at(tissue)
        yield found


def _inverted(transform: Transform, z: Floats, y: Floats, x: Floats) -> Floats:
    """Places of tissue that move to the points of a grid, (z, 3, y, x)."""
    w, v, u = np.meshgrid(z, y, x, indexing="ij")
    return np.stack(transform.invert((w, v, u)), axis=1)


def _chosen(geometry: Geometry) -> tuple[int, Floats]:
    """Stride with the fewest inversions, at knots and near faces, and its error in voxels; 1 if none spares any."""
    voxel_nm, pixel_nm = (np.array([float(v) for v in size]) for size in (geometry.voxel_nm, geometry.pixel_nm))
    errors = {
        n: geometry.transform.interpolated_error_nm(n * pixel_nm[1:].max()) / voxel_nm + _ROUNDING for n in _STRIDES
    }
    share = {n: n**-2 + 2 * float(error.sum()) for n, error in errors.items()}
    best = min(_STRIDES, key=lambda n: share[n])
    return (best, errors[best]) if share[best] < 1.0 else (1, errors[best])
