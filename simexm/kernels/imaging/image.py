"""From dyes on the simulation grid to the expected image, plane by plane.

The simulation grid is the pixel grid divided by integers (m_z, m, m), with a node at every pixel centre: pixel p is
node m * p. The image of a tile is

    expected[k, p] = sum over node planes s, nodes n of  g_(s - m_z k)(m p - n) * dyes[s, n],

where g is the response integrated over a pixel. It is computed in the lateral Fourier domain: one forward 2-D transform
per node plane, a sum over the node planes within the axial range of each image plane, aliasing of the spectrum onto the
pixels (equivalent to sampling every m-th node), and one small inverse transform per image plane. Nothing is transformed
along z, so memory follows the tile and not the axial range, and planes lie at exact positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.diffraction.special import Array

AT_ONCE = 8
"""Image planes whose node-plane spectra are held together, because neighbours share most of them."""
ROWS = 96
"""Rows of a node plane that are transformed together, so that they stay in the cache."""


@dataclass(frozen=True)
class LateralGrid:
    """Shape of a tile's lateral transforms along y, x."""

    pixels: tuple[int, int]  # length of the coarse (pixel) transform: tile and halos, padded to a fast length
    subdivision: int  # nodes per pixel m
    band: tuple[int, int]  # highest frequency of the response, cycles per transform length

    @property
    def nodes(self) -> tuple[int, int]:
        """Length of the fine transform along y, x."""
        return self.pixels[0] * self.subdivision, self.pixels[1] * self.subdivision


class Transfer(NamedTuple):
    """A transfer function, interpolated by `project`; factors are pixel aperture and grid correction."""

    table: Array  # (n, offsets), at spatial frequency i / per_cycle by |offset| in node planes; zero beyond
    per_cycle: float  # samples per unit of frequency, nm
    frequency_y: Array  # of rows 0 to band_y, cycles per nm
    factor_y: Array
    frequency_x: Array  # of columns 0 to band_x
    factor_x: Array


class Blended(NamedTuple):
    """Transfer functions at several depths, and how each image plane blends two of them.

    The table of `transfer` has the signed offsets -reach ... reach of the first depth, then those of the next, and so on.
    Plane `origin` + i takes `low[i]` of depth `first[i]` and `high[i]` of the next, offset by offset.
    """

    transfer: Transfer
    origin: int
    first: NDArray[np.int64]  # (planes,), ascending
    low: NDArray[np.float32]  # (planes, offsets)
    high: NDArray[np.float32]


class Planar(NamedTuple):
    """Transfer functions of responses without symmetry on a tile's frequencies, and how each image plane blends them.

    Those of depths and offsets follow each other and are blended as in `Blended`.
    """

    response: NDArray[np.complex64]  # (depths * offsets, 2 * band_y + 1, band_x + 1), rows as in `plane_spectrum`
    origin: int
    first: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


def plane_spectrum(
    dyes: Callable[[int, int], NDArray[np.float32]], held: range, grid: LateralGrid, out: NDArray[np.complex64]
) -> None:
    """Forward transform of one node plane, limited to the band.

    `dyes` is called with ascending ranges (first, stop) within the rows `held` and returns dyes per node, float32,
    (rows, columns), padded with zeros up to `grid.nodes`. `out` is complex64, (2 * band_y + 1, band_x + 1); its rows
    are the frequencies 0, 1, ..., band_y, -band_y, ..., -1.
    """
    from scipy import fft

    qy, qx = grid.band
    ny, nx = grid.nodes
    rows = np.empty((ny, qx + 1), np.complex64)
    rows[: held.start] = 0
    for first in held[::ROWS]:
        last = min(first + ROWS, held.stop)
        rows[first:last] = fft.rfft(dyes(first, last), n=nx, axis=1)[:, : qx + 1]
    rows[held.stop :] = 0
    columns = fft.fft(rows, axis=0, overwrite_x=True)
    out[: qy + 1] = columns[: qy + 1]
    out[qy + 1 :] = columns[ny - qy :]


@njit(cache=True, nogil=True)
def _fold(row, count, k, qy, grid_y, grid_x, fine_x, out):  # type: ignore[no-untyped-def]
    """Add one row of a fine half spectrum to the coarse one of plane k: frequencies alias modulo the coarse length.

    `row` has `count` frequencies, real and imaginary parts interleaved.
    """
    cy = qy % grid_y
    my = -qy % grid_y
    half = grid_x // 2
    for qx in range(count):
        re, im = row[2 * qx], row[2 * qx + 1]
        cx = qx % grid_x
        if cx <= half:
            out[k, cy, cx] += np.complex64(complex(re, im))
        if qx != 0 and 2 * qx != fine_x:
            mx = -qx % grid_x
            if mx <= half:
                out[k, my, mx] += np.complex64(complex(re, -im))


