"""Compare dyes with the lasers and filters of a spec: excitation, detection and crosstalk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simexm import settings
from simexm.errors import SpecError
from simexm.spectra import bands
from simexm.spectra.curves import Curve, NamedCurve
from simexm.spectra.dyes import Dye
from simexm.spectra.efficiency import CurveEfficiency
from simexm.spectra.fluorophores import Fluorophore, find
from simexm.spectra.lightpath import detected_share
from simexm.stages import MICROSCOPES, AnyStage, Barcodes
from simexm.stages.contract import Stage
from simexm.stages.microscope.optics import Optics
from simexm.stages.roles import Detector, Labeller, Microscope, NamedChannel

CROSSTALK_SHARE = 0.005
"""Crosstalk below this share of the wanted dye's light is not mentioned."""


@dataclass(frozen=True)
class LightPath:
    """The part of a spec that spectra depend on."""

    dyes: Mapping[str, Fluorophore]  # of the layers, and those that the spec defines
    channels: Sequence[NamedChannel]
    two_photon: bool
    efficiency: Curve | None = None  # of the detector, if it is a curve


@dataclass(frozen=True)
class DyeInChannel:
    """One dye in one channel."""

    dye: Fluorophore
    channel: NamedChannel
    excited: float | None
    """Excitation by the laser, as a share of that at the best wavelength; None if it is not known (two photons)."""
    passed: float
    """Share of the dye's emission that the filter passes."""
    brightness: float
    """Extinction (or, for two photons, cross section) at the laser line times quantum yield times `passed`."""
    signal: float | None = None
    """Brightness over that of the dye that the channel is for, molecule for molecule, in weak light; None if it is not
    known, or the channel is for none of the dyes."""
    wanted: bool = False
    """Whether this is the best channel for the dye."""


class _Light(BaseModel):
    """The keys of a spec that spectra depend on; others are ignored, so that a faulty spec can be drawn, too."""

    model_config = ConfigDict(extra="ignore")

    dyes: dict[str, Dye] = Field(default_factory=dict)
    curves: dict[str, NamedCurve] = Field(default_factory=dict)
    stages: tuple[AnyStage, ...]


def read_light_path(path: Path) -> LightPath:
    """Read dyes, lasers and filters of a spec file, or of a configuration of 2017.

    Specs whose filters miss their dyes are accepted, though they cannot be run: the picture shows why. Raises SpecError if the
    file is missing, a dye is unknown, or the stages are wrong or include no microscope.
    """
    from simexm.legacy2017.load import Job

    data = Job.of(path).spec() if settings.is_ini(path) else settings.read(path)
    try:
        light = _Light.model_validate(data)
    except ValidationError as error:
        raise settings.explain(error, _Light, str(path)) from None
    stages = [
        stage.resolved(light.curves)
        for stage in light.stages
        if isinstance(stage, Microscope | Detector | Labeller | Barcodes)
    ]
    light_path = light_path_of(stages, {name: dye.load(name) for name, dye in light.dyes.items()})
    if not light_path.channels:
        raise SpecError(
            f"{path} has no microscope, so there are no lasers and filters to draw; add one to its stages "
            f"({MICROSCOPES}), or leave --spec out"
        )
    return light_path


def light_path_of(stages: Iterable[Stage], own: Mapping[str, Fluorophore]) -> LightPath:
    """Return dyes, lasers and filters of these stages; `own` are dyes of the spec. Raises SpecError for an unknown dye."""
    stages = tuple(stages)
    used = [layer.dye for s in stages if isinstance(s, Labeller) for layer in s.named_layers]
    used += [dye for s in stages if isinstance(s, Barcodes) for dye in s.dyes.values()]
    channels = [channel for s in stages if isinstance(s, Microscope) for channel in s.all_channels]
    two_photon = any(isinstance(s, Optics) and s.multiphoton for s in stages)
    given = next((s.efficiency for s in stages if isinstance(s, Detector)), None)
    efficiency = given.curve if isinstance(given, CurveEfficiency) else None
    dyes = {name: find(name, own) for name in dict.fromkeys([*used, *own])}
    return LightPath(dyes, channels, two_photon, efficiency)


def dyes_in_channels(dyes: Iterable[Fluorophore], light_path: LightPath) -> list[DyeInChannel]:
    """Compute every dye in every channel, dye by dye."""
    seen: list[DyeInChannel] = []
    for dye in dyes:
        row = [_dye_in_channel(dye, channel, two_photon=light_path.two_photon) for channel in light_path.channels]
        # of a dark dye, too, one channel is nearest
        best = max(row, key=lambda s: (s.brightness, s.passed + (s.excited or 0.0)))
        seen += [replace(s, wanted=s is best) for s in row]
    return [_compared(s, [t for t in seen if t.channel.name == s.channel.name]) for s in seen]


def _dye_in_channel(dye: Fluorophore, channel: NamedChannel, *, two_photon: bool) -> DyeInChannel:
    passed = detected_share(dye, channel.detection)
    try:
        excited = bands.excited_share(dye, channel, two_photon=two_photon)
        strength = dye.two_photon_GM_at(channel.excitation_nm) if two_photon else excited * dye.extinction_per_M_per_cm
    except SpecError:  # no cross section is known
        return DyeInChannel(dye, channel, None, passed, 0.0)
    return DyeInChannel(dye, channel, excited, passed, strength * dye.quantum_yield * passed)


def _compared(pair: DyeInChannel, column: Sequence[DyeInChannel]) -> DyeInChannel:
    """Add the signal over that of the brightest dye that the channel is for."""
    most = max((s.brightness for s in column if s.wanted), default=0.0)
    return pair if pair.excited is None or most == 0 else replace(pair, signal=pair.brightness / most)


def remark(pair: DyeInChannel, light_path: LightPath) -> str:
    """Return a warning about a dye in a channel; empty if there is none."""
    dye, channel = pair.dye, pair.channel
    if pair.excited is None:
        return "two-photon cross section not known at this line"
    line = None if light_path.two_photon else channel.excitation_nm
    if pair.wanted and not pair.excited:
        return f"not excited: use a laser line near {dye.peak_excitation_nm:.0f} nm"
    if pair.wanted and bands.looks_dim(dye, channel.detection):
        return f"misses the peak at {dye.peak_emission_nm:.0f} nm: {bands.remedy(dye, line, channel.filter_key)}"
    if not pair.wanted and pair.signal is not None and pair.signal >= CROSSTALK_SHARE:
        return "crosstalk"
    return ""


def percent(share: float) -> str:
    """Format a share in per cent, with a decimal if it is small."""
    return "0%" if share == 0 else "< 0.1%" if share < 0.001 else f"{share:.{0 if share >= 0.1 else 1}%}"
