"""Tables, over depth and radius, of the intensity of a focused beam and of the image of a dye.

The model `vectorial` is that of Richards & Wolf (Proc. R. Soc. A 253, 358, 1959) for an aplanatic objective, with layers
(see `objective`). With c1, s1 and c2, s2 the cosines and sines of a ray in immersion and gel, k1 = 2 pi n1 / wavelength, path
the optical path in vacuum wavenumbers k0 and P the pupil function, its field integrals over c1 are

    K0 = int P sqrt(c1) (ts + tp c2) J0(k1 r s1) exp(i k0 path) dc1
    K1 = int P sqrt(c1)    tp s2     J1(k1 r s1) exp(i k0 path) dc1
    K2 = int P sqrt(c1) (ts - tp c2) J2(k1 r s1) exp(i k0 path) dc1

and the intensity |E|^2, averaged over the directions of a freely turning dye and over polarisation (unpolarised or
circular), is |K0|^2 + 2 |K1|^2 + |K2|^2. Excitation has P = exp(-(s1 / sin(alpha))^2 / fill^2), a Gaussian beam whose
1/e^2 radius is `fill` times that of the back aperture. Emission through a tube lens of low aperture has the same
integrals with P = 1, as reciprocity says. (The pupil field is the field on the reference sphere over sqrt(c1).)

By Parseval's theorem for the Hankel transform, the integral of the intensity over a plane is the same at all depths,
(2 pi / k1^2) int 2 P^2 (ts^2 + tp^2) dc1. Emission is divided by it: unit energy in each plane, wherever a table ends.
Excitation is times n2 / n1, divided by the power of the beam, (2 pi / k1^2) int 4 P^2 c1 dc1: a dye absorbs by |E|^2, not by
the flux through the plane, so that its integral over a plane is `plane_fluence`, without layers the mean of 1 / c.

The model `psf` is that of the ISOTROPIC type of the `psf` package, for comparison: twice the weight of |K1|^2, no
sqrt(c) in emission (a relay lens of magnification 1), and unit energy in each plane for excitation, too. The package
evaluates it with 80 trapezoids and linearly interpolated Bessel functions that end at k r s = 100: at NA 1.15 its error
is 1e-3 of the peak in focus and 8 % of the plane's maximum at 8 um of defocus. Here both models are integrated by
Gauss-Legendre rules that grow with depth and radius, accurate to 1e-8 of the local value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.objective import Objective, Rays, ordered_sum
from simexm.kernels.diffraction.special import (
    Array,
    bessel_01_array,
    gauss_legendre,
    gauss_legendre_rules,
    sin_cos_array,
)
from simexm.kernels.numbers.ordered_product import add_product

_FURTHEST_RINGS = 60.0  # limit of `holding_radius_nm` outside the cone of light, in wavelengths over NA
_STEPS = 256  # of the search for the steepest phase
_TILE = 64  # radii evaluated together, so that their Bessel functions stay in the cache for all depths


class Focus(NamedTuple):
    """A plane: its depth in the gel, and the focus setting with which it is imaged."""

    depth_nm: float
    setting_nm: float


SURFACE = Focus(0.0, 0.0)


def excitation_table(
    z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective, focus: Focus = SURFACE
) -> Array:
    """Fluence rate |E|^2 of a focused beam per unit power through the objective, (nz, nr), per nm^2.

    At depths (nz,) below the plane and radii (nr,) from the axis, for the vacuum wavelength. The integral over any depth is
    `plane_fluence`.
    """
    return _table(z_nm, r_nm, wavelength_nm, objective, focus, True)


def emission_table(
    z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective, focus: Focus = SURFACE
) -> Array:
    """Image of a dye at depths (nz,) below the plane, referred to the specimen, (nz, nr), per nm^2; its integral is 1."""
    return _table(z_nm, r_nm, wavelength_nm, objective, focus, False)


def plane_fluence(objective: Objective) -> float:
    """Integral of `excitation_table` over any plane; without layers the mean of 1 / cos(theta) over the beam's power."""
    if objective.model == "psf":
        return 1.0
    rays = objective.rays(*gauss_legendre(FEWEST))
    energy, power = plane_integral(rays, objective, True), beam_power(rays, objective)
    return objective.gel / objective.n1 * energy / power


