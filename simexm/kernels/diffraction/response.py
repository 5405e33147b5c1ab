"""Response of an instrument to a dye at (z, r), from diffraction tables.

A `Response` table is per nm^2: a pixel expects rate * (integral of the table over the pixel), `rate` in
photo-electrons:

- widefield: the emission table itself;
- light sheet: the emission table times `light_sheet_profile`;
- confocal: excitation per nm^2 and unit power, saturated pointwise (see `photophysics`), times `pinhole_table`; the
  integral over the pixel times power * dwell / pixel area is the mean over the pixel times power * dwell;
- two-photon: the same with the excitation table squared, pointwise pulse saturation, and no pinhole.

Truncated tables are not renormalised; `left_out_share` is the light beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simexm import compiled
from simexm.compiled import njit
from simexm.kernels.diffraction import even_spline
from simexm.kernels.diffraction.objective import Objective
from simexm.kernels.diffraction.special import Array, gauss_legendre, sin_cos_array
from simexm.kernels.diffraction.tables import SURFACE, Focus, emission_table
from simexm.kernels.numbers import detmath

STENCIL = 6
"""Points of the interpolation between radii."""
_AT_ONCE = 8000  # sums that fit into the cache together
_PHASE_PER_SAMPLE = math.pi / 4  # the table has at least eight samples in its shortest period

Tail = Literal["constant", "inverse_square"]


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """Response to a dye, (nz, nr), per nm^2, symmetric about axis and focal plane; z and r start at 0, evenly spaced."""

    z_nm: Array
    r_nm: Array
    table: Array

    def __post_init__(self) -> None:
        if self.table.shape != (self.z_nm.size, self.r_nm.size):
            raise ValueError(f"table {self.table.shape} for {self.z_nm.size} depths and {self.r_nm.size} radii")


def light_sheet_profile(z_nm: Array, waist_nm: float) -> Array:
    """Relative irradiance across a Gaussian sheet, exp(-2 z^2 / w^2); `waist_nm` is the 1/e^2 half thickness."""
    profile: Array = detmath.exp_array(-2.0 * (z_nm / waist_nm) ** 2)
    return profile


def pinhole_table(
    z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective, radius_nm: float, focus: Focus = SURFACE
) -> Array:
    """Share of a dye's collected light that passes a round pinhole: the emission table integrated over its disc, (nz, nr).

    The dye lies at depths (nz,) and distances from the axis (nr,), from 0, evenly spaced; `radius_nm` is referred to
    the specimen.
    """
    spacing_nm = float(r_nm[-1]) / (r_nm.size - 1)
    radii = np.arange(r_nm.size + pinhole_margin(radius_nm, spacing_nm), dtype=np.float64) * spacing_nm
    return pinhole_share(emission_table(z_nm, radii, wavelength_nm, objective, focus), spacing_nm, radius_nm)


def pinhole_margin(radius_nm: float, spacing_nm: float) -> int:
    """Number of radii by which `pinhole_share` shortens its input."""
    return math.ceil(radius_nm / spacing_nm) + STENCIL


def pinhole_share(emission: Array, spacing_nm: float, radius_nm: float) -> Array:
    """Convolve a radial function of the plane with a disc: D(r) = int over the disc about r of f dA.

    Integrates by a Gauss-Legendre rule over the radius and a midpoint rule over the angle (both converge exponentially
    for a band-limited f), and interpolates between radii by polynomials of degree five.

    `emission` (nz, nr) is at radii 0, d, 2 d, ... with d = `spacing_nm`, at least eight in the shortest period (10 nm
    is enough). The result has `pinhole_margin` fewer radii.
    """
    size = emission.shape[1] - pinhole_margin(radius_nm, spacing_nm)
    if not radius_nm > 0.0 or size < 1:
        raise ValueError(
            f"a pinhole of radius {radius_nm} nm needs a positive radius and a table that is wider than it"
        )
    radius = radius_nm / spacing_nm
    first, matrix = disc_matrix(size, radius)
    return _apply_rows(emission, first, matrix * spacing_nm**2)


def _distance(i: Any, s: Any, cosine: Any) -> Any:
    """Squared distance of points at radii i and s at an angle of this cosine; rounding can make it negative."""
    return i * i + s * s + 2.0 * i * s * cosine


def lagrange(along: Any, a: int, weight: Any) -> Any:
    """Weight of the stencil's point a in the value at `along`, times `weight`."""
    for b in range(STENCIL):
        if a != b:
            weight = weight * ((along - b) / (a - b))
    return weight


_distance_1 = njit(cache=True, nogil=True)(_distance)
_lagrange_1 = njit(cache=True, nogil=True)(lagrange)


