"""Distance from each voxel to the nearest one of another id, from centre to centre, exact for voxels of any shape.

Its square is a sum over the axes, so it is minimised axis by axis (Saito and Toriwaki, Pattern Recognition 27, 1551, 1994), in
whole numbers. In a round tube it is the radius or up to a voxel more; in front of a flat wall half a voxel more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box


def surface_distance(values: NDArray[Any], inner: Box, sides: Sequence[int], most: int = 1 << 15) -> NDArray[np.int32]:
    """Square of the distance of each voxel of a box to the nearest one of another id, in units.

    Parameters
    ----------
    values
        Ids (z, y, x); 0 is no object, and outside the array is no surface.
    inner
        The part of the array for which distances are wanted.
    sides
        Sides of a voxel in units, see `simexm.kernels.skeletons.units.Units`.
    most
        Distance in units, at most 2^15, which all larger ones count as; the array must reach so far beyond `inner`, if it can.

    Returns
    -------
    ndarray
        int32 of the shape of `inner`; 0 where the id is 0.
    """
    (z0, y0, x0), (z1, y1, x1) = inner.start, inner.stop
    values = np.ascontiguousarray(values)
    rows = np.empty((*values.shape[:2], x1 - x0), np.int32)
    _along_x(values, x0, x1, sides[2], most**2, rows)
    planes = np.empty((values.shape[0], y1 - y0, x1 - x0), np.int32)
    same = values[:, :, x0:x1]
    _along_y(same, rows, y0, y1, sides[1], planes)
    out = np.empty(inner.shape, np.int32)
    _along_z(same[:, y0:y1], planes, z0, z1, sides[0], out)
    return out


@njit(cache=True, nogil=True)
def _along_x(values, x0, x1, side, most, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for z in range(nz):
        for y in range(ny):
            begin = 0
            while begin < nx:
                value = values[z, y, begin]
                end = begin + 1
                while end < nx and values[z, y, end] == value:
                    end += 1
                for x in range(max(begin, x0), min(end, x1)):
                    best = np.int64(most)
                    if value == 0:
                        best = np.int64(0)
                    if begin > 0:
                        d = (x - begin + 1) * side
                        best = min(best, d * d)
                    if end < nx:
                        d = (end - x) * side
                        best = min(best, d * d)
                    out[z, y, x - x0] = best
                begin = end


@njit(cache=True, nogil=True)
def _along_y(values, rows, y0, y1, side, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for z in range(nz):
        for y in range(y0, y1):
            for x in range(nx):
                value, best = values[z, y, x], np.int64(rows[z, y, x])
                for way in (-1, 1):
                    k = 1
                    while 0 <= y + way * k < ny:
                        d = np.int64(k * side)
                        d *= d
                        if d >= best:
                            break
                        if values[z, y + way * k, x] != value:
                            best = d
                            break
                        best = min(best, d + rows[z, y + way * k, x])
                        k += 1
                out[z, y - y0, x] = best


@njit(cache=True, nogil=True)
def _along_z(values, planes, z0, z1, side, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for z in range(z0, z1):
        for y in range(ny):
            for x in range(nx):
                value, best = values[z, y, x], np.int64(planes[z, y, x])
                for way in (-1, 1):
                    k = 1
                    while 0 <= z + way * k < nz:
                        d = np.int64(k * side)
                        d *= d
                        if d >= best:
                            break
                        if values[z + way * k, y, x] != value:
                            best = d
                            break
                        best = min(best, d + planes[z + way * k, y, x])
                        k += 1
                out[z - z0, y, x] = best
