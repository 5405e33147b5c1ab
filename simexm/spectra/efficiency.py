"""Quantum efficiency of a detector over wavelength, and what it counts of a dye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.spectra.curves import Curve
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import Transmission, detected_share, mean_detected_nm
from simexm.spectra.spectrum import Factor


class Efficiency(Protocol):
    """Quantum efficiency of a detector."""

    def at(self, wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Photo-electrons per photon at each wavelength, 0 to 1."""


@dataclass(frozen=True)
class ConstantEfficiency:
    """The same quantum efficiency at every wavelength."""

    value: float

    def at(self, wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Efficiency`."""
        return np.full(np.shape(wavelength_nm), self.value)


@dataclass(frozen=True)
class CurveEfficiency:
    """A measured curve, 0 beyond its ends."""

    curve: Curve

    def at(self, wavelength_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Efficiency`."""
        return self.curve.spectrum(wavelength_nm)


EVERY_PHOTON = ConstantEfficiency(1.0)
"""Efficiency without a detector: the expected image counts the photons that would reach one."""


def mean_efficiency(efficiency: Efficiency, dye: Fluorophore, filters: Transmission) -> float:
    """Photo-electrons per photon of a dye that passes the filters."""
    if isinstance(efficiency, ConstantEfficiency):
        return efficiency.value
    return detected_share(dye, filters, _factor(efficiency)) / detected_share(dye, filters)


def counted_nm(efficiency: Efficiency, dye: Fluorophore, filters: Transmission) -> float:
    """Mean wavelength of a dye's counted photons, nm; SpecError if none is counted."""
    return mean_detected_nm(dye, filters, _factor(efficiency))


def _factor(efficiency: Efficiency) -> Factor | None:
    if isinstance(efficiency, ConstantEfficiency):
        return None
    return efficiency.curve.spectrum if isinstance(efficiency, CurveEfficiency) else efficiency.at
