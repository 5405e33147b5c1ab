"""Convert a 2017 configuration to a native spec, with the model of 2017 or the default physics.

The crop of the ground truth is ingested first (`ingest_arguments`), and the spec reads the ingested volume: the original saw
nothing around the crop either.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any, Literal

from simexm import settings
from simexm.errors import SimexmWarning
from simexm.legacy2017 import physical
from simexm.legacy2017.config import Config
from simexm.legacy2017.misplaced import heading

Model = Literal["simexm2017", "physical"]
LONGEST = 64
"""Characters of a native name."""
_TAKEN = {"layer": (), "channel": (), "region": ("membrane", "cytosol", "labels")}
"""Names with another meaning in an ingested volume."""


def ingest_arguments(config: Config) -> dict[str, Any]:
    """Keyword arguments of `simexm.ingestion.ingest.ingest`, without the output; it detects the format from the files."""
    truth = config.groundtruth
    regions = _names(truth.regions, "region")
    return {
        "source": truth.image_path,
        "voxel_size_nm": tuple(float(v) for v in truth.voxel_dim),
        "regions": {regions[name]: region.region_path for name, region in truth.regions.items()},
        "roi": ",".join(f"{a}:{a + n}" for a, n in zip(truth.offset, truth.bounds, strict=True)),
        "cells": truth.gt_cells,
    }


def ingest_command(config: Config, output: str | PathLike[str]) -> str:
    """The shell command with the `ingest_arguments`."""
    a = ingest_arguments(config)
    words = ["simexm", "ingest", a["source"], "--output", fspath(output)]
    words += ["--voxel-size", *(f"{v:g}" for v in a["voxel_size_nm"]), "--roi", a["roi"]]
    for name, path in a["regions"].items():
        words += ["--region", f"{name}={path}"]
    return shlex.join([*words, *(["--cells", "splitted"] if a["cells"] == "splitted" else [])])


def convert(
    config: Config, model: Model = "simexm2017", *, source_path: str | PathLike[str], seed: int = 0
) -> dict[str, Any]:
    """Return the native spec as plain data, for `Simulation.from_mapping`; layers and channels are sorted by name.

    The model `simexm2017` is the original's; `physical` maps its values onto the default physics, see
    `simexm.legacy2017.physical`. `source_path` is the OME-Zarr that `ingest` wrote with `ingest_arguments`; the
    original had no seed.

    Warns of each name that is not valid in a native spec and, in the physical model, of each key that is only
    approximated. Raises SpecError if the physical model has no counterpart for some keys; the message lists them all.
    """
    names = native_names(config)
    stages = physical.stages(config, names) if model == "physical" else _stages_2017(config, names)
    used = [layer.region for layer in config.labeling.layers.values()] + [config.output.gt_region]
    masks = [names["region"][name] for name in config.groundtruth.regions if name in used]
    source = {"path": fspath(source_path), **({"regions": {name: name for name in masks}} if masks else {})}
    return {"name": config.output.name, "seed": seed, "source": source, "stages": stages}


def native_names(config: Config) -> dict[str, dict[str, str]]:
    """Native names of layers, channels and regions, {"layer": {old: new}, ...}; warns of each name that changes."""
    places: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
        "layer": (("labeling",), config.labeling.layers),
        "channel": (("optics", "channels"), config.optics.channels),
        "region": (("groundtruth", "regions"), config.groundtruth.regions),
    }
    names = {kind: _names(originals, kind) for kind, (_, originals) in places.items()}
    for kind, renamed in names.items():
        for old, new in renamed.items():
            if old != new:
                warnings.warn(
                    f"{heading((*places[kind][0], old))}: the name of a {kind} in a native spec has letters, digits, - and _, "
                    f"begins with a letter, and ignores case; it becomes {new}, which also keys the random numbers",
                    SimexmWarning,
                    stacklevel=3,
                )
    return names


def to_yaml_text(mapping: dict[str, Any], comment: str) -> str:
    """The spec as YAML below a comment."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + settings.dump(mapping)


def _names(originals: Iterable[str], kind: str) -> dict[str, str]:
    """A native name for each original one, sorted; unique even without case."""
    names: dict[str, str] = {}
    taken = set(_TAKEN[kind])
    fitting = [name for name in sorted(originals) if _fitted(name, kind) == name]
    for original in (*fitting, *(name for name in sorted(originals) if name not in fitting)):
        name = first = _fitted(original, kind)
        n = 1
        while name.lower() in taken:
            n += 1
            name = f"{first[: LONGEST - len(str(n)) - 1]}_{n}"
        taken.add(name.lower())
        names[original] = name
    return {original: names[original] for original in sorted(names)}


def _fitted(name: str, kind: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    return (plain if re.match("[A-Za-z]", plain) else f"{kind}_{plain}")[:LONGEST]


def _stages_2017(config: Config, names: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    optics = config.optics
    return [
        {
            "stage": "simexm2017_labelling",
            "neighbourhood": 26 if config.groundtruth.isotropic else 8,
            "global_density": config.labeling.global_density,
            "layers": [
                {
                    "name": names["layer"][name],
                    "dye": layer.fluorophore,
                    "region": names["region"].get(layer.region, layer.region),
                    "labeling_density": layer.labeling_density,
                    "protein_density_per_nm3": layer.protein_density,
                    "protein_noise": layer.protein_noise,
                    "antibody_amp": layer.antibody_amp,
                    "single_neuron": layer.single_neuron,
                }
                for name, layer in config.labeling.layers.items()
            ],
        },
        {
            "stage": "simexm2017_imaging",
            "microscope": optics.type.replace(" ", "_"),
            "expansion_factor": config.expansion.factor,
            "numerical_aperture": optics.numerical_aperture,
            "refractive_index": optics.refractory_index,
            "focal_plane_depth_nm": optics.focal_plane_depth,
            "objective_back_aperture_m": optics.objective_back_aperture,
            "objective_factor": optics.objective_factor,
            "exposure_s": optics.exposure_time,
            "objective_efficiency": optics.objective_efficiency,
            "detector_efficiency": optics.detector_efficiency,
            "camera_pixel_nm": optics.pixel_size,
            "pinhole_radius_um": optics.pinhole_radius,
            "baseline_photons": optics.baseline_noise,
            "channels": [
                {
                    "name": names["channel"][name],
                    "laser_wavelength_nm": channel.laser_wavelength,
                    "laser_power_W": channel.laser_power,
                    "laser_percentage": channel.laser_percentage,
                    "band_nm": physical.band(channel),
                }
                for name, channel in sorted(optics.channels.items())
            ],
        },
        {"stage": "truth"},
    ]
