"""Two-dimensional Fourier transforms of images on a square grid, at any frequencies.

A transform is tabulated once, on a lattice of frequencies that belongs to the image alone, and interpolated at those of each
tile by Kaiser-Bessel kernels, whose own transform was divided out of the image before (Fessler & Sutton, IEEE Trans. Signal
Process. 51, 560, 2003). On a lattice twice as fine as the image's width asks for, the error is below 1e-6 of the largest
amplitude, so that tiles, which have frequencies of their own, agree.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.diffraction.special import Array, sin_cos_array
from simexm.kernels.imaging.image import fast_pixels

WIDTH = 8
"""Width of the kernel in steps of the lattice."""
_BETA = math.pi * math.sqrt(
    WIDTH * WIDTH / 4 * 2.25 - 0.8
)  # Beatty, Nishimura & Pauly, IEEE Trans. Med. Imaging 24, 799
_TERMS = 64  # of the power series, whose arguments are below beta^2


def kernel(distance: Array) -> Array:
    """Kaiser-Bessel kernel at distances in steps, 0 beyond half of `WIDTH`."""
    square = np.maximum(0.0, 1.0 - (2.0 / WIDTH * distance) ** 2)
    inside: Array = np.where(np.abs(distance) <= WIDTH / 2, _series(_BETA**2 / 4 * square, 1), 0.0)
    return inside / _LARGEST


def kernel_transform(frequency: Array) -> Array:
    """Fourier transform of `kernel` at up to a quarter of a cycle per step."""
    return _series((_BETA**2 - (math.pi * WIDTH * frequency) ** 2) / 4, 2) * (WIDTH / _LARGEST)


def _series(quarter: Array, kind: int) -> Array:
    """I0(x) (kind 1) or sinh(x) / x (kind 2) of x^2 / 4, by their power series: the same bits on every machine."""
    total, term = np.ones_like(quarter), np.ones_like(quarter)
    for k in range(1, _TERMS):
        term = term * (quarter / (k * k if kind == 1 else k * (k + 0.5)))
        total = total + term
    return total


_LARGEST = float(_series(np.array([_BETA**2 / 4]), 1)[0])


class Lattice(NamedTuple):
    """Frequencies of a table: rows -highest ... highest, columns -`WIDTH` / 2 ... highest, times `step_per_nm`."""

    step_per_nm: float
    highest: int
    length: int  # of the transforms

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a table."""
        return 2 * self.highest + 1, self.highest + 1 + WIDTH // 2


def lattice(size: int, pitch_nm: float, band_per_nm: float) -> Lattice:
    """Lattice for images of `size` pixels a side, up to a frequency of at most that of two pixels."""
    length = fast_pixels(2 * size + 2, 1)
    step = 1 / (length * pitch_nm)
    return Lattice(step, math.ceil(band_per_nm / step) + WIDTH // 2 + 1, length)


def tabulate(image: Array, pitch_nm: float, table: Lattice) -> NDArray[np.complex128]:
    """Transform of an image (n, n), per nm^2, about its middle pixel n // 2: sum of value * exp(-2 pi i f r) * pixel area.

    The image is divided by `kernel_transform`, so that only what `interpolate` makes of it is meant.
    """
    from scipy import fft

    n = len(image)
    place = (np.arange(n, dtype=np.float64) - n // 2) * pitch_nm
    line = 1 / kernel_transform(place * table.step_per_nm)
    padded = np.zeros((table.length, table.length))
    at = np.arange(n) - n // 2
    padded[at[:, None], at] = image * (line[:, None] * line * pitch_nm**2)
    i = np.arange(-table.highest, table.highest + 1)
    columns = fft.fft(padded, axis=1)[:, i[table.highest - WIDTH // 2 :] % table.length]
    result: NDArray[np.complex128] = fft.fft(columns, axis=0)[i % table.length]
    return result


def interpolate(tables: NDArray[np.complex64], grid: Lattice, y: Array, x: Array, out: NDArray[np.complex64]) -> None:
    """Write transforms (n, y.size, x.size) at frequencies y, of both signs, and x, from 0 on, per nm, from tables.

    They are 0 beyond the lattice.
    """
    first_y, weight_y = _stencil(y / grid.step_per_nm + grid.highest, grid.shape[0])
    first_x, weight_x = _stencil(x / grid.step_per_nm + WIDTH // 2, grid.shape[1])
    _interpolate(tables.view(np.float32), first_y, weight_y, first_x, weight_x, out.view(np.float32))


def _stencil(place: Array, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First of the `WIDTH` entries about each place, and their weights; without weight if they are not all among the `size`."""
    first = np.floor(place).astype(np.int64) - WIDTH // 2 + 1
    place, first = (np.where((first >= 0) & (first + WIDTH <= size), v, o) for v, o in ((place, -WIDTH), (first, 0)))
    return first, kernel(place[:, None] - first[:, None] - np.arange(WIDTH)).astype(np.float32)


@njit(cache=True, nogil=True)
def _interpolate(tables, first_y, weight_y, first_x, weight_x, out):  # type: ignore[no-untyped-def]
    row = np.empty(tables.shape[2], np.float64)
    for n in range(tables.shape[0]):
        for r in range(first_y.size):
            row[:] = 0
            for a in range(weight_y.shape[1]):
                _add(tables[n, first_y[r] + a], np.float64(weight_y[r, a]), row)
            for c in range(first_x.size):
                re, im = 0.0, 0.0
                for b in range(weight_x.shape[1]):
                    at = 2 * (first_x[c] + b)
                    re += weight_x[c, b] * row[at]
                    im += weight_x[c, b] * row[at + 1]
                out[n, r, 2 * c], out[n, r, 2 * c + 1] = re, im


@njit(cache=True, nogil=True)
def _add(line, weight, total):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += weight * line[i]


def mean_over_directions(image: Array, pitch_nm: float, r_nm: Array, directions: int = 32) -> Array:
    """Mean of images (nz, n, n) over so many directions about their middle pixel, at radii (nr,): (nz, nr); 0 outside them."""
    sines, cosines = sin_cos_array(2 * math.pi * (np.arange(directions) + 0.5) / directions)
    result = np.zeros((len(image), r_nm.size))
    _mean(np.ascontiguousarray(image), r_nm / pitch_nm, sines, cosines, result)
    return result / directions


@njit(cache=True, nogil=True)
def _mean(image, r, sines, cosines, out):  # type: ignore[no-untyped-def]
    n = image.shape[1]
    wy, wx = np.empty(6), np.empty(6)
    for i in range(r.size):
        for j in range(sines.size):
            y, x = r[i] * sines[j] + n // 2, r[i] * cosines[j] + n // 2
            ky, kx = int(np.floor(y)) - 2, int(np.floor(x)) - 2
            for a in range(6):
                wy[a] = wx[a] = 1.0
                for b in range(6):
                    if a != b:
                        wy[a] *= (y - ky - b) / (a - b)
                        wx[a] *= (x - kx - b) / (a - b)
            for z in range(image.shape[0]):
                total = 0.0
                for a in range(max(0, -ky), min(6, n - ky)):
                    line = 0.0
                    for b in range(max(0, -kx), min(6, n - kx)):
                        line += wx[b] * image[z, ky + a, kx + b]
                    total += wy[a] * line
                out[z, i] += total
