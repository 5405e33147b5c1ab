"""Dyes, lasers and filters: what is told, what is drawn, and the warning before a run."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmWarning
from simexm.spectra import bands
from simexm.spectra.fluorophores import load_builtin
from simexm.spectra.lightpath import Transmission
from simexm.stages.microscope.scanner import ScannerChannel
from simexm.view.dyes import LightPath, dyes_in_channels
from simexm.view.spectra import ink
from tests.build import confocal, layer, simulation, spec
from tests.legacy2017.configs import CONFOCAL, edited

DYES = load_builtin()
Spec = dict[str, Any]


def channel(name: str, laser: float, low: float, high: float) -> Spec:
    """A confocal channel as plain data."""
    return {"name": name, "laser_wavelength_nm": laser, "band_nm": [low, high], "laser_power_uW": 20}


MISTAKE = channel("violet", 370, 380, 480)
"""ATTO425 emits most at 484 nm."""


def write(path: Path, *dyes: str, channels: list[Spec], **root: Any) -> Path:
    """A spec file whose layers carry these dyes."""
    layers = [layer(name=f"layer{n}", dye=dye) for n, dye in enumerate(dyes)]
    path.write_text(yaml.safe_dump(spec(*layers, optics=confocal(channels=channels), **root)))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(*words: object) -> str:
    """What a successful command prints."""
    result = CliRunner().invoke(app, ["fluorophores", *map(str, words)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


# -------------------------------------------------------------------- the list


def test_all_dyes_are_listed_with_their_figures(here: Path) -> None:
    lines = {line.split()[0]: line for line in type_in().splitlines()}
    for dye in DYES.values():
        for figure in (dye.peak_excitation_nm, dye.peak_emission_nm, dye.extinction_per_M_per_cm, dye.lifetime_ns):
            assert f" {figure:.0f} " in lines[dye.name] or f" {figure:.1f} " in lines[dye.name]
        assert f"{dye.quantum_yield:.2f}" in lines[dye.name]
        assert ("guessed: " in lines[dye.name]) == bool(dye.guesses)
    assert "guessed: quantum yield, lifetime" in lines["Alexa350"]
    data = json.loads(type_in("--json"))
    assert [d["name"] for d in data["dyes"]] == list(DYES)
    assert data["dyes"][3]["peak_emission_nm"] == DYES["ATTO425"].peak_emission_nm
    assert "pairs" not in data
    assert list(here.iterdir()) == []
    assert "Example: simexm fluorophores" in type_in("--help")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ATTO 489"], ("there is no dye 'ATTO 489'", "did you mean ATTO488")),
        (["ATTO488", "--output", "a.jpg"], ("type --output a.png",)),
        (["ATTO488", "--output", "no/such/a.png"], ("there is no folder no/such", "mkdir -p no/such")),
        (["ATTO488", "--spec", "none.yaml"], ("there is no spec none.yaml",)),
        (["--spec", "bare.yaml"], ("bare.yaml has no microscope", "leave --spec out")),
        (
            ["--spec", "wrong.yaml"],
            ("wrong.yaml: stages[3].channels[0]: channel 'a' has neither band_nm nor emission_filter",),
        ),
        (["Mine", "--spec", "good.yaml"], ("there is no dye 'Mine'", "`dyes:`")),
    ],
)
def test_what_cannot_be_drawn_is_one_line(words: list[str], told: tuple[str, ...], here: Path) -> None:
    write(here / "good.yaml", "ATTO488", channels=[channel("green", 488, 500, 550)])
    write(here / "wrong.yaml", "ATTO488", channels=[{"name": "a", "laser_wavelength_nm": 488, "laser_power_uW": 1}])
    (here / "bare.yaml").write_text("stages: [{stage: regions}]")
    before = set(here.iterdir())
    result = CliRunner().invoke(app, ["fluorophores", *words])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    for word in told:
        assert word in result.stderr
    assert set(here.iterdir()) == before


# -------------------------------------------------------------------- dyes in channels


def test_shares_and_crosstalk(here: Path) -> None:
    """Each figure is that of the textbook; the signal is that of one dye over that of the dye that the channel is for."""
    green, red = channel("green", 488, 500, 550), channel("red", 640, 655, 720)
    write(here / "my.yaml", "ATTO488", "ATTO647N", channels=[green, red])
    data = json.loads(type_in("ATTO488", "ATTO550", "ATTO647N", "--spec", "my.yaml", "--json"))
    pairs = {(p["dye"], p["channel"]): p for p in data["pairs"]}
    assert len(pairs) == 6

    def bright(name: str, of: Spec) -> float:
        dye = DYES[name]
        share = dye.excitation_at(of["laser_wavelength_nm"]) * dye.emission_share(*of["band_nm"])
        return share * dye.extinction_per_M_per_cm * dye.quantum_yield

    for (name, _), pair in pairs.items():
        of, wanted = (green, "ATTO488") if pair["channel"] == "green" else (red, "ATTO647N")
        assert pair["excited_share"] == pytest.approx(DYES[name].excitation_at(of["laser_wavelength_nm"]))
        assert pair["passed_share"] == pytest.approx(DYES[name].emission_share(*of["band_nm"]))
        assert pair["signal_share"] == pytest.approx(bright(name, of) / bright(wanted, of))
    assert pairs["ATTO488", "green"]["remark"] == pairs["ATTO647N", "red"]["remark"] == ""
    text = type_in("ATTO488", "--spec", "my.yaml")
    assert " 67% " in text  # excited by 488 nm
    assert " 66% " in text  # passed by 500 to 550 nm


def test_another_dye_in_a_channel_is_crosstalk(here: Path) -> None:
    channels = [channel("green", 488, 500, 550), channel("orange", 532, 545, 620)]
    write(here / "my.yaml", "ATTO488", "ATTO550", channels=channels)
    pairs = json.loads(type_in("--spec", "my.yaml", "--json"))["pairs"]
    assert {(p["dye"], p["channel"]): p["remark"] for p in pairs} == {
        ("ATTO488", "green"): "", ("ATTO488", "orange"): "crosstalk",
        ("ATTO550", "green"): "", ("ATTO550", "orange"): "",
    }  # fmt: skip
    assert all((p["remark"] == "crosstalk") <= (p["signal_share"] >= 0.005) for p in pairs)


def test_dyes_of_the_spec_with_its_own(here: Path) -> None:
    """Without names those of its layers, and those that it brings along; own dyes win over built-in ones of that name."""
    own = {"Mine": {"like": "ATTO488", "quantum_yield": 0.4}, "ATTO550": {"like": "ATTO550", "lifetime_ns": 9.0}}
    write(here / "my.yaml", "Mine", "ATTO647N", channels=[channel("red", 488, 500, 720)], dyes=own)
    data = json.loads(type_in("--spec", "my.yaml", "--json"))
    assert [d["name"] for d in data["dyes"]] == ["Mine", "ATTO647N", "ATTO550"]
    assert data["dyes"][0]["quantum_yield"] == 0.4
    assert data["dyes"][2]["lifetime_ns"] == 9.0


def test_two_photons(here: Path) -> None:
    """The cross section counts, not the spectrum of one photon; where none is known, that is said."""
    dyes = {"Mine": {"like": "ATTO488", "two_photon_GM": [[700, 10], [800, 40], [900, 100]]}}
    data = spec(layer(dye="Mine"), layer(name="b", dye="ATTO550"), dyes=dyes)
    data["stages"][3] = confocal(channels=[channel("green", 800, 500, 550)]) | {
        "stage": "two_photon", "repetition_MHz": 80, "pulse_fs": 100,
    }  # fmt: skip
    (here / "my.yaml").write_text(yaml.safe_dump(data))
    mine, other = json.loads(type_in("--spec", "my.yaml", "--json"))["pairs"]
    assert mine["excited_share"] == pytest.approx(0.4)
    assert mine["remark"] == ""
    assert other["excited_share"] is None
    assert "not known" in other["remark"]


@given(
    st.lists(st.sampled_from(list(DYES)), min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.floats(350, 700), st.floats(1, 60), st.floats(1, 200)), min_size=1, max_size=4),
)
def test_each_dye_has_one_channel_and_none_outshines_those_of_its_own(
    names: list[str], lines: list[tuple[float, float, float]]
) -> None:
    channels = [channel(f"c{n}", line, line + gap, line + gap + width) for n, (line, gap, width) in enumerate(lines)]
    light_path = LightPath({}, [ScannerChannel.model_validate(c) for c in channels], two_photon=False)
    seen = dyes_in_channels([DYES[n] for n in names], light_path)
    assert len(seen) == len(names) * len(channels)
    for name in names:
        row = [s for s in seen if s.dye.name == name]
        (own,) = (s for s in row if s.wanted)
        assert own.brightness == max(s.brightness for s in row)
    for s in seen:
        assert 0 <= s.passed <= 1
        assert s.signal is None or not s.wanted or 0 <= s.signal <= 1


# -------------------------------------------------------------------- filters that miss


def test_a_filter_that_misses_the_peak_is_told_before_the_run(here: Path) -> None:
    wanted = r"band_nm 380 to 480 of channel 'violet' misses the emission peak of ATTO425 at 484 nm and passes 23% .*dim.*\[460, 530\]"
    with pytest.warns(SimexmWarning, match=wanted) as told:
        simulation(layer(dye="ATTO425"), optics=confocal(channels=[MISTAKE]))
    assert len(told) == 1
    with pytest.warns(SimexmWarning, match=wanted):  # another channel that hardly sees it is no help
        simulation(layer(dye="ATTO425"), optics=confocal(channels=[MISTAKE, channel("green", 488, 500, 550)]))
    simulation(layer(dye="ATTO425"), optics=confocal(channels=[MISTAKE | {"band_nm": [460, 530]}]))
    simulation(layer(dye="ATTO425"), optics=confocal(channels=[MISTAKE, channel("cyan", 405, 460, 530)]))
    write(here / "my.yaml", "ATTO425", channels=[MISTAKE])
    result = CliRunner().invoke(app, ["plan", "my.yaml"])  # there is no source, but the light is looked at first
    assert "warning: band_nm 380 to 480" in result.stderr


def test_the_mistake_is_drawn_and_told(here: Path) -> None:
    """Even where the spec cannot be run because of it."""
    write(here / "dim.yaml", "ATTO425", channels=[MISTAKE])
    write(here / "dark.yaml", "ATTO425", channels=[MISTAKE | {"band_nm": [800, 900]}])
    for name in ("dim", "dark"):
        (pair,) = json.loads(type_in("ATTO425", "--spec", f"{name}.yaml", "--json"))["pairs"]
        assert "misses the peak at 484 nm: move band_nm to [460, 530]" in pair["remark"]
        assert (here / f"{name}-spectra.png").is_file()
    write(here / "unlit.yaml", "ATTO425", channels=[channel("red", 640, 655, 720)])
    (pair,) = json.loads(type_in("--spec", "unlit.yaml", "--json"))["pairs"]
    assert pair["excited_share"] == 0
    assert "laser line near 436 nm" in pair["remark"]


def test_the_mistake_in_a_configuration_of_2017(here: Path) -> None:
    dye = ("'ATTO488'", "'ATTO425'")
    light = [
        ("laser_wavelength = 488", "laser_wavelength = 370"),
        ("laser_filter = 500, 550", "laser_filter = 380, 480"),
    ]
    (here / "config.ini").write_text(edited(CONFOCAL, dye, *light))
    (pair,) = json.loads(type_in("--spec", "config.ini", "--json"))["pairs"]
    assert (pair["dye"], pair["channel"], pair["passes_nm"]) == ("ATTO425", "channel_1", [380, 480])
    assert "misses the peak at 484 nm" in pair["remark"]
    for model in ("simexm2017", "physical"):
        told = CliRunner().invoke(app, ["plan", "config.ini", "--model", model]).stderr
        assert "band_nm 380 to 480 of channel 'channel_1' misses the emission peak of ATTO425" in told


@given(st.sampled_from(list(DYES)), st.floats(300, 800), st.floats(210, 990), st.floats(1, 300))
def test_what_is_advised_helps(name: str, laser: float, low: float, width: float) -> None:
    """The band that is advised holds the peak, stays clear of the laser and passes more than the one that was warned of."""
    dye, band = DYES[name], (low, min(low + width, 1000))
    better = bands.fitting_band(dye, laser)
    if better is None:
        assert laser > dye.peak_emission_nm - 15
        assert "laser line" in bands.remedy(dye, laser)
        return
    assert better[0] >= laser + 10
    assert not bands.misses_peak(dye, Transmission(better))
    assert not bands.looks_dim(dye, Transmission(better))
    if bands.looks_dim(dye, Transmission(band)):
        assert dye.emission_share(*better) > dye.emission_share(*band)


@pytest.mark.parametrize("name", DYES)
def test_a_usual_filter_is_not_warned_of(name: str) -> None:
    """One that begins a little above a laser near the absorption's maximum, 50 nm or wider, as in any microscope's manual."""
    dye = DYES[name]
    laser = min(dye.peak_excitation_nm, dye.peak_emission_nm - 15)
    for width in (50, 80, 200):
        low = max(laser + 10, dye.peak_emission_nm - 40)
        assert not bands.looks_dim(dye, Transmission((low, low + width)))


# -------------------------------------------------------------------- the picture


def pixels(path: Path) -> NDArray[np.uint8]:
    """Of a PNG, (rows, columns, 3)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has(picture: NDArray[np.uint8], color: tuple[float, float, float]) -> int:
    """How many pixels are of this very colour."""
    return int(np.all(np.abs(picture - 255 * np.array(color)) <= 1, axis=-1).sum())