@njit(cache=True, nogil=True)
def _spread_row(transfer, qy, begin, out):  # type: ignore[no-untyped-def]
    """Interpolate row qy of the transfer function by offset, from offset `begin`; return the columns within the table.

    Every factor is written twice, for the real and the imaginary part: out[offset - begin, 2 * qx] and the next.
    """
    table, per_cycle, frequency_x, factor_x = (
        transfer.table,
        transfer.per_cycle,
        transfer.frequency_x,
        transfer.factor_x,
    )
    frequency_y, factor_y = transfer.frequency_y[qy], transfer.factor_y[qy]
    n = table.shape[0]
    for c in range(frequency_x.size):
        t = np.sqrt(frequency_y**2 + frequency_x[c] ** 2) * per_cycle
        i = int(t)
        if i + 2 >= n:
            return c
        u = t - i
        w0 = -u * (u - 1) * (u - 2) / 6
        w1 = (u + 1) * (u - 1) * (u - 2) / 2
        w2 = -(u + 1) * u * (u - 2) / 2
        w3 = (u + 1) * u * (u - 1) / 6
        before, here, next, last = table[i - 1 if i > 0 else 1], table[i], table[i + 1], table[i + 2]
        factor = factor_y * factor_x[c]
        for i in range(out.shape[0]):
            o = begin + i
            weight = (w0 * before[o] + w1 * here[o] + w2 * next[o] + w3 * last[o]) * factor
            out[i, 2 * c] = weight
            out[i, 2 * c + 1] = weight
    return frequency_x.size


@njit(cache=True, nogil=True)
def project(planes, used, transfer, step, wanted, grid_y, grid_x, fine_x, out):  # type: ignore[no-untyped-def]
    """Add the weighted node planes to the coarse spectra of image planes.

    The transfer function is interpolated row by row (four-point Lagrange): in full, a wide one would take more memory
    than everything else. `planes` is a window of spectra from `plane_spectrum`, node plane n in slot n % slots,
    float32, (slots, 2 * band_y + 1, 2 * (band_x + 1)), real and imaginary parts interleaved; slots not `used` must be
    zero. Image plane k lies at node plane k * step. `out` begins with image plane `wanted`, complex64, (image planes,
    grid_y, grid_x // 2 + 1).
    """
    slots, rows, columns = planes.shape
    reach = transfer.table.shape[1] - 1
    response = np.empty((reach + 1, columns), np.float32)
    total = np.empty(columns, np.float32)
    for qy in range(transfer.frequency_y.size):
        count = _spread_row(transfer, qy, 0, response)
        for sign in (1, -1):
            if count == 0 or (qy == 0 and sign < 0):
                continue
            r = qy if sign > 0 else rows - qy
            for k in range(out.shape[0]):
                here = (wanted + k) * step % slots
                _weigh(response[0], planes[here, r], total, 2 * count)
                for o in range(1, reach + 1):  # the response is even along z
                    below = here - o if here >= o else here - o + slots
                    above = here + o if here + o < slots else here + o - slots
                    if used[below] or used[above]:
                        _add_weighted(response[o], planes[below, r], planes[above, r], total, 2 * count)
                _fold(total, count, k, sign * qy, grid_y, grid_x, fine_x, out)


