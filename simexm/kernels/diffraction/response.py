"""From diffraction tables to what an instrument records of a dye at (z, r), step by step.

A `Response` table is per nm^2, such that a pixel expects rate * int over the pixel of table dA, `rate` in photo-electrons:

- widefield: the emission table itself;
- light sheet: the emission table times `light_sheet_profile`, for the sheet's irradiance at its centre;
- confocal: excitation per nm^2 and unit power, saturated pointwise where it is (see `photophysics`), then times
  `pinhole_table`; the integral over the pixel times power * dwell / pixel area is the mean over the pixel times power * dwell;
- two-photon: the same with the excitation table squared, saturated pointwise by pulses, and no pinhole.

Nothing is renormalised at the end of a table; `left_out_share` says what lies beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simexm import compiled
from simexm.compiled import njit
from simexm.kernels.diffraction import even_spline
from simexm.kernels.diffraction.special import gauss_legendre, sin_cos_array
from simexm.kernels.diffraction.tables import emission_table
from simexm.kernels.numbers import detmath

Array = NDArray[np.float64]

_STENCIL = 6  # points of the interpolation between radii
_AT_ONCE = 8000  # sums that lie in the cache together
_PHASE_PER_SAMPLE = math.pi / 4  # the table has at least eight samples in its shortest period

Tail = Literal["constant", "inverse_square"]


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What is recorded of a dye, symmetric about the axis and the focal plane.

    Attributes
    ----------
    z_nm, r_nm
        Depths and radii, from 0 and evenly spaced, shapes (nz,) and (nr,).
    table
        Shape (nz, nr), per nm^2.
    """

    z_nm: Array
    r_nm: Array
    table: Array

    def __post_init__(self) -> None:
        if self.table.shape != (self.z_nm.size, self.r_nm.size):
            raise ValueError(f"table {self.table.shape} for {self.z_nm.size} depths and {self.r_nm.size} radii")


def light_sheet_profile(z_nm: Array, waist_nm: float) -> Array:
    """Irradiance across a Gaussian sheet over that at its centre, exp(-2 z^2 / w^2); `waist_nm` is the 1/e^2 half thickness."""
    profile: Array = detmath.exp_array(-2.0 * (z_nm / waist_nm) ** 2)
    return profile


def pinhole_table(z_nm: Array, r_nm: Array, wavelength_nm: float, na: float, n: float, radius_nm: float) -> Array:
    """Share of a dye's light in the detection cone that passes a round pinhole, the emission table over the pinhole's disc.

    Parameters
    ----------
    z_nm, r_nm
        Depths, and distances of the dye from the axis (from 0, evenly spaced): shapes (nz,) and (nr,).
    wavelength_nm, na, n
        As for `emission_table`.
    radius_nm
        Radius of the pinhole over the magnification.

    Returns
    -------
    Shape (nz, nr), between 0 and 1.
    """
    spacing_nm = float(r_nm[-1]) / (r_nm.size - 1)
    radii = np.arange(r_nm.size + pinhole_margin(radius_nm, spacing_nm), dtype=np.float64) * spacing_nm
    return pinhole_share(emission_table(z_nm, radii, wavelength_nm, na, n), spacing_nm, radius_nm)


def pinhole_margin(radius_nm: float, spacing_nm: float) -> int:
    """Radii by which the result of `pinhole_share` is shorter than its input."""
    return math.ceil(radius_nm / spacing_nm) + _STENCIL


def pinhole_share(emission: Array, spacing_nm: float, radius_nm: float) -> Array:
    """Convolve a radial function of the plane with a disc: D(r) = int over the disc about r of f dA.

    A Gauss-Legendre rule over the disc's radius and a midpoint rule over its angle (both converge exponentially for a
    band-limited f), between the radii of the table by polynomials of degree five.

    Parameters
    ----------
    emission
        Shape (nz, nr), per nm^2, at radii 0, d, 2 d, ... with eight or more of them in the shortest period: 10 nm does.
    spacing_nm
        d.
    radius_nm
        Radius of the disc.

    Returns
    -------
    Shape (nz, nr - pinhole_margin(radius_nm, spacing_nm)).

    Raises
    ------
    ValueError
        If the radius is not positive, or the table too short for it.
    """
    size = emission.shape[1] - pinhole_margin(radius_nm, spacing_nm)
    if not radius_nm > 0.0 or size < 1:
        raise ValueError(f"a pinhole of {radius_nm} nm needs a positive radius and a table of more than its own extent")
    radius = radius_nm / spacing_nm
    first, matrix = _disc_matrix(size, radius)
    return _apply_rows(emission, first, matrix * spacing_nm**2)


