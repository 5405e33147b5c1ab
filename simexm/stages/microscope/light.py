"""Check lasers, filters and dyes before a run: whether any light is detected."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

from simexm.errors import SimexmWarning, SpecError
from simexm.spectra.curves import Curve
from simexm.spectra.efficiency import CurveEfficiency, Efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import Transmission, detected_share

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics
    from simexm.stages.microscope.optics_plan import Channel

WATER = 1.333
INDEX_TOLERANCE = 0.03
SEEN_SHARE = 0.01
"""A filter that passes less than this share of a dye's emission is taken to miss the dye."""
FAR_FROM_0 = 0.05
"""A curve that ends above this goes on beyond its table."""
LEAST_SHARE = 1e-9
"""Share of the source's light that an excitation filter passes at least."""
LEAKED_SHARE = 0.01
"""Share of the exciting light that the filters before the detector may pass, were it scattered into them."""


def check_light(optics: Optics, dyes: Mapping[str, Fluorophore], factor: float, efficiency: Efficiency) -> None:
    """Refuse bands that contain their laser line and dyes that no channel sees; warn of an index far from the gel's."""
    for channel in optics.all_channels:
        _check_channel(channel, multiphoton=optics.multiphoton)
    for dye in dyes.values():
        _check_seen(optics, dye)
    _warn_of_short_curves(optics, dyes, efficiency)
    for name in () if optics.bleaching is None else optics.bleaching.by_dye:
        if name not in dyes:
            raise SpecError(
                f"bleaching.by_dye gives the photons of {name}, which no layer carries, so they would be ignored; write one of "
                f"{', '.join(dyes)}, or remove it"
            )
    index = optics.refractive_index
    if factor > 1.5 and abs(index - WATER) > INDEX_TOLERANCE:
        warnings.warn(
            f"refractive_index {index:g} is far from water's {WATER}, but a gel expanded {factor:g} times is mostly water, so "
            f"the PSF would be wrong; set it to {WATER}",
            SimexmWarning,
            stacklevel=2,
        )


def _check_channel(channel: Channel, *, multiphoton: bool) -> None:
    """Refuse a channel whose filters pass nothing, or the light that excites."""
    what = f"channel {channel.name!r}"
    if multiphoton and (channel.source is not None or channel.excitation_filter is not None):
        raise SpecError(
            f"{what} has a source or an excitation_filter, but two photons are absorbed from the pulses of one laser; "
            "give laser_wavelength_nm, and its power at the specimen"
        )
    if not channel.excitation.passed_share() > LEAST_SHARE:
        raise SpecError(
            f"the excitation_filter of {what} passes nothing of its light, so the channel would be dark; choose a filter "
            "that passes the source"
        )
    low, high = channel.passes_nm
    if not low < high:
        raise SpecError(
            f"dichroic and {channel.filter_key} of {what} together pass nothing, so the channel would be dark; choose "
            "filters that pass the same light"
        )
    if multiphoton:
        return
    line, given = channel.laser_wavelength_nm, channel.band_nm
    if line is not None and given is not None and line >= low:
        place = "contains" if line <= high else "lies below"
        raise SpecError(
            f"band_nm {low:g} to {high:g} of {what} {place} its laser line at {line:g} nm: "
            f"scattered laser light would swamp the dyes; begin the band above {line:g} nm"
        )
    if (leaked := channel.excitation.leaked_share(channel.detection)) > LEAKED_SHARE:
        raise SpecError(
            f"the filters of {what} pass {leaked:.1%} of its own light to the detector: scattered light would swamp the dyes; "
            "choose an excitation_filter and an emission_filter that share no wavelengths"
        )


def _check_seen(optics: Optics, dye: Fluorophore) -> None:
    exciting = [c for c in optics.all_channels if optics.excites(c, dye)]
    shares = {c.name: optics.passed_share(c, dye) for c in exciting}
    if not exciting:
        lines = ", ".join(f"{c.excitation_nm:.4g}" for c in optics.all_channels)
        raise SpecError(
            f"no laser ({lines} nm) excites {dye.name}, so its layers would stay dark; "
            f"it absorbs most at {dye.peak_excitation_nm:g} nm"
        )
    if max(shares.values()) < SEEN_SHARE:
        bands = ", ".join(f"{c.name}: {c.passes_nm[0]:.4g} to {c.passes_nm[1]:.4g} nm" for c in exciting)
        raise SpecError(
            f"the filters miss the emission of {dye.name} ({bands}), so its layers would stay dark; it emits most at "
            f"{dye.peak_emission_nm:g} nm: move a band_nm there"
        )


def _warn_of_short_curves(optics: Optics, dyes: Mapping[str, Fluorophore], efficiency: Efficiency) -> None:
    """Warn of curves that end, far from 0, where a dye still emits: what lies beyond counts as lost."""
    for channel in optics.all_channels:
        given = {"emission_filter": channel.emission_filter or channel.band_nm, "dichroic": channel.dichroic}
        filters = {**given, "quantum_efficiency": efficiency.curve if isinstance(efficiency, CurveEfficiency) else None}
        curves = {key: curve for key, curve in filters.items() if isinstance(curve, Curve)}
        seen = [d for d in dyes.values() if optics.excites(channel, d)]
        for key, curve in curves.items():
            others = [f for k, f in filters.items() if k != key and isinstance(f, tuple | Curve)]
            (low, first), (high, last) = curve.points[0], curve.points[-1]
            known = (low if first > FAR_FROM_0 else 0.0, high if last > FAR_FROM_0 else inf)
            for dye in seen:
                lost = detected_share(dye, Transmission.of(others))
                lost -= detected_share(dye, Transmission.of([*others, known]))
                if lost > SEEN_SHARE:
                    warnings.warn(
                        f"the curve of {key} in channel {channel.name!r} is known from {low:g} to {high:g} nm only, and "
                        f"{dye.name} emits {lost:.0%} of its light beyond, which counts as lost; give a curve that covers it",
                        SimexmWarning,
                        stacklevel=2,
                    )
