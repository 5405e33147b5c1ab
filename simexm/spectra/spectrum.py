"""A sampled spectrum, linear between its points and zero outside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Points = tuple[tuple[float, float], ...]
"""(wavelength in nm, value) pairs: what a spec and a JSON file hold."""


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """A piecewise-linear function of wavelength.

    Attributes
    ----------
    wavelength_nm
        Shape (n,), strictly increasing, nm.
    value
        Shape (n,); its unit is that of the points it was made of.
    """

    wavelength_nm: NDArray[np.float64]
    value: NDArray[np.float64]

    @staticmethod
    @lru_cache(maxsize=256)
    def of(points: Points) -> Spectrum:
        """The spectrum through these points; one shared, read-only object for equal points."""
        table = np.array(points, dtype=np.float64)
        table.flags.writeable = False
        return Spectrum(table[:, 0], table[:, 1])

    def at(self, wavelength_nm: float) -> float:
        """The value at one wavelength (nm), by linear interpolation; 0 outside the table."""
        return float(np.interp(wavelength_nm, self.wavelength_nm, self.value, left=0.0, right=0.0))

    def within(self, low_nm: float, high_nm: float) -> Spectrum:
        """The part inside [low_nm, high_nm], with points at the band's own ends; fewer than two points if none."""
        if low_nm > high_nm:
            raise ValueError(f"a band from {low_nm} to {high_nm} nm ends before it begins; swap the two")
        low, high = max(low_nm, self.wavelength_nm[0]), min(high_nm, self.wavelength_nm[-1])
        if low >= high:
            return Spectrum(np.empty(0), np.empty(0))
        inside = (self.wavelength_nm > low) & (self.wavelength_nm < high)
        nodes = np.concatenate([[low], self.wavelength_nm[inside], [high]])
        return Spectrum(nodes, np.interp(nodes, self.wavelength_nm, self.value))

    def integral(self) -> float:
        """Integral over wavelength (value times nm): the trapezoid rule, exact for a piecewise-linear function."""
        return float(np.sum(np.diff(self.wavelength_nm) * (self.value[1:] + self.value[:-1])) / 2)

    def mean_nm(self) -> float:
        """Mean wavelength (nm) weighted by value: Simpson's rule, exact for the parabolas wavelength * value."""
        left, right = self.wavelength_nm[:-1], self.wavelength_nm[1:]
        a, b = self.value[:-1], self.value[1:]
        moment = np.sum((right - left) * (left * a + (left + right) * (a + b) + right * b)) / 6
        return float(moment / self.integral())


def main_band_peak(points: Points) -> int:
    """Index of the maximum of the longest-wavelength (S0-S1) absorption band.

    The band is the run of points, counted from the red end, that reach half of the table's maximum. So a dye that
    absorbs more strongly in the far ultraviolet (ATTO465) still has its visible maximum, and one whose lowest band
    lies in the near ultraviolet (Alexa350, ATTO390) has that one. The extinction coefficient that makers publish
    belongs to this maximum.
    """
    value = Spectrum.of(points).value
    high = value >= value.max() / 2
    last = int(np.flatnonzero(high)[-1])
    first = last
    while first > 0 and high[first - 1]:
        first -= 1
    return first + int(np.argmax(value[first : last + 1]))
