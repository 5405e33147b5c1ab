"""Light from far above and below: coarse planes of dyes, folded with wide kernels and interpolated up to pixels.

All grids are those of cell centres, each with cells of twice the length of the next finer one. `xp` is NumPy or another
namespace of the Python array API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.imaging.image import fast_pixels

TAPS = 6
"""Nodes of the interpolation to the next finer grid."""
MARGIN = TAPS // 2
"""Nodes that it needs beyond each end."""


def _lagrange() -> tuple[float, ...]:
    """Weights of the nodes -3 to 2 at -1/4."""
    nodes, at = range(-MARGIN, MARGIN), -0.25
    return tuple(float(np.prod([(at - b) / (a - b) for b in nodes if b != a])) for a in nodes)


WEIGHTS = _lagrange()


def coarser_window(start: int, stop: int) -> tuple[int, int]:
    """Nodes of the next coarser grid from which those from `start` to `stop` are interpolated."""
    return start // 2 - MARGIN, -(-stop // 2) + MARGIN


def finer(coarse: Any, starts: tuple[int, int], stops: tuple[int, int], xp: Any) -> Any:
    """Interpolate planes, (planes, y, x), on `coarser_window` along both axes, to nodes from `starts` to `stops`."""
    for axis, start, stop in ((1, starts[0], stops[0]), (2, starts[1], stops[1])):
        coarse = _finer_along(coarse, axis, start, stop, xp)
    return coarse


def _finer_along(coarse: Any, axis: int, start: int, stop: int, xp: Any) -> Any:
    first, count = start // 2, -(-stop // 2) - start // 2

    def shifted(by: int) -> Any:
        cut = slice(by, by + count)
        return coarse[:, cut, :] if axis == 1 else coarse[:, :, cut]

    below, above = None, None
    for i, weight in enumerate(WEIGHTS):
        a, b = weight * shifted(i), weight * shifted(TAPS - i)
        below, above = (a, b) if below is None else (below + a, above + b)
    both = xp.stack([below, above], axis=axis + 1)
    shape = list(coarse.shape)
    shape[axis] = 2 * count
    whole = xp.reshape(both, tuple(shape))
    cut = slice(start - 2 * first, stop - 2 * first)
    return whole[:, cut, :] if axis == 1 else whole[:, :, cut]


def lengths(shape: tuple[int, int], radius: int) -> tuple[int, int]:
    """Lengths of transforms that fold a window of nodes with kernels of this radius, without a part that wraps around."""
    return fast_pixels(shape[0] + 2 * radius, 1), fast_pixels(shape[1] + 2 * radius, 1)


def spectra(planes: Any, size: tuple[int, int], xp: Any) -> Any:
    """Half spectra, complex64, (planes, size[0], size[1] // 2 + 1), of real planes padded with zeros."""
    if xp is not np:
        return xp.fft.fft(xp.fft.rfft(planes, n=size[1], axis=2), n=size[0], axis=1)
    from scipy import fft

    found = np.empty((len(planes), size[0], size[1] // 2 + 1), np.complex64)
    for one, plane in zip(found, planes, strict=True):  # each stays in the cache
        one[...] = fft.rfft2(plane, size)
    return found


def inverse(spectra: Any, size: tuple[int, int], inner: tuple[slice, slice], xp: Any) -> Any:
    """Rows and columns `inner` of the inverse of `spectra`, float32."""
    rows, columns = inner
    if xp is not np:
        return xp.fft.irfft(xp.fft.ifft(spectra, axis=1)[:, rows, :], n=size[1], axis=2)[:, :, columns]
    from scipy import fft

    return np.stack([fft.irfft(fft.ifft(one, axis=0)[rows], n=size[1], axis=1)[:, columns] for one in spectra])


def transfers(kernels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Half spectra, which are real, of kernels symmetric along both axes, (n, radius + 1, radius + 1) from the centre on."""
    radius = kernels.shape[1] - 1
    padded = np.zeros((1, *size), np.float32)
    at = np.arange(-radius, radius + 1)
    rows, columns, mirrored = at[:, None] % size[0], at[None, :] % size[1], np.abs(at)
    found = np.empty((len(kernels), size[0], size[1] // 2 + 1), np.float32)
    for one, kernel in zip(found, kernels, strict=True):
        padded[0, rows, columns] = kernel[mirrored[:, None], mirrored[None, :]]
        one[...] = spectra(padded, size, np)[0].real
    return found


_PIECE = 512  # frequencies that are added together: those of all planes stay in the cache


@njit(cache=True, nogil=True)
def add_planes(total, spectra, tables, shares, first, distance):  # type: ignore[no-untyped-def]
    """Add planes of nodes to the image planes that they serve.

    Parameters
    ----------
    total
        Spectra of image planes, float32, (image planes, 2 * frequencies), real and imaginary parts interleaved.
    spectra
        Spectra of planes of nodes, likewise, (planes of nodes, 2 * frequencies).
    tables
        Transfer functions by distance, float32, (sides, distances, frequencies), for nodes below an image plane and, if there
        are two sides, above.
    shares
        Factors by image plane and distance, float32, (image planes, 2 * most + 1).
    first
        Distance of the first transfer functions, in planes of nodes.
    distance
        Planes of nodes from each image plane to the first of `spectra`, int64.
    """
    sides, rows, frequencies = tables.shape
    middle = shares.shape[1] // 2
    planes = spectra.shape[0]
    twice = np.empty((sides, rows, 2 * _PIECE), np.float32)
    side, row, plane = np.empty(planes, np.int64), np.empty(planes, np.int64), np.empty(planes, np.int64)
    share = np.empty(planes, np.float32)
    for start in range(0, frequencies, _PIECE):
        n = min(_PIECE, frequencies - start)
        for s in range(sides):
            for d in range(rows):
                _repeat(tables[s, d, start : start + n], twice[s, d])
        low, high = 2 * start, 2 * (start + n)
        for k in range(total.shape[0]):
            sums = total[k, low:high]
            count = 0
            for j in range(planes):
                d = distance[k] + j
                if first <= abs(d) < first + rows:
                    side[count], row[count], plane[count] = 0 if d > 0 else sides - 1, abs(d) - first, j
                    share[count] = shares[k, middle + d] if middle > 0 else np.float32(1)
                    count += 1
            for i in range(0, count - 1, 2):
                a, b = twice[side[i], row[i]], twice[side[i + 1], row[i + 1]]
                one, other = spectra[plane[i], low:high], spectra[plane[i + 1], low:high]
                _add_two(sums, share[i], a, one, share[i + 1], b, other)
            if count % 2:
                _add(
                    sums, share[count - 1], twice[side[count - 1], row[count - 1]], spectra[plane[count - 1], low:high]
                )


# Separate functions, so that LLVM vectorises them.
@njit(cache=True, nogil=True)
def _repeat(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        out[2 * i] = values[i]
        out[2 * i + 1] = values[i]


@njit(cache=True, nogil=True)
def _add(total, share, weight, plane):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += share * weight[i] * plane[i]


@njit(cache=True, nogil=True)
def _add_two(total, share, weight, plane, other_share, other_weight, other_plane):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] = (total[i] + share * weight[i] * plane[i]) + other_share * other_weight[i] * other_plane[i]


def add_planes_elementwise(
    total: Any,
    spectra: Any,
    tables: Any,
    shares: NDArray[np.float32],
    first: int,
    distance: NDArray[np.int64],
    put: Callable[[Any], Any],
) -> None:
    """`add_planes` of complex planes, (planes, y, x), in any namespace; `put` moves an array to its device."""
    middle, last = shares.shape[1] // 2, first + int(tables.shape[1])
    for j in range(spectra.shape[0]):
        for side, table in ((distance + j, tables[0, ...]), (-distance - j, tables[-1, ...])):
            served = np.flatnonzero((side >= first) & (side < last))
            if not served.size:
                continue
            k, stop = int(served[0]), int(served[-1]) + 1
            place = side[k:stop] - first
            step = int(place[1] - place[0]) if place.size > 1 else 1
            end = int(place[-1]) + (1 if step > 0 else -1)
            part = table[slice(int(place[0]), None if end < 0 else end, step), :, :]
            if middle > 0:
                share = shares[np.arange(k, stop), distance[k:stop] + j + middle]
                part = part * put(share[:, None, None])
            total[k:stop, :, :] += part * spectra[j, :, :][None, :, :]
