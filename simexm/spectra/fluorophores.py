"""Dyes: absorption, emission and lifetime of a fluorophore, and the table of built-in dyes."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from simexm.errors import SpecError
from simexm.names import FreeText
from simexm.spectra.spectrum import Points, Spectrum, main_band_peak


def check_points(points: Points) -> Points:
    """Refuse invalid spectra: fewer than two points, wavelengths out of order, negative or all-zero values."""
    if len(points) < 2:
        raise ValueError(f"a spectrum needs at least 2 points [wavelength_nm, value], not {len(points)}")
    for (before, _), (after, _) in pairwise(points):
        if after <= before:
            raise ValueError(f"wavelengths must increase, but {after:g} nm follows {before:g} nm; sort the points")
    for wavelength_nm, value in points:
        if value < 0:
            raise ValueError(
                f"the value at {wavelength_nm:g} nm is negative ({value:g}); subtract the baseline, or write 0"
            )
    if not any(value for _, value in points):
        raise ValueError("every value of the spectrum is 0; give what was measured")
    return points


def _scaled(points: Points, peak: int) -> Points:
    top = points[peak][1]
    return tuple((wavelength_nm, value / top) for wavelength_nm, value in points)


def _brightest(points: Points) -> int:
    return max(range(len(points)), key=lambda i: points[i][1])


CheckedPoints = Annotated[Points, AfterValidator(check_points)]
_Excitation = Annotated[CheckedPoints, AfterValidator(lambda points: _scaled(points, main_band_peak(points)))]
_Emission = Annotated[CheckedPoints, AfterValidator(lambda points: _scaled(points, _brightest(points)))]


class Fluorophore(BaseModel):
    """A dye with all of its figures; serialises to JSON without loss.

    Attributes
    ----------
    name
        Name that labelling layers use.
    extinction_per_M_per_cm
        Decadic molar extinction coefficient at the maximum of the longest-wavelength absorption band.
    quantum_yield
        Photons emitted per photon absorbed.
    lifetime_ns
        Lifetime of the excited state.
    excitation
        (wavelength nm, relative absorption) points; scaled to 1 at the maximum of the longest-wavelength band.
    emission
        (wavelength nm, relative photons per nm) points; scaled to 1 at the peak.
    two_photon_GM
        (wavelength nm, two-photon absorption cross section in GM = 1e-58 m^4 s) points; None if unknown.
    guesses
        Names of the figures that are guesses.
    source
        Where the figures come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: FreeText
    extinction_per_M_per_cm: float = Field(gt=0)
    quantum_yield: float = Field(gt=0, le=1)
    lifetime_ns: float = Field(gt=0)
    excitation: _Excitation
    emission: _Emission
    two_photon_GM: CheckedPoints | None = None
    guesses: tuple[str, ...] = ()
    source: str = ""

    def load(self, name: str, folder: Path = Path()) -> Fluorophore:
        """Copy of the dye under `name`; `folder` is not used."""
        return Fluorophore(**{**self.model_dump(), "name": name})

    @property
    def peak_excitation_nm(self) -> float:
        """Wavelength of the maximum of the longest-wavelength absorption band, nm."""
        return self.excitation[main_band_peak(self.excitation)][0]

    @property
    def peak_emission_nm(self) -> float:
        """Wavelength of the emission's maximum, nm."""
        return self.emission[_brightest(self.emission)][0]

    def excitation_at(self, wavelength_nm: float) -> float:
        """Absorption at `wavelength_nm` relative to that at `peak_excitation_nm`; 0 outside the table."""
        return Spectrum.of(self.excitation).at(wavelength_nm)

    def emission_share(self, low_nm: float, high_nm: float) -> float:
        """Share of the emitted photons with wavelengths in [low_nm, high_nm], 0 to 1."""
        emission = Spectrum.of(self.emission)
        return emission.within(low_nm, high_nm).integral() / emission.integral()

    def mean_emission_nm(self, low_nm: float, high_nm: float) -> float:
        """Photon-weighted mean emission wavelength inside [low_nm, high_nm], nm; SpecError if the dye emits nothing there."""
        band = Spectrum.of(self.emission).within(low_nm, high_nm)
        if band.integral() == 0:
            raise SpecError(
                f"{self.name} emits nothing between {low_nm:g} and {high_nm:g} nm, so none of its light would be detected; "
                f"it emits from {self.emission[0][0]:g} to {self.emission[-1][0]:g} nm, "
                f"most at {self.peak_emission_nm:g} nm: move the band there"
            )
        return min(max(band.mean_nm(), low_nm), high_nm)

    def two_photon_GM_at(self, wavelength_nm: float) -> float:
        """Two-photon absorption cross section at `wavelength_nm`, GM (1e-58 m^4 s); SpecError if unknown."""
        figures = f"like: {self.name}, two_photon_GM: 30" if self.name in load_builtin() else "..., two_photon_GM: 30"
        remedy = f"under `dyes:` write `{self.name}: {{{figures}}}` with the cross section in GM at your laser's line"
        if self.two_photon_GM is None:
            raise SpecError(
                f"no two-photon cross section of {self.name} is known, "
                f"so its brightness at {wavelength_nm:g} nm cannot be computed; {remedy}"
            )
        low, high = self.two_photon_GM[0][0], self.two_photon_GM[-1][0]
        if not low <= wavelength_nm <= high:
            raise SpecError(
                f"the two-photon cross section of {self.name} is known from {low:g} to {high:g} nm only, "
                f"so its brightness at {wavelength_nm:g} nm cannot be computed; move the laser there, or {remedy}"
            )
        return Spectrum.of(self.two_photon_GM).at(wavelength_nm)


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = files("simexm.spectra").joinpath("data", name).read_text(encoding="utf-8")
    return iter(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def load_builtin() -> Mapping[str, Fluorophore]:
    """Built-in dyes by name, read from the package on first use."""
    spectra: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in _rows("spectra.csv"):
        point = float(row["wavelength_nm"]), float(row["value"])
        spectra.setdefault((row["name"], row["spectrum"]), []).append(point)
    return MappingProxyType(
        {
            row["name"]: Fluorophore(
                name=row["name"],
                extinction_per_M_per_cm=float(row["extinction_per_M_per_cm"]),
                quantum_yield=float(row["quantum_yield"]),
                lifetime_ns=float(row["lifetime_ns"]),
                excitation=tuple(spectra[row["name"], "excitation"]),
                emission=tuple(spectra[row["name"], "emission"]),
                guesses=tuple(row["guesses"].split(";")) if row["guesses"] else (),
                source="; ".join(
                    f"{figure}: {row[f'{figure}_source']}"
                    for figure in ("extinction", "quantum_yield", "lifetime", "spectra")
                ),
            )
            for row in _rows("dyes.csv")
        }
    )


def find(name: str, extra: Mapping[str, Fluorophore] = MappingProxyType({})) -> Fluorophore:
    """Dye called `name` among the user's own (`extra`, which take precedence) and the built-in ones; SpecError if none."""
    dyes = {**load_builtin(), **extra}
    if name in dyes:
        return dyes[name]
    byletters: dict[str, list[str]] = {}
    for known in dyes:
        byletters.setdefault(letters(known), []).append(known)
    near = [n for letters in difflib.get_close_matches(letters(name), byletters, n=3) for n in byletters[letters]]
    hint = f"did you mean {' or '.join(near)}? All of them" if near else "the dyes"
    raise SpecError(
        f"there is no dye {name!r}, so nothing can be labelled with it; {hint}: {', '.join(sorted(dyes))}. "
        "Define another one under `dyes:`"
    )


def letters(name: str) -> str:
    """Lower-case name without spaces, dashes and the word "fluor" of Alexa Fluor, for comparison."""
    return re.sub(r"[\W_]+|fluor", "", name.casefold())
