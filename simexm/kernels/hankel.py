"""Integrals of radial functions over the plane: energy, and the two-dimensional Fourier transform (Hankel, order 0).

A table holds a smooth even function of the radius at 0, d, 2 d, ... and nothing beyond: its end is part of the kernel. Inside,
the trapezoid rule is exact for a function sampled above its Nyquist rate; what needs care are the two ends. At r = 0 the
integrand r * f(r) has a kink as an even function, and the Euler-Maclaurin terms of f, f'', f'''' and f(6) are added by
differences that use the evenness of f. At the outer end, where only the small remainder of f is cut, Gregory's differences
serve (Abramowitz & Stegun 23.1.30 and 25.4.7; DLMF 2.10).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.psf_special import bessel_01, bessel_table

_GREGORY = (1 / 12, 1 / 24, 19 / 720, 3 / 160, 863 / 60480)
_FEWEST = 16  # samples, so that the corrections of the two ends keep apart
_TILE = 64


def radial_weights(size: int, spacing_nm: float) -> NDArray[np.float64]:
    """Weights w, nm^2, with sum(w * f) = 2 pi int f(r) r dr from 0 to the last radius, shape (size,).

    Of eighth order in the spacing, for f even and smooth, sampled at 0, spacing, 2 spacing, ...

    Raises
    ------
    ValueError
        For fewer than 16 samples.
    """
    if size < _FEWEST:
        raise ValueError(f"a radial table needs at least {_FEWEST} radii, not {size}")
    line = np.ones(size)
    line[-1] = 0.5
    for order, coefficient in enumerate(_GREGORY, start=1):
        for j in range(order + 1):  # backward difference of this order at the last sample
            line[size - 1 - j] -= coefficient * (-1) ** j * math.comb(order, j)
    weights = line * np.arange(size)
    # -B_2m / (2m)! times the derivatives of r * f(r) at 0, which are (2m - 1) f^(2m - 2)(0)
    value = np.array([1.0, 0.0, 0.0, 0.0])
    second = np.array([-490.0, 540.0, -54.0, 4.0]) / 180.0
    fourth = np.array([56.0, -78.0, 24.0, -2.0]) / 6.0
    sixth = np.array([-20.0, 30.0, -12.0, 2.0])
    weights[:4] += value / 12.0 - second / 240.0 + fourth / 6048.0 - sixth * (7.0 / 1209600.0)
    return weights * (2.0 * math.pi * spacing_nm**2)


def plane_energy(table: NDArray[np.float64], r_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of each row over the disc that the table covers, 2 pi int f r dr.

    Parameters
    ----------
    table
        Shape (nz, nr), per nm^2.
    r_nm
        Radii 0, d, 2 d, ..., shape (nr,).

    Returns
    -------
    Shape (nz,): S(z), what a plane at the depth z receives of a dye, without unit.
    """
    return _weighted_rows(table, radial_weights(r_nm.size, _spacing(r_nm)))


def radial_spectrum(
    table: NDArray[np.float64], r_nm: NDArray[np.float64], k_per_nm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Two-dimensional Fourier transform of each row, H(k) = 2 pi int f(r) J0(2 pi k r) r dr, ended where the table ends.

    Parameters
    ----------
    table
        Shape (nz, nr), per nm^2.
    r_nm
        Radii 0, d, 2 d, ..., shape (nr,). The error is below 1e-6 of H(0) up to k = 1 / (10 d).
    k_per_nm
        Spatial frequencies in cycles per nm, any, shape (nk,).

    Returns
    -------
    Shape (nz, nk), real; H(0) is the row's `plane_energy`.
    """
    weighted = np.ascontiguousarray(table * radial_weights(r_nm.size, _spacing(r_nm)))
    return _transform(weighted, r_nm, np.abs(k_per_nm, dtype=np.float64), bessel_table())


def _spacing(r_nm: NDArray[np.float64]) -> float:
    spacing = float(r_nm[-1]) / (r_nm.size - 1)
    if r_nm[0] != 0.0 or not np.allclose(np.diff(r_nm), spacing, rtol=1e-9, atol=0.0):
        raise ValueError("radii must begin at 0 and be evenly spaced")
    return spacing


@njit(cache=True, nogil=True)
def _weighted_rows(table: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(table.shape[0])
    for i in range(table.shape[0]):
        for j in range(weights.size):
            sums[i] += table[i, j] * weights[j]
    return sums


@njit(cache=True, nogil=True)
def _transform(
    weighted: NDArray[np.float64], r: NDArray[np.float64], k: NDArray[np.float64], bessel: NDArray[np.float64]
) -> NDArray[np.float64]:
    nz, nr = weighted.shape
    spectrum = np.zeros((nz, k.size))
    block = np.zeros((4 * _TILE, _TILE))
    for k_start in range(0, k.size, _TILE):
        width = min(_TILE, k.size - k_start)
        for r_start in range(0, nr, 4 * _TILE):
            height = min(4 * _TILE, nr - r_start)
            for i in range(height):
                for j in range(width):
                    block[i, j], _ = bessel_01(2.0 * math.pi * k[k_start + j] * r[r_start + i], bessel)
            whole = height - height % 4
            for z in range(nz):
                for i in range(0, whole, 4):  # four radii at a time: the sums are loaded and stored a quarter as often
                    a = r_start + i
                    w0, w1, w2, w3 = weighted[z, a], weighted[z, a + 1], weighted[z, a + 2], weighted[z, a + 3]
                    for j in range(width):
                        spectrum[z, k_start + j] += (w0 * block[i, j] + w1 * block[i + 1, j]) + (
                            w2 * block[i + 2, j] + w3 * block[i + 3, j]
                        )
                for i in range(whole, height):
                    for j in range(width):
                        spectrum[z, k_start + j] += weighted[z, r_start + i] * block[i, j]
    return spectrum
