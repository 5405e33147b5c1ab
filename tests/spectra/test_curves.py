"""Curves from files: FPbase's form and others are read, and what cannot be trusted is refused with its remedy."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import TypeAdapter, ValidationError

from simexm.api import Simulation
from simexm.errors import SimexmWarning, SpecError
from simexm.spectra.curves import CsvCurve, Curve, Filter, NamedCurve, QuantumEfficiency, Source, find_curve
from simexm.spectra.dyes import from_csv
from tests.build import layer, spec

FIGURES: dict[str, Any] = {"extinction_per_M_per_cm": 1e5, "quantum_yield": 0.5, "lifetime_ns": 3.0}
SCOPE = """# unit: percent
# source: own scan
wavelength_nm,ET470/40x,T495lpxr,ET525/50m
430,0.01,0.3,
448,0.05,0.4,0.01
452,90,0.5,0.01
488,94,2,0.02
492,1,10,0.05
500,0.01,93,0.5
503,0.01,95,94
548,0.01,97,93
552,0.01,96,0.2
720,,95,0.02
"""
LED = "wavelength (nm),my LED\n430,0\n450,2\n470,30\n490,4\n510,0\n"
QE = "wavelength,Camera 1 QE\n350,0.3\n580,0.82\n1000,0.1\n"
# FPbase's own form: names with endings, blank cells, one row a nanometre, several things in one file
FPBASE = """wavelength,Alexa Fluor 999 EX,Alexa Fluor 999 AB,Alexa Fluor 999 EM,Other Dye EX,Other Dye EM,Other Dye 2P,Chroma XY BP
480,0.5,0.4,-0.001,0.1,,,
490,1,1,0.1,0.2,,0.4,0.01
500,0.3,0.4,0.9,1,0.2,0.5,0.98
510,,,1,0.4,1,,0.97
520,,,0.2,,0.3,,0.01
"""


def write(folder: Path, name: str, text: str) -> str:
    """Path of a new file."""
    (folder / name).write_text(text)
    return str(folder / name)


def optics(folder: Path, **channel: Any) -> dict[str, Any]:
    """A widefield microscope whose channel has whole curves."""
    light = {"source": "led", "excitation_filter": "ET470/40x", "dichroic": "T495lpxr", "emission_filter": "ET525/50m"}
    given = {"name": "green", "irradiance_W_per_cm2": 5, **light, **channel}
    return {
        "stage": "widefield", "numerical_aperture": 1.0, "pixel_size_nm": 162.5, "plane_spacing_nm": 500,
        "axial_range_um": 1, "channels": [{k: v for k, v in given.items() if v is not None}],
    }  # fmt: skip


def named(folder: Path) -> dict[str, Any]:
    """The `curves:` of a spec, with its files."""
    scope = write(folder, "scope.csv", SCOPE)
    filters = {title: {"csv": scope, "column": title} for title in ("ET470/40x", "T495lpxr", "ET525/50m")}
    return {**filters, "led": write(folder, "led.csv", LED), "camera": write(folder, "qe.csv", QE)}


def lit(folder: Path, **channel: Any) -> dict[str, Any]:
    """A spec with these curves."""
    source = {"kind": "phantom", "shape": [24, 24, 24]}
    return spec(
        layer(dye="ATTO488"), optics=optics(folder, **channel), camera={"quantum_efficiency": "camera"}, curves=named(folder),
        source=source,
    )  # fmt: skip


# -------------------------------------------------------------------- files


def test_a_file_of_percent_gives_shares_and_blank_cells_are_left_out(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "scope.csv", SCOPE))
    read = CsvCurve(csv=path, column="ET525/50m").load("em", "share")
    assert [list(read.points)[n] for n in (0, 1, -1)] == [(448, 0.0001), (452, 0.0001), (720, 0.0002)]
    assert read.spectrum.at(525.0) == pytest.approx(0.935, abs=5e-3)
    assert (read.name, read.source) == ("em", "own scan; ET525/50m in scope.csv")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("wavelength_nm,a (%)\n500,50\n600,98\n", [0.5, 0.98]),
        ("nm,a fraction\n500,0.5\n600,0.98\n", [0.5, 0.98]),
        ("Wavelength [nm],a\n# unit: %\n500,50\n600,100.9\n", [0.5, 1]),
        ("wavelength,Chroma XY BP\n500,0.5\n600,1.01\n,\n", [0.5, 1]),
        ("wavelength (nm),a_percent,\n500,50,\n600,98,\n\n", [0.5, 0.98]),
    ],
)
def test_units_are_read_where_they_are_stated(text: str, values: list[float], tmp_path: Path) -> None:
    read = CsvCurve(csv=Path(write(tmp_path, "a.csv", text))).load("a", "share")
    assert [value for _, value in read.points] == pytest.approx(values)


def test_a_source_is_relative_and_needs_no_unit(tmp_path: Path) -> None:
    read = CsvCurve(csv=Path(write(tmp_path, "led.csv", LED))).load("led", "source")
    assert read.points[2] == (470, 30)


def test_an_fpbase_file_of_several_things_gives_each_dye_and_filter(tmp_path: Path) -> None:
    path = write(tmp_path, "fpbase.csv", FPBASE)
    dye = from_csv(path, "alexa 999", "Alexa Fluor 999", **FIGURES)
    assert list(dye.excitation) == [(480, 0.4), (490, 1), (500, 0.4)]  # absorption, not excitation
    assert list(dye.emission) == [(480, 0), (490, 0.1), (500, 0.9), (510, 1), (520, 0.2)]
    assert from_csv(path, "Alexa999", **FIGURES).emission == dye.emission  # by its own name
    assert from_csv(path, "other-dye", **FIGURES).peak_excitation_nm == 500
    passed = CsvCurve(csv=Path(path), column="Chroma XY BP").load("bp", "share")
    assert list(passed.points) == [(490, 0.01), (500, 0.98), (510, 0.97), (520, 0.01)]
    with pytest.raises(SpecError, match=r"has 2 dyes, none of which is 'mine'.*Alexa Fluor 999, Other Dye"):
        from_csv(path, "mine", **FIGURES)
    with pytest.raises(SpecError, match=r"no dye 'Alexa 99'.*`column:` as one of"):
        from_csv(path, "mine", "Alexa 99", **FIGURES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wavelength_nm,a\n500,50\n600,98\n", "has no unit.*# unit: percent"),
        ("# unit: counts\nwavelength_nm,a\n500,50\n600,98\n", "states the unit 'counts'.*write percent or fraction"),
        ("wavelength_nm,a (relative)\n500,50\n600,98\n", "has no unit"),
        ("wavelength_nm,a fraction\n500,50\n600,98\n", "values up to 98.*look like percent: give `unit: percent`"),
        ("wavelength_nm,a (%)\n500,50\n600,980\n", "values up to 980.*passes more than all"),
        ("wavelength_nm,a (%)\n500,0.5\n600,0.98\n", "no value above 0.98%.*look like fractions"),
        ("wavelength_nm,a (%)\n500,50\n600,-0.1\n", "600 nm is negative.*subtract the baseline"),
        ("wavelength_nm,a (%)\n600,50\n500,40\n", "500 nm follows 600 nm; sort the points"),
        ("wavelength_nm,a (%)\n500,50\n500,40\n", "500 nm follows 500 nm"),
        ("wavelength_nm,a (%)\n500,50\n600,x\n", "line 3: .*'x'; a cell holds one number"),
        ("wavelength_nm,a (%)\n500,50\n600,inf\n", "cannot be used|values up to inf"),
        ("wavelength_nm,a (%)\n500,nan\n600,50\n", "cannot be used"),
        ("wavelength_nm,a (%)\n500,0\n600,0\n", "every value of the spectrum is 0"),
        ("wavelength_nm,a (%)\n500,50\n", "needs at least 2 points"),
        ("wavelength_um,a (%)\n0.5,50\n0.6,40\n", "'wavelength_um', so the unit of its wavelengths"),
        ("wavelength,a (%)\n0.5,50\n0.6,40\n", "wavelength of 0.5, which is no light in nm"),
        ("500,50\n600,40\n", "first column .* is '500'.*below a header"),
        ("wavelength_nm,a (%),b (%)\n500,50,1\n600,40,1\n", r"has 2 curves.*`column:` as one of a \(%\), b"),
        ("wavelength_nm,a,a\n500,50,1\n", "more than one column a"),
        ("wavelength_nm\n500\n", "name every column"),
        ("", "is empty"),
    ],
)
def test_a_curve_that_cannot_be_trusted_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "bad.csv", text)
    with pytest.raises(SpecError, match=message) as caught:
        CsvCurve(csv=Path(path)).load("bad", "share")
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------- in a spec

FORMS: list[tuple[Any, Any, str]] = [
    (Filter, [500, 400], "ascending order.*500, 400"),
    (Filter, [500], "two wavelengths"),
    (Filter, {"points": [[500, 0.5], [600, -1]]}, "600 nm is negative"),
    (Filter, {"points": [[500, 0.5]]}, "at least 2 points"),
    (Filter, {"path": "x.csv"}, r"a band \[nm, nm\], the name of a curve"),
    (Filter, {"csv": "x.csv", "colum": "a"}, "colum: Extra inputs"),
    (Source, {"lines": {488: 1}}, "lines_nm"),
    (Source, {"lines_nm": {488: 0}}, "greater than 0"),
    (Source, 5.0, "from 200 to 2000 nm, not 5"),
    (Source, [640, 488], "should be a laser line in nm, {lines_nm"),
    (Source, True, "should be a laser line in nm"),
    (Filter, True, "should be a band"),
    (Filter, "", "should be a band"),
    (Filter, 500, "should be a band"),
    (QuantumEfficiency, 1.5, "more than 0 and at most 1 of the photons, not 1.5"),
    (QuantumEfficiency, 0, "more than 0"),
    (QuantumEfficiency, [0.5], "a number above 0"),
    (NamedCurve, {"column": "a"}, "a path, {csv: PATH"),
]


@pytest.mark.parametrize(("form", "written", "message"), FORMS)
def test_a_wrong_form_is_told_in_one_line(form: Any, written: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        TypeAdapter(form).validate_python(written)
    assert caught.value.error_count() == 1


def test_names_paths_and_points_mean_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "wavelength_nm,a fraction\n500,0.5\n600,1\n")
    by_path = find_curve(path, "share", {})
    names: TypeAdapter[Any] = TypeAdapter(dict[str, NamedCurve])
    curves = names.validate_python({"Blue Filter": path, "b": {"points": [[500, 0.5], [600, 1]]}})
    assert (
        find_curve("Blue Filter", "share", curves).points == by_path.points == find_curve("b", "share", curves).points
    )
    with pytest.raises(SpecError, match=r"no curve 'blue-filtr'.*did you mean Blue Filter.*under `curves:`"):
        find_curve("blue-filtr", "share", curves)
    with pytest.raises(SpecError, match="known are: none"):
        find_curve("x", "share", {})
    with pytest.raises(SpecError, match=r"cannot be read from .*gone\.csv"):
        find_curve("gone.csv", "share", {})


def test_the_plan_holds_every_point_and_needs_no_file(tmp_path: Path) -> None:
    simulation = Simulation.from_mapping(lit(tmp_path))
    plan = simulation.plan()
    frozen = simulation.resolved().to_mapping()
    written = simulation.to_mapping()
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    assert written["curves"]["led"] == {"csv": str(tmp_path / "led.csv")}
    assert "curves" not in frozen
    assert yaml.safe_load(yaml.safe_dump(frozen)) == frozen
    again = Simulation.from_mapping(frozen)
    assert again.plan().hash == plan.hash
    assert again.microscope == plan.simulation.microscope
    with pytest.raises(SpecError, match="cannot be read"):
        Simulation.from_mapping(written)


def test_the_hash_is_that_of_the_points_not_of_the_file(tmp_path: Path) -> None:
    first = Simulation.from_mapping(lit(tmp_path)).plan().hash
    same = lit(tmp_path)
    (tmp_path / "led.csv").write_text("# a remark\n" + LED)
    assert Simulation.from_mapping(same).plan().hash == first
    (tmp_path / "led.csv").write_text(LED.replace("490,4", "490,9"))
    assert Simulation.from_mapping(same).plan().hash != first


def test_lines_and_points_survive_as_text(tmp_path: Path) -> None:
    lines = {"lines_nm": {470: 2, 488: 1}}
    written = lit(tmp_path, source=lines, excitation_filter=None)
    resolved = Simulation.from_mapping(written).resolved()
    again = Simulation.from_mapping(json.loads(json.dumps(resolved.to_mapping())))
    assert again.microscope == resolved.microscope
    light = again.microscope.all_channels[0].excitation
    assert list(light.lines) == [(470, 2), (488, 1)]
    schema = Draft202012Validator(Simulation.model_json_schema())
    schema.validate(written)
    schema.validate(resolved.to_mapping())


def changed(**channel: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: lit(folder, **channel)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (changed(source=None), "'green' has neither laser_wavelength_nm nor source"),
        (changed(laser_wavelength_nm=488), "'green' has both laser_wavelength_nm and source"),
        (changed(emission_filter=None), "'green' has neither band_nm nor emission_filter"),
        (changed(band_nm=[500, 550]), "'green' has both band_nm and emission_filter"),
        (changed(source="lde"), "no curve 'lde'.*did you mean led"),
        (changed(dichroic="led"), "my LED.*has no unit"),
        (changed(irradiance_W_per_cm2=0), "irradiance_W_per_cm2.*without light.*give it power, or remove the channel"),
        (changed(excitation_filter=[600, 650]), "excitation_filter of channel 'green' passes nothing of its light"),
        (
            changed(emission_filter=[420, 440]),
            "dichroic and emission_filter.*scattered|together pass nothing|miss the emission",
        ),
        (
            changed(excitation_filter=None, emission_filter=[470, 550], dichroic=None),
            "of its own light to the detector",
        ),
        (
            changed(dichroic=[560, 700], emission_filter=[500, 550]),
            "dichroic and emission_filter .* together pass nothing",
        ),
    ],
)
def test_a_channel_that_cannot_work_is_refused(
    spoiled: Callable[[Path], dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        Simulation.from_mapping(spoiled(tmp_path))


def test_two_photons_need_a_laser(tmp_path: Path) -> None:
    stage = {**optics(tmp_path, irradiance_W_per_cm2=None, laser_power_uW=5), "stage": "two_photon"}
    stage |= {"repetition_MHz": 80, "pulse_fs": 150}
    with pytest.raises(SpecError, match="two photons are absorbed from the pulses of one laser"):
        Simulation.from_mapping(spec(layer(dye="ATTO488"), optics=stage, curves=named(tmp_path)))


def test_a_curve_that_ends_in_the_emission_is_warned_of(tmp_path: Path) -> None:
    short = {"points": [[490, 0], [505, 0.9], [530, 0.9]]}
    with pytest.warns(
        SimexmWarning, match=r"emission_filter in channel 'green' is known from 490 to 530 nm only.*ATTO488 emits"
    ):
        Simulation.from_mapping(lit(tmp_path, emission_filter=short))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Simulation.from_mapping(lit(tmp_path))


def test_a_curve_survives_as_text() -> None:
    curve = Curve(points=((500, 0.5), (600, 1)))
    filters: TypeAdapter[Any] = TypeAdapter(Filter)
    assert filters.validate_json(filters.dump_json(curve)) == curve
