"""Dyes that a user brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simexm.errors import SpecError
from simexm.spectra.dyes import CsvDye, Dye, GaussianDye, LikeDye, from_csv
from simexm.spectra.fluorophores import Fluorophore, find, load_builtin

DYES: TypeAdapter[Any] = TypeAdapter(dict[str, Dye])
NUMBERS: dict[str, Any] = {
    "peak_excitation_nm": 500,
    "peak_emission_nm": 525,
    "excitation_fwhm_nm": 40,
    "emission_fwhm_nm": 35,
    "extinction_per_M_per_cm": 90000,
    "quantum_yield": 0.8,
    "lifetime_ns": 4.1,
}
FILE = """# extinction_per_M_per_cm: 81000
# quantum_yield: 0.9
# any other remark is a remark
# lifetime_ns: 3.9
# source: own measurement
wavelength_nm,excitation,emission,two_photon_GM
400,0.5,,
480,2,0,
500,0,4,
560,,0,
800,,,20
900,,,40
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "my.csv"
    path.write_text(text)
    return path


def test_a_csv_dye_is_what_the_file_says(tmp_path: Path) -> None:
    dye = from_csv(write(tmp_path, FILE))
    assert (dye.name, dye.source) == ("my", "own measurement")
    assert (dye.extinction_per_M_per_cm, dye.quantum_yield, dye.lifetime_ns) == (81000, 0.9, 3.9)
    assert list(dye.excitation) == [(400, 0.25), (480, 1), (500, 0)]
    assert list(dye.emission) == [(480, 0), (500, 1), (560, 0)]
    assert dye.two_photon_GM_at(850) == 30
    assert dye.emission_share(480, 500) == pytest.approx(20 / 80)
    with pytest.raises(SpecError, match="800 to 900 nm only"):
        dye.two_photon_GM_at(1000)


def test_figures_in_the_spec_win_over_those_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, FILE)
    spec = DYES.validate_python({"Mine": {"csv": "my.csv", "quantum_yield": 0.5, "two_photon_GM": 7}})
    dye = spec["Mine"].load("Mine", tmp_path)
    assert (dye.name, dye.quantum_yield, dye.lifetime_ns) == ("Mine", 0.5, 3.9)
    assert dye.two_photon_GM_at(1030) == 7


def test_an_fpbase_export_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "wavelength,My Dye em,My Dye ex,My Dye 2p\n480,0,1,0.1\n500,0.7,0.2,\n560,,,0.3\n")
    figures: dict[str, Any] = {"extinction_per_M_per_cm": 1e5, "quantum_yield": 0.5, "lifetime_ns": 3.0}
    dye = from_csv(path, **figures)
    assert list(dye.excitation) == [(480, 1), (500, 0.2)]
    assert list(dye.emission) == [(480, 0), (500, 1)]
    assert dye.two_photon_GM is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("# quantum_yield: 0.9", ""), "quantum_yield of the dye 'my'.*# quantum_yield: 0.8"),
        (FILE.replace("emission", "emision"), "'emision' that would be ignored; did you mean emission"),
        (FILE.replace("480,2,", "480,x,"), "line 8: .*'x'"),
        (FILE.replace("0.9", "90 %"), "quantum_yield"),
        (FILE.replace("0.9", "90"), "quantum_yield.*less than or equal to 1"),
        (FILE.replace("500,0,4", "470,0,4"), "470 nm follows 480 nm"),
        (FILE.replace("500,0,4", "500,0,nan"), "emission.*finite"),
        (FILE.replace("two_photon_GM", "emission"), "more than one column emission"),
        (FILE.replace("wavelength_nm,", "emission,"), "first column .*'emission'.*wavelength_nm"),
        ("# nothing\n", "is empty, .*its header should begin with wavelength_nm"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError, match=message) as caught:
        from_csv(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_names_the_key_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'Mine' cannot be read from .*gone\.csv.*correct the path"):
        CsvDye(csv=Path("gone.csv")).load("Mine", tmp_path)


@given(st.floats(380, 700), st.floats(10, 100))
def test_a_dye_from_numbers_has_the_width_asked_for(peak_nm: float, fwhm_nm: float) -> None:
    dye = GaussianDye(**{**NUMBERS, "peak_excitation_nm": peak_nm, "excitation_fwhm_nm": fwhm_nm}).load("G")
    assert dye.peak_excitation_nm == pytest.approx(peak_nm)
    for side in (-0.5, 0.5):
        assert dye.excitation_at(peak_nm + side * fwhm_nm) == pytest.approx(0.5, abs=1e-6)
    assert dye.emission_share(525 - 17.5, 525 + 17.5) == pytest.approx(0.76096811, abs=1e-3)  # erf(sqrt(ln 2))
    assert dye.mean_emission_nm(0, 2000) == pytest.approx(525)
    assert set(dye.guesses) == {"excitation", "emission"}


def test_a_built_in_dye_gets_a_cross_section_and_keeps_the_rest() -> None:
    base = find("Alexa350")
    dye = LikeDye(like="Alexa350", two_photon_GM=12, quantum_yield=0.5).load("Alexa350")
    assert dye.two_photon_GM_at(700) == 12
    assert dye.guesses == ("lifetime_ns",)
    assert (dye.excitation, dye.emission, dye.lifetime_ns) == (base.excitation, base.emission, base.lifetime_ns)
    assert "two_photon_GM" in dye.source
    with pytest.raises(SpecError, match="did you mean Alexa350"):
        LikeDye(like="alexa 350").load("x")


def test_a_resolved_spec_holds_every_point_and_runs_without_the_file(tmp_path: Path) -> None:
    write(tmp_path, FILE)
    written = {"A": {"csv": "my.csv"}, "B": {"like": "ATTO488", "two_photon_GM": [[700, 5], [900, 10]]}, "C": NUMBERS}
    spec = DYES.validate_python(written)
    assert DYES.validate_json(DYES.dump_json(spec)) == spec
    resolved = {name: dye.load(name, tmp_path) for name, dye in spec.items()}
    again = DYES.validate_json(DYES.dump_json(resolved))
    assert {name: dye.load(name) for name, dye in again.items()} == resolved
    assert all(type(dye) is Fluorophore for dye in again.values())
    assert DYES.json_schema()


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ({"like": "ATTO488", "quantum_yeild": 0.5}, "like.quantum_yeild"),
        ({"csv": "a.csv", "tau": 4}, "csv.tau"),
        ({**NUMBERS, "quantum_yield": 1.2}, "gaussian.quantum_yield"),
        ({**NUMBERS, "two_photon_GM": [[800, 1]]}, "two_photon_GM"),
        ("ATTO488", "gaussian"),
    ],
)
def test_an_error_speaks_of_the_form_that_was_written(written: Any, place: str) -> None:
    with pytest.raises(ValidationError, match=place.replace(".", r"\.")) as caught:
        DYES.validate_python({"Mine": written})
    kinds = {"csv", "like", "gaussian", "tabulated"}
    assert len({str(part) for e in caught.value.errors() for part in e["loc"]} & kinds) == 1


def test_built_in_dyes_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        load_builtin()["x"] = find("ATTO488")  # type: ignore[index]
