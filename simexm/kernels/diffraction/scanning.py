"""Responses of instruments that look through many holes or many detectors at once.

- Spinning disk: a dye is excited through all holes of the disk and seen through the one over its image. With L the places of
  the holes seen from there, E the focused beam, `disc` a hole referred to the specimen and A the area of the disk for each
  hole, the share of the time's light that passes is sum over L of (E * disc)(r - L) / A, times the hole's share of the beam.
  The disk turns, so it is averaged over the lattice's directions.
- Image scanning: a detector at u from the axis sees the product E(r + u/2) D(r - u/2) once its image is moved back by u/2
  (Sheppard, Optik 80, 53, 1988; Muller & Enderlein, PRL 104, 198101, 2010).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.response import STENCIL, lagrange
from simexm.kernels.diffraction.special import Array, bessel_01_array, gauss_legendre, sin_cos_array
from simexm.kernels.numbers.ordered_product import add_product


def disk_share(
    beam: Array, beam_r_nm: Array, r_nm: Array, radius_nm: float, spacing_nm: float, cutoff_per_nm: float
) -> Array:
    """Excitation of a dye, by time and relative to even illumination, while the disk is open at r from its image, (nz, nr).

    The holes have this radius and lie on a triangular lattice of this spacing. By Poisson's formula the sum over the lattice
    is one over the reciprocal lattice, whose vectors G beyond `cutoff_per_nm`, the highest frequency of the beam, count nothing:

        (hole area / A) * sum over G of E(G) / E(0) * (2 J1(2 pi G a) / (2 pi G a))^2 * J0(2 pi G r).

    `beam` (nz, nb) is the focused beam at radii `beam_r_nm`, as wide as it is.
    """
    frequency, count = _reciprocal(spacing_nm, cutoff_per_nm)
    spectrum = hankel.radial_spectrum(beam, beam_r_nm, frequency)
    spectrum = spectrum / spectrum[:, :1]
    x = 2.0 * math.pi * frequency * radius_nm
    j1 = bessel_01_array(x)[1]
    hole = np.where(x > 0.0, 2.0 * j1 / np.where(x > 0.0, x, 1.0), 1.0)
    j0 = bessel_01_array(2.0 * math.pi * frequency[:, None] * r_nm)[0]
    open_share = math.pi * radius_nm**2 / (spacing_nm**2 * math.sqrt(0.75))
    total = np.zeros((len(beam), r_nm.size))
    add_product(total, spectrum * (count * hole * hole), j0)
    return total * open_share


def _reciprocal(spacing_nm: float, cutoff_per_nm: float) -> tuple[Array, Array]:
    """Lengths of the reciprocal vectors of a triangular lattice up to a cutoff, per nm, and how many have each."""
    shortest = 1.0 / (spacing_nm * math.sqrt(0.75))
    most = math.ceil(cutoff_per_nm / shortest / math.sqrt(0.75)) + 1
    i, j = np.meshgrid(np.arange(-most, most + 1), np.arange(-most, most + 1))
    squares, count = np.unique(i * i + i * j + j * j, return_counts=True)
    length = np.sqrt(squares.astype(np.float64)) * shortest
    kept = length <= cutoff_per_nm
    return length[kept], count[kept].astype(np.float64)


def reassigned(beam: Array, emission: Array, spacing_nm: float, radius_nm: float) -> Array:
    """Integral over a round detector of this radius of beam(r + u/2) * emission(r - u/2), (nz, nr).

    Both are (nz, n) at radii 0, d, 2 d, ... with d = `spacing_nm`; the result has `reassigned_margin` fewer.
    """
    size = beam.shape[1] - reassigned_margin(radius_nm, spacing_nm)
    radius = radius_nm / spacing_nm / 2.0
    rings = 6 + math.ceil(radius / 8.0)
    nodes, weights = gauss_legendre(rings)
    angles = 8 + math.ceil(radius / 3.0)
    _, cosines = sin_cos_array(math.pi * (np.arange(angles) + 0.5) / angles)
    s = 0.5 * radius * (1.0 + nodes)
    weights = 0.5 * radius * weights * s * 2.0 * math.pi / angles * 4.0  # du = 4 d(u/2)
    result = np.zeros((len(beam), size))
    r = np.arange(size, dtype=np.float64)
    for half, weight in zip(s.tolist(), weights.tolist(), strict=True):
        for cosine in cosines.tolist():
            square = r * r + half * half
            plus, minus = (np.sqrt(np.maximum(0.0, square + sign * 2.0 * r * half * cosine)) for sign in (1.0, -1.0))
            result += weight * _between(beam, plus) * _between(emission, minus)
    return result * spacing_nm**2


def reassigned_margin(radius_nm: float, spacing_nm: float) -> int:
    """Number of radii by which `reassigned` shortens its input."""
    return math.ceil(radius_nm / spacing_nm / 2.0) + STENCIL


def _between(table: Array, along: Array) -> Array:
    """Values of an even table (nz, n) at radii in samples, by polynomials of degree five."""
    left: NDArray[np.int64] = along.astype(np.int64) - STENCIL // 2 + 1
    total = np.zeros((len(table), along.size))
    for a in range(STENCIL):
        total += table[:, np.abs(left + a)] * lagrange(along - left, a, 1.0)
    return total