def best_focus_nm(depth_nm: float, wavelength_nm: float, objective: Objective) -> float:
    """Focus setting at which a dye at this depth is brightest on the axis.

    Searched between those of the paraxial and the marginal rays in steps of an eighth of the depth of field, then refined by
    a parabola.
    """
    if objective.matched:
        return depth_nm
    step = wavelength_nm * objective.n1 / objective.aperture**2 / 8.0
    ends = objective.foci(depth_nm)
    settings = np.arange(math.floor(min(ends) / step) - 32, math.ceil(max(ends) / step) + 33, dtype=np.float64) * step
    value = axial_peak(depth_nm, settings, wavelength_nm, objective)
    i = min(max(int(np.argmax(value)), 1), value.size - 2)
    left, middle, right = (float(v) for v in value[i - 1 : i + 2])
    return float(settings[i]) + 0.5 * step * (left - right) / (left - 2.0 * middle + right)


def axial_peak(depth_nm: float, settings_nm: Array, wavelength_nm: float, objective: Objective) -> Array:
    """Image of a dye at its own place on the axis, per nm^2, at each focus setting (n,)."""
    wavenumber = 2.0 * math.pi / wavelength_nm
    ends = (float(settings_nm.min()), float(settings_nm.max()))
    degree = max(axial_degree(np.zeros(1), wavenumber, objective, Focus(depth_nm, t)) for t in ends)
    rays = objective.rays(*gauss_legendre(rule(degree)))
    amplitude = rays.weight * pupil(rays, objective, False) * (rays.ts + rays.tp * rays.c2)
    still = phases(np.zeros(1), wavenumber, objective, Focus(depth_nm, 0.0), rays)[0]
    moving = wavenumber * objective.n1 * (rays.c1 - 1.0)
    value = np.empty(settings_nm.size)
    for i, t in enumerate(settings_nm.tolist()):
        sines, cosines = sin_cos_array(still - moving * t)
        value[i] = ordered_sum(amplitude * cosines) ** 2 + ordered_sum(amplitude * sines) ** 2
    return value / (2.0 * math.pi / (wavenumber * objective.n1) ** 2 * plane_integral(rays, objective, False))


def lateral_radius_nm(range_nm: float, wavelength_nm: float, objective: Objective) -> float:
    """Radius of the light cone at the depth `range_nm`, with margin: range * tan(alpha) + 3 wavelength / NA."""
    return range_nm * objective.slope + 3.0 * wavelength_nm / objective.aperture


def holding_radius_nm(
    range_nm: float, wavelength_nm: float, objective: Objective, share: float, focus: Focus = SURFACE
) -> float:
    """Radius, at least `lateral_radius_nm`, that encloses this share of the light in the plane and `range_nm` off it.

    Diffraction rings fall off as 1 / r^3 (J1(x)^2 / x^2, Born & Wolf 8.5.2), so the light beyond a radius falls off
    only as 1 / r: a margin of three wavelengths over NA leaves out up to 6 %. The margin is limited to sixty, which may
    hold less than the share for an aperture close to the refractive index.
    """
    least = lateral_radius_nm(range_nm, wavelength_nm, objective)
    step = wavelength_nm / objective.aperture / 12.0  # six samples in the shortest period
    furthest = least + (_FURTHEST_RINGS - 3.0) * wavelength_nm / objective.aperture
    r = np.arange(math.ceil(furthest / step) + 1, dtype=np.float64) * step
    z = np.array([0.0, range_nm] if objective.matched else [-range_nm, 0.0, range_nm])
    rings = emission_table(z, r, wavelength_nm, objective, focus) * hankel.radial_weights(r.size, step)
    within = np.cumsum(rings, axis=1) - rings / 2.0
    enough = (r >= least) & (within >= share).all(axis=0)
    return float(r[np.argmax(enough)]) if enough.any() else furthest


def _table(
    z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective, focus: Focus, excitation: bool
) -> Array:
    objective.check()
    z, r = np.asarray(z_nm, dtype=np.float64), np.abs(r_nm, dtype=np.float64)
    if objective.matched:
        z, focus = np.abs(z), SURFACE  # even in z
    wavenumber = 2.0 * math.pi / wavelength_nm
    degree = axial_degree(z, wavenumber, objective, focus)
    per_nm = wavenumber * objective.lower * math.sqrt(0.5 * (1.0 - objective.least_cosine))
    table = np.empty((z.size, r.size))
    tiles = [slice(start, start + _TILE) for start in range(0, r.size, _TILE)]
    sizes = tuple(rule(degree + per_nm * float(r[tile].max())) for tile in tiles)
    rules = gauss_legendre_rules(sizes)
    for tile, size in zip(tiles, sizes, strict=True):
        rays = objective.rays(*rules[size])
        table[:, tile] = _intensity(z, r[tile], wavenumber, objective, focus, excitation, rays)
    rays = objective.rays(*gauss_legendre(FEWEST))
    over_k1 = 2.0 * math.pi / (wavenumber * objective.n1) ** 2
    if excitation and objective.model == "vectorial":
        return table * (objective.gel / objective.n1 / (over_k1 * beam_power(rays, objective)))
    return table / (over_k1 * plane_integral(rays, objective, excitation))


