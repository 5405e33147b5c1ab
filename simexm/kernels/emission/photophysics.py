"""Photons that a dye absorbs and emits: textbook relations in SI units, for floats and arrays.

All rates are per dye molecule. Irradiance is in W / m^2 in the sample, wavelengths are vacuum wavelengths in nm.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.numbers import detmath

AVOGADRO_PER_MOL = 6.02214076e23
PLANCK_J_S = 6.62607015e-34
LIGHT_SPEED_M_PER_S = 299792458.0
GM_M4_S = 1e-58
"""One Goeppert-Mayer."""

T = TypeVar("T", float, NDArray[np.float64])


def cross_section_m2(extinction_per_M_per_cm: float) -> float:
    """Absorption cross section (m^2) of a decadic molar extinction coefficient (per M per cm).

    ln(10) * 0.1 * eps / N_A: ln(10) converts the decadic to the natural coefficient, and 1 / (M cm) is
    0.1 m^2 / mol (Lakowicz, Principles of Fluorescence Spectroscopy, 3rd ed., chapter 2).
    """
    return float(detmath.log_array(10.0)) * 0.1 * extinction_per_M_per_cm / AVOGADRO_PER_MOL


def photon_energy_J(wavelength_nm: float) -> float:
    """Energy of one photon, h c / lambda, J."""
    return PLANCK_J_S * LIGHT_SPEED_M_PER_S / (wavelength_nm * 1e-9)


def photon_flux_per_m2_per_s(irradiance_W_per_m2: T, wavelength_nm: float) -> T:
    """Photon flux of an irradiance, photons per m^2 and second."""
    return irradiance_W_per_m2 / photon_energy_J(wavelength_nm)


def excitation_rate_per_s(cross_section_m2: float, irradiance_W_per_m2: T, wavelength_nm: float) -> T:
    """One-photon excitations per second of a dye in its ground state, with its cross section at `wavelength_nm`."""
    return cross_section_m2 * photon_flux_per_m2_per_s(irradiance_W_per_m2, wavelength_nm)


def saturated_rate_per_s(rate_per_s: T, lifetime_ns: float) -> T:
    """Excitations per second of a dye that does not absorb while excited: k / (1 + k tau), below 1 / tau.

    The stationary solution of a two-level dye (Tsien, Ernst & Waggoner in Pawley (ed.), Handbook of Biological Confocal
    Microscopy, 3rd ed., chapter 16).
    """
    return rate_per_s / (1 + rate_per_s * (lifetime_ns * 1e-9))


def emitted_photons(
    cross_section_m2: float,
    irradiance_W_per_m2: T,
    wavelength_nm: float,
    *,
    exposure_s: float,
    quantum_yield: float,
    lifetime_ns: float,
) -> T:
    """Photons that a dye emits in all directions during an exposure to steady light, with saturation."""
    rate = excitation_rate_per_s(cross_section_m2, irradiance_W_per_m2, wavelength_nm)
    return saturated_rate_per_s(rate, lifetime_ns) * (exposure_s * quantum_yield)


def two_photon_rate_per_s(
    cross_section_GM: float, photon_flux_per_m2_per_s: T, *, repetition_Hz: float, pulse_s: float, g: float = 0.66
) -> T:
    """Two-photon excitations per second of a dye in its ground state by pulsed light.

    sigma2 Phi^2 g / (2 f tau), with the time-averaged flux Phi, repetition rate f, pulse length tau (FWHM) and pulse
    shape g (0.66 for a Gaussian): Xu & Webb, J. Opt. Soc. Am. B 13, 481 (1996). Their sigma2 (GM = 1e-58 m^4 s) counts
    absorbed photons, two per excitation; g / (f tau) is the mean square flux of the pulses over their squared mean
    flux.
    """
    return photon_flux_per_m2_per_s**2 * (cross_section_GM * GM_M4_S * g / (2 * repetition_Hz * pulse_s))


def pulse_saturated_rate_per_s(rate_per_s: T, repetition_Hz: float) -> T:
    """Excitations per second if a pulse excites a dye at most once: f (1 - exp(-rate / f)).

    Pulses are much shorter than the lifetime, and dyes return to the ground state between them.
    """
    once: T = -repetition_Hz * detmath.expm1_array(-rate_per_s / repetition_Hz)[()]
    return once
