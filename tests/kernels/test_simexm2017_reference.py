"""Images of the model against those of the 2017 program, whose means and variances over 96 runs are the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.grid import Box, Tiling
from simexm.kernels import simexm2017_frame, simexm2017_psf
from simexm.kernels.regions import CYTOSOL, MEMBRANE
from simexm.spectra import simexm2017 as spectra
from tests.kernels.simexm2017_build import Channel, LayerSpec, Model

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
                volume = simexm2017_psf.kernel_volume(
                    optics["type"],
                    (z, y, x),
                    case["factor"],
                    channel["laser_wavelength"],
                    dye.emission_peak_nm,
                    optics["numerical_aperture"],
                    optics["refractory_index"],
                    optics["pinhole_radius"] / optics["objective_factor"],
                )
                seen[dye.name] = mean, simexm2017_psf.quantised(volume)
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


def images(model: Model, first: int, runs: int) -> NDArray[np.float32]:
    """Images of `runs` seeds from `first` on, (run, channel, z, y, x)."""
    whole = Tiling(model.crop, model.crop.shape)
    model.count(whole)
    frame = Box.of_shape(model.shape)
    return np.stack([model.tile(s, model.laws(s, whole), frame).astype(np.float32) for s in range(first, first + runs)])


def group(runs: NDArray[np.float32]) -> Group:
    total = runs.sum(axis=(2, 3, 4), dtype=np.float64)
    return Group(runs.mean(axis=0, dtype=np.float64), runs.var(axis=0, dtype=np.float64), total, len(runs))


def statistic(a: Group, b: Group) -> float:
    """Mean over voxels of (difference of means)^2 over its variance; voxels that never varied and agree do not count."""
    difference, variance = (a.mean - b.mean) ** 2, a.var / a.runs + b.var / b.runs
    varied = variance > 0
    assert np.abs(difference[~varied]).max(initial=0) == 0
    return float((difference[varied] / variance[varied]).mean())


def check(reference: Group, ours: Group, among_ours: list[float]) -> None:
    """The three demands: statistic, totals, variances."""
    centre, spread = float(np.mean(among_ours)), float(np.std(among_ours, ddof=1))
    assert abs(statistic(reference, ours) - centre) <= 3 * spread
    error = np.sqrt(ours.total.var(axis=0, ddof=1) / ours.runs + reference.total.var(axis=0, ddof=1) / reference.runs)
    assert (np.abs(ours.total.mean(axis=0) - reference.total.mean(axis=0)) <= 3 * error).all()
    ratio = ours.var.sum(axis=(1, 2, 3)) / reference.var.sum(axis=(1, 2, 3))
    assert (np.abs(ratio - 1) <= 0.05).all()


@pytest.mark.parametrize("name", CASES)
def test_the_image_has_the_distribution_of_2017(reference_2017: Path, name: str) -> None:
    case = load(reference_2017, name)
    assert [len(case.model.channels), *case.model.shape] == case.facts["out_shape"]
    runs = images(case.model, 1, RUNS)
    # what groups of our own show against each other: the runs split at random into halves
    rng = np.random.default_rng(5)
    splits = [rng.permutation(RUNS) for _ in range(12)]
    among_ours = [statistic(group(runs[s[: RUNS // 2]]), group(runs[s[RUNS // 2 :]])) for s in splits]
    check(case.reference, group(runs), among_ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_several_groups_have_the_distribution_of_2017(reference_2017: Path, name: str) -> None:
    case = load(reference_2017, name)
    groups = [group(images(case.model, 1000 * (i + 1), RUNS)) for i in range(5)]
    among_ours = [statistic(a, b) for i, a in enumerate(groups) for b in groups[:i]]
    for ours in groups:
        check(case.reference, ours, among_ours)


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
    wrong = group(images(case.model, 1, 24))
    assert statistic(case.reference, wrong) > 10
