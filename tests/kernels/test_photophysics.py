"""Closed forms and limits of the photon budget of a dye."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import constants
from scipy.integrate import quad

from simexm.kernels.emission.photophysics import (
    cross_section_m2,
    emitted_photons,
    excitation_rate_per_s,
    photon_energy_J,
    photon_flux_per_m2_per_s,
    pulse_saturated_rate_per_s,
    saturated_rate_per_s,
    two_photon_rate_per_s,
)

rates = st.floats(1e-3, 1e15)


def test_cross_section_of_a_bright_dye() -> None:
    assert cross_section_m2(90000) == pytest.approx(3.44e-20, rel=1e-3)


def test_a_layer_of_dyes_darkens_a_beam_as_lambert_beer_says() -> None:
    micromolar, path_m, extinction = 5.0, 1e-2, 90000.0
    dyes_per_m3 = micromolar * 1e-6 * 1e3 * constants.N_A
    absorbance = extinction * micromolar * 1e-6 * path_m * 1e2
    transmitted = math.exp(-cross_section_m2(extinction) * dyes_per_m3 * path_m)
    assert transmitted == pytest.approx(10**-absorbance, rel=1e-12)


def test_photons_of_one_joule() -> None:
    assert photon_energy_J(1239.841984) == pytest.approx(constants.e, rel=1e-9)  # 1 eV
    fluence = photon_flux_per_m2_per_s(10.0, 488) * 0.1
    assert fluence == pytest.approx(488e-9 / (constants.h * constants.c), rel=1e-12)


@given(rates, st.floats(0.1, 20))
def test_saturation_has_the_right_limits(rate_per_s: float, lifetime_ns: float) -> None:
    saturated = saturated_rate_per_s(rate_per_s, lifetime_ns)
    assert saturated <= min(rate_per_s, 1e9 / lifetime_ns * (1 + 1e-12))
    # The mean time between excitations is the wait for a photon plus the time in the excited state.
    assert 1 / saturated == pytest.approx(1 / rate_per_s + lifetime_ns * 1e-9, rel=1e-12)


def test_saturation_is_pointwise_on_an_array() -> None:
    irradiance = np.array([[0.0, 1e3], [1e8, 1e12]])
    rate = excitation_rate_per_s(3.44e-20, irradiance, 488)
    table = saturated_rate_per_s(rate, 4.1)
    for index in np.ndindex(irradiance.shape):
        alone = excitation_rate_per_s(3.44e-20, float(irradiance[index]), 488)
        assert table[index] == pytest.approx(saturated_rate_per_s(alone, 4.1), rel=1e-15)


def test_weak_light_is_absorbed_in_proportion_to_the_fluence() -> None:
    photons = emitted_photons(3.44e-20, 1e3, 488, exposure_s=0.05, quantum_yield=0.8, lifetime_ns=4.1)
    assert photons == pytest.approx(3.44e-20 * photon_flux_per_m2_per_s(1e3, 488) * 0.05 * 0.8, rel=1e-5)
    bright = emitted_photons(3.44e-20, 1e20, 488, exposure_s=0.05, quantum_yield=0.8, lifetime_ns=4.1)
    assert bright == pytest.approx(0.05 * 0.8 / 4.1e-9, rel=1e-6)


def test_two_photon_rate_equals_the_integral_over_a_gaussian_pulse() -> None:
    cross_section_GM, mean_flux, repetition_Hz, pulse_s = 36.0, 1e30, 80e6, 100e-15
    # A pulse train of this mean flux: peak * exp(-4 ln 2 t^2 / tau^2), f times a second.
    area_s = pulse_s * math.sqrt(math.pi / (4 * math.log(2)))
    peak_flux = mean_flux / (repetition_Hz * area_s)

    def flux_squared(t: float) -> float:
        """Square of the flux over that at the peak; t in pulse lengths."""
        return math.exp(-4 * math.log(2) * t * t) ** 2

    mean_square = repetition_Hz * peak_flux**2 * pulse_s * quad(flux_squared, -5, 5)[0]
    expected = cross_section_GM * 1e-58 * mean_square / 2
    rate = two_photon_rate_per_s(cross_section_GM, mean_flux, repetition_Hz=repetition_Hz, pulse_s=pulse_s, g=0.6643)
    assert rate == pytest.approx(expected, rel=1e-4)
    ours = two_photon_rate_per_s(cross_section_GM, mean_flux, repetition_Hz=repetition_Hz, pulse_s=pulse_s)
    assert ours == pytest.approx(expected, rel=0.01)


@given(st.floats(1e24, 1e34), st.floats(1.1, 100))
def test_two_photon_excitation_is_quadratic_and_favours_short_pulses(flux: float, times: float) -> None:
    base = two_photon_rate_per_s(30, flux, repetition_Hz=80e6, pulse_s=1e-13)
    assert two_photon_rate_per_s(30, flux * times, repetition_Hz=80e6, pulse_s=1e-13) == pytest.approx(base * times**2)
    assert two_photon_rate_per_s(30, flux, repetition_Hz=80e6, pulse_s=1e-13 * times) == pytest.approx(base / times)
    assert two_photon_rate_per_s(30, flux, repetition_Hz=80e6 * times, pulse_s=1e-13) == pytest.approx(base / times)


@given(rates)
def test_a_pulse_excites_at_most_once(rate_per_s: float) -> None:
    saturated = pulse_saturated_rate_per_s(rate_per_s, 80e6)
    assert 0 < saturated <= min(rate_per_s, 80e6)
    assert saturated == pytest.approx(-80e6 * math.expm1(-rate_per_s / 80e6), rel=2e-15)
