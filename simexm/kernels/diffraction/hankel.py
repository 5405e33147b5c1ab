"""Integrals of radial functions over the plane: energy, and the two-dimensional Fourier transform (Hankel, order 0).

A table samples a smooth even function of the radius at 0, d, 2 d, ...; beyond its end the function is 0. Inside, the
trapezoid rule is exact above the Nyquist rate; the two ends need corrections. At r = 0 the integrand r * f(r) has a
kink as an even function: the Euler-Maclaurin terms of f, f'', f'''' and f(6) are added by differences that use the
evenness of f. At the outer end, where f is small, Gregory's differences suffice (Abramowitz & Stegun 23.1.30 and
25.4.7; DLMF 2.10).
"""

from __future__ import annotations

import math

import numpy as np

from simexm.kernels.diffraction.special import Array, bessel_01_array
from simexm.kernels.numbers.ordered_product import add_product

_GREGORY = (1 / 12, 1 / 24, 19 / 720, 3 / 160, 863 / 60480)
_FEWEST = 16  # samples, so that the corrections of the two ends do not overlap
_TILE = 64  # radii whose Bessel functions are held together


def radial_weights(size: int, spacing_nm: float) -> Array:
    """Weights w, nm^2, with sum(w * f) = 2 pi int f(r) r dr from 0 to the last radius, shape (size,).

    Eighth order in the spacing, for f even and smooth, sampled at 0, spacing, 2 spacing, ..., at least 16 times.
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


def plane_energy(table: Array, r_nm: Array) -> Array:
    """Energy S(z) of each row of a table (nz, nr), per nm^2, at radii 0, d, 2 d, ...: 2 pi int f r dr, shape (nz,)."""
    weighted = table * radial_weights(r_nm.size, _spacing(r_nm))
    rows: Array = np.cumsum(weighted, axis=1)  # sequential, unlike a sum
    return rows[:, -1].copy()


def radial_spectrum(table: Array, r_nm: Array, k_per_nm: Array) -> Array:
    """Two-dimensional Fourier transform of each row, H(k) = 2 pi int f(r) J0(2 pi k r) r dr up to the last radius.

    From a table (nz, nr), per nm^2, at radii 0, d, 2 d, ... to frequencies (nk,), cycles per nm: shape (nz, nk), real.
    The error is below 1e-6 of H(0), the row's `plane_energy`, up to k = 1 / (10 d).
    """
    weighted = table * radial_weights(r_nm.size, _spacing(r_nm))
    k = 2.0 * math.pi * np.abs(k_per_nm, dtype=np.float64)
    spectrum = np.zeros((len(table), k.size))
    for columns in _pieces(k.size, 4 * _TILE):
        for rows in _pieces(r_nm.size, _TILE):
            bessel, _ = bessel_01_array(k[columns] * r_nm[rows, None])
            add_product(spectrum[:, columns], weighted[:, rows], bessel)
    return spectrum


def _pieces(size: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def _spacing(r_nm: Array) -> float:
    spacing = float(r_nm[-1]) / (r_nm.size - 1)
    if r_nm[0] != 0.0 or not np.allclose(np.diff(r_nm), spacing, rtol=1e-9, atol=0.0):
        raise ValueError("radii must begin at 0 and be evenly spaced")
    return spacing
