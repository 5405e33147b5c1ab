"""The model of 2017 as a whole, through plan and blocks: the original's images, and the same bytes however it is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from simexm import simulate
from simexm.api import Simulation
from simexm.errors import SimexmWarning, SpecError
from simexm.legacy2017.imaging import Channel2017
from simexm.run.in_memory import Simulated
from tests.model2017 import small_2017

CASES = ["confocal_membrane", "brainbow_two_channel", "confocal_noise_amp", "upsampled_ctc"]


def spec_of(case: dict[str, Any], optics: dict[str, Any], **root: Any) -> dict[str, Any]:
    """The native spec of a reference case."""
    layers = [
        {
            "name": name,
            "dye": layer["fluorophore"],
            "region": layer["region"],
            "labeling_density": layer["labeling_density"],
            "protein_density_per_nm3": layer["protein_density"],
            "protein_noise": layer["protein_noise"],
            "antibody_amp": layer["antibody_amp"],
        }
        for name, layer in case["lab"].items()
        if name != "global_density"
    ]
    channels = [
        {
            "name": name,
            "laser_wavelength_nm": c["laser_wavelength"],
            "laser_power_W": c["laser_power"],
            "laser_percentage": c["laser_percentage"],
            "band_nm": c["laser_filter"],
        }
        for name, c in optics["channels"].items()
    ]
    return {
        "source": {"path": "memory"},
        "stages": [
            {"stage": "simexm2017_labelling", "neighbourhood": 26 if case["iso"] else 8, "layers": layers},
            {
                "stage": "simexm2017_imaging",
                "microscope": optics["type"].replace(" ", "_"),
                "expansion_factor": case["factor"],
                "numerical_aperture": optics["numerical_aperture"],
                "refractive_index": optics["refractory_index"],
                "focal_plane_depth_nm": optics["focal_plane_depth"],
                "objective_back_aperture_m": optics["objective_back_aperture"],
                "objective_factor": optics["objective_factor"],
                "exposure_s": optics["exposure_time"],
                "objective_efficiency": optics["objective_efficiency"],
                "detector_efficiency": optics["detector_efficiency"],
                "camera_pixel_nm": optics["pixel_size"],
                "pinhole_radius_um": optics["pinhole_radius"],
                "baseline_photons": optics["baseline_noise"],
                "channels": channels,
            },
            {"stage": "truth"},
        ],
        **root,
    }


def reference(folder: Path, name: str) -> tuple[dict[str, Any], Any]:
    """A case and its arrays."""
    return json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")


def run(case: dict[str, Any], labels: NDArray[Any], seed: int, tile: tuple[int, int, int] | None = None) -> Simulated:
    """One run, on labels in memory."""
    simulation = Simulation.from_mapping(spec_of(case["case"], case["optics"], seed=seed)).with_tile(tile)
    return simulate(labels.astype(np.uint32), simulation, voxel_size_nm=tuple(case["case"]["voxel"]))


@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_the_original(reference_2017: Path, name: str) -> None:
    """Against means and variances of 96 runs: a few runs through the whole engine, each voxel's squared deviation."""
    case, arrays = reference(reference_2017, name)
    runs = np.stack([run(case, arrays["labels"], seed).image.astype(np.float64) for seed in range(6)])
    assert runs.shape[1:] == arrays["mean"].shape
    mean, var = arrays["mean"].astype(np.float64), arrays["var"].astype(np.float64)
    # summed before it is divided: the mean of 1 / variance, from 96 runs of skewed counts, lies well above 1 / mean variance
    deviation = ((runs - mean) ** 2).sum(axis=(1, 2, 3, 4)) / (var.sum() * (1 + 1 / 96))
    assert deviation.mean() == pytest.approx(1, abs=0.05)
    totals, theirs = runs.sum(axis=(2, 3, 4)), arrays["total"].reshape(96, -1)
    error = np.sqrt(theirs.var(axis=0, ddof=1) * (1 / len(runs) + 1 / 96))
    assert (np.abs(totals.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all()


@pytest.mark.parametrize("name", CASES)
def test_tiles_change_no_byte(reference_2017: Path, name: str) -> None:
    case, arrays = reference(reference_2017, name)
    labels = arrays["labels"]
    whole = run(case, labels, 3)
    cut = run(case, labels, 3, (5, 37, 29))
    assert cut.plan.tile != whole.plan.tile
    assert np.array_equal(cut.image, whole.image)
    assert cut.image.any()
    for label in whole.labels:
        assert np.array_equal(cut.labels[label], whole.labels[label])
    for column in ("id", "voxels", "dyes_layer1"):
        assert np.array_equal(cut.cells[column], whole.cells[column])


def test_the_truth_is_at_the_planes_that_are_kept(reference_2017: Path) -> None:
    case, arrays = reference(reference_2017, "confocal_membrane")
    found = run(case, arrays["labels"], 0)
    assert np.array_equal(found.labels["cells"], arrays["labels"][::3])
    assert found.plan.geometry.image_origin_nm[0] == -40  # plane 0 is voxel 0, whose middle is at half a voxel
    case, arrays = reference(reference_2017, "upsampled_ctc")
    found = run(case, arrays["labels"], 0)
    assert np.array_equal(found.labels["cells"], np.repeat(np.repeat(arrays["labels"], 2, 1), 2, 2))


def _two_cells() -> NDArray[np.uint64]:
    labels = np.zeros((20, 24, 26), np.uint64)
    labels[3:17, 3:12, 3:23] = 2**40 + 3
    labels[3:17, 12:21, 3:14] = 7
    return labels


def test_a_single_neuron_is_the_one_with_most_voxels() -> None:
    found = simulate(_two_cells(), Simulation.from_mapping(small_2017(single_neuron=True)), voxel_size_nm=(40, 32, 32))
    assert set(np.unique(found.labels["a"])) == {0, 2**40 + 3}
    assert found.cells["dyes_a"][list(found.cells["id"]).index(7)] == 0
    assert found.cells["dyes_a"].max() > 100


def test_a_layer_without_a_voxel_is_warned_of() -> None:
    with pytest.warns(SimexmWarning, match="'a' is empty"):
        simulate(
            _two_cells(),
            Simulation.from_mapping(
                {**small_2017(region="nothing"), "source": {"path": "memory", "regions": {"nothing": "-"}}}
            ),
            voxel_size_nm=(40, 32, 32),
            regions={"nothing": np.zeros((20, 24, 26), bool)},
        )


def test_dyes_of_the_table_are_those_of_the_labelled_cells() -> None:
    found = simulate(_two_cells(), Simulation.from_mapping(small_2017(antibody_amp=2.0)), voxel_size_nm=(40, 32, 32))
    table = dict(zip(found.cells["id"], found.cells["dyes_a"], strict=True))
    voxel = 40 * 32 * 32
    for cell, dyes in table.items():
        cytosol = found.cells["voxels"][list(found.cells["id"]).index(cell)]
        assert dyes % 2 == 0
        assert dyes < 2 * 1e-5 * voxel * cytosol  # the membrane is not cytosol
        assert dyes > 0.3 * 2 * 1e-5 * voxel * cytosol


def test_a_laser_beyond_the_emission_is_refused_by_name() -> None:
    bad = small_2017()
    bad["stages"][1]["channels"] = [{"name": "far", "laser_wavelength_nm": 540, "band_nm": [545, 600]}]
    with pytest.raises(SpecError, match=r"'far'.*ATTO488 at 540 nm.*emission peak"):
        Simulation.from_mapping(bad)


def test_what_the_model_does_not_make_cannot_be_kept() -> None:
    with pytest.raises(SpecError, match="keep: emitters cannot be stored"):
        Simulation.from_mapping({**small_2017(), "keep": ["emitters"]})


def test_a_channel_of_2017_has_a_laser_and_a_band() -> None:
    line = {"name": "a", "laser_wavelength_nm": 488, "band_nm": [500, 550]}
    assert Channel2017.model_validate(line).excitation_nm == 488
    with pytest.raises(ValidationError, match="'a' has dichroic, but the program of 2017 knew lasers and bands only"):
        Channel2017.model_validate(line | {"dichroic": [495, 800]})