@lru_cache(maxsize=4)  # tables of many depths share one
def disc_matrix(size: int, radius: float) -> tuple[NDArray[np.int64], Array]:
    """First sample, and weights of the samples, of D at each of `size` radii; lengths in samples. Not to be written into."""
    turn = _PHASE_PER_SAMPLE * radius
    nodes, weights = gauss_legendre(8 + math.ceil(turn / 4.0 + turn ** (1.0 / 3.0)))
    angles = 8 + math.ceil(turn / 2.0 + turn ** (1.0 / 3.0))
    reach = math.ceil(radius) + STENCIL
    half_circle = math.pi * (np.arange(angles) + 0.5) / angles  # the other half is symmetric
    _, cosines = sin_cos_array(half_circle)
    s = 0.5 * radius * (1.0 + nodes)
    weights = 0.5 * radius * weights * s * 2.0 * math.pi / angles
    first = np.maximum(np.arange(size) - reach, 0)
    matrix = np.zeros((size, 2 * reach + 1))
    compute = _disc_loops if compiled.pays(80 * size * nodes.size * angles) else _disc_elementwise
    compute(first, s, weights, cosines, matrix)
    return first, matrix


@njit(cache=True, nogil=True)
def _disc_loops(first: NDArray[np.int64], s: Array, weights: Array, cosines: Array, matrix: Array) -> None:
    for i in range(first.size):
        for k in range(s.size):
            for j in range(cosines.size):
                distance = math.sqrt(max(0.0, _distance_1(i, s[k], cosines[j])))
                left = int(distance) - STENCIL // 2 + 1
                for a in range(STENCIL):
                    at = abs(left + a) - first[i]  # the table is even
                    matrix[i, at] += _lagrange_1(distance - left, a, weights[k])


def _disc_elementwise(first: NDArray[np.int64], s: Array, weights: Array, cosines: Array, matrix: Array) -> None:
    i = np.arange(first.size)
    starts = i * matrix.shape[1] - first
    for k in range(s.size):
        distance = np.sqrt(np.maximum(0.0, _distance(i, s[k], cosines[:, None])))
        left = distance.astype(np.int64) - STENCIL // 2 + 1
        points = np.abs(left[:, None] + np.arange(STENCIL)[:, None]) + starts
        shares = [lagrange(distance - left, a, weights[k]) for a in range(STENCIL)]
        np.add.at(matrix.reshape(-1), points.ravel(), np.stack(shares, axis=1).ravel())  # in this order


def _apply_rows(table: Array, first: NDArray[np.int64], matrix: Array) -> Array:
    result = np.zeros((len(table), first.size))
    still = int(np.count_nonzero(first == 0))  # these begin at the axis, each later one a sample further out
    at_once = max(1, _AT_ONCE // first.size)
    for start in range(0, len(table), at_once):
        rows, sums = table[start : start + at_once], result[start : start + at_once]
        for j in range(min(matrix.shape[1], table.shape[1])):  # beyond the table's end the weights are 0
            sums[:, :still] += rows[:, j : j + 1] * matrix[:still, j]
            sums[:, still:] += rows[:, j + 1 : j + 1 + first.size - still] * matrix[still:, j]
    return result


def left_out_share(plane_energy: Array, z_nm: Array, depth_nm: float, tail: Tail) -> float:
    """Share of a uniformly stained stack's light that lies beyond the axial range of a table.

    Computed for the first plane of the stack, where it is largest: dyes lie from 0 to the depth L on one side. With
    S(z) the energy of the response in a plane and R the range,

        share = tail / (int_0^R S dz + tail).

    - "constant" (widefield; light sheet, as an upper bound): tail = S(R) (L - R), which for S = 1 makes it 1 - R / L;
    - "inverse_square" (scanners far from focus): tail = C (1 / R - 1 / L), C = mean of S z^2 over the outer quarter of
      the range. With a pinhole that passes the whole cone at R, use "constant".

    Light beyond the lateral end of the table is not included; for tables of unit energy it is 1 - S(z).

    `plane_energy` is S at the depths `z_nm` from 0 to R, evenly spaced; `depth_nm` is L.
    """
    range_nm = float(z_nm[-1])
    if depth_nm <= range_nm:
        return 0.0
    if tail == "constant":
        beyond = float(plane_energy[-1]) * (depth_nm - range_nm)
    else:
        outer = z_nm >= 0.75 * range_nm
        strength = float(np.mean(plane_energy[outer] * z_nm[outer] ** 2))
        beyond = strength * (1.0 / range_nm - 1.0 / depth_nm)
    inside = even_spline.integral(z_nm, plane_energy)
    return beyond / (inside + beyond)


def fwhm_lateral_nm(response: Response) -> float:
    """Full width at half maximum across the axis in focus, nm."""
    return _fwhm(response.r_nm, response.table[0])


def fwhm_axial_nm(response: Response) -> float:
    """Full width at half maximum along the axis, nm."""
    return _fwhm(response.z_nm, response.table[:, 0])


def _fwhm(position_nm: Array, profile: Array) -> float:
    half = even_spline.half_width(position_nm, profile)
    if half is None:
        raise ValueError(f"the profile stays above half its maximum up to {position_nm[-1]:g} nm")
    return 2.0 * half
