"""An objective, the layers before it, and the rays that it collects.

Light passes from the gel of index n2 through a cover glass into the immersion of index n1. The transverse component p of a
ray's direction times the index is the same in all layers, p = n1 s1 = n2 s2, at most the numerical aperture and the index of
the gel. With t the distance by which the focus was moved into the gel (the focus setting) and d the depth of a dye, the
optical path of a ray is

    d n2 c2 - t n1 c1 + (tg ng cg - tg* ng* cg*) + aberrations,

where * marks the cover glass for which the objective was made, and c are cosines (Hell et al., J. Microsc. 169, 391, 1993;
Torok & Varga, Appl. Opt. 36, 2305, 1997; Gibson & Lanni, JOSA A 9, 154, 1992). Fresnel's coefficients are those of the two
surfaces; light reflected twice is neglected.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from simexm.kernels.diffraction.special import Array, gauss_legendre
from simexm.kernels.numbers import detmath

Model = Literal["vectorial", "psf"]
_GRAZING = 2.5
"""Largest slope of the light cone in the gel that is counted on: steeper rays cross its surface at a grazing angle."""


class Glass(NamedTuple):
    """A cover glass, and the one for which the objective was made or its collar was set."""

    thickness_nm: float
    n: float
    design_thickness_nm: float
    design_n: float


class Rays(NamedTuple):
    """Rays at the nodes of a quadrature over the cosine c1; `weight` is that of dc1."""

    p: Array
    c1: Array
    c2: Array
    weight: Array
    ts: Array  # Fresnel coefficients from the immersion into the gel
    tp: Array
    path_nm: Array  # of cover glass and aberrations


class Objective(NamedTuple):
    """An objective and the layers before it.

    Attributes
    ----------
    aperture, gel
        Numerical aperture, and refractive index of the gel.
    immersion
        Refractive index of the immersion, above `aperture`; 0 for that of the gel.
    fill
        1/e^2 radius of the laser beam over the radius of the back aperture; infinite for an evenly filled one.
    model
        See `simexm.kernels.diffraction.tables`.
    glass
        The cover glass, if it is not the one for which the objective was made.
    spherical
        Aberrations that are symmetric about the axis: (n, coefficient in nm RMS) of Zernike's polynomials of even order n.
    aberrations
        Others, (n, m, nm RMS) of `zernike`: only `pupil` knows them, and tables are those of an objective without.
    polarisation_deg
        Angle of a linearly polarised laser beam from x towards y, likewise; None for unpolarised or circular light.
    """

    aperture: float
    gel: float
    immersion: float = 0.0
    fill: float = math.inf
    model: Model = "vectorial"
    glass: Glass | None = None
    spherical: tuple[tuple[int, float], ...] = ()
    aberrations: tuple[tuple[int, int, float], ...] = ()
    polarisation_deg: float | None = None

    @property
    def n1(self) -> float:
        """Refractive index of the immersion."""
        return self.immersion or self.gel

    @property
    def matched(self) -> bool:
        """Whether the image of a dye is the same at all depths and on both sides of its plane."""
        return self.n1 == self.gel and self.glass is None and not self.spherical and not self.aberrations

    @property
    def round(self) -> bool:
        """Whether beams and images are symmetric about the axis."""
        return not self.aberrations and self.polarisation_deg is None

    @property
    def widest(self) -> float:
        """Largest p."""
        return min(self.aperture, self.gel)

    @property
    def lower(self) -> float:
        """The lower of the two indices: its cosine is the variable of integration, in which all others are analytic."""
        return min(self.n1, self.gel)

    @property
    def least_cosine(self) -> float:
        """Cosine of the largest angle, in the medium of the lower index."""
        sine = self.widest / self.lower
        return math.sqrt(max(0.0, 1.0 - sine * sine))

    @property
    def slope(self) -> float:
        """Radius of the light cone in the gel over the distance from the focus."""
        sine = self.widest / self.gel
        cosine = math.sqrt(max(0.0, 1.0 - sine * sine))
        return sine / max(cosine, sine / _GRAZING)

    def foci(self, depth_nm: float) -> tuple[float, float]:
        """Focus settings at which the paraxial and the marginal rays from a dye at this depth meet."""
        layers = [(depth_nm, self.gel)]
        if self.glass is not None:
            glass = self.glass
            layers += [(glass.thickness_nm, glass.n), (-glass.design_thickness_nm, glass.design_n)]
        cotangent = math.sqrt((self.n1 / self.widest) ** 2 - 1.0)
        steepest = 1.0 / _GRAZING
        slopes = [1.0 / max(math.sqrt(max(0.0, (n / self.widest) ** 2 - 1.0)), steepest) for _, n in layers]
        paraxial = sum(nm / n for nm, n in layers) * self.n1
        return paraxial, sum(nm * slope for (nm, _), slope in zip(layers, slopes, strict=True)) * cotangent

    def check(self) -> None:
        """Raise ValueError where the layers have no light of this aperture."""
        if not 0.0 < self.aperture < self.n1:
            raise ValueError(
                f"numerical aperture {self.aperture} must lie between 0 and the refractive index {self.n1}"
            )
        if self.model == "psf" and not self.matched:
            raise ValueError("the model of the psf package knows one refractive index and no aberrations")

    def rays(self, nodes: Array, weights: Array) -> Rays:
        """Rays at the nodes (n,) of a rule on [-1, 1]."""
        sine = self.widest / self.lower
        half = 0.5 * sine * sine / (1.0 + self.least_cosine)  # (1 - cos) / 2, accurate at a low aperture
        below = half * (1.0 - nodes)
        c = 1.0 - below
        square = self.lower * self.lower * below * (1.0 + c)  # p^2
        c1 = c if self.n1 <= self.gel else _cosine(square, self.n1)
        c2 = c if self.gel <= self.n1 else _cosine(square, self.gel)
        ts, tp = np.ones_like(c), np.ones_like(c)
        path = np.zeros_like(c)
        glass = self.glass
        if glass is None:
            if self.n1 != self.gel:
                ts, tp = _fresnel(self.n1, c1, self.gel, c2)
        else:
            cg, design = _cosine(square, glass.n), _cosine(square, glass.design_n)
            (s1, p1), (s2, p2) = _fresnel(self.n1, c1, glass.n, cg), _fresnel(glass.n, cg, self.gel, c2)
            ts, tp = s1 * s2, p1 * p2
            path += glass.thickness_nm * glass.n * cg - glass.design_thickness_nm * glass.design_n * design
        for order, nm in self.spherical:
            path += nm * _zernike(order, square / (self.aperture * self.aperture))
        weight = half * weights * (self.lower * self.lower * c) / (self.n1 * self.n1 * c1)
        return Rays(np.sqrt(square), c1, c2, weight, ts, tp, path)

    def beam(self, rays: Rays) -> Array:
        """Amplitude of the laser beam in the back aperture."""
        ratio = 1.0 / (self.aperture * self.fill)
        gauss: Array = detmath.exp_array(-(rays.p * rays.p) * (ratio * ratio))
        return gauss

    def collected(self) -> float:
        """Share of the light that a freely turning dye emits in the gel and the objective receives."""
        rays = self.rays(*gauss_legendre(64))
        return 0.25 * self.n1 / self.gel * ordered_sum(rays.weight * (rays.ts * rays.ts + rays.tp * rays.tp))


def ordered_sum(terms: Array) -> float:
    """Sum from the first to the last, with the same bits on every machine."""
    return float(np.cumsum(terms)[-1])


def _cosine(square: Array, index: float) -> Array:
    cosine: Array = np.sqrt(1.0 - square / (index * index))
    return cosine


def _fresnel(n: float, c: Array, m: float, d: Array) -> tuple[Array, Array]:
    """Amplitudes, s and p polarised, behind a surface from index n to m at angles of cosine c and d."""
    return 2.0 * n * c / (n * c + m * d), 2.0 * n * c / (m * c + n * d)


def zernike(order: int, m: int, radius: Array, sine: Array, cosine: Array) -> Array:
    """Zernike's polynomial, RMS 1 over the aperture, at radii relative to it and directions of this sine and cosine.

    Noll, JOSA 66, 207, 1976, with the signs of ANSI Z80.28: it varies as cos(m phi) for m > 0, as sin(-m phi) for m < 0.
    """
    k, turn = abs(m), np.ones_like(cosine) + 0j
    radial = np.zeros_like(radius)
    for j in range((order - k) // 2 + 1):
        ways = math.factorial(order - j) // (
            math.factorial(j) * math.factorial((order + k) // 2 - j) * math.factorial((order - k) // 2 - j)
        )
        radial = radial + (-1) ** j * ways * _power(radius, order - 2 * j)
    for _ in range(k):
        turn = turn * (cosine + 1j * sine)
    around = turn.real if m >= 0 else turn.imag
    return np.asarray(math.sqrt((order + 1.0) * (1.0 if m == 0 else 2.0)) * radial * around)


def _power(base: Array, exponent: int) -> Array:
    """By multiplication: the same bits on every machine."""
    result = np.ones_like(base)
    for _ in range(exponent):
        result = result * base
    return result


def _zernike(order: int, square: Array) -> Array:
    """Zernike's symmetric polynomial of even order, RMS 1 over the aperture, at squared radii (Noll, JOSA 66, 207, 1976)."""
    half = order // 2
    value, power = np.zeros_like(square), np.ones_like(square)
    for k in range(half + 1):
        value = value + (-1) ** (half - k) * math.comb(half, k) * math.comb(half + k, k) * power
        power = power * square
    return math.sqrt(order + 1.0) * value
