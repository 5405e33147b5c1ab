"""Similarity of two images on one grid, and the shift that is left between them; true values are not needed."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.floating]


def correlation(one: Image, other: Image, where: NDArray[np.bool_]) -> float:
    """Correlation coefficient of two images over some voxels; NaN if one of them is constant there."""
    a, b = one[where].astype(np.float64), other[where].astype(np.float64)
    if a.size < 2:
        return float("nan")
    a -= a.mean()
    b -= b.mean()
    # not by `@`, whose order of additions depends on the number of threads
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


def local_correlation(one: Image, other: Image, where: NDArray[np.bool_], side: int = 9) -> float:
    """Mean correlation coefficient in cubes of `side` voxels, over the half of the cubes with the larger variance of `one`.

    Only cubes that lie inside the volume and whose voxels are all in `where` count; NaN if there are none.
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    a, b = a - a[where].mean(), b - b[where].mean()

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.uniform_filter(values, side, mode="constant"))

    ma, mb = mean(a), mean(b)
    va, vb = mean(a * a) - ma * ma, mean(b * b) - mb * mb
    full = ndimage.minimum_filter(where, side, mode="constant", cval=False) & (va > 0)
    if not full.any():
        return float("nan")
    full &= va >= np.median(va[full])
    covariance = mean(a * b) - ma * mb
    norm = np.sqrt(np.maximum(va * vb, 0))
    return float(np.where(norm > 0, covariance / np.where(norm > 0, norm, 1), 0)[full].mean())


def block_shifts(
    one: Image, other: Image, where: NDArray[np.bool_], side: int, least: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift between two images in cubes of `side` voxels that overlap by half, from their phase correlation.

    Each cube is weighted by a Hann window. The peak of the phase correlation, smoothed by a Gaussian of one voxel, is refined
    along each axis by the Gaussian through its neighbours. Cubes count if all their voxels are in `where` and their
    variance in `one` is at least `least` of the median over such cubes.

    Returns
    -------
    tuple of ndarray
        Centres of the cubes and shifts of `other` against `one`, both (n, 3), voxels.
    """
    window = np.ones((1, 1, 1))
    smooth = np.ones((1, 1, 1))
    for axis in range(3):
        shape = tuple(side if a == axis else 1 for a in range(3))
        window = window * np.hanning(side + 2)[1:-1].reshape(shape)
        frequency = fft.fftfreq(side) if axis < 2 else fft.rfftfreq(side)
        last = shape if axis < 2 else (1, 1, side // 2 + 1)
        smooth = smooth * np.exp(-2 * (np.pi * frequency.reshape(last)) ** 2)
    starts = [range(0, n - side + 1, side // 2) for n in one.shape]
    cubes = []
    for start in itertools.product(*starts):
        at = tuple(slice(s, s + side) for s in start)
        if where[at].all():
            cubes.append((start, at, float(one[at].var())))
    level = least * float(np.median([v for *_, v in cubes])) if cubes else 0.0
    centres, shifts = [], []
    for start, at, variance in cubes:
        if variance < level or variance == 0:
            continue
        a, b = (fft.rfftn(window * (v[at] - v[at].mean(dtype=np.float64))) for v in (one, other))
        cross = b * np.conj(a)
        size = np.abs(cross)
        found = fft.irfftn(np.where(size > 0, cross / np.where(size > 0, size, 1), 0) * smooth, s=(side,) * 3)
        centres.append(np.array(start) + (side - 1) / 2)
        shifts.append(_peak(found))
    return np.array(centres).reshape(-1, 3), np.array(shifts).reshape(-1, 3)


def _peak(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of the largest value of a periodic array, refined along each axis by the Gaussian through its neighbours."""
    top = np.unravel_index(int(values.argmax()), values.shape)
    found = np.zeros(3)
    for axis, n in enumerate(values.shape):
        around = [values[tuple((t + d) % n if a == axis else t for a, t in enumerate(top))] for d in (-1, 0, 1)]
        low, here, high = np.log(np.maximum(around, _LEAST * values[top]))
        bend = low - 2 * here + high
        part = 0.5 * (low - high) / bend if bend < 0 else 0.0
        found[axis] = (top[axis] + part + n // 2) % n - n // 2
    return found


_LEAST = 1e-3
"""Share of the peak that its neighbours have at least, for the logarithm."""