def rule(degree: float) -> int:
    """Number of nodes, a multiple of 4, that integrate a phase of so many radians per unit of x.

    With c = least + (1 - least) (1 + cos(x)) / 2, n nodes integrate a degree of 2 n exactly.
    """
    quarter: int = math.ceil((degree / 2.0 + 2.0 * degree ** (1.0 / 3.0) + 16.0) / 4.0)
    return 4 * quarter


FEWEST = rule(0.0)
"""Nodes of integrals without a phase."""


def axial_degree(z: Array, wavenumber: float, objective: Objective, focus: Focus) -> float:
    """Largest change of the phase on the axis per unit of x, see `rule`, at the first and the last depth."""
    _, x = sin_cos_array(math.pi * np.arange(_STEPS + 1) / _STEPS)
    rays = objective.rays(x, np.zeros_like(x))
    ends = phases(np.array([float(z.min()), float(z.max())]), wavenumber, objective, focus, rays)
    steepest = float(np.abs(np.diff(ends, axis=1)).max())
    return steepest * _STEPS / math.pi


def phases(z: Array, wavenumber: float, objective: Objective, focus: Focus, rays: Rays) -> Array:
    """Phase of each ray at each depth, less that of the ray along the axis, (nz, rays)."""
    path = objective.gel * (rays.c2 - 1.0) * (focus.depth_nm + z[:, None])
    if not objective.matched:
        path = path + (rays.path_nm - objective.n1 * (rays.c1 - 1.0) * focus.setting_nm)
    return wavenumber * path


def pupil(rays: Rays, objective: Objective, excitation: bool) -> Array:
    """P sqrt(c1), of the model `psf` without the root in emission."""
    if excitation:
        return np.sqrt(rays.c1) * objective.beam(rays)
    return np.sqrt(rays.c1) if objective.model == "vectorial" else np.ones_like(rays.c1)


def _weight_1(objective: Objective) -> float:
    """Weight of |K1|^2."""
    return 2.0 if objective.model == "vectorial" else 4.0


def beam_power(rays: Rays, objective: Objective) -> float:
    """Power of the laser beam, times k1^2 / (2 pi)."""
    beam = objective.beam(rays)
    return ordered_sum(rays.weight * 4.0 * beam * beam * rays.c1)


def plane_integral(rays: Rays, objective: Objective, excitation: bool) -> float:
    """Integral of the unnormalised intensity over a plane, times k1^2 / (2 pi)."""
    a, s, p = pupil(rays, objective, excitation), rays.ts, rays.tp
    c = rays.c2
    squares = 2.0 * s * s + 2.0 * p * p * c * c + _weight_1(objective) * p * p * (1.0 - c * c)
    return ordered_sum(rays.weight * a * a * squares / rays.c1)


def _intensity(
    z: Array, r: Array, wavenumber: float, objective: Objective, focus: Focus, excitation: bool, rays: Rays
) -> Array:
    """Unnormalised intensity, shape (nz, nr)."""
    a = rays.weight * pupil(rays, objective, excitation)
    s, p, c = rays.ts, rays.tp * rays.c2, rays.tp * rays.p / objective.gel
    x = wavenumber * r * rays.p[:, None]
    j0, j1 = bessel_01_array(x)
    j2 = np.where(x > 1e-3, 2.0 * j1 / np.where(x > 1e-3, x, 1.0) - j0, x * x / 8.0)
    sines, cosines = sin_cos_array(phases(z, wavenumber, objective, focus, rays))
    turned = np.concatenate([cosines, sines])
    table = np.zeros((z.size, r.size))
    for factor, bessel in ((a * (s + p), j0), (a * math.sqrt(_weight_1(objective)) * c, j1), (a * (s - p), j2)):
        parts = np.zeros((2 * z.size, r.size))
        add_product(parts, turned, factor[:, None] * bessel)
        real, imag = parts[: z.size], parts[z.size :]
        table += real * real + imag * imag
    return table