def _distance(i: Any, s: Any, cosine: Any) -> Any:
    """Squared, between points at the radii i and s whose directions have this cosine; rounding may leave it below 0."""
    return i * i + s * s + 2.0 * i * s * cosine


def _lagrange(along: Any, a: int, weight: Any) -> Any:
    """Weight of the stencil's point a in the value at `along`, times `weight`."""
    for b in range(_STENCIL):
        if a != b:
            weight = weight * ((along - b) / (a - b))
    return weight


_distance_1 = njit(cache=True, nogil=True)(_distance)
_lagrange_1 = njit(cache=True, nogil=True)(_lagrange)


def _disc_matrix(size: int, radius: float) -> tuple[NDArray[np.int64], Array]:
    """Weights of the table's samples in D at each of `size` radii (in samples), and the first sample of each."""
    turn = _PHASE_PER_SAMPLE * radius
    nodes, weights = gauss_legendre(8 + math.ceil(turn / 4.0 + turn ** (1.0 / 3.0)))
    angles = 8 + math.ceil(turn / 2.0 + turn ** (1.0 / 3.0))
    reach = math.ceil(radius) + _STENCIL
    _, cosines = sin_cos_array(
        math.pi * (np.arange(angles) + 0.5) / angles
    )  # of the half circle; the other is its image
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
                left = int(distance) - _STENCIL // 2 + 1
                for a in range(_STENCIL):
                    matrix[i, abs(left + a) - first[i]] += _lagrange_1(
                        distance - left, a, weights[k]
                    )  # the table is even


def _disc_elementwise(first: NDArray[np.int64], s: Array, weights: Array, cosines: Array, matrix: Array) -> None:
    i = np.arange(first.size)
    starts = i * matrix.shape[1] - first
    for k in range(s.size):
        distance = np.sqrt(np.maximum(0.0, _distance(i, s[k], cosines[:, None])))
        left = distance.astype(np.int64) - _STENCIL // 2 + 1
        points = np.abs(left[:, None] + np.arange(_STENCIL)[:, None]) + starts
        shares = [_lagrange(distance - left, a, weights[k]) for a in range(_STENCIL)]
        np.add.at(matrix.reshape(-1), points.ravel(), np.stack(shares, axis=1).ravel())  # in this order


def _apply_rows(table: Array, first: NDArray[np.int64], matrix: Array) -> Array:
    result = np.zeros((len(table), first.size))
    still = int(np.count_nonzero(first == 0))  # these begin at the axis, every further one a sample later
    at_once = max(1, _AT_ONCE // first.size)
    for start in range(0, len(table), at_once):
        rows, sums = table[start : start + at_once], result[start : start + at_once]
        for j in range(min(matrix.shape[1], table.shape[1])):  # beyond the table's end the weights are 0
            sums[:, :still] += rows[:, j : j + 1] * matrix[:still, j]
            sums[:, still:] += rows[:, j + 1 : j + 1 + first.size - still] * matrix[still:, j]
    return result


def left_out_share(plane_energy: Array, z_nm: Array, depth_nm: float, tail: Tail) -> float:
    """Share of the light of a uniformly stained stack that lies beyond the axial range of a table.

    For the first plane of the stack, which sees dyes from 0 to the stack's depth L on one side, the share is the largest:
    with S(z) the energy of the response in a plane and R the range,

        share = tail / (int_0^R S dz + tail).

    - "constant" (widefield; light sheet, as an upper bound): tail = S(R) (L - R), which for S = 1 makes it 1 - R / L;
    - "inverse_square" (scanners, whose excitation and detection cones overlap so far from focus):
      tail = C (1 / R - 1 / L), C = mean of S z^2 over the outer quarter of the range. For a pinhole so wide that it passes
      the whole cone at R the law does not hold yet: use "constant".

    Light beyond the lateral end of the table is not in it; for tables of unit energy that is 1 - S(z).

    Parameters
    ----------
    plane_energy
        S at depths `z_nm`, shape (nz,).
    z_nm
        Depths from 0 to R, evenly spaced, shape (nz,).
    depth_nm
        L, in the same (expanded) space.
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
