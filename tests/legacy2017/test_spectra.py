"""The brightness of dyes by the rules of 2017."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simexm.errors import SpecError
from simexm.legacy2017 import spectra
from simexm.legacy2017.spectra import Table
from simexm.spectra import fluorophores

COARSE = Table(400.0, 1.0, np.array([1.0, 2.0, 4.0, 8.0, 4.0]))


@pytest.mark.parametrize(
    ("wavelength", "expected"),
    [
        (399.9, 0.0),
        (404.1, 0.0),
        (400.0, 2 / 8),  # the sample after, by the rule's weight of 1
        (402.0, 8 / 8),
        (401.5, (1.5 * 4 - 0.5 * 2) / 8),
        (404.0, 4 / 8),  # the last sample, which crashed
    ],
)
def test_the_excitation_is_looked_up_as_in_2017(wavelength: float, expected: float) -> None:
    assert COARSE.excitation_at(wavelength) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        ((400.0, 404.0), 18 / 19),
        ((0.0, 9999.0), 18 / 19),
        ((401.0, 402.5), 4 / 19),
        ((405.0, 410.0), 0.0),
        ((300.0, 399.0), 0.0),
        ((300.0, 400.5), 0.0),
    ],
)
def test_the_band_is_summed_as_in_2017(band: tuple[float, float], expected: float) -> None:
    assert COARSE.share_within(*band) == pytest.approx(expected)


def test_the_tables_are_the_built_in_dyes() -> None:
    built_in = fluorophores.load_builtin()
    assert set(spectra.dyes()) == set(built_in) - {"ATTO643", "Cy5"}
    for name, dye in spectra.dyes().items():
        assert dye.emission_peak_nm == pytest.approx(built_in[name].peak_emission_nm, abs=1.5)
        table = dye.emission
        grid = table.first_nm + table.step_nm * np.arange(table.value.size)
        ours = np.interp(grid, *np.array(built_in[name].emission).T)
        assert np.abs(table.value / table.value.max() - ours).max() < 0.006
    assert spectra.find("ATTO550").quantum_yield == 0.3


def test_mean_photons_are_those_of_the_reference(reference_2017: Path) -> None:
    for path in reference_2017.glob("*.json"):
        facts = json.loads(path.read_text())
        optics = facts["optics"]
        for pair, expected in facts["mean_photons"].items():
            channel, dye = pair.split("/")
            light = optics["channels"][channel]
            mean = spectra.mean_photons(
                spectra.find(dye),
                light["laser_wavelength"],
                light["laser_power"] * light["laser_percentage"],
                tuple(light["laser_filter"]),
                optics["exposure_time"],
                optics["objective_back_aperture"] / optics["objective_factor"],
                optics["objective_efficiency"],
                optics["detector_efficiency"],
            )
            assert mean == pytest.approx(expected, rel=1e-12)


def test_an_unknown_dye_is_refused() -> None:
    with pytest.raises(SpecError, match=r"no dye 'GFP'.*ATTO488"):
        spectra.find("GFP")


def test_light_beyond_the_emission_is_refused_but_for_two_photons() -> None:
    dye = spectra.find("ATTO488")
    spectra.check_pair("two photon", "c1", 900.0, dye)
    spectra.check_pair("confocal", "c1", 525.0, dye)
    with pytest.raises(SpecError, match="'c1' excites ATTO488 at 560 nm, beyond its emission peak at 525 nm"):
        spectra.check_pair("widefield", "c1", 560.0, dye)
