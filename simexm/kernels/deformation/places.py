"""Voxels at places that are known at every few pixels of a plane, and the labels in them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_jit = njit(cache=True, nogil=True, error_model="numpy")


class Knots(NamedTuple):
    """Places at every `stride`-th pixel of a plane along y and x, one knot before the first pixel, two after the last.

    `skipped` is the number of pixels, along y and x, from the second knot to the first pixel.
    """

    places: Array  # nm, (3, y, x)
    stride: int
    skipped: tuple[int, int]


def voxels_between(knots: Knots, shape: tuple[int, int], per_nm: Array, error: Array) -> tuple[Indices, Indices]:
    """Voxels that hold the places of all pixels, (3, y, x), and the flat numbers of those pixels that are not sure.

    Places are interpolated by cubics through four knots along each axis. A pixel is not sure if it lies within `error`,
    (3,), voxels, of a face; `per_nm` is the number of voxels per nm along each axis.
    """
    t = np.arange(knots.stride) / knots.stride
    weights = np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -t * (t + 1) * (t - 2) / 2,
            t * (t + 1) * (t - 1) / 6,
        ]
    )
    out = np.empty((3, *shape), np.int64)
    unsure = np.empty(shape[0] * shape[1], np.int64)
    count = _voxels(knots.places, weights, np.array(knots.skipped), per_nm, error, out, unsure)
    return out, unsure[:count]


@_jit
def _voxels(places, weights, skipped, per_nm, error, out, unsure):  # type: ignore[no-untyped-def]
    stride = weights.shape[1]
    _, ny, nx = out.shape
    row = np.empty((3, places.shape[2]))
    near = np.zeros(nx, np.bool_)
    count = 0
    for y in range(ny):
        k, phase = divmod(y + skipped[0], stride)
        a, b, c, d = weights[0, phase], weights[1, phase], weights[2, phase], weights[3, phase]
        near[:] = False
        for i in range(3):
            along, into, four = row[i], out[i, y], places[i]
            for n in range(along.size):
                along[n] = ((a * four[k, n] + b * four[k + 1, n]) + (c * four[k + 2, n] + d * four[k + 3, n])) * per_nm[
                    i
                ]
            least, most = error[i], 1.0 - error[i]
            for x in range(nx):
                n, p = divmod(x + skipped[1], stride)
                at = (weights[0, p] * along[n] + weights[1, p] * along[n + 1]) + (
                    weights[2, p] * along[n + 2] + weights[3, p] * along[n + 3]
                )
                voxel = math.floor(at)
                part = at - voxel
                into[x] = np.int64(voxel)
                near[x] |= part < least or part > most
        for x in range(nx):
            if near[x]:
                unsure[count] = y * nx + x
                count += 1
    return count


@_jit
def gather_at(volume, first, last, corner, voxels, out):  # type: ignore[no-untyped-def]
    """Set out[y, x] to volume[voxel - corner] where the voxel, (3, y, x), lies in first ... last."""
    _, ny, nx = voxels.shape
    for y in range(ny):
        for x in range(nx):
            w, v, u = voxels[0, y, x], voxels[1, y, x], voxels[2, y, x]
            if first[0] <= w < last[0] and first[1] <= v < last[1] and first[2] <= u < last[2]:
                out[y, x] = volume[np.uint64(w - corner[0]), np.uint64(v - corner[1]), np.uint64(u - corner[2])]


@_jit
def gather_where_at(volume, bits, wanted, first, last, corner, voxels, out):  # type: ignore[no-untyped-def]
    """Do the same where `bits` has one of the bits `wanted`; 0 elsewhere in first ... last."""
    _, ny, nx = voxels.shape
    for y in range(ny):
        for x in range(nx):
            w, v, u = voxels[0, y, x], voxels[1, y, x], voxels[2, y, x]
            if first[0] <= w < last[0] and first[1] <= v < last[1] and first[2] <= u < last[2]:
                a, b, c = np.uint64(w - corner[0]), np.uint64(v - corner[1]), np.uint64(u - corner[2])
                out[y, x] = volume[a, b, c] if bits[a, b, c] & wanted else 0
