"""Tables, over depth and radius, of the intensity of a focused beam and of the image of a dye.

The model `vectorial` is that of Richards & Wolf (Proc. R. Soc. A 253, 358, 1959) for an aplanatic objective. With
c = cos(theta), s = sin(theta), k = 2 pi n / wavelength and the pupil function P, its field integrals over c from
cos(alpha) to 1 are

    K0 = int P sqrt(c) (1 + c) J0(k r s) exp(i k z c) dc
    K1 = int P sqrt(c)    s    J1(k r s) exp(i k z c) dc
    K2 = int P sqrt(c) (1 - c) J2(k r s) exp(i k z c) dc

and the intensity |E|^2, averaged over the directions of a freely turning dye and over polarisation (unpolarised or
circular), is |K0|^2 + 2 |K1|^2 + |K2|^2. Excitation has P = exp(-(s / sin(alpha))^2 / fill^2), a Gaussian beam whose
1/e^2 radius is `fill` times that of the back aperture. Emission through a tube lens of low aperture has the same
integrals with P = 1, as reciprocity says. (The pupil field is the field on the reference sphere over sqrt(c).)

By Parseval's theorem for the Hankel transform, the integral of the intensity over a plane is the same at all depths,
(2 pi / k^2) int 4 P^2 dc. Emission is divided by it: unit energy in each plane, wherever a table ends. Excitation is
divided by the power through a plane, (2 pi / k^2) int 4 P^2 c dc: a dye absorbs by |E|^2, not by the flux through the
plane, so that its integral over a plane is `plane_fluence`, the mean of 1 / c, which is above 1.

The model `psf` is that of the ISOTROPIC type of the `psf` package, for comparison: twice the weight of |K1|^2, no
sqrt(c) in emission (a relay lens of magnification 1), and unit energy in each plane for excitation, too. The package
evaluates it with 80 trapezoids and linearly interpolated Bessel functions that end at k r s = 100: at NA 1.15 its error
is 1e-3 of the peak in focus and 8 % of the plane's maximum at 8 um of defocus. Here both models are integrated by
Gauss-Legendre rules that grow with depth and radius, accurate to 1e-8 of the local value.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.special import (
    Array,
    bessel_01_array,
    gauss_legendre,
    gauss_legendre_rules,
    sin_cos_array,
)
from simexm.kernels.numbers import detmath
from simexm.kernels.numbers.ordered_product import add_product

_FURTHEST_RINGS = 60.0  # limit of `holding_radius_nm` outside the cone of light, in wavelengths over NA
_TILE = 64  # radii evaluated together, so that their Bessel functions stay in the cache for all depths


Model = Literal["vectorial", "psf"]


class Objective(NamedTuple):
    """An objective in a medium of one refractive index.

    Attributes
    ----------
    aperture, index
        Numerical aperture, and refractive index of gel and immersion; `aperture` < `index`.
    fill
        1/e^2 radius of the laser beam over the radius of the back aperture; infinite for an evenly filled one.
    model
        See the module.
    """

    aperture: float
    index: float
    fill: float = math.inf
    model: Model = "vectorial"

    @property
    def sine(self) -> float:
        """Sine of the largest angle."""
        return self.aperture / self.index

    @property
    def cosine(self) -> float:
        """Cosine of the largest angle."""
        return math.sqrt(1.0 - self.sine * self.sine)

    def wavenumber(self, wavelength_nm: float) -> float:
        """2 pi n / wavelength, per nm."""
        return 2.0 * math.pi * self.index / wavelength_nm


def excitation_table(z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective) -> Array:
    """Fluence rate |E|^2 of a focused beam per unit power through the objective, (nz, nr), per nm^2.

    At depths (nz,) and radii (nr,) from the focus, for the vacuum wavelength. The integral over any plane is
    `plane_fluence`.
    """
    return _table(z_nm, r_nm, wavelength_nm, objective, True)


def emission_table(z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective) -> Array:
    """Image of a dye, referred to the specimen: the widefield point spread function, (nz, nr), per nm^2.

    Its integral over any plane is 1.
    """
    return _table(z_nm, r_nm, wavelength_nm, objective, False)


def plane_fluence(objective: Objective) -> float:
    """Integral of `excitation_table` over any plane: the mean of 1 / cos(theta) over the beam's power."""
    if objective.model == "psf":
        return 1.0
    return _integral(objective, True, False) / _integral(objective, True, True)


def lateral_radius_nm(range_nm: float, wavelength_nm: float, objective: Objective) -> float:
    """Radius of the light cone at the depth `range_nm`, with margin: range * tan(alpha) + 3 wavelength / NA."""
    return range_nm * objective.sine / objective.cosine + 3.0 * wavelength_nm / objective.aperture


