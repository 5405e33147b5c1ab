"""From a 2017 file to a native spec: the same values, and warnings of all differences."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm import settings as specfile
from simexm.api import Simulation
from simexm.errors import SimexmWarning, SpecError
from simexm.legacy2017.config import Config
from simexm.legacy2017.convert import convert, ingest_arguments, native_names, to_yaml_text
from simexm.legacy2017.ini import from_text
from simexm.names import NAME
from simexm.stages.microscope.confocal import Confocal
from tests.legacy2017.configs import BRAINBOW, CONFOCAL, CTC, SPLITTED, SYNAPSE, edited

PHANTOM = {"kind": "phantom", "shape": [24, 40, 40], "voxel_size_nm": [40, 32, 32], "seed": 1}


def config(text: str, *edits: tuple[str, str]) -> Config:
    return from_text(edited(text, *edits), "my.ini")


def physical(text: str, *edits: tuple[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The spec in the default physics, and the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        spec = convert(config(text, *edits), "physical", source_path="truth.zarr", seed=3)
    assert all(issubclass(w.category, SimexmWarning) for w in told)
    return spec, [str(w.message) for w in told]


def stage(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [s for s in spec["stages"] if s["stage"] == name]
    return dict(found)


# -------------------------------------------------------------------- the ground truth


def test_the_ingest_takes_what_the_file_names() -> None:
    assert ingest_arguments(config(SYNAPSE)) == {
        "source": "data/pinky/cells.tif", "voxel_size_nm": (40.0, 32.0, 32.0), "regions": {"synapse": "data/synapse"},
        "roi": "300:348,200:296,100:190", "cells": "merged",
    }  # fmt: skip
    assert ingest_arguments(config(SPLITTED))["cells"] == "splitted"


# -------------------------------------------------------------------- the model of 2017


def test_the_2017_model_has_the_figures_of_the_file() -> None:
    spec = convert(config(SYNAPSE), source_path="truth.zarr", seed=7)
    figures = {
        "labeling_density": 0.3, "protein_density_per_nm3": 3e-5, "protein_noise": 0.5, "antibody_amp": 10.0,
        "single_neuron": False,
    }  # fmt: skip
    assert {key: spec[key] for key in ("name", "seed", "source")} == {
        "name": "membrane", "seed": 7, "source": {"path": "truth.zarr", "regions": {"synapse": "synapse"}},
    }  # fmt: skip
    assert [s["stage"] for s in spec["stages"]] == ["simexm2017_labelling", "simexm2017_imaging", "truth"]
    labelling, imaging = spec["stages"][:2]
    assert (labelling["neighbourhood"], labelling["global_density"]) == (26, 0.8)
    assert [layer["name"] for layer in labelling["layers"]] == ["layer1", "layer2"]
    assert labelling["layers"][1] == {"name": "layer2", "dye": "ATTO647N", "region": "synapse", **figures}
    channels = imaging.pop("channels")
    assert imaging == {
        "stage": "simexm2017_imaging", "microscope": "confocal", "expansion_factor": 4.0, "numerical_aperture": 1.15,
        "refractive_index": 1.33, "focal_plane_depth_nm": 500, "objective_back_aperture_m": 1.0, "objective_factor": 40.0,
        "exposure_s": 0.1, "objective_efficiency": 0.8, "detector_efficiency": 0.6, "camera_pixel_nm": 6500,
        "pinhole_radius_um": 50.0, "baseline_photons": 0,
    }  # fmt: skip
    assert channels[1] == {
        "name": "channel_2", "laser_wavelength_nm": 640, "laser_power_W": 60.0, "laser_percentage": 0.5, "band_nm": [655, 720],
    }  # fmt: skip


def test_isotropic_and_the_microscope_in_the_2017_model() -> None:
    assert convert(config(CTC), source_path="t.zarr")["stages"][0]["neighbourhood"] == 8
    assert convert(config(CTC), source_path="t.zarr")["stages"][1]["microscope"] == "widefield"
    assert convert(config(SPLITTED), source_path="t.zarr")["stages"][1]["microscope"] == "two_photon"


@pytest.mark.parametrize(
    "text", [CONFOCAL, BRAINBOW, SYNAPSE, SPLITTED, CTC], ids=["confocal", "brainbow", "synapse", "splitted", "ctc"]
)
def test_the_spec_as_text_is_the_spec(text: str) -> None:
    spec = convert(config(text), source_path="truth.zarr")
    written = to_yaml_text(spec, "From my.ini\n\nby hand")
    assert written.startswith("# From my.ini\n#\n# by hand\nname: ")
    assert specfile.parse(written, "spec.yaml") == spec


# -------------------------------------------------------------------- names


def test_names_that_a_spec_cannot_have_are_changed_with_a_warning() -> None:
    text = edited(SYNAPSE, ("[[layer1]]", "[[2 cells]]"), ("[[[channel_1]]]", "[[[Kanal grün]]]"), ("[[[synapse]]]", "[[[the synapses]]]"),
                  ("region = 'synapse'", "region = the synapses"))  # fmt: skip
    with pytest.warns(SimexmWarning) as told:
        spec = convert(from_text(text, "my.ini"), source_path="t.zarr")
    assert [layer["name"] for layer in spec["stages"][0]["layers"]] == ["layer_2_cells", "layer2"], (
        "order of the old names"
    )
    assert [c["name"] for c in spec["stages"][1]["channels"]] == ["Kanal_gr_n", "channel_2"]
    assert spec["stages"][0]["layers"][1]["region"] == "the_synapses"
    assert spec["source"]["regions"] == {"the_synapses": "the_synapses"}
    assert ingest_arguments(from_text(text, "my.ini"))["regions"] == {"the_synapses": "data/synapse"}
    messages = [str(w.message) for w in told]
    assert len(messages) == 3
    assert "[labeling] [[2 cells]]" in messages[0]
    assert "layer_2_cells" in messages[0]
    assert "[optics] [[channels]] [[[Kanal grün]]]" in messages[1]


@given(
    st.sets(st.text(min_size=1, max_size=80), min_size=1, max_size=8)
    | st.sets(st.text("aA_1 .", min_size=1, max_size=3), min_size=1)
)
@settings(max_examples=100, deadline=None)
def test_native_names_are_fit_unique_and_in_order(originals: set[str]) -> None:
    base = config(CONFOCAL)
    channel = base.optics.channels["channel_1"]
    optics = base.optics.model_copy(update={"channels": dict.fromkeys(originals, channel)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        names = native_names(base.model_copy(update={"optics": optics}))["channel"]
    assert list(names) == sorted(originals)
    assert all(re.fullmatch(NAME, new) and len(new) <= 64 for new in names.values())
    assert len({new.lower() for new in names.values()}) == len(originals)
    assert len(told) == sum(old != new for old, new in names.items())
    fit = [old for old in originals if re.fullmatch(NAME, old) and len(old) <= 64]
    if len({old.lower() for old in fit}) == len(fit):
        assert all(names[old] == old for old in fit)


# -------------------------------------------------------------------- the default physics


def test_the_default_physics_has_the_densities_and_the_grid_of_the_file() -> None:
    spec, _ = physical(SYNAPSE)
    assert [s["stage"] for s in spec["stages"]] == ["regions", "labelling", "expansion", "confocal", "camera", "truth"]
    assert stage(spec, "labelling")["layers"] == [
        {"name": "layer1", "dye": "ATTO488", "region": "membrane", "cell_fraction": 0.4, "density_per_um3": 1e5,
         "dyes_per_protein": {"distribution": "poisson", "mean": 1.0}},
        {"name": "layer2", "dye": "ATTO647N", "region": "synapse", "cell_fraction": 0.24, "density_per_um3": 3e4,
         "dyes_per_protein": {"distribution": "poisson", "mean": 10.0}},
    ]  # fmt: skip
    optics = stage(spec, "confocal")
    assert (optics["pixel_size_nm"], optics["plane_spacing_nm"]) == (162.5, 500)
    assert optics["objective_transmission"] == 0.8
    assert stage(spec, "camera") == {
        "stage": "camera", "quantum_efficiency": 0.6, "stray_light_e": 0.0, "read_noise_e": 0.0, "gain_counts_per_e": 1.0,
        "offset_counts": 0.0,
    }  # fmt: skip
    assert spec["seed"] == 3


@pytest.mark.parametrize("factor", [1.0, 7.3, 40.0, 100.0])
def test_every_plane_takes_the_fluence_of_the_file(factor: float) -> None:
    """power * percentage * exposure over the illuminated disc, J / m^2, by scanner and by camera."""
    fluence = 50.0 * 0.25 * 0.1 / (math.pi * (1.0 / factor) ** 2)
    edit = ("objective_factor = 40.0", f"objective_factor = {factor}")
    scanner = stage(physical(CONFOCAL, edit)[0], "confocal")
    power_W, dwell_s = scanner["channels"][0]["laser_power_uW"] * 1e-6, scanner["dwell_us"] * 1e-6
    assert power_W * dwell_s / (scanner["pixel_size_nm"] * 1e-9) ** 2 == pytest.approx(fluence, rel=1e-12)
    camera = stage(physical(CONFOCAL, edit, ("'confocal'", "'widefield'"))[0], "widefield")
    assert camera["channels"][0]["irradiance_W_per_cm2"] * 1e4 * camera["exposure_s"] == pytest.approx(
        fluence, rel=1e-12
    )


def test_the_pinhole_of_the_first_channel_is_the_file_s() -> None:
    spec, told = physical(BRAINBOW)
    (optics,) = [s for s in Simulation.from_mapping({**spec, "source": PHANTOM}).stages if isinstance(s, Confocal)]
    first, second = optics.channels
    assert optics.pinhole_radius_nm(first) == pytest.approx(50_000 / 40)
    (message,) = [m for m in told if "pinhole" in m]
    assert "pinhole_radius = 50 um holds for the first channel" in message
    radius_um = optics.pinhole_radius_nm(second) * 40 / 1000
    assert f"{radius_um:.3g} um in channel_2" in message
    assert not [m for m in physical(CONFOCAL)[1] if "pinhole" in m]
    wide, told = physical(CONFOCAL, ("pinhole_radius = 50.0", "pinhole_radius = 500"))
    assert stage(wide, "confocal")["pinhole_airy_units"] == 20
    assert any("pinhole_radius = 500 um is 44.9 Airy units wide" in m for m in told)


@pytest.mark.parametrize("kind", ["confocal", "widefield"])
@pytest.mark.parametrize("text", [CONFOCAL, BRAINBOW, SYNAPSE], ids=["confocal", "brainbow", "synapse"])
def test_the_default_physics_can_be_planned(text: str, kind: str) -> None:
    spec, _ = physical(text, ("'confocal'", kind))
    plan = Simulation.from_mapping({**spec, "source": PHANTOM}).plan()
    assert plan.context.geometry.shape == (24 * 40 * 4 // 500, 40 * 32 * 4 * 2 // 325, 40 * 32 * 4 * 2 // 325)


def test_a_filter_that_holds_the_laser_is_refused_when_the_spec_is_read() -> None:
    spec, _ = physical(CONFOCAL, ("laser_filter = 500, 550", "laser_filter = 450, 550"))
    with pytest.raises(SpecError, match="contains its laser line at 488 nm"):
        Simulation.from_mapping({**spec, "source": PHANTOM})


TOLD = [
    (("protein_noise = 0.0", "protein_noise = 0.5"), "[labeling] [[layer1]]: protein_noise = 0.5 has no counterpart and is ignored"),
    (("antibody_amp = 1.0", "antibody_amp = 5"), "antibody_amp = 5 in [labeling] [[layer1]] becomes the mean of a Poisson number"),
    (("baseline_noise = 0", "baseline_noise = 12"), "baseline_noise = 12 photons in each voxel of the ground truth"),
    (("exposure_time = 0.1", "exposure_time = 0.2"), "exposure_time = 0.2 s: a scanner dwells 10 us on a pixel"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), TOLD, ids=[said[:40] for _, said in TOLD])
def test_what_is_only_approximated_is_warned_of_once(edit: tuple[str, str], said: str) -> None:
    told = physical(CONFOCAL, edit)[1]
    assert len([message for message in told if said in message]) == 1
    assert len(told) == 1 + ("exposure" not in said), "and nothing else"


def test_cells_chosen_by_each_layer_for_itself_are_warned_of() -> None:
    said = "[labeling]: global_density = 0.8 multiplies the cell_fraction of each layer"
    assert [m for m in physical(BRAINBOW)[1] if said in m]
    one, told = physical(CONFOCAL, ("global_density = 1.0", "global_density = 0.8"))
    assert not [m for m in told if "global_density" in m], "one layer alone is the same thing"
    assert stage(one, "labelling")["layers"][0]["cell_fraction"] == 0.4


def test_what_has_no_counterpart_is_refused_all_at_once() -> None:
    edits = [
        (("type = 'confocal'", "type = 'two photon'"), "[optics]: type = two photon needs values that the file does not have: the laser's repetition_MHz and pulse_fs, and the two_photon_GM cross sections of ATTO488"),
        (("single_neuron = False", "single_neuron = True"), "[labeling] [[layer1]]: single_neuron = True"),
        (("labeling_density = 0.5", "labeling_density = 0"), "[labeling] [[layer1]]: labeling_density = 0 labels nothing"),
        (("protein_density = 1e-4", "protein_density = 0"), "[labeling] [[layer1]]: protein_density = 0 labels nothing"),
        (("laser_percentage = 0.25", "laser_percentage = 0"), "[optics] [[channels]] [[[channel_1]]]: laser_percentage = 0 gives no light"),
        (("detector_efficiency = 0.6", "detector_efficiency = 0"), "[optics]: detector_efficiency = 0 transmits no light"),
    ]  # fmt: skip
    for edit, said in edits:
        with pytest.raises(SpecError, match=re.escape(said)):
            physical(CONFOCAL, edit)
    with pytest.raises(SpecError) as error:
        physical(CONFOCAL, *(edit for edit, _ in edits))
    assert [said for _, said in edits if said not in str(error.value)] == []
    with pytest.raises(SpecError, match=r"pinhole_radius = 0\.1 um is .* Airy units wide"):
        physical(CONFOCAL, ("pinhole_radius = 50.0", "pinhole_radius = 0.1"))
