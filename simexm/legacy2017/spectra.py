"""Brightness of the dyes by the rules of SimExm (2017), with its faulty table look-ups.

The rules use indices of samples, so they need that program's tables, `data/simexm2017.csv`. The default model has its own tables
and physics (`fluorophores`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SpecError

Microscope = Literal["confocal", "widefield", "two photon"]


@dataclass(frozen=True, eq=False)
class Table:
    """A spectrum at even steps from a first wavelength; `value` has shape (n,), any unit."""

    first_nm: float
    step_nm: float
    value: NDArray[np.float64]

    def excitation_at(self, wavelength_nm: float) -> float:
        """The 2017 program's value at a wavelength, 1 at the table's maximum, 0 outside the table.

        Sample i is the one before that at or below the wavelength. The weight of sample i + 2 is its distance from sample i in
        nm, a fraction only for a step of 1 nm. At the last sample, where that program crashed, i + 2 is the last.
        """
        last = self.value.size - 1
        if not self.first_nm <= wavelength_nm <= self.first_nm + last * self.step_nm:
            return 0.0
        i = math.floor((wavelength_nm - self.first_nm) / self.step_nm) - 1
        weight = wavelength_nm - (self.first_nm + i * self.step_nm)
        relative = self.value / self.value.max()
        return float(weight * relative[min(i + 2, last)] + (1 - weight) * relative[min(i + 1, last)])

    def share_within(self, low_nm: float, high_nm: float) -> float:
        """The 2017 program's share of the table's sum inside a band.

        The sum runs from the band's last sample down to the first whose lower neighbour is inside; sample 0 never counts.
        """
        share = self.value / self.value.sum()
        i = min(math.floor((high_nm - self.first_nm) / self.step_nm), self.value.size - 1)
        total = 0.0
        while i >= 1 and low_nm <= self.first_nm + (i - 1) * self.step_nm:
            total += float(share[i])
            i -= 1
        return total


@dataclass(frozen=True, eq=False)
class Dye:
    """A dye of the 2017 program."""

    name: str
    extinction_per_M_per_cm: float
    quantum_yield: float
    emission_peak_nm: float
    excitation: Table
    emission: Table


@cache
def dyes() -> Mapping[str, Dye]:
    """The eleven dyes by name."""
    text = files("simexm.legacy2017").joinpath("data", "simexm2017.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({row["name"]: _dye(row) for row in rows})


def _dye(row: Mapping[str, str]) -> Dye:
    def table(kind: str) -> Table:
        value = np.array([float(v) for v in row[kind].split()])
        value.flags.writeable = False
        return Table(float(row[f"{kind}_first_nm"]), float(row[f"{kind}_step_nm"]), value)

    return Dye(
        name=row["name"],
        extinction_per_M_per_cm=float(row["extinction_per_M_per_cm"]),
        quantum_yield=float(row["quantum_yield"]),
        emission_peak_nm=float(row["emission_peak_nm"]),
        excitation=table("excitation"),
        emission=table("emission"),
    )


def find(name: str) -> Dye:
    """The dye called `name`; raises SpecError if the 2017 program had none."""
    known = dyes()
    if name not in known:
        raise SpecError(
            f"the model simexm2017 has no dye {name!r}, so its brightness is unknown there; "
            f"use one of {', '.join(sorted(known))}, or the physical model, which has any dye"
        )
    return known[name]


def mean_photons(
    dye: Dye,
    laser_nm: float,
    laser_W: float,
    band_nm: tuple[float, float],
    exposure_s: float,
    beam_radius_m: float,
    objective_efficiency: float,
    detector_efficiency: float,
) -> float:
    """Mean detected photons of one dye in a channel; 0 if the laser or the band misses it.

    `laser_W` is the power times the percentage that is used, `beam_radius_m` the back aperture over the magnification.
    """
    intensity = laser_W / (math.pi * beam_radius_m**2)
    excited = dye.excitation.excitation_at(laser_nm) * dye.quantum_yield * (1e2 * dye.extinction_per_M_per_cm)
    emitted = excited * exposure_s * intensity * (laser_nm * 1e-9) / (1e3 * 0.119626566)
    return emitted * dye.emission.share_within(*band_nm) * objective_efficiency * detector_efficiency


def check_pair(microscope: Microscope, channel: str, laser_nm: float, dye: Dye) -> None:
    """Raise SpecError if a laser is redder than a dye's emission peak, for which the `psf` package has no one-photon kernel.

    Check only pairs whose `mean_photons` is not 0: the others need no kernel.
    """
    if microscope != "two photon" and laser_nm > dye.emission_peak_nm:
        raise SpecError(
            f"channel {channel!r} excites {dye.name} at {laser_nm:g} nm, beyond its emission peak at "
            f"{dye.emission_peak_nm:g} nm, and the model simexm2017 has no {microscope} kernel for it; "
            "give the channel a shorter laser_wavelength, or the dye its own channel whose laser or filter misses the others, "
            "or use the physical model"
        )