def holding_radius_nm(range_nm: float, wavelength_nm: float, objective: Objective, share: float) -> float:
    """Radius, at least `lateral_radius_nm`, that encloses this share of the light in focus and at the depth `range_nm`.

    Diffraction rings fall off as 1 / r^3 (J1(x)^2 / x^2, Born & Wolf 8.5.2), so the light beyond a radius falls off
    only as 1 / r: a margin of three wavelengths over NA leaves out up to 6 %. The margin is limited to sixty, which may
    hold less than the share for an aperture close to the refractive index.
    """
    least = lateral_radius_nm(range_nm, wavelength_nm, objective)
    step = wavelength_nm / objective.aperture / 12.0  # six samples in the shortest period
    furthest = least + (_FURTHEST_RINGS - 3.0) * wavelength_nm / objective.aperture
    r = np.arange(math.ceil(furthest / step) + 1, dtype=np.float64) * step
    rings = _table(np.array([0.0, range_nm]), r, wavelength_nm, objective, False) * hankel.radial_weights(r.size, step)
    within = np.cumsum(rings, axis=1) - rings / 2.0
    enough = (r >= least) & (within >= share).all(axis=0)
    return float(r[np.argmax(enough)]) if enough.any() else furthest


def _table(z_nm: Array, r_nm: Array, wavelength_nm: float, objective: Objective, excitation: bool) -> Array:
    if not 0.0 < objective.aperture < objective.index:
        raise ValueError(
            f"numerical aperture {objective.aperture} must lie between 0 and the refractive index {objective.index}"
        )
    z, r = np.abs(z_nm, dtype=np.float64), np.abs(r_nm, dtype=np.float64)
    wavenumber = objective.wavenumber(wavelength_nm)
    deepest = float(z.max())
    table = np.empty((z.size, r.size))
    tiles = [slice(start, start + _TILE) for start in range(0, r.size, _TILE)]
    sizes = tuple(_rule(wavenumber, objective.cosine, deepest, float(r[tile].max())) for tile in tiles)
    rules = gauss_legendre_rules(sizes)
    for tile, size in zip(tiles, sizes, strict=True):
        table[:, tile] = _intensity(z, r[tile], wavenumber, objective, excitation, *rules[size])
    per_power = excitation and objective.model == "vectorial"
    return table / (2.0 * math.pi / (wavenumber * wavenumber) * _integral(objective, excitation, per_power))


def _rule(wavenumber: float, cosine: float, z_nm: float, r_nm: float) -> int:
    """Number of nodes, a multiple of 4.

    With c = cos(alpha) + (1 - cos(alpha)) (1 + cos(x)) / 2 the phase k z c + k r s changes at most by `degree` per unit
    of x, and n nodes integrate a degree of 2 n exactly.
    """
    degree = wavenumber * (z_nm * (1.0 - cosine) / 2.0 + r_nm * math.sqrt((1.0 - cosine) / 2.0))
    quarter: int = math.ceil((degree / 2.0 + 2.0 * degree ** (1.0 / 3.0) + 16.0) / 4.0)
    return 4 * quarter


def _pupil(c: Array, objective: Objective, excitation: bool) -> Array:
    """P sqrt(c), of the model `psf` without the root in emission."""
    if not excitation:
        return np.sqrt(c) if objective.model == "vectorial" else np.ones_like(c)
    ratio = 1.0 / (objective.sine * objective.fill)
    gauss: Array = detmath.exp_array((c * c - 1.0) * (ratio * ratio))
    return np.sqrt(c) * gauss


def _weight_1(objective: Objective) -> float:
    """Weight of |K1|^2."""
    return 2.0 if objective.model == "vectorial" else 4.0


def _integral(objective: Objective, excitation: bool, flux: bool) -> float:
    """Integral of the intensity over a plane, or of its flux through the plane, times k^2 / (2 pi)."""
    nodes, weights = gauss_legendre(_rule(1.0, objective.cosine, 0.0, 0.0))
    half = 0.5 * (1.0 - objective.cosine)
    c = objective.cosine + half * (1.0 + nodes)
    a = _pupil(c, objective, excitation)
    squares = 2.0 + 2.0 * c * c + _weight_1(objective) * (1.0 - c * c)  # (1 + c)^2 + w s^2 + (1 - c)^2
    terms = half * weights * a * a * squares
    if not flux:
        terms = terms / c
    return float(np.cumsum(terms)[-1])  # sequential, unlike a sum


def _intensity(
    z: Array, r: Array, wavenumber: float, objective: Objective, excitation: bool, nodes: Array, weights: Array
) -> Array:
    """Unnormalised intensity, shape (nz, nr)."""
    half = 0.5 * (1.0 - objective.cosine)
    c = objective.cosine + half * (1.0 + nodes)
    s = np.sqrt(1.0 - c * c)
    a = half * weights * _pupil(c, objective, excitation)
    x = wavenumber * r * s[:, None]
    j0, j1 = bessel_01_array(x)
    j2 = np.where(x > 1e-3, 2.0 * j1 / np.where(x > 1e-3, x, 1.0) - j0, x * x / 8.0)
    sines, cosines = sin_cos_array(wavenumber * z[:, None] * c)
    phases = np.concatenate([cosines, sines])
    table = np.zeros((z.size, r.size))
    for factor, bessel in ((a * (1.0 + c), j0), (a * math.sqrt(_weight_1(objective)) * s, j1), (a * (1.0 - c), j2)):
        parts = np.zeros((2 * z.size, r.size))
        add_product(parts, phases, factor[:, None] * bessel)
        real, imag = parts[: z.size], parts[z.size :]
        table += real * real + imag * imag
    return table
