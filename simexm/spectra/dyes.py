"""A user's own dyes: measured spectra in a CSV file, a few numbers, or a built-in dye with other figures.

A CSV file has a header and one row per wavelength; cells that were not measured are blank. Figures are in comment lines
above the header; those in the spec take precedence::

    # extinction_per_M_per_cm: 90000
    # quantum_yield: 0.8
    # lifetime_ns: 4.1
    # source: own measurement
    wavelength_nm,excitation,emission,two_photon_GM
    400,0.02,,
    ...

Files exported by FPbase can be read directly (`wavelength`, `NAME EX` or `NAME AB`, `NAME EM`), also of several dyes and
filters. Absorption is preferred to excitation, and noise below 0 is taken as 0. Their figures go into the spec; their
two-photon column is ignored, because it is relative and not in GM.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from simexm.errors import SpecError
from simexm.kernels.numbers import detmath
from simexm.spectra.fluorophores import CheckedPoints, Fluorophore, find, letters
from simexm.spectra.spectrum import Points, clear_baseline
from simexm.spectra.table import Table, read_table

_COLUMNS = ("excitation", "emission", "two_photon_GM")
_FPBASE = re.compile(r"(?P<name>.+)[\s_](?P<kind>ex|ab|em|2p)", re.IGNORECASE)
"""A title in a file of FPbase: name of the dye, and what the curve is."""
# A single cross section applies to every wavelength of a two-photon laser.
_ANY_TWO_PHOTON_LASER_NM = (500.0, 2000.0)


class _Figures(BaseModel):
    """Figures that replace those of a file or of a built-in dye.

    Attributes
    ----------
    extinction_per_M_per_cm
        Decadic molar extinction coefficient at the maximum of the longest-wavelength absorption band.
    quantum_yield
        Photons emitted per photon absorbed.
    lifetime_ns
        Lifetime of the excited state.
    two_photon_GM
        Two-photon absorption cross section: a number for all wavelengths, or (wavelength nm, GM) points.
    source
        Origin of the figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    extinction_per_M_per_cm: float | None = Field(default=None, gt=0)
    quantum_yield: float | None = Field(default=None, gt=0, le=1)
    lifetime_ns: float | None = Field(default=None, gt=0)
    two_photon_GM: Annotated[float, Field(gt=0)] | CheckedPoints | None = None
    source: str | None = None

    def given(self) -> dict[str, Any]:
        """Figures that are set, as arguments of `Fluorophore`."""
        values = {figure: getattr(self, figure) for figure in _Figures.model_fields}
        if isinstance(self.two_photon_GM, float):
            values["two_photon_GM"] = _flat(self.two_photon_GM)
        return {figure: value for figure, value in values.items() if value is not None}


class CsvDye(_Figures):
    """A dye with spectra in a CSV file.

    The columns are wavelength_nm, excitation, emission and two_photon_GM. Files exported by FPbase work, too.

    Attributes
    ----------
    csv
        Path of the file.
    column
        Name of the dye in a file of several, without FPbase's ending; by default the name under which the dye is defined.
    """

    csv: Path
    column: str | None = None

    def load(self, name: str, folder: Path = Path()) -> Fluorophore:
        """Read the dye and call it `name`; a relative path starts at `folder`."""
        return from_csv(folder / self.csv, name, self.column, **self.given())


class LikeDye(_Figures):
    """A built-in dye with some of your own figures, such as a two-photon cross section.

    Attributes
    ----------
    like
        Name of the built-in dye.
    """

    like: str

    def load(self, name: str, folder: Path = Path()) -> Fluorophore:
        """Copy of the built-in dye under `name` with the given figures; `folder` is not used."""
        base = find(self.like)
        given = self.given()
        note = f"like {self.like} ({base.source}) but for {', '.join(given)}" if given else base.source
        return Fluorophore(
            **base.model_dump(exclude={*given, "name", "guesses", "source"}),
            **{k: v for k, v in given.items() if k != "source"},
            name=name,
            guesses=tuple(g for g in base.guesses if g not in given),
            source=f"{self.source}; {note}" if self.source else note,
        )


