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

from simexm.compiled import njit
from simexm.kernels import detmath
from simexm.kernels.psf_special import gauss_legendre, sin_cos
from simexm.kernels.psf_tables import emission_table

_STENCIL = 6  # points of the interpolation between radii
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

    z_nm: NDArray[np.float64]
    r_nm: NDArray[np.float64]
    table: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.table.shape != (self.z_nm.size, self.r_nm.size):
            raise ValueError(f"table {self.table.shape} for {self.z_nm.size} depths and {self.r_nm.size} radii")


def light_sheet_profile(z_nm: NDArray[np.float64], waist_nm: float) -> NDArray[np.float64]:
    """Irradiance across a Gaussian sheet over that at its centre, exp(-2 z^2 / w^2); `waist_nm` is the 1/e^2 half thickness."""
    profile: NDArray[np.float64] = detmath.exp_array(-2.0 * (z_nm / waist_nm) ** 2)
    return profile


def pinhole_table(
    z_nm: NDArray[np.float64], r_nm: NDArray[np.float64], wavelength_nm: float, na: float, n: float, radius_nm: float
) -> NDArray[np.float64]:
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


def pinhole_share(emission: NDArray[np.float64], spacing_nm: float, radius_nm: float) -> NDArray[np.float64]:
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
    turn = _PHASE_PER_SAMPLE * radius
    nodes, weights = gauss_legendre(8 + math.ceil(turn / 4.0 + turn ** (1.0 / 3.0)))
    angles = 8 + math.ceil(turn / 2.0 + turn ** (1.0 / 3.0))
    first, matrix = _disc_matrix(size, radius, nodes, weights, angles)
    return _apply_rows(emission, first, matrix * spacing_nm**2)


@njit(cache=True, nogil=True)
def _disc_matrix(
    size: int, radius: float, nodes: NDArray[np.float64], weights: NDArray[np.float64], angles: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Weights of the table's samples in D at each of `size` radii (in samples), and the first sample of each."""
    reach = math.ceil(radius) + _STENCIL
    first = np.empty(size, np.int64)
    matrix = np.zeros((size, 2 * reach + 1))
    cosines = np.empty(angles)
    for j in range(angles):  # the half circle; the other half is its mirror image
        _, cosines[j] = sin_cos(math.pi * (j + 0.5) / angles)
    lagrange = np.empty(_STENCIL)
    for i in range(size):
        first[i] = max(0, i - reach)
        for k in range(nodes.size):
            s = 0.5 * radius * (1.0 + nodes[k])
            weight = 0.5 * radius * weights[k] * s * 2.0 * math.pi / angles
            for j in range(angles):
                distance = math.sqrt(max(0.0, i * i + s * s + 2.0 * i * s * cosines[j]))
                left = int(distance) - _STENCIL // 2 + 1
                for a in range(_STENCIL):
                    lagrange[a] = weight
                    for b in range(_STENCIL):
                        if a != b:
                            lagrange[a] *= (distance - left - b) / (a - b)
                    matrix[i, abs(left + a) - first[i]] += lagrange[a]  # the table is even
    return first, matrix


@njit(cache=True, nogil=True)
def _apply_rows(
    table: NDArray[np.float64], first: NDArray[np.int64], matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    result = np.zeros((table.shape[0], first.size))
    for i in range(first.size):
        for z in range(table.shape[0]):
            for j in range(min(matrix.shape[1], table.shape[1] - first[i])):
                result[z, i] += table[z, first[i] + j] * matrix[i, j]
    return result


def left_out_share(plane_energy: NDArray[np.float64], z_nm: NDArray[np.float64], depth_nm: float, tail: Tail) -> float:
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
    inside = float(_even_spline(z_nm, plane_energy).integrate(0.0, range_nm))
    return beyond / (inside + beyond)


def fwhm_lateral_nm(response: Response) -> float:
    """Full width at half maximum across the axis in focus, nm."""
    return _fwhm(response.r_nm, response.table[0])


def fwhm_axial_nm(response: Response) -> float:
    """Full width at half maximum along the axis, nm."""
    return _fwhm(response.z_nm, response.table[:, 0])


def _fwhm(position_nm: NDArray[np.float64], profile: NDArray[np.float64]) -> float:
    crossings = _even_spline(position_nm, profile).solve(0.5 * float(profile[0]), extrapolate=False)
    outward = crossings[crossings > 0.0]
    if outward.size == 0:
        raise ValueError(f"the profile stays above half its maximum up to {position_nm[-1]:g} nm")
    return 2.0 * float(outward.min())


def _even_spline(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    from scipy.interpolate import CubicSpline  # here, since it takes half a second to import

    return CubicSpline(np.concatenate((-x[:0:-1], x)), np.concatenate((y[:0:-1], y)))
