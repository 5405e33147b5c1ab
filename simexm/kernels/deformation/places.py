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


class Around(NamedTuple):
    """Labels of a box of voxels, by which a pixel near a face is settled if both sides of the face are alike."""

    labels: NDArray[np.int32]
    bits: NDArray[np.uint8]
    """Regions of each voxel; empty if none are asked for."""
    first: Indices
    """First voxel, (3,), that pixels are looked up in."""
    last: Indices
    corner: Indices
    """First voxel of the arrays."""


class Placed(NamedTuple):
    """Voxels of the pixels of a plane, and which of them are not sure."""

    voxels: Indices
    """(3, y, x)."""
    unsure: Indices
    """Flat numbers of pixels."""
    guess: Array
    """Where these lie, voxels, (3, n)."""


def voxels_between(
    knots: Knots, shape: tuple[int, int], origin: Indices, per_nm: Array, error: Array, around: Around | None = None
) -> Placed:
    """Find voxels that hold the places of all pixels, counted from voxel `origin`.

    Places are interpolated by cubics through four knots along each axis. A pixel is not sure if it lies within `error`,
    (3,), voxels, of a face, unless the voxels that it might lie in have the same label; `per_nm` is the number of voxels
    per nm along each axis. Errors are below half a voxel.
    """
    weights = cubic(np.arange(knots.stride) / knots.stride)
    out = np.empty((3, *shape), np.int64)
    unsure, guess = np.empty(shape[0] * shape[1], np.int64), np.empty((3, shape[0] * shape[1]))
    none = np.zeros(3, np.int64)
    given = around or Around(np.empty((0, 0, 0), np.int32), np.empty((0, 0, 0), np.uint8), none, none, none)
    skipped = np.array(knots.skipped)
    count = _voxels(knots.places, weights, skipped, origin, per_nm, error, *given, out, unsure, guess)
    return Placed(out, unsure[:count], guess[:, :count])


def cubic(t: Array) -> Array:
    """Weights of four knots, the second at 0 and the third at 1, in the cubic through them, (4, n)."""
    return np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -t * (t + 1) * (t - 2) / 2,
            t * (t + 1) * (t - 1) / 6,
        ]
    )


@_jit
def _voxels(places, weights, skipped, origin, per_nm, error, index, bits, first, last, corner, out, unsure, guess):  # type: ignore[no-untyped-def]
    stride = weights.shape[1]
    _, ny, nx = out.shape
    row, ats = np.empty((3, places.shape[2])), np.empty((3, nx))
    near = np.zeros(nx, np.bool_)
    count = 0
    for y in range(ny):
        k, phase = divmod(y + skipped[0], stride)
        a, b, c, d = weights[0, phase], weights[1, phase], weights[2, phase], weights[3, phase]
        near[:] = False
        for i in range(3):
            along, into, four, at = row[i], out[i, y], places[i], ats[i]
            for n in range(along.size):
                along[n] = ((a * four[k, n] + b * four[k + 1, n]) + (c * four[k + 2, n] + d * four[k + 3, n])) * per_nm[
                    i
                ]
            # pixels of one phase are a stride apart
            for p in range(stride):
                w0, w1, w2, w3 = weights[0, p], weights[1, p], weights[2, p], weights[3, p]
                x = (p - skipped[1]) % stride
                n = (x + skipped[1]) // stride
                while x < nx:
                    at[x] = (w0 * along[n] + w1 * along[n + 1]) + (w2 * along[n + 2] + w3 * along[n + 3])
                    x += stride
                    n += 1
            least, most, zero = error[i], 1.0 - error[i], origin[i]
            for x in range(nx):
                voxel = math.floor(at[x])
                part = at[x] - voxel
                into[x] = np.int64(voxel) + zero
                near[x] |= (part < least) | (part > most)
        for x in range(nx):
            if near[x] and not _alike(ats[:, x], error, out[:, y, x], index, bits, first, last, corner):
                unsure[count] = y * nx + x
                guess[0, count], guess[1, count], guess[2, count] = ats[0, x], ats[1, x], ats[2, x]
                count += 1
    return count


@_jit
def _alike(at, error, voxel, index, bits, first, last, corner):  # type: ignore[no-untyped-def]
    """Whether all voxels within the error of a place lie in the box and have one label and regions, or all lie outside."""
    if index.size == 0:
        return False
    label, marks, begun = np.int64(0), np.int64(0), False
    for corner_of in range(8):
        inside = True
        z, y, x = voxel[0], voxel[1], voxel[2]
        for i in range(3):
            step = 0
            if (corner_of >> i) & 1:
                part = at[i] - math.floor(at[i])
                step = -1 if part < error[i] else (1 if part > 1.0 - error[i] else 0)
            v = voxel[i] + step
            inside = inside and first[i] <= v < last[i]
            if i == 0:
                z = v
            elif i == 1:
                y = v
            else:
                x = v
        found, marked = np.int64(-1), np.int64(0)
        if inside:
            a, b, c = np.uint64(z - corner[0]), np.uint64(y - corner[1]), np.uint64(x - corner[2])
            found = np.int64(index[a, b, c])
            if bits.size:
                marked = np.int64(bits[a, b, c])
        if begun and (found != label or marked != marks):
            return False
        label, marks, begun = found, marked, True
    return True


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
