"""Laws of the dye tables and of what is read off them."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.integrate import quad

from simexm.errors import SpecError
from simexm.spectra.colour import wavelength_to_rgb
from simexm.spectra.fluorophores import Fluorophore, find, load_builtin
from simexm.spectra.spectrum import Points

# Absorption maxima that the makers print, nm; the 2017 curves lie within a few nm of them.
OF_2017_NM = {
    "Alexa350": 346,
    "Alexa790": 784,
    "ATTO390": 390,
    "ATTO425": 439,
    "ATTO430LS": 436,
    "ATTO465": 453,
    "ATTO488": 500,
    "ATTO490LS": 496,
    "ATTO550": 554,
    "ATTO647N": 646,
    "ATTO700": 700,
}
MAXIMUM_NM = {**OF_2017_NM, "ATTO643": 643, "Cy5": 644}
NAMES = tuple(MAXIMUM_NM)
dyes = st.sampled_from(NAMES).map(find)
wavelengths = st.floats(200, 1100)


def table(points: Points) -> tuple[list[float], list[float]]:
    wavelength_nm, value = zip(*points, strict=True)
    return list(wavelength_nm), list(value)


def test_the_dyes_are_there() -> None:
    assert set(load_builtin()) == set(NAMES)


@pytest.mark.data
@pytest.mark.parametrize("kind", ["excitation", "emission"])
@pytest.mark.parametrize("name", OF_2017_NM)
def test_interpolation_is_within_half_a_percent_of_the_original(name: str, kind: str, cortex_tif: Path) -> None:
    reference = cortex_tif.parent.parent / "reference" / "fluorophore_spectra.csv"
    if not reference.exists():
        pytest.skip(f"the original spectra are not at {reference}")
    with reference.open() as lines:
        rows = [r for r in csv.DictReader(lines) if (r["fluorophore"], r["spectrum"]) == (name, kind)]
    wavelength_nm = np.array([float(r["wavelength_nm"]) for r in rows])
    value = np.array([float(r["value"]) for r in rows])
    dye = find(name)
    peak_nm = dye.peak_excitation_nm if kind == "excitation" else dye.peak_emission_nm
    value /= value[np.argmin(np.abs(wavelength_nm - peak_nm))]
    ours = np.interp(wavelength_nm, *table(dye.excitation if kind == "excitation" else dye.emission))
    assert np.abs(ours - value).max() <= 0.005


@pytest.mark.parametrize("name", NAMES)
def test_excitation_is_one_at_the_maximum_that_the_extinction_belongs_to(name: str) -> None:
    dye = find(name)
    assert dye.peak_excitation_nm == pytest.approx(MAXIMUM_NM[name], abs=5)
    assert dye.excitation_at(dye.peak_excitation_nm) == 1
    assert max(v for w, v in dye.excitation if w > 320) == 1
    assert max(v for _, v in dye.emission) == 1
    assert dye.peak_emission_nm > dye.peak_excitation_nm


def test_ultraviolet_absorption_may_exceed_the_visible_maximum() -> None:
    assert find("ATTO465").excitation_at(262.8) == pytest.approx(1.154, abs=0.005)


def test_marked_guesses_and_corrected_yield() -> None:
    assert find("ATTO550").quantum_yield == 0.80
    guessed = {**dict.fromkeys(("Alexa350", "Alexa790"), ("quantum_yield", "lifetime_ns")), "Cy5": ("lifetime_ns",)}
    for name, dye in load_builtin().items():
        assert dye.guesses == guessed.get(name, ())
        for figure in ("extinction", "quantum_yield", "lifetime", "spectra"):
            assert f"{figure}: " in dye.source


def strickler_berg_ns(dye: Fluorophore, band_nm: tuple[float, float]) -> float:
    """Natural lifetime from the strength of the absorption band (Strickler & Berg 1962), in water."""
    per_cm3 = quad(lambda w: dye.excitation_at(w) / w, *band_nm, limit=400, epsrel=1e-4)[0]
    wavelength_nm, emission = (np.array(a) for a in table(dye.emission))
    cubed = np.trapezoid(emission * (wavelength_nm * 1e-7) ** 3, wavelength_nm) / np.trapezoid(emission, wavelength_nm)
    return float(1e9 / (2.880e-9 * 1.33**2 * dye.extinction_per_M_per_cm * per_cm3 / cubed))


@pytest.mark.parametrize(
    ("name", "band_nm", "tolerance"),
    [
        ("Alexa350", (303, 400), 0.1),  # these two lifetimes are guessed so
        ("Alexa790", (515, 875), 0.1),
        ("ATTO390", (294, 450), 0.25),
        ("ATTO425", (333, 500), 0.25),
        ("ATTO430LS", (379, 599), 0.25),
        ("ATTO488", (405, 570), 0.25),
        ("ATTO490LS", (426, 800), 0.25),
        ("ATTO550", (444, 600), 0.25),
        ("ATTO643", (430, 800), 0.25),
        ("ATTO647N", (469, 720), 0.25),
        ("ATTO700", (510, 770), 0.25),
    ],
)
def test_lifetime_agrees_with_the_strength_of_the_absorption(
    name: str, band_nm: tuple[float, float], tolerance: float
) -> None:
    dye = find(name)
    assert dye.quantum_yield * strickler_berg_ns(dye, band_nm) == pytest.approx(dye.lifetime_ns, rel=tolerance)


@given(dyes)
def test_all_light_is_emitted_somewhere(dye: Fluorophore) -> None:
    assert dye.emission_share(0, 1e4) == 1
    assert dye.emission_share(dye.emission[0][0], dye.emission[-1][0]) == 1
    assert dye.emission_share(1, dye.emission[0][0]) == 0


@given(dyes, st.lists(wavelengths, min_size=3, max_size=3).map(sorted))
def test_shares_of_adjacent_bands_add_up(dye: Fluorophore, cuts: list[float]) -> None:
    low, middle, high = cuts
    parts = dye.emission_share(low, middle) + dye.emission_share(middle, high)
    assert parts == pytest.approx(dye.emission_share(low, high), abs=1e-12)


@given(dyes, st.tuples(wavelengths, wavelengths).map(sorted))
def test_share_and_mean_equal_an_adaptive_quadrature(dye: Fluorophore, band: list[float]) -> None:
    low, high = max(band[0], dye.emission[0][0]), min(band[1], dye.emission[-1][0])
    wavelength_nm, emission = table(dye.emission)
    kinks = [w for w in wavelength_nm if low < w < high]

    def integral(power: int, a: float, b: float) -> float:
        edges = [a, *(w for w in kinks if a < w < b), b] if a < b else []
        return sum(
            quad(lambda w: float(np.interp(w, wavelength_nm, emission)) * w**power, p, q)[0] for p, q in pairwise(edges)
        )

    total = float(np.trapezoid(emission, wavelength_nm))
    share = dye.emission_share(*band)
    assert share == pytest.approx(integral(0, low, high) / total, abs=1e-9)
    if share > 1e-6:
        mean_nm = dye.mean_emission_nm(*band)
        assert band[0] <= mean_nm <= band[1]
        assert mean_nm == pytest.approx(integral(1, low, high) / integral(0, low, high), abs=1e-4)


def test_a_band_without_light_says_where_the_light_is() -> None:
    with pytest.raises(SpecError, match=r"ATTO488 emits nothing between 400 and 450 nm.*480 to 720 nm.*525 nm"):
        find("ATTO488").mean_emission_nm(400, 450)


@given(dyes)
def test_json_round_trip_loses_nothing(dye: Fluorophore) -> None:
    assert Fluorophore.model_validate_json(dye.model_dump_json()) == dye


def test_two_photon_without_a_cross_section_is_refused_with_the_line_to_type() -> None:
    with pytest.raises(SpecError, match=r"`ATTO488: {like: ATTO488, two_photon_GM: 30}`"):
        find("ATTO488").two_photon_GM_at(800)


@pytest.mark.parametrize("typed", ["atto 647n", "ATTO-647N", "Atto647", "ATTO674N"])
def test_a_mistyped_name_gets_the_nearest(typed: str) -> None:
    with pytest.raises(SpecError, match=r"did you mean .*ATTO647N"):
        find(typed)


def test_own_dyes_win_and_are_suggested() -> None:
    own = find("ATTO488").load("MyGreen")
    assert find("MyGreen", {"MyGreen": own}) == own
    assert find("ATTO488", {"ATTO488": own}) == own
    with pytest.raises(SpecError, match="did you mean MyGreen"):
        find("mygreen", {"MyGreen": own})


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (((500, 1),), "at least 2 points"),
        (((500, 1), (500, 0.5)), "must increase, but 500 nm follows 500 nm"),
        (((500, 1), (510, -0.1)), "at 510 nm is negative"),
        (((500, 0), (510, 0)), "every value of the spectrum is 0"),
        (((500, 1), (510, float("nan"))), "finite"),
    ],
)
def test_a_spectrum_that_is_none_is_refused(points: Points, message: str) -> None:
    dye = find("ATTO488").model_dump()
    with pytest.raises(ValidationError, match=message):
        Fluorophore(**{**dye, "emission": points})


@given(st.floats(1e-3, 1e3), dyes)
def test_the_scale_of_a_given_spectrum_does_not_matter(scale: float, dye: Fluorophore) -> None:
    scaled = Fluorophore(**{**dye.model_dump(), "excitation": [(w, v * scale) for w, v in dye.excitation]})
    assert scaled.peak_excitation_nm == dye.peak_excitation_nm
    assert table(scaled.excitation)[1] == pytest.approx(table(dye.excitation)[1])


def test_colours_follow_the_spectrum() -> None:
    def rgb(nm: float) -> tuple[int, int, int]:
        text = wavelength_to_rgb(nm)
        assert text == text.upper()
        assert len(text) == 6
        return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)

    assert [int(np.argmax(rgb(nm))) for nm in (450, 525, 670)] == [2, 1, 0]
    for nm in range(300, 1000, 5):
        assert max(rgb(nm)) > 200  # bright on a black background, visible to the eye or not
    violet, infrared = rgb(350), rgb(805)
    assert violet[2] > violet[0] > violet[1]
    assert infrared[0] > infrared[2] > infrared[1]
