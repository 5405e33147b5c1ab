"""Convert a 2017 configuration to the default physics.

These are kept: protein densities, dyes per protein, shares of cells, the grid of pixels and planes (without the original's
rounding), aperture and index, the fluence in every plane, the pinhole, and the efficiencies of objective and detector. As in the
original, the laser illuminates a disc of radius aperture / magnification, so the irradiance is
I = power * percentage / (pi * (objective_back_aperture / objective_factor)^2). A camera is exposed to I for the exposure time; a
scanner's power is such that power * dwell / pixel area = I * exposure time.

The original's errors (see the physics of the default model) are not kept, so counts differ by large factors.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from simexm.errors import SimexmWarning, SpecError
from simexm.geometry.grid import exact
from simexm.legacy2017.config import LIGHT_NM, Channel, Config, Layer, Optics
from simexm.legacy2017.misplaced import heading

DWELL_US = 10.0
WIDEST_AU, NARROWEST_AU = 20.0, 0.05
"""Limits of the confocal stage's pinhole, Airy units."""

Names = dict[str, dict[str, str]]


def band(channel: Channel) -> list[int]:
    """The filter's band, limited to wavelengths that any dye emits."""
    return [max(channel.laser_filter[0], LIGHT_NM[0]), min(channel.laser_filter[1], LIGHT_NM[1])]


def irradiance_W_per_m2(optics: Optics, channel: Channel) -> float:
    """Irradiance at the specimen: the used power over the illuminated disc."""
    radius_m = optics.objective_back_aperture / optics.objective_factor
    return channel.laser_power * channel.laser_percentage / (math.pi * radius_m**2)


def stages(config: Config, names: Names) -> list[dict[str, Any]]:
    """The stages regions, labelling, expansion, a microscope, camera and truth.

    Warns of each key that is only approximated. Raises SpecError with all keys that have no counterpart.
    """
    problems = _refused(config)
    if problems:
        head = "the physical model cannot run this configuration: "
        raise SpecError(head + (problems[0] if len(problems) == 1 else "\n  " + "\n  ".join(problems)))
    _warn_of_labelling(config)
    return [
        {"stage": "regions", "neighbourhood": 26 if config.groundtruth.isotropic else 8},
        {"stage": "labelling", "layers": [_layer(config, name, names) for name in config.labeling.layers]},
        {"stage": "expansion", "factor": config.expansion.factor},
        _microscope(config.optics, names["channel"]),
        _camera(config.optics),
        {"stage": "truth"},
    ]


def _refused(config: Config) -> list[str]:
    """Keys without a counterpart."""
    problems = []
    labeling, optics = config.labeling, config.optics
    if labeling.global_density == 0:
        problems.append("[labeling]: global_density = 0 labels no cell; raise it")
    for name, layer in labeling.layers.items():
        where = heading(("labeling", name))
        if layer.single_neuron:
            problems.append(
                f"{where}: single_neuron = True, the label of the largest cell alone, has no counterpart; set it to False "
                "with a lower labeling_density, or use --model simexm2017"
            )
        for key in ("labeling_density", "protein_density"):
            if getattr(layer, key) == 0:
                problems.append(f"{where}: {key} = 0 labels nothing; raise it, or remove the layer")
    for key in ("objective_efficiency", "detector_efficiency"):
        if getattr(optics, key) == 0:
            problems.append(f"[optics]: {key} = 0 transmits no light; raise it")
    for name, channel in sorted(optics.channels.items()):
        if channel.laser_percentage == 0:
            where = heading(("optics", "channels", name))
            problems.append(f"{where}: laser_percentage = 0 gives no light; raise it, or remove the channel")
    if optics.type == "two photon":
        dyes = ", ".join(dict.fromkeys(layer.fluorophore for layer in labeling.layers.values()))
        problems.append(
            "[optics]: type = two photon needs values that the file does not have: the laser's repetition_MHz and pulse_fs, "
            f"and the two_photon_GM cross sections of {dyes}. Write a native spec with the stage two_photon, and with the cross "
            "sections under `dyes:` (`simexm new` prints one to edit), or use --model simexm2017"
        )
    wide = _airy_units(optics, _first(optics))
    if optics.type == "confocal" and wide <= NARROWEST_AU:
        problems.append(
            f"[optics]: pinhole_radius = {optics.pinhole_radius:g} um is {wide:.2g} Airy units wide and transmits almost "
            f"no light; make it wider than {optics.pinhole_radius * NARROWEST_AU / wide:.3g} um"
        )
    return problems


def _warn(message: str) -> None:
    warnings.warn(message, SimexmWarning, stacklevel=5)


