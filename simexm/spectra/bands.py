"""Check whether a filter fits a dye, and suggest one that does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import Excitation, Transmission, detected_share
from simexm.spectra.spectrum import Spectrum

DIM_SHARE = 1 / 3
"""A filter that misses the peak of a dye and passes less than this share of its emission is taken for a mistake.

A band that begins just above the peak because of the laser line passes more; a narrow band around the peak may pass
less on purpose.
"""
BLOCKED_SHARE = 0.1
"""A filter that passes less than this share of a wavelength blocks it."""
LASER_GAP_NM = 10.0
"""Gap that a filter needs above its laser line to block scattered light."""
_STEP_NM = 5.0


def excited_share(dye: Fluorophore, channel: LitAndFiltered, *, two_photon: bool) -> float:
    """Absorption, or two-photon cross section, of a channel's light relative to the dye's maximum; SpecError if unknown."""
    if not two_photon:
        return channel.excitation.absorbed(dye)
    here = dye.two_photon_GM_at(channel.excitation_nm)
    assert dye.two_photon_GM is not None
    return here / max(value for _, value in dye.two_photon_GM)


def misses_peak(dye: Fluorophore, filters: Transmission) -> bool:
    """Whether the filters block the dye's emission peak."""
    return filters.at(dye.peak_emission_nm) < BLOCKED_SHARE


def looks_dim(dye: Fluorophore, filters: Transmission) -> bool:
    """Whether the filters miss the dye's peak and most of its light."""
    return misses_peak(dye, filters) and detected_share(dye, filters) < DIM_SHARE


def fitting_band(dye: Fluorophore, laser_nm: float | None) -> tuple[float, float] | None:
    """Band in which the dye emits more than half of its maximum, rounded outwards to 5 nm.

    It begins above the laser line (None for two-photon excitation); None if it cannot include the peak.
    """
    emission = Spectrum.of(dye.emission)
    peak = int(np.argmax(emission.value))
    below = np.flatnonzero(emission.value[: peak + 1] < 0.5)
    above = np.flatnonzero(emission.value[peak:] < 0.5)
    first = emission.wavelength_nm[below[-1] if below.size else 0]
    last = emission.wavelength_nm[peak + above[0] if above.size else -1]
    low = math.floor(first / _STEP_NM) * _STEP_NM
    if laser_nm is not None:
        low = max(low, math.ceil((laser_nm + LASER_GAP_NM) / _STEP_NM) * _STEP_NM)
    high = math.ceil(last / _STEP_NM) * _STEP_NM
    return (low, high) if low <= dye.peak_emission_nm else None


def remedy(dye: Fluorophore, laser_nm: float | None, filter_key: str = "band_nm") -> str:
    """Suggest another band for a dye that the filter misses, or another laser if no band fits."""
    band = fitting_band(dye, laser_nm)
    if band is None:
        return (
            f"use a laser line nearer to {dye.peak_excitation_nm:.0f} nm, where it absorbs most: a band must begin above the "
            f"line, which here is above the peak"
        )
    return f"move {filter_key} to [{band[0]:g}, {band[1]:g}], which passes {dye.emission_share(*band):.0%}"


class LitAndFiltered(Protocol):
    """A light source and filters."""

    @property
    def name(self) -> str: ...
    @property
    def excitation(self) -> Excitation: ...
    @property
    def excitation_nm(self) -> float: ...
    @property
    def detection(self) -> Transmission: ...
    @property
    def passes_nm(self) -> tuple[float, float]: ...
    @property
    def filter_key(self) -> str: ...


def dimness(dye: Fluorophore, channels: Sequence[LitAndFiltered], *, two_photon: bool) -> str:
    """Warning if even the channel that sees a dye best misses most of its light; empty otherwise."""
    strength = {c.name: excited_share(dye, c, two_photon=two_photon) for c in channels}
    best = max(channels, key=lambda c: strength[c.name] * detected_share(dye, c.detection))
    if not looks_dim(dye, best.detection):
        return ""
    low, high = best.passes_nm
    return (
        f"{best.filter_key} {low:.5g} to {high:.5g} of channel {best.name!r} misses the emission peak of {dye.name} at "
        f"{dye.peak_emission_nm:g} nm and passes {detected_share(dye, best.detection):.0%} of its light, so its layers "
        f"will be dim; {remedy(dye, None if two_photon else best.excitation_nm, best.filter_key)}"
    )
