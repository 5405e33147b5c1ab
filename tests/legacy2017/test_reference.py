"""Images of the model against those of the 2017 program, whose means and variances over 96 runs are the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Tiling
from simexm.kernels.labels.regions import CYTOSOL, MEMBRANE
from simexm.legacy2017 import spectra
from simexm.legacy2017.kernels import frame as simexm2017_frame
from simexm.legacy2017.kernels import psf
from tests.legacy2017.build import Channel, LayerSpec, Model

CASES = ("confocal_membrane", "confocal_noise_amp", "brainbow_two_channel", "upsampled_ctc")
RUNS = 96


class Group(NamedTuple):
    """Mean and variance of each voxel over `runs` runs, and the total of each run and channel."""

    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    total: NDArray[np.float64]
    runs: int = RUNS


class Case(NamedTuple):
    """A case of the reference: its description, its result, and our model of it."""

    facts: dict[str, Any]
    reference: Group
    model: Model


def microscope(facts: dict[str, Any], spacing: float = 1.0) -> list[Channel]:
    """The channels of a case; `spacing` stretches the samples of the kernel."""
    optics, case = facts["optics"], facts["case"]
    dyes = sorted({layer["fluorophore"] for layer in case["lab"].values() if isinstance(layer, dict)})
    channels = []
    for name, channel in sorted(optics["channels"].items()):
        seen = {}
        for dye in map(spectra.find, dyes):
            mean = spectra.mean_photons(
                dye,
                channel["laser_wavelength"],
                channel["laser_power"] * channel["laser_percentage"],
                tuple(channel["laser_filter"]),
                optics["exposure_time"],
                optics["objective_back_aperture"] / optics["objective_factor"],
                optics["objective_efficiency"],
                optics["detector_efficiency"],
            )
            assert mean == pytest.approx(facts["mean_photons"][f"{name}/{dye.name}"], rel=1e-12)
            if mean > 0:
                z, y, x = (v * spacing for v in case["voxel"])
                volume = psf.kernel_volume(
                    optics["type"],
                    (z, y, x),
                    case["factor"],
                    channel["laser_wavelength"],
                    dye.emission_peak_nm,
                    optics["numerical_aperture"],
                    optics["refractory_index"],
                    optics["pinhole_radius"] / optics["objective_factor"],
                )
                seen[dye.name] = mean, psf.quantised(volume)
        channels.append(Channel(name, seen))
    return channels


def load(folder: Path, name: str) -> Case:
    facts = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as arrays:
        labels = arrays["labels"]
        reference = Group(arrays["mean"].astype(float), arrays["var"].astype(float), arrays["total"])
    case, optics = facts["case"], facts["optics"]
    layers = [
        LayerSpec(
            key,
            layer["fluorophore"],
            {"membrane": MEMBRANE, "cytosol": CYTOSOL}[layer["region"]],
            layer["protein_density"],
            layer["protein_noise"],
            layer["antibody_amp"],
        )
        for key, layer in sorted(case["lab"].items())
        if isinstance(layer, dict)
    ]
    camera = simexm2017_frame.frame(
        case["voxel"], case["factor"], optics["pixel_size"], optics["objective_factor"], optics["focal_plane_depth"]
    )
    model = Model(
        labels, Box.of_shape(labels.shape), tuple(case["voxel"]), not case["iso"],
        layers, microscope(facts), camera, optics["baseline_noise"],
    )  # fmt: skip
    return Case(facts, reference, model)


def group(model: Model, first: int, runs: int = RUNS) -> Group:
    """Runs of the seeds from `first` on."""
    whole, frame = Tiling(model.crop, model.crop.shape), Box.of_shape(model.shape)
    model.count(whole)
    total, mean, square = (
        [],
        np.zeros((len(model.channels), *model.shape)),
        np.zeros((len(model.channels), *model.shape)),
    )
    for seed in range(first, first + runs):
        image = model.tile(seed, model.laws(seed, whole), frame)
        total.append(image.sum(axis=(1, 2, 3)))
        mean += image
        square += image.astype(np.float64) ** 2
    mean /= runs
    return Group(mean, (square - runs * mean**2) / (runs - 1), np.array(total, np.float64), runs)


def statistic(a: Group, b: Group) -> float:
    """Mean over voxels of (difference of means)^2 over its variance; voxels that never varied and agree do not count."""
    difference, variance = (a.mean - b.mean) ** 2, a.var / a.runs + b.var / b.runs
    varied = variance > 0
    assert not difference[~varied].any()
    return float((difference[varied] / variance[varied]).mean())


def check_light(reference: Group, ours: Group) -> None:
    """Totals within 3 standard errors of the difference, summed variances within 5 %."""
    error = np.sqrt(ours.total.var(axis=0, ddof=1) / ours.runs + reference.total.var(axis=0, ddof=1) / reference.runs)
    assert (np.abs(ours.total.mean(axis=0) - reference.total.mean(axis=0)) <= 3 * error).all()
    ratio = ours.var.sum(axis=(1, 2, 3)) / reference.var.sum(axis=(1, 2, 3))
    assert (np.abs(ratio - 1) <= 0.05).all()


@pytest.mark.parametrize("name", CASES)
def test_the_image_has_the_distribution_of_2017(reference_2017: Path, name: str) -> None:
    case = load(reference_2017, name)
    assert [len(case.model.channels), *case.model.shape] == case.facts["out_shape"]
    ours = group(case.model, 1)
    check_light(case.reference, ours)
    # groups of our own show 0.99 to 1.04 against each other: the test below
    assert abs(statistic(case.reference, ours) - 1) <= 0.06


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.release if n else pytest.mark.slow) for n, name in enumerate(CASES)]
)
def test_groups_differ_from_2017_as_from_each_other(reference_2017: Path, name: str) -> None:
    case = load(reference_2017, name)
    groups = [group(case.model, 1000 * i) for i in range(1, 6)]
    own = [statistic(a, b) for i, a in enumerate(groups) for b in groups[:i]]
    for ours in groups:
        check_light(case.reference, ours)
    against_reference = np.mean([statistic(case.reference, ours) for ours in groups])
    assert abs(against_reference - np.mean(own)) <= 3 * np.std(own, ddof=1)


def test_regions_and_kernels_are_those_of_2017(reference_2017: Path) -> None:
    for name in CASES:
        case = load(reference_2017, name)
        regions = case.model.look(case.model.crop)[1]
        assert np.count_nonzero(regions == MEMBRANE) == case.facts["membrane_voxels"]
        assert np.count_nonzero(regions == CYTOSOL) == case.facts["cytosol_voxels"]
        for channel in case.model.channels:
            for dye, (_, kernel) in channel.dyes.items():
                total = kernel.total / 2**kernel.bits
                assert total == pytest.approx(case.facts["psf"][f"{channel.name}/{dye}"]["sum"], rel=1e-5)


def test_another_spacing_of_the_samples_is_far_off(reference_2017: Path) -> None:
    case = load(reference_2017, "confocal_membrane")
    case.model.channels = microscope(case.facts, spacing=15 / 16)
    wrong = group(case.model, 1, 24)
    assert statistic(case.reference, wrong) > 10