@njit(cache=True, nogil=True)
def project_blended(planes, used, blended, step, wanted, grid_y, grid_x, fine_x, out):  # type: ignore[no-untyped-def]
    """`project` with transfer functions that vary with the depth of the image plane, of type `Blended`."""
    slots, rows, columns = planes.shape
    transfer, offsets = blended.transfer, blended.low.shape[1]
    start = wanted - blended.origin
    begin = blended.first[start]
    depths = min(blended.first[start + out.shape[0] - 1] + 2, transfer.table.shape[1] // offsets) - begin
    response = np.empty((depths * offsets, columns), np.float32)
    total = np.empty(columns, np.float32)
    for qy in range(transfer.frequency_y.size):
        count = _spread_row(transfer, qy, begin * offsets, response)
        for sign in (1, -1):
            if count == 0 or (qy == 0 and sign < 0):
                continue
            r = qy if sign > 0 else rows - qy
            for k in range(out.shape[0]):
                first = (wanted + k) * step - offsets // 2
                low = (blended.first[start + k] - begin) * offsets
                high = min(low + offsets, (depths - 1) * offsets)
                total[: 2 * count] = 0
                for o in range(offsets):
                    slot = (first + o) % slots
                    if used[slot]:
                        a, b = blended.low[start + k, o], blended.high[start + k, o]
                        _add_blended(response[low + o], response[high + o], a, b, planes[slot, r], total, 2 * count)
                _fold(total, count, k, sign * qy, grid_y, grid_x, fine_x, out)


@njit(cache=True, nogil=True)
def project_planar(planes, used, response, planar, step, wanted, grid_y, grid_x, fine_x, out):  # type: ignore[no-untyped-def]
    """`project` with transfer functions of type `Planar`; `response` is `planar.response` as float32, like `planes`."""
    slots, rows, columns = planes.shape
    offsets = planar.low.shape[1]
    start = wanted - planar.origin
    begin = planar.first[start] * offsets
    end = min((planar.first[start + out.shape[0] - 1] + 2) * offsets, response.shape[0])
    # real and imaginary parts of the weights, each twice, and the sums by them
    real, imaginary = np.empty((end - begin, columns), np.float32), np.empty((end - begin, columns), np.float32)
    total, turned = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for r in range(rows):
        qy = r if 2 * r < rows else r - rows
        for o in range(end - begin):
            _part(response[begin + o, r], real[o], imaginary[o], columns)
        for k in range(out.shape[0]):
            first = (wanted + k) * step - offsets // 2
            low = planar.first[start + k] * offsets - begin
            high = min(low + offsets, end - begin - offsets)
            total[:] = 0
            turned[:] = 0
            for o in range(offsets):
                slot = (first + o) % slots
                if used[slot]:
                    a, b = planar.low[start + k, o], planar.high[start + k, o]
                    _add_turned(real[low + o], imaginary[low + o], a, planes[slot, r], total, turned, columns)
                    if b != 0:
                        _add_turned(real[high + o], imaginary[high + o], b, planes[slot, r], total, turned, columns)
            for i in range(0, columns, 2):
                total[i] -= turned[i + 1]
                total[i + 1] += turned[i]
            _fold(total, columns // 2, k, qy, grid_y, grid_x, fine_x, out)


# Separate functions, so that LLVM vectorises them.
@njit(cache=True, nogil=True)
def _weigh(weight, a, total, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        total[i] = weight[i] * a[i]


@njit(cache=True, nogil=True)
def _add_weighted(weight, a, b, total, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        total[i] += weight[i] * (a[i] + b[i])


@njit(cache=True, nogil=True)
def _add_blended(low, high, a, b, plane, total, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        total[i] += (a * low[i] + b * high[i]) * plane[i]


@njit(cache=True, nogil=True)
def _part(weight, real, imaginary, n):  # type: ignore[no-untyped-def]
    for i in range(0, n, 2):
        real[i] = real[i + 1] = weight[i]
        imaginary[i] = imaginary[i + 1] = weight[i + 1]


@njit(cache=True, nogil=True)
def _add_turned(real, imaginary, share, plane, total, turned, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        value = share * plane[i]
        total[i] += real[i] * value
        turned[i] += imaginary[i] * value


def inverse_plane(spectrum: NDArray[np.complex64], grid: LateralGrid) -> NDArray[np.float32]:
    """Inverse transform of one image plane from its coarse half spectrum; float32, `grid.pixels`."""
    from scipy import fft

    scale = np.float32(1 / grid.subdivision**2)
    columns = fft.ifft(spectrum, axis=0)
    plane: NDArray[np.float32] = fft.irfft(columns, n=grid.pixels[1], axis=1)
    plane *= scale
    return plane


def fast_pixels(least: int, subdivision: int) -> int:
    """Smallest coarse length from `least` whose fine length has only the factors 2, 3, 5 and 7, as the subdivision must."""
    if not _is_fast(subdivision):
        raise ValueError(f"{subdivision} nodes per pixel allow no fast transform of any length")
    return next(n for n in itertools.count(least) if _is_fast(n))


def _is_fast(length: int) -> bool:
    for factor in (2, 3, 5, 7):
        while length % factor == 0:
            length //= factor
    return length == 1
