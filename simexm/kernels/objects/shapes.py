"""Size, position and shape of components: moments from runs, a voxel deep inside, principal axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.objects.components import Components

MOMENTS = ("z", "y", "x", "zz", "yy", "xx", "zy", "zx", "yx")
"""Sums over the voxels of these products of their coordinates."""
DEEPEST = 7
"""Depth, in steps from voxel to voxel, from which voxels count as equally deep."""


def moments(found: Components) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return voxels, (n,), sums by `MOMENTS`, (n, 9), and boxes (first z, y, x, last z, y, x), (n, 6), in the array."""
    n = len(found)
    voxels, sums = np.zeros(n, np.int64), np.zeros((n, 9), np.int64)
    boxes = np.zeros((n, 6), np.int64)
    boxes[:, :3], boxes[:, 3:] = np.iinfo(np.int64).max, -1
    runs = found.runs
    _moments(runs.shape[1], runs.first, runs.begin, runs.end, found.of_run, voxels, sums, boxes)
    return voxels, sums, boxes


@njit(cache=True, nogil=True)
def _moments(ny, first, begin, end, component, voxels, sums, boxes):  # type: ignore[no-untyped-def]
    for row in range(first.size - 1):
        z, y = row // ny, row % ny
        for i in range(first[row], first[row + 1]):
            c = component[i] - 1
            a, b = np.int64(begin[i]), np.int64(end[i])
            n = b - a
            x = (a + b - 1) * n // 2
            # sums of squares up to a - 1 and b - 1
            xx = (b - 1) * b * (2 * b - 1) // 6 - (a - 1) * a * (2 * a - 1) // 6
            voxels[c] += n
            sums[c, 0] += n * z
            sums[c, 1] += n * y
            sums[c, 2] += x
            sums[c, 3] += n * z * z
            sums[c, 4] += n * y * y
            sums[c, 5] += xx
            sums[c, 6] += n * z * y
            sums[c, 7] += z * x
            sums[c, 8] += y * x
            boxes[c, 0] = min(boxes[c, 0], z)
            boxes[c, 1] = min(boxes[c, 1], y)
            boxes[c, 2] = min(boxes[c, 2], a)
            boxes[c, 3] = max(boxes[c, 3], z)
            boxes[c, 4] = max(boxes[c, 4], y)
            boxes[c, 5] = max(boxes[c, 5], b - 1)