class GaussianDye(BaseModel):
    """A dye from a few numbers, with Gaussian spectra: no shoulders and no red tail, unlike a real dye.

    Attributes
    ----------
    peak_excitation_nm, peak_emission_nm
        Wavelength of the spectrum's maximum.
    excitation_fwhm_nm, emission_fwhm_nm
        Full width of the spectrum at half of its maximum.
    extinction_per_M_per_cm, quantum_yield, lifetime_ns, two_photon_GM, source
        As for any other dye; see `CsvDye`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    peak_excitation_nm: float = Field(gt=0)
    peak_emission_nm: float = Field(gt=0)
    excitation_fwhm_nm: float = Field(gt=0)
    emission_fwhm_nm: float = Field(gt=0)
    extinction_per_M_per_cm: float = Field(gt=0)
    quantum_yield: float = Field(gt=0, le=1)
    lifetime_ns: float = Field(gt=0)
    two_photon_GM: Annotated[float, Field(gt=0)] | CheckedPoints | None = None
    source: str = ""

    def load(self, name: str, folder: Path = Path()) -> Fluorophore:
        """The dye with spectra cut at three times their FWHM; `folder` is not used."""
        two_photon = self.two_photon_GM
        return Fluorophore(
            name=name,
            extinction_per_M_per_cm=self.extinction_per_M_per_cm,
            quantum_yield=self.quantum_yield,
            lifetime_ns=self.lifetime_ns,
            excitation=_gaussian(self.peak_excitation_nm, self.excitation_fwhm_nm),
            emission=_gaussian(self.peak_emission_nm, self.emission_fwhm_nm),
            two_photon_GM=_flat(two_photon) if isinstance(two_photon, float) else two_photon,
            guesses=("excitation", "emission"),
            source=self.source or "the spec, with Gaussian spectra",
        )


def _kind(value: Any) -> str:
    """Which of the four forms was written, so that an error is about that form only."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    for key, kind in (("csv", "csv"), ("like", "like"), ("excitation", "tabulated")):
        if key in keys:
            return kind
    return "gaussian"


Dye = Annotated[
    Annotated[CsvDye, Tag("csv")]
    | Annotated[LikeDye, Tag("like")]
    | Annotated[Fluorophore, Tag("tabulated")]
    | Annotated[GaussianDye, Tag("gaussian")],
    Discriminator(_kind),
]
"""A value of the spec's `dyes:` mapping; its `load(name, folder)` returns the `Fluorophore`.

A `Fluorophore` itself is allowed, so that a resolved spec is complete without other files.
"""


def from_csv(path: Path | str, name: str | None = None, column: str | None = None, **figures: Any) -> Fluorophore:
    """Read a dye from a CSV file; the module docstring describes the format.

    Parameters
    ----------
    name
        Name of the dye; by default that of the file.
    column
        Its name in a file of several dyes, if that is another one.
    **figures
        Arguments of `Fluorophore` that replace those of the file.

    Raises
    ------
    SpecError
        If the file is missing, lacks a column or a figure, or contains something that is not a number.
    """
    path = Path(path)
    name = name or path.stem
    table = read_table(path, f"the dye {name!r}")
    written = {key: value for key, value in table.notes.items() if key in _Figures.model_fields}
    points = _columns(table, name, column)
    try:
        known = {"source": str(path)} | points | _Figures.model_validate(written).given() | figures
        needed = ("extinction_per_M_per_cm", "quantum_yield", "lifetime_ns", "excitation", "emission")
        missing = [figure for figure in needed if figure not in known]
        if missing:
            raise SpecError(
                f"{path} lacks {', '.join(missing)} of the dye {name!r}, so its brightness is unknown; "
                "add a line such as `# quantum_yield: 0.8` above the header (a column for a spectrum), "
                "or give the figure beside `csv:`"
            )
        return Fluorophore(name=name, **known)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SpecError(f"the dye {name!r} in {path} cannot be used: {problems}; correct the file") from error


def _columns(table: Table, name: str, column: str | None) -> dict[str, Any]:
    """Points of each spectrum of a dye: of the columns with our titles, or of those with its name and FPbase's endings."""
    plain = {title: points for title, points in table.curves.items() if title in _COLUMNS and points}
    dyes: dict[str, dict[str, Points]] = {}
    for title, points in table.curves.items():
        if found := _FPBASE.fullmatch(title):
            dyes.setdefault(found["name"].strip(), {})[found["kind"].lower()] = points
    if column is None and (plain or not dyes):
        for title in table.curves.keys() - set(_COLUMNS):
            near = difflib.get_close_matches(title, _COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its header should be wavelength_nm,{','.join(_COLUMNS)}"
            raise SpecError(f"{table.path} has a column {title!r} that would be ignored; {hint}")
        return dict(plain)
    wanted = {letters(name if column is None else column)}
    chosen = [each for each in dyes if letters(each) in wanted] or (list(dyes) if column is None else [])
    if len(chosen) != 1:
        fault = f"has no dye {column!r}" if column is not None else f"has {len(dyes)} dyes, none of which is {name!r}"
        raise SpecError(
            f"{table.path} {fault}, so its spectra are not known; give `column:` as one of {', '.join(dyes)}"
        )
    spectra = dyes[chosen[0]]
    kinds = {"excitation": spectra.get("ab") or spectra.get("ex"), "emission": spectra.get("em")}
    return {kind: clear_baseline(points) for kind, points in kinds.items() if points}


def _flat(cross_section_GM: float) -> Points:
    low, high = _ANY_TWO_PHOTON_LASER_NM
    return (low, cross_section_GM), (high, cross_section_GM)


def _gaussian(peak_nm: float, fwhm_nm: float) -> Points:
    """Gaussian of peak 1 in steps of FWHM / 20; linear interpolation errs by at most 0.2 % of the peak."""
    steps = np.arange(-60, 61) / 20
    heights = detmath.exp_array(-4 * detmath.log_array(2.0) * steps * steps)
    points = zip((peak_nm + steps * fwhm_nm).tolist(), heights.tolist(), strict=True)
    return tuple((nm, height) for nm, height in points if nm > 0)
