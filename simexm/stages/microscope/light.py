"""Check lasers, filters and dyes before a run: whether any light is detected."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from simexm.errors import SimexmWarning, SpecError
from simexm.spectra.fluorophores import Fluorophore

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

WATER = 1.333
INDEX_TOLERANCE = 0.03
SEEN_SHARE = 0.01
"""A filter that passes less than this share of a dye's emission is taken to miss the dye."""


def check_light(optics: Optics, dyes: Mapping[str, Fluorophore], factor: float) -> None:
    """Refuse bands that contain their laser line and dyes that no channel sees; warn of an index far from the gel's."""
    for channel in optics.all_channels:
        low, high = channel.band_nm
        line = channel.laser_wavelength_nm
        if not optics.multiphoton and line >= low:
            place = "contains" if line <= high else "lies below"
            raise SpecError(
                f"band_nm {low:g} to {high:g} of channel {channel.name!r} {place} its laser line at {line:g} nm: "
                f"scattered laser light would swamp the dyes; begin the band above {line:g} nm"
            )
    for dye in dyes.values():
        _check_seen(optics, dye)
    index = optics.refractive_index
    if factor > 1.5 and abs(index - WATER) > INDEX_TOLERANCE:
        warnings.warn(
            f"refractive_index {index:g} is far from water's {WATER}, but a gel expanded {factor:g} times is mostly water, so "
            f"the PSF would be wrong; set it to {WATER}",
            SimexmWarning,
            stacklevel=2,
        )


def _check_seen(optics: Optics, dye: Fluorophore) -> None:
    exciting = [c for c in optics.all_channels if optics.excites(c, dye)]
    shares = {c.name: dye.emission_share(*c.band_nm) for c in exciting}
    if not exciting:
        lines = ", ".join(f"{c.laser_wavelength_nm:g}" for c in optics.all_channels)
        raise SpecError(
            f"no laser ({lines} nm) excites {dye.name}, so its layers would stay dark; "
            f"it absorbs most at {dye.peak_excitation_nm:g} nm"
        )
    if max(shares.values()) < SEEN_SHARE:
        bands = ", ".join(f"{c.name}: {c.band_nm[0]:g} to {c.band_nm[1]:g} nm" for c in exciting)
        raise SpecError(
            f"the filters miss the emission of {dye.name} ({bands}), so its layers would stay dark; it emits most at "
            f"{dye.peak_emission_nm:g} nm: move a band_nm there"
        )
