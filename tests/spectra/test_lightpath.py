"""Laws of light paths: closed forms, an independent integration, and the limit of a line."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from simexm.errors import SpecError
from simexm.kernels.emission.photophysics import (
    LIGHT_SPEED_M_PER_S,
    PLANCK_J_S,
    cross_section_m2,
    excitation_rate_per_s,
)
from simexm.spectra.curves import Curve
from simexm.spectra.dyes import GaussianDye
from simexm.spectra.efficiency import mean_efficiency
from simexm.spectra.fluorophores import Fluorophore, load_builtin
from simexm.spectra.lightpath import Excitation, Transmission, detected_share, mean_detected_nm
from simexm.spectra.spectrum import Spectrum, integral_of
from simexm.stages import Camera, Confocal, Widefield
from tests.stages.optics_build import Bench, microscope

DYE = load_builtin()["ATTO488"]
RAMP = Curve(points=((480, 0.1), (530, 0.9), (560, 0.3)))
STEP = Curve(points=((400, 0.02), (498, 0.05), (505, 0.95), (900, 0.97)))
LAMP = Curve(points=((430, 1), (460, 5), (480, 2), (510, 7), (560, 0)))
FILTER = Curve(points=((440, 0), (455, 0.9), (490, 0.85), (500, 0)))


def flat_dye() -> Fluorophore:
    """A dye with rectangular spectra: absorption 400 to 500 nm, emission 500 to 600 nm."""
    return Fluorophore(
        name="flat", extinction_per_M_per_cm=1e5, quantum_yield=0.5, lifetime_ns=3,
        excitation=((400, 1), (500, 1)), emission=((500, 1), (600, 1)),
    )  # fmt: skip


def numeric(*functions: Any, moment: int = 0, between: tuple[float, float] = (300, 900)) -> float:
    """Integral of a product of functions, by adaptive quadrature between all of their points."""
    knots = {k for f in functions if isinstance(f, Spectrum) for k in f.wavelength_nm} | set(between)
    knots = {k for k in knots if between[0] <= k <= between[1]}

    def product(nm: float) -> float:
        return float(math.prod(f(np.array([nm]))[0] for f in functions) * nm**moment)

    edges = sorted(knots)
    return float(sum(quad(product, a + 1e-9, b - 1e-9)[0] for a, b in pairwise(edges)))


# -------------------------------------------------------------------- closed forms


def test_box_filters_over_flat_spectra_pass_their_width() -> None:
    dye = flat_dye()
    assert detected_share(dye, Transmission.of([(520, 550)])) == pytest.approx(0.3, rel=1e-12)
    assert detected_share(dye, Transmission.of([(520, 550), (540, 700)])) == pytest.approx(0.1, rel=1e-12)
    assert detected_share(dye, Transmission.of([(520, 530), (540, 700)])) == 0
    half = Curve(points=((300, 0.5), (900, 0.5)))
    assert detected_share(dye, Transmission.of([half, (520, 550), half])) == pytest.approx(0.075, rel=1e-12)
    assert mean_detected_nm(dye, Transmission.of([half, (520, 550)])) == pytest.approx(535, rel=1e-12)
    ramp = Curve(points=((500, 0), (600, 1)))  # the share is 1/2, the mean 500 + 2/3 of 100 nm
    assert detected_share(dye, Transmission.of([ramp])) == pytest.approx(0.5, rel=1e-12)
    assert mean_detected_nm(dye, Transmission.of([ramp])) == pytest.approx(500 + 200 / 3, rel=1e-12)
    # ramp * ramp * efficiency ramp: the mean of u^3, and of u^4 over that
    share = detected_share(dye, Transmission.of([ramp, ramp]), ramp.spectrum)
    assert share == pytest.approx(1 / 4, rel=1e-12)
    assert mean_detected_nm(dye, Transmission.of([ramp, ramp]), ramp.spectrum) == pytest.approx(580, rel=1e-12)


def test_a_flat_lamp_excites_by_its_photons() -> None:
    dye = flat_dye()  # rate: integral of (1 / width) l dl over 400 to 500 nm, of a lamp from 450 to 650 nm
    lamp = Excitation(source=Spectrum.of(((450, 3), (650, 3))))
    mean = (650**3 - 450**3) / 3 / ((650**2 - 450**2) / 2)
    assert lamp.mean_nm() == pytest.approx(mean, rel=1e-12)
    assert lamp.absorbed(dye) * mean == pytest.approx((500**2 - 450**2) / 2 / 200, rel=1e-12)
    boxed = Excitation(source=lamp.source, filters=Transmission.of([(480, 490)]))
    assert boxed.passed_share() == pytest.approx(10 / 200, rel=1e-12)
    assert boxed.absorbed(dye) * boxed.mean_nm() == pytest.approx(485 * 10 / 200, rel=1e-12)


@given(st.floats(450, 600), st.floats(5, 60), st.floats(20, 80))
def test_gaussian_spectra_through_a_gaussian_filter(center: float, filter_sigma: float, fwhm: float) -> None:
    sigma = fwhm / math.sqrt(8 * math.log(2))
    dye = GaussianDye(
        peak_excitation_nm=480, peak_emission_nm=525, excitation_fwhm_nm=40, emission_fwhm_nm=fwhm,
        extinction_per_M_per_cm=1e5, quantum_yield=0.5, lifetime_ns=3,
    ).load("g")  # fmt: skip

    def passes(nm: Any) -> Any:
        return np.exp(-((nm - center) ** 2) / (2 * filter_sigma**2))

    both = math.hypot(sigma, filter_sigma)
    expected = filter_sigma / both * math.exp(-((525 - center) ** 2) / (2 * both**2))
    found = detected_share(dye, Transmission(), passes)
    assert found == pytest.approx(expected, abs=3e-3)
    if expected > 0.05:  # the product of two Gaussians is one about their weighted mean
        mean = (525 * filter_sigma**2 + center * sigma**2) / both**2
        assert mean_detected_nm(dye, Transmission(), passes) == pytest.approx(mean, abs=0.5)


# -------------------------------------------------------------------- independent integration


def test_every_integral_equals_an_independent_quadrature() -> None:
    em, ex, lamp = (Spectrum.of(p) for p in (DYE.emission, DYE.excitation, LAMP.points))
    ramp, step, cut = RAMP.spectrum, STEP.spectrum, FILTER.spectrum
    filters = Transmission.of([RAMP, STEP, (505, 550)])
    counted = numeric(em, ramp, step, between=(505, 550))
    assert detected_share(DYE, filters) == pytest.approx(counted / numeric(em), rel=1e-7)
    counted_by = numeric(em, ramp, step, lamp, between=(505, 550))
    assert detected_share(DYE, filters, lamp) == pytest.approx(counted_by / numeric(em), rel=1e-7)
    moment = numeric(em, ramp, step, lamp, moment=1, between=(505, 550))
    assert mean_detected_nm(DYE, filters, lamp) == pytest.approx(moment / counted_by, rel=1e-7)
    light = Excitation(source=lamp, filters=Transmission.of([FILTER]))
    assert light.passed_share() == pytest.approx(numeric(lamp, cut) / numeric(lamp), rel=1e-7)
    assert light.absorbed(DYE) * light.mean_nm() == pytest.approx(
        numeric(lamp, cut, ex, moment=1) / numeric(lamp), rel=1e-7
    )
    assert light.leaked_share(filters) == pytest.approx(0, abs=1e-12)
    wide = Transmission.of([STEP])
    assert light.leaked_share(wide) == pytest.approx(numeric(lamp, cut, step) / numeric(lamp, cut), rel=1e-7)


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=6), min_size=1, max_size=4), st.integers(0, 2))
def test_products_of_spectra_are_integrated_exactly(values: list[list[float]], moment: int) -> None:
    spectra = [Spectrum.of(tuple(zip(np.linspace(400 + 7 * n, 700 - 11 * n, len(v)), v, strict=True))) for n, v in enumerate(values)]  # fmt: skip
    fine = np.unique(np.concatenate([*(s.wavelength_nm for s in spectra), np.linspace(400, 700, 40)]))
    inside = fine[
        (fine >= max(s.wavelength_nm[0] for s in spectra)) & (fine <= min(s.wavelength_nm[-1] for s in spectra))
    ]
    node, weight = np.polynomial.legendre.leggauss(8)
    half = np.diff(inside)[:, None] / 2
    nm = (inside[:-1, None] + half * (1 + node)).ravel()
    expected = np.sum(np.prod([s(nm) for s in spectra], axis=0) * nm**moment * (half * weight).ravel())
    assert integral_of(spectra[0], spectra[1:], moment) == pytest.approx(expected, rel=1e-10, abs=1e-12)


# -------------------------------------------------------------------- limits and additivity


def test_a_line_is_the_limit_of_a_narrow_curve() -> None:
    line = Excitation(((488.0, 1.0),))
    errors = []
    for width in (4.0, 1.0, 0.25):
        narrow = Excitation(source=Spectrum.of(((488 - width, 0), (488, 1), (488 + width, 0))))
        assert narrow.mean_nm() == pytest.approx(488, abs=width**2 / 1000)
        errors.append(abs(narrow.absorbed(DYE) - line.absorbed(DYE)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    assert line.absorbed(DYE) == DYE.excitation_at(488)


def test_lines_add_up_and_filters_take_their_share() -> None:
    both = Excitation(((488.0, 3.0), (561.0, 1.0)))
    alone = [Excitation(((nm, 1.0),)).absorbed(DYE) * nm for nm in (488.0, 561.0)]
    assert both.absorbed(DYE) * both.mean_nm() == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=1e-12)
    assert both.mean_nm() == pytest.approx((3 * 488**2 + 561**2) / (3 * 488 + 561), rel=1e-12)
    cut = Excitation(both.lines, filters=Transmission.of([(480, 500)]))
    assert cut.passed_share() == 0.75
    assert cut.mean_nm() == pytest.approx(488)
    assert cut.absorbed(DYE) == pytest.approx(0.75 * DYE.excitation_at(488))
    dim = Excitation(((488.0, 1.0),), filters=Transmission.of([Curve(points=((400, 0.25), (600, 0.25)))]))
    assert dim.absorbed(DYE) == DYE.excitation_at(488) / 4


@given(st.floats(450, 640), st.floats(460, 660), st.floats(0.1, 1))
def test_a_band_split_in_two_passes_the_same(low: float, middle: float, share: float) -> None:
    edges = sorted((low, middle, 700.0))
    grey = Curve(points=((300, share), (900, share)))
    parts = sum(detected_share(DYE, Transmission.of([(a, b), RAMP, grey])) for a, b in pairwise(edges) if a < b)  # fmt: skip
    whole = detected_share(DYE, Transmission.of([(edges[0], edges[-1]), RAMP]))
    assert parts == pytest.approx(share * whole, rel=1e-9, abs=1e-12)


def test_a_band_without_curves_is_the_dyes_own_share_to_the_bit() -> None:
    for dye in load_builtin().values():
        band = (dye.peak_emission_nm - 17.3, dye.peak_emission_nm + 31.7)
        assert detected_share(dye, Transmission.of([band])) == dye.emission_share(*band)
        assert mean_detected_nm(dye, Transmission.of([band])) == dye.mean_emission_nm(*band)


def test_nothing_is_told() -> None:
    with pytest.raises(SpecError, match="count nothing of ATTO488, which emits most at 5"):
        mean_detected_nm(DYE, Transmission.of([Curve(points=((800, 1), (900, 1)))]))
    with pytest.raises(SpecError, match="excitation filter passes nothing"):
        Excitation(source=LAMP.spectrum, filters=Transmission.of([(700, 800)])).mean_nm()


# -------------------------------------------------------------------- in a microscope


COMMON: dict[str, Any] = {"numerical_aperture": 1.0, "pixel_size_nm": 160, "plane_spacing_nm": 500}


def test_a_lamp_excites_by_the_law_of_the_integral() -> None:
    """Photons of a dye in weak light: phi t times the integral of sigma(l) L(l) T(l) l / (h c) dl, by hand."""
    channel = {
        "name": "c",
        "irradiance_W_per_cm2": 1e-3,
        "source": LAMP,
        "excitation_filter": FILTER,
        "band_nm": (505, 550),
    }
    optics = Widefield.model_validate({**COMMON, "exposure_s": 0.2, "channels": [channel]})
    light, lamp = optics.channels[0], LAMP.spectrum
    sigma = cross_section_m2(DYE.extinction_per_M_per_cm)
    per_area = 1e-3 * 1e4 / numeric(lamp)  # W per m^2 and nm, at the value 1
    absorbed = numeric(lamp, FILTER.spectrum, Spectrum.of(DYE.excitation), moment=1)
    rate = sigma * per_area * absorbed * 1e-9 / (PLANCK_J_S * LIGHT_SPEED_M_PER_S)
    assert optics.emitted(light, DYE, np.zeros(1))[0] == pytest.approx(rate * 0.2 * DYE.quantum_yield, rel=1e-6)
    assert optics.excites(light, DYE)
    strong = excitation_rate_per_s(optics.cross_section_m2(light, DYE), 10.0, light.excitation_nm)
    assert strong == pytest.approx(rate, rel=1e-6)


def test_strong_light_saturates_whatever_its_spectrum() -> None:
    channel = {
        "name": "c",
        "irradiance_W_per_cm2": 1e7,
        "source": LAMP,
        "excitation_filter": FILTER,
        "band_nm": (505, 550),
    }
    optics = Widefield.model_validate({**COMMON, "exposure_s": 0.2, "channels": [channel]})
    rate = excitation_rate_per_s(
        optics.cross_section_m2(optics.channels[0], DYE), 1e11, optics.channels[0].excitation_nm
    )
    photons = optics.emitted(optics.channels[0], DYE, np.zeros(1))[0]
    tau = DYE.lifetime_ns * 1e-9
    assert photons == pytest.approx(0.2 * DYE.quantum_yield * rate / (1 + rate * tau), rel=1e-12)
    assert 0.75 < photons * tau / (0.2 * DYE.quantum_yield) < 1


@pytest.mark.parametrize("kind", ["widefield", "confocal"])
def test_an_image_by_narrow_curves_is_that_of_a_line_and_a_band(kind: str) -> None:
    narrow = Curve(points=((487.9, 0), (488, 1), (488.1, 0)))
    steep = Curve(points=((499.9, 0), (500.1, 1), (549.9, 1), (550.1, 0)))
    simple = microscope(kind, pixel=160, plane=400, axial_range_um=0.8)
    given = simple.all_channels[0].model_dump() | {"laser_wavelength_nm": None, "band_nm": None}
    curved = type(simple).model_validate(
        simple.model_dump()
        | {"channels": [given | {"source": narrow, "emission_filter": steep, "dichroic": (490, 900)}]}
    )
    images = [Bench(optics, (2, 12, 12)) for optics in (simple, curved)]
    line, narrowed = (b.image(b.centre() + 30.0) for b in images)
    assert np.abs(line - narrowed).max() < 1e-3 * line.max()
    assert images[1].pair.emission_nm == pytest.approx(images[0].pair.emission_nm, abs=0.01)


def test_an_efficiency_curve_counts_where_the_dye_emits() -> None:
    def collected(efficiency: Any) -> tuple[float, float]:
        optics = Confocal.model_validate(
            {
                **COMMON,
                "channels": [{"name": "c", "laser_power_uW": 5, "laser_wavelength_nm": 488, "band_nm": (500, 600)}],
            }
        )
        detector = Camera.model_validate({"quantum_efficiency": efficiency}).resolved({})
        (channel, dye, nm) = optics.seen({"ATTO488": DYE}, detector.efficiency)[0]
        return mean_efficiency(detector.efficiency, dye, channel.detection) * optics.collected(channel, dye), nm

    number, nm = collected(0.6)
    same, same_nm = collected(Curve(points=((300, 0.6), (1000, 0.6))))
    assert same == pytest.approx(number, rel=1e-12)
    assert same_nm == pytest.approx(nm, rel=1e-12)
    red, red_nm = collected(Curve(points=((500, 0), (600, 1))))
    em = Spectrum.of(DYE.emission)
    ramp = Spectrum.of(((500.0, 0.0), (600.0, 1.0)))
    assert red / number == pytest.approx(numeric(em, ramp) / (0.6 * numeric(em, between=(500, 600))), rel=1e-7)
    assert red_nm > nm + 5
