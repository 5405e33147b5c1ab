"""What a channel's light excites, and what its filters and detector count: integrals over whole spectra.

Excitations per second of a dye are the integral of sigma(l) L(l) T_ex(l) l / (h c) over the wavelength l, with the dye's cross
section sigma, the light L of the source (power per area and nm) and the transmission T_ex of the excitation filter. The share
of its emission em that is counted is the integral of em(l) T_em(l) T_dichroic(l) QE(l) over that of em.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from simexm.errors import SpecError
from simexm.spectra.curves import Band, Curve
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.spectrum import Factor, Spectrum, integral_of

_NOTHING = Spectrum(np.empty(0), np.empty(0))
_FINE = 4096


@dataclass(frozen=True)
class Transmission:
    """Filters one behind the other.

    Attributes
    ----------
    band_nm
        Band that every filter with sharp edges passes, lowest and highest wavelength; nothing passes if they are reversed.
    curves
        Measured filters.
    """

    band_nm: Band = (0.0, inf)
    curves: tuple[Spectrum, ...] = ()

    @classmethod
    def of(cls, filters: Sequence[Band | Curve]) -> Transmission:
        """The filters as given in a spec, already read."""
        bands = [f for f in filters if isinstance(f, tuple)]
        band = (max((b[0] for b in bands), default=0.0), min((b[1] for b in bands), default=inf))
        return cls(band, tuple(f.spectrum for f in filters if isinstance(f, Curve)))

    def at(self, wavelength_nm: float) -> float:
        """Share of the light at a wavelength that passes."""
        low, high = self.band_nm
        return float(np.prod([c.at(wavelength_nm) for c in self.curves])) if low <= wavelength_nm <= high else 0.0

    def inside(self, spectrum: Spectrum) -> Spectrum:
        """Part of a spectrum within the band; empty if there is none."""
        low, high = self.band_nm
        return spectrum.within(low, high) if low < high else _NOTHING

    def passes_nm(self) -> Band:
        """Lowest and highest wavelength at which half of the largest transmission passes; (0, 0) if nothing does."""
        if not self.curves:
            return self.band_nm
        first = self.inside(self.curves[0])
        if not first.wavelength_nm.size:
            return 0.0, 0.0
        nm = np.linspace(first.wavelength_nm[0], first.wavelength_nm[-1], _FINE)
        nm = np.unique(np.concatenate([nm, *(self.inside(c).wavelength_nm for c in self.curves)]))
        value = np.prod([c(nm) for c in self.curves], axis=0)
        high = np.flatnonzero(value >= value.max() / 2)
        return (float(nm[high[0]]), float(nm[high[-1]])) if value.max() > 0 else (0.0, 0.0)


def detected_share(dye: Fluorophore, filters: Transmission, efficiency: Factor | None = None) -> float:
    """Share of a dye's photons that pass the filters and are counted.

    `efficiency` is the detector's at wavelengths (n,) in nm, by default 1; the integral is exact if it is a `Spectrum`.
    """
    emission = Spectrum.of(dye.emission)
    return _passed(emission, filters, efficiency) / emission.integral()


def mean_detected_nm(dye: Fluorophore, filters: Transmission, efficiency: Factor | None = None) -> float:
    """Mean wavelength of a dye's counted photons, nm; SpecError if none is counted."""
    if not filters.curves and efficiency is None:
        return dye.mean_emission_nm(*filters.band_nm)
    emission = Spectrum.of(dye.emission)
    counted = _passed(emission, filters, efficiency)
    if counted == 0:
        raise SpecError(
            f"the filters and the detector count nothing of {dye.name}, which emits most at {dye.peak_emission_nm:g} nm; "
            "choose others"
        )
    factors = (*filters.curves, *([efficiency] if efficiency else ()))
    return integral_of(filters.inside(emission), factors, 1) / counted


def _passed(emission: Spectrum, filters: Transmission, efficiency: Factor | None) -> float:
    factors = (*filters.curves, *([efficiency] if efficiency else ()))
    inside = filters.inside(emission)
    return integral_of(inside, factors) if factors else inside.integral()


@dataclass(frozen=True)
class Excitation:
    """Light at the specimen: laser lines or a continuous spectrum, through filters.

    Attributes
    ----------
    lines
        (wavelength nm, relative power) of each line; empty for a continuous source.
    source
        Relative power per nm of a continuous source; None for lines.
    filters
        Excitation filters.
    """

    lines: tuple[tuple[float, float], ...] = ()
    source: Spectrum | None = None
    filters: Transmission = Transmission()

    def passed_share(self) -> float:
        """Share of the source's power that passes the filters."""
        if self.source is None:
            return self._over_lines() / sum(power for _, power in self.lines)
        return self._over_source() / self.source.integral()

    def mean_nm(self) -> float:
        """Mean wavelength of the photons that pass, nm; that of a single line is the line. SpecError if none passes."""
        if len(self.lines) == 1:
            return self.lines[0][0]
        over = self._over_lines if self.source is None else self._over_source
        photons = over(moment=1)
        if photons == 0:
            raise SpecError("the excitation filter passes nothing of the source; choose another of them")
        return over(moment=2) / photons

    def absorbed(self, dye: Fluorophore) -> float:
        """Absorption of this light relative to that of as much power at the dye's peak cross section and `mean_nm`.

        The peak cross section times this, times the photon flux that the source's power has at `mean_nm`, is the integral of
        the module's docstring. For a single line it is the relative absorption there, times the filter's transmission.
        """
        if len(self.lines) == 1:
            line = self.lines[0][0]
            return dye.excitation_at(line) * self.filters.at(line)
        absorption = Spectrum.of(dye.excitation)
        if self.source is None:
            return self._over_lines(absorption, 1) / sum(power for _, power in self.lines) / self.mean_nm()
        return self._over_source(absorption, 1) / self.source.integral() / self.mean_nm()

    def leaked_share(self, filters: Transmission) -> float:
        """Share of the light at the specimen that passes the filters of the detection, were it scattered into them."""
        passed = self.passed_share()
        if self.source is None:
            total = sum(power for _, power in self.lines)
            leaked = sum(power * self.filters.at(nm) * filters.at(nm) for nm, power in self.lines) / total
        else:
            both = Transmission(_both(self.filters.band_nm, filters.band_nm), self.filters.curves + filters.curves)
            leaked = integral_of(both.inside(self.source), both.curves) / self.source.integral()
        return leaked / passed if passed else 0.0

    def _over_lines(self, spectrum: Spectrum | None = None, moment: int = 0) -> float:
        """Sum over lines of power * transmission * spectrum * wavelength^moment."""
        return sum(
            power * self.filters.at(nm) * (spectrum.at(nm) if spectrum else 1.0) * nm**moment
            for nm, power in self.lines
        )

    def _over_source(self, spectrum: Spectrum | None = None, moment: int = 0) -> float:
        """Integral of source * transmission * spectrum * wavelength^moment."""
        assert self.source is not None
        factors = (*self.filters.curves, *([spectrum] if spectrum else ()))
        return integral_of(self.filters.inside(self.source), factors, moment)


def _both(first: Band, second: Band) -> Band:
    return max(first[0], second[0]), min(first[1], second[1])