def test_dyes_lasers_and_bands_are_in_the_picture(here: Path) -> None:
    """A laser and a band appear when a spec is given, each in the colour of its wavelength, a dye in that of its light."""
    write(here / "my.yaml", "ATTO488", channels=[channel("green", 405, 590, 690)])
    assert "picture: ATTO488-spectra.png" in type_in("ATTO488")
    assert "picture: both.png" in type_in("ATTO488", "--spec", "my.yaml", "--output", "both.png")
    alone, both = pixels(here / "ATTO488-spectra.png"), pixels(here / "both.png")
    assert has(alone, ink(525)) > 500
    assert has(both, ink(525)) > 500
    for wavelength in (405, 640):
        assert has(both, ink(wavelength)) > 500 > 50 > has(alone, ink(wavelength))
    assert np.all(both[0] == 255)  # light
    assert {p.name for p in here.iterdir()} == {"my.yaml", "ATTO488-spectra.png", "both.png"}


def test_every_dye_can_be_drawn_and_the_picture_is_whole_or_not_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    type_in("--output", "all.png")
    first = (here / "all.png").read_bytes()

    def fails(self: Figure, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Figure, "savefig", fails)
    result = CliRunner().invoke(app, ["fluorophores", "--output", "all.png", "--overwrite"])
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert [p.name for p in here.iterdir()] == ["all.png"]
    assert (here / "all.png").read_bytes() == first


@given(st.floats(200, 2000))
def test_colours_can_be_read_on_white(wavelength: float) -> None:
    """Contrast of at least 2.5 to 1 against white paper (WCAG's measure)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in ink(wavelength))
    assert 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) > 2.5


def test_the_bench_knows_no_warning(here: Path) -> None:
    """What is drawn is told in the table, not twice."""
    write(here / "dim.yaml", "ATTO425", channels=[MISTAKE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "misses the peak" in type_in("--spec", "dim.yaml")
