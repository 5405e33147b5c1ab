"""A sampled spectrum, linear between its points and zero outside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Points = tuple[tuple[float, float], ...]
"""(wavelength in nm, value) pairs, as in a spec or JSON file."""


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """A piecewise-linear function of wavelength: strictly increasing wavelengths and their values, both (n,)."""

    wavelength_nm: NDArray[np.float64]
    value: NDArray[np.float64]

    @staticmethod
    @lru_cache(maxsize=256)
    def of(points: Points) -> Spectrum:
        """Spectrum through these points, read-only; equal points share one object."""
        table = np.array(points, dtype=np.float64)
        table.flags.writeable = False
        return Spectrum(table[:, 0], table[:, 1])

    def at(self, wavelength_nm: float) -> float:
        """Value at a wavelength by linear interpolation; 0 outside the table."""
        return float(np.interp(wavelength_nm, self.wavelength_nm, self.value, left=0.0, right=0.0))

    def __call__(self, wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at wavelengths (n,) by linear interpolation; 0 outside the table."""
        if not self.wavelength_nm.size:
            return np.zeros_like(wavelength_nm)
        return np.interp(wavelength_nm, self.wavelength_nm, self.value, left=0.0, right=0.0)

    def within(self, low_nm: float, high_nm: float) -> Spectrum:
        """Part inside [low_nm, high_nm], with points at both ends of the band; empty if they do not overlap."""
        if low_nm > high_nm:
            raise ValueError(f"a band from {low_nm} to {high_nm} nm ends before it begins; swap the two")
        low, high = max(low_nm, self.wavelength_nm[0]), min(high_nm, self.wavelength_nm[-1])
        if low >= high:
            return Spectrum(np.empty(0), np.empty(0))
        inside = (self.wavelength_nm > low) & (self.wavelength_nm < high)
        nodes = np.concatenate([[low], self.wavelength_nm[inside], [high]])
        return Spectrum(nodes, np.interp(nodes, self.wavelength_nm, self.value))

    def integral(self) -> float:
        """Integral over wavelength (value times nm) by the trapezoid rule, exact for a piecewise-linear function."""
        return float(np.sum(np.diff(self.wavelength_nm) * (self.value[1:] + self.value[:-1])) / 2)

    def mean_nm(self) -> float:
        """Mean wavelength (nm) weighted by value, by Simpson's rule, exact for the parabolas wavelength * value."""
        left, right = self.wavelength_nm[:-1], self.wavelength_nm[1:]
        a, b = self.value[:-1], self.value[1:]
        moment = np.sum((right - left) * (left * a + (left + right) * (a + b) + right * b)) / 6
        return float(moment / self.integral())


_NOISE = 0.02
"""Largest share of the maximum by which a measured baseline may lie below 0."""


def clear_baseline(points: Points) -> Points:
    """Points in which noise of the baseline below 0 is 0, as spectra of databases need; larger negative values stay."""
    least = -_NOISE * max((value for _, value in points), default=0.0)
    return tuple((nm, 0.0 if least <= value < 0 else value) for nm, value in points)


Factor = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of wavelengths (n,) in nm, such as a `Spectrum`."""


def integral_of(first: Spectrum, factors: Sequence[Factor] = (), moment: int = 0) -> float:
    """Integral over wavelength of first * all factors * wavelength^moment, in powers of nm.

    Gauss-Legendre quadrature between the points of all spectra, exact if each factor is a `Spectrum`. The kinks of any other
    factor are known only where these points are. The integrand ends with the table of `first`.
    """
    if not first.wavelength_nm.size:
        return 0.0
    low, high = first.wavelength_nm[0], first.wavelength_nm[-1]
    # A spectrum falls to 0 beyond its table, so that its first and last points are jumps: knots like all others.
    knots = np.concatenate([first.wavelength_nm, *(f.wavelength_nm for f in factors if isinstance(f, Spectrum))])
    knots = np.unique(np.clip(knots, low, high))
    node, weight = np.polynomial.legendre.leggauss((len(factors) + moment + 3) // 2)
    half = np.diff(knots)[:, None] / 2
    nm = (knots[:-1, None] + half * (1 + node)).ravel()
    product = first(nm) * nm**moment
    for factor in factors:
        product = product * factor(nm)
    return float(np.sum(product * (half * weight).ravel()))


def main_band_peak(points: Points) -> int:
    """Index of the maximum of the longest-wavelength (S0-S1) absorption band.

    The band is the first run of points from the red end that reach half of the table's maximum. So a dye that absorbs
    more in the far ultraviolet (ATTO465) gets its visible maximum, and one with its main band in the near ultraviolet
    (Alexa350, ATTO390) gets that. The extinction coefficient that makers publish refers to this maximum.
    """
    value = Spectrum.of(points).value
    high = value >= value.max() / 2
    last = int(np.flatnonzero(high)[-1])
    first = last
    while first > 0 and high[first - 1]:
        first -= 1
    return first + int(np.argmax(value[first : last + 1]))