def _warn_of_labelling(config: Config) -> None:
    labeling = config.labeling
    if labeling.global_density < 1 and len(labeling.layers) > 1:
        _warn(
            f"[labeling]: global_density = {labeling.global_density:g} multiplies the cell_fraction of each layer, and each "
            "chooses its cells independently: fewer cells carry several labels than in the original"
        )
    for name, layer in labeling.layers.items():
        if layer.protein_noise > 0:
            _warn(
                f"{heading(('labeling', name))}: protein_noise = {layer.protein_noise:g} has no counterpart and is ignored: all "
                "proteins stay in their region. For displaced labels give the layer linker_nm or unspecific_per_um3"
            )
    amplified = {name: layer.antibody_amp for name, layer in labeling.layers.items() if layer.antibody_amp != 1}
    if amplified:
        values = ", ".join(f"{amp:g} in {heading(('labeling', name))}" for name, amp in amplified.items())
        _warn(
            f"antibody_amp = {values} becomes the mean of a Poisson number of dyes on each protein; the original multiplied. "
            "For a fixed number write dyes_per_protein: {distribution: fixed, sites: ...}"
        )


def _layer(config: Config, name: str, names: Names) -> dict[str, Any]:
    layer: Layer = config.labeling.layers[name]
    return {
        "name": names["layer"][name],
        "dye": layer.fluorophore,
        "region": names["region"].get(layer.region, layer.region),
        "cell_fraction": float(exact(config.labeling.global_density) * exact(layer.labeling_density)),
        "density_per_um3": float(exact(layer.protein_density) * 10**9),
        "dyes_per_protein": {"distribution": "poisson", "mean": layer.antibody_amp},
    }


def _microscope(optics: Optics, names: dict[str, str]) -> dict[str, Any]:
    pixel_nm = exact(optics.pixel_size) / exact(optics.objective_factor)
    channels = dict(sorted(optics.channels.items()))
    stage: dict[str, Any] = {
        "stage": optics.type,
        "numerical_aperture": optics.numerical_aperture,
        "refractive_index": optics.refractory_index,
        "pixel_size_nm": float(pixel_nm),
        "plane_spacing_nm": optics.focal_plane_depth,
        "objective_transmission": optics.objective_efficiency,
        "channels": [
            {"name": names[n], "laser_wavelength_nm": c.laser_wavelength, "band_nm": band(c)}
            for n, c in channels.items()
        ],
    }
    irradiances = [irradiance_W_per_m2(optics, channel) for channel in channels.values()]
    if optics.type == "widefield":
        stage["exposure_s"] = optics.exposure_time
        for native, irradiance in zip(stage["channels"], irradiances, strict=True):
            native["irradiance_W_per_cm2"] = irradiance * 1e-4
        return stage
    for native, irradiance in zip(stage["channels"], irradiances, strict=True):
        energy_J = irradiance * optics.exposure_time * (float(pixel_nm) * 1e-9) ** 2
        native["laser_power_uW"] = energy_J / (DWELL_US * 1e-6) * 1e6
    _warn(
        f"[optics]: exposure_time = {optics.exposure_time:g} s: a scanner dwells {DWELL_US:g} us on a pixel; laser_power_uW is "
        "set so that each pixel gets the same energy per area, so dyes may saturate that did not before"
    )
    stage["dwell_us"] = DWELL_US
    stage["pinhole_airy_units"] = _pinhole(optics)
    return stage


def _first(optics: Optics) -> Channel:
    return optics.channels[min(optics.channels)]


def _airy_units(optics: Optics, channel: Channel) -> float:
    """Diameter of the pinhole at the specimen over 1.22 lambda / NA in the middle of the band, as in `Confocal`."""
    radius_nm = 1000 * optics.pinhole_radius / optics.objective_factor
    return radius_nm / (0.61 * sum(band(channel)) / 2 / optics.numerical_aperture)


def _pinhole(optics: Optics) -> float:
    size = _airy_units(optics, _first(optics))
    if size > WIDEST_AU:
        _warn(
            f"[optics]: pinhole_radius = {optics.pinhole_radius:g} um is {size:.3g} Airy units wide; it is replaced by "
            f"{WIDEST_AU:g}, which transmit almost all light from near the focus"
        )
        return WIDEST_AU
    others = {name: _airy_units(optics, channel) for name, channel in sorted(optics.channels.items())}
    if any(abs(other / size - 1) > 1e-9 for other in others.values()):
        radii = ", ".join(f"{optics.pinhole_radius * size / other:.3g} um in {name}" for name, other in others.items())
        _warn(
            f"[optics]: pinhole_radius = {optics.pinhole_radius:g} um holds for the first channel only; pinhole_airy_units = "
            f"{size:.3g} scales with each channel's wavelength: {radii}"
        )
    return size


def _camera(optics: Optics) -> dict[str, Any]:
    if optics.baseline_noise > 0:
        _warn(
            f"[optics]: baseline_noise = {optics.baseline_noise} photons in each voxel of the ground truth, fewer towards the "
            f"border, become stray_light_e = {optics.baseline_noise} in each pixel and plane, uniformly"
        )
    return {
        "stage": "camera",
        "quantum_efficiency": optics.detector_efficiency,
        "stray_light_e": float(optics.baseline_noise),
        "read_noise_e": 0.0,
        "gain_counts_per_e": 1.0,
        "offset_counts": 0.0,
    }
