"""How brightness follows the light: linear, quadratic, saturated; and how much of a dye other channels see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simexm.kernels.emission.photophysics import AVOGADRO_PER_MOL, LIGHT_SPEED_M_PER_S, PLANCK_J_S
from simexm.spectra.fluorophores import load_builtin
from simexm.stages import Confocal, Widefield
from tests.stages.optics_build import Bench, microscope

SHAPE = (1, 24, 24)


def bench(kind: str, power: float) -> Bench:
    return Bench(microscope(kind, pixel=50, plane=300, power=power, axial_range_um=1), SHAPE, depth_nm=4000)


def image(b: Bench) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A dye in the middle pixel, in focus."""
    return np.asarray(b.image(b.centre())[0, 0], np.float64)


@pytest.mark.parametrize(
    ("kind", "power", "order"), [("confocal", 0.01, 1), ("two_photon", 0.01, 2), ("widefield", 0.01, 1)]
)
def test_weak_light_counts_once_or_twice(kind: str, power: float, order: int) -> None:
    once, twice = image(bench(kind, power)), image(bench(kind, 2 * power))
    np.testing.assert_allclose(twice, once * 2**order, atol=2e-3 * twice.max())


@pytest.mark.parametrize(("kind", "weak", "strong"), [("confocal", 0.01, 2000.0), ("two_photon", 0.1, 2000.0)])
def test_strong_light_saturates_a_focus_and_widens_it(kind: str, weak: float, strong: float) -> None:
    order = 2 if kind == "two_photon" else 1
    low, high = bench(kind, weak), bench(kind, strong)
    linear = image(low) * (strong / weak) ** order
    saturated = image(high)
    assert saturated.max() < 0.5 * linear.max()
    assert np.all(saturated <= linear * (1 + 1e-3) + 1e-3 * saturated.max())
    assert high.pair.fwhm_nm[1] > 1.15 * low.pair.fwhm_nm[1]
    assert high.pair.fwhm_nm[0] is None or low.pair.fwhm_nm[0] is None or high.pair.fwhm_nm[0] > low.pair.fwhm_nm[0]
    # the grid follows the shape that is there, not that of weak light
    place = high.centre() + np.array([0.0, 11.0, 17.0])
    exact = high.direct(place)[0]
    assert np.abs(high.image(place)[0, 0] - exact).max() < 5e-3 * exact.max()


def test_widefield_saturates_all_over_alike() -> None:
    weak, strong = bench("widefield", 1.0), bench("widefield", 1e6)
    ratio = image(strong) / image(weak)
    dye = strong.dye
    sigma = math.log(10) * 0.1 * dye.extinction_per_M_per_cm / AVOGADRO_PER_MOL * dye.excitation_at(488)
    rates = [sigma * p * 1e4 * 488e-9 / (PLANCK_J_S * LIGHT_SPEED_M_PER_S) for p in (1.0, 1e6)]
    emitted = [k / (1 + k * dye.lifetime_ns * 1e-9) for k in rates]
    assert emitted[1] < 0.9e6 * emitted[0]
    bright = image(weak) > 1e-3 * image(weak).max()
    np.testing.assert_allclose(ratio[bright], emitted[1] / emitted[0], rtol=1e-3)


def test_photo_electrons_of_a_dye_from_first_principles() -> None:
    """Widefield: cross-section times fluence times yield times everything that light loses on its way."""
    b = Bench(microscope("widefield", pixel=162.5, plane=500, power=3.0, axial_range_um=10), (1, 1, 1), depth_nm=20_000)
    dye, optics = b.dye, b.optics
    assert isinstance(optics, Widefield)
    sigma_cm2 = 3.82353e-21 * dye.extinction_per_M_per_cm * dye.excitation_at(488)
    fluence_per_cm2 = 3.0 * optics.exposure_s / (6.62607015e-34 * 2.99792458e8 / 488e-9)
    cone = (1 - math.cos(math.asin(1.15 / 1.333))) / 2
    emission = np.array(dye.emission)
    nm = np.linspace(emission[0, 0], emission[-1, 0], 20001)
    spectrum = np.interp(nm, *emission.T)
    seen = spectrum[(nm >= 500) & (nm <= 550)].sum() / spectrum.sum()
    expected = sigma_cm2 * fluence_per_cm2 * dye.quantum_yield * cone * 0.8 * seen
    # less the rings beyond the lateral end of the table, 18 um from the axis
    assert expected * 0.99 < b.pair.in_focus < expected


def test_other_channels_see_a_dye_by_the_ratio_of_the_rates() -> None:
    """Both channels see both dyes; in the sum over pixels of one plane, weak light and an open pinhole leave rates alone."""
    dyes = {n: load_builtin()[n] for n in ("ATTO488", "ATTO550")}
    channels = [
        {"name": "green", "laser_wavelength_nm": 488, "band_nm": (500, 550), "laser_power_uW": 0.05},
        {"name": "orange", "laser_wavelength_nm": 532, "band_nm": (560, 620), "laser_power_uW": 0.1},
    ]
    optics = Confocal.model_validate(
        {
            "numerical_aperture": 1.0, "pixel_size_nm": 160, "plane_spacing_nm": 500, "axial_range_um": 1,
            "pinhole_airy_units": 15, "channels": channels,
        }
    )  # fmt: skip
    b = Bench(optics, (1, 60, 60), dyes, depth_nm=4000)
    assert {(p.channel, p.dye) for p in b.plan.pairs} == {(c, d) for c in ("green", "orange") for d in dyes}
    empty = np.zeros((0, 3))
    for name, dye in dyes.items():
        seen = b.image({n: b.centre()[None] if n == name else empty for n in dyes}).sum(axis=(1, 2, 3), dtype=float)
        rates = [
            c.laser_power_uW * c.excitation_nm * dye.excitation_at(c.excitation_nm) * dye.emission_share(*c.passes_nm)
            for c in optics.channels
        ]
        assert seen[1] / seen[0] == pytest.approx(rates[1] / rates[0], rel=0.02)
        assert min(seen) > 0
    both = b.image({n: b.centre()[None] for n in dyes})
    parts = [b.image({n: b.centre()[None] if n == name else empty for n in dyes}) for name in dyes]
    np.testing.assert_allclose(both, parts[0] + parts[1], atol=1e-6 * both.max())