def depth(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Steps along the axes from each voxel to the nearest of another value, at most `DEEPEST`, (z, y, x).

    Voxels nearer than `DEEPEST` to the end of the array may be too deep where it continues.
    """
    out = np.empty(values.shape, np.uint8)
    _depth(np.ascontiguousarray(values), out)
    return out


@njit(cache=True, nogil=True)
def _depth(values, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = values.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = values[z, y, x]
                best = DEEPEST
                if z:
                    best = min(best, out[z - 1, y, x] + 1 if values[z - 1, y, x] == value else 1)
                if y:
                    best = min(best, out[z, y - 1, x] + 1 if values[z, y - 1, x] == value else 1)
                if x:
                    best = min(best, out[z, y, x - 1] + 1 if values[z, y, x - 1] == value else 1)
                out[z, y, x] = best
    for z in range(nz - 1, -1, -1):
        for y in range(ny - 1, -1, -1):
            for x in range(nx - 1, -1, -1):
                value, best = values[z, y, x], int(out[z, y, x])
                if z + 1 < nz:
                    best = min(best, out[z + 1, y, x] + 1 if values[z + 1, y, x] == value else 1)
                if y + 1 < ny:
                    best = min(best, out[z, y + 1, x] + 1 if values[z, y + 1, x] == value else 1)
                if x + 1 < nx:
                    best = min(best, out[z, y, x + 1] + 1 if values[z, y, x + 1] == value else 1)
                out[z, y, x] = best


def deepest(found: Components, depths: NDArray[np.uint8], corner: Triple, volume: Triple) -> NDArray[np.int64]:
    """Return the deepest voxel of each component as one number that is larger for better ones; see `deepest_voxel`.

    Of equally deep voxels it is the one of the smallest index in the volume. `corner` is the array's first voxel.
    """
    best = np.full(len(found), -1, np.int64)
    runs = found.runs
    _deepest(
        runs.shape[1], runs.first, runs.begin, runs.end, found.of_run, depths, np.array(corner), np.array(volume), best
    )
    return best


_INDEX_BITS = 60


@njit(cache=True, nogil=True)
def _deepest(ny, first, begin, end, component, depths, corner, volume, best):  # type: ignore[no-untyped-def]
    largest = np.int64(1 << _INDEX_BITS) - 1
    for row in range(first.size - 1):
        z, y = row // ny, row % ny
        index = ((z + corner[0]) * volume[1] + y + corner[1]) * volume[2] + corner[2]
        for i in range(first[row], first[row + 1]):
            c = component[i] - 1
            most, at = 0, 0
            for x in range(begin[i], end[i]):
                if depths[z, y, x] > most:
                    most, at = depths[z, y, x], x
            code = (np.int64(most) << _INDEX_BITS) | (largest - (index + at))
            best[c] = max(best[c], code)


def deepest_voxel(best: NDArray[np.int64], volume: Triple) -> NDArray[np.int64]:
    """Return z, y, x of what `deepest` found, (3, n)."""
    index = ((1 << _INDEX_BITS) - 1) - (best & ((1 << _INDEX_BITS) - 1))
    _, ny, nx = volume
    return np.stack([index // (ny * nx), index // nx % ny, index % nx])


def principal_axes(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues, (n, 3) from the largest on, and unit vectors, (n, 3, 3), of symmetric matrices, (n, 3, 3).

    By Jacobi's rotations (Golub & Van Loan, section 8.5), whose bits, unlike a library's, do not depend on the CPU. The largest
    component of each vector is positive.
    """
    values, vectors = np.zeros((len(covariance), 3)), np.zeros((len(covariance), 3, 3))
    _jacobi(np.ascontiguousarray(covariance, np.float64), values, vectors)
    return values, vectors


@njit(cache=True, nogil=True)
def _jacobi(matrices, values, vectors):  # type: ignore[no-untyped-def]
    for m in range(len(matrices)):
        a, v = matrices[m].copy(), np.eye(3)
        for _ in range(50):
            if abs(a[0, 1]) + abs(a[0, 2]) + abs(a[1, 2]) <= 1e-15 * (abs(a[0, 0]) + abs(a[1, 1]) + abs(a[2, 2])):
                break
            for p in range(2):
                for q in range(p + 1, 3):
                    if a[p, q] == 0:
                        continue
                    ratio = (a[q, q] - a[p, p]) / (2 * a[p, q])
                    tangent = (1.0 if ratio >= 0 else -1.0) / (abs(ratio) + math.sqrt(ratio * ratio + 1))
                    cosine = 1 / math.sqrt(tangent * tangent + 1)
                    sine = tangent * cosine
                    for k in range(3):
                        one, other = a[k, p], a[k, q]
                        a[k, p], a[k, q] = cosine * one - sine * other, sine * one + cosine * other
                    for k in range(3):
                        one, other = a[p, k], a[q, k]
                        a[p, k], a[q, k] = cosine * one - sine * other, sine * one + cosine * other
                        one, other = v[k, p], v[k, q]
                        v[k, p], v[k, q] = cosine * one - sine * other, sine * one + cosine * other
        order = np.argsort(-np.array([a[0, 0], a[1, 1], a[2, 2]]))
        for n in range(3):
            column = order[n]
            largest = 0
            for k in range(1, 3):
                if abs(v[k, column]) > abs(v[largest, column]):
                    largest = k
            sign = 1.0 if v[largest, column] >= 0 else -1.0
            values[m, n] = max(a[column, column], 0.0)
            for k in range(3):
                vectors[m, n, k] = sign * v[k, column]
