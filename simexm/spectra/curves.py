"""Curves of filters, dichroics, detectors and light sources, from CSV files or points in a spec.

A CSV file has a header, wavelengths in nm in its first column, and one or several named curves; blank cells were not
measured. The unit of a curve stands in its title, in a comment line above the header, or in the spec::

    # unit: percent
    wavelength_nm,ET525/50m,T495lpxr
    480,0.01,3.2
    ...

Files exported by FPbase can be read directly, whose values are fractions; state that by `unit: fraction`, unless a title ends in
one of FPbase's words for a filter or a detector (BP, BX, BM, LP, SP, BS, QE).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from simexm.errors import SpecError
from simexm.settings import Frozen
from simexm.spectra.fluorophores import CheckedPoints, letters
from simexm.spectra.spectrum import Points, Spectrum
from simexm.spectra.table import Table, read_table

Unit = Literal["percent", "fraction", "relative"]
Role = Literal["share", "source"]
"""What a curve is used for: a share of light (filter, dichroic, detector), or the power per nm of a source."""
_MOST = 1.02
"""Largest share taken for 1: scans of filters exceed 100 % by noise."""
_LEAST = 0.0102
"""Percentages that never exceed this share are taken for fractions."""
_UNIT_IN_TITLE = re.compile(r"[\s_]*[(\[]?(?P<unit>%|percent|fraction|relative)[)\]]?", re.IGNORECASE)
_FPBASE_SHARES = re.compile(r".*\s(bp|bx|bm|lp|sp|bs|qe)", re.IGNORECASE)


class Curve(Frozen):
    """A curve as it is used; serialises without loss, so that a stored spec needs no file.

    Attributes
    ----------
    points
        (wavelength nm, value) points, between which the curve is linear; it is 0 outside them. Values are shares of the light,
        0 to 1, or of a source relative power per nm.
    name
        What the curve is of.
    source
        Origin of the points.
    """

    points: CheckedPoints
    name: str = Field(default="", max_length=256)
    source: str = Field(default="", max_length=4096)

    @property
    def spectrum(self) -> Spectrum:
        """The curve as a function of wavelength."""
        return Spectrum.of(self.points)

    def load(self, name: str, role: Role) -> Curve:
        """Copy for a role; SpecError if a share exceeds 1."""
        return _checked(self.points, "fraction", role, self.name or name, self.source, f"the curve {name!r}")


class CsvCurve(Frozen):
    """A curve in a CSV file.

    Attributes
    ----------
    csv
        Path of the file.
    column
        Title of the curve; needed if the file has several.
    unit
        Of the values, if the file does not state it: `percent` or `fraction` of the light. A source needs none; its values are
        relative power per nm.
    """

    csv: Path
    column: str | None = None
    unit: Unit | None = None

    def load(self, name: str, role: Role) -> Curve:
        """Read the curve for a role; SpecError if it cannot be used."""
        table = read_table(self.csv, f"the curve {name!r}")
        title = self.column if self.column is not None else next(iter(table.curves))
        if title not in table.curves or (self.column is None and len(table.curves) > 1):
            near = difflib.get_close_matches(title, table.curves, n=1) if self.column is not None else []
            fault = f"has no column {title!r}" if self.column is not None else f"has {len(table.curves)} curves"
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SpecError(
                f"{self.csv} {fault}, so the curve {name!r} is not known; {hint}"
                f"give `column:` as one of {', '.join(table.curves)}"
            )
        unit = self.unit or _stated_unit(table, title) or ("relative" if role == "source" else None)
        where = f"the curve {title!r} in {self.csv}"
        if unit is None or (unit == "relative" and role == "share"):
            raise SpecError(
                f"{where} has no unit, so nobody knows what share of the light 1 stands for; add a line `# unit: percent` or "
                "`# unit: fraction` above its header, or give `unit:` beside `csv:`"
            )
        origin = "; ".join(filter(None, (table.notes.get("source"), f"{title} in {self.csv.name}")))
        return _checked(table.curves[title], unit, role, name, origin, where)


def _stated_unit(table: Table, title: str) -> Unit | None:
    """Unit in the title of a column or in the notes of its file; FPbase's own titles mean fractions."""
    words: dict[str, Unit] = {"%": "percent", "percent": "percent", "fraction": "fraction", "relative": "relative"}
    found = re.fullmatch(rf".*?{_UNIT_IN_TITLE.pattern}", title, re.IGNORECASE)
    noted = _UNIT_IN_TITLE.fullmatch(table.notes.get("unit", ""))
    if found or noted:
        return words[(found or noted)["unit"].lower()]  # type: ignore[index]
    if "unit" in table.notes:
        raise SpecError(
            f"{table.path} states the unit {table.notes['unit']!r}, which is none of a curve; write percent or fraction"
        )
    return "fraction" if _FPBASE_SHARES.fullmatch(title) else None


def _checked(points: Points, unit: Unit, role: Role, name: str, source: str, where: str) -> Curve:
    """The curve in the unit that its role needs, or SpecError if that is implausible."""
    scale = 100.0 if unit == "percent" else 1.0
    most = max((value for _, value in points), default=0.0) / scale
    if role == "share":
        if most > _MOST:
            other = "they look like percent: give `unit: percent`" if unit == "fraction" else "correct the file"
            raise SpecError(
                f"{where} has values up to {most * scale:g}, and no filter or detector passes more than all of the light "
                f"({scale:g}); {other}"
            )
        if unit == "percent" and 0 < most <= _LEAST:
            raise SpecError(
                f"{where} has no value above {most:.2%}, so hardly any light would pass; they look like fractions: give "
                "`unit: fraction`"
            )
        points = tuple((nm, min(value / scale, 1.0)) for nm, value in points)
    try:
        return Curve(points=points, name=name, source=source)
    except ValidationError as error:
        raise SpecError(f"{where} cannot be used: {faults(error)}") from error


def faults(error: ValidationError) -> str:
    """The faults that pydantic found, as one line."""
    lines = (
        ".".join(str(part) for part in e["loc"] if not isinstance(part, int) and part != "points")
        + ": "
        + e["msg"].removeprefix("Value error, ")
        for e in error.errors()
    )
    return "; ".join(dict.fromkeys(line.removeprefix(": ") for line in lines))


def _one_of(value: Any, forms: tuple[type[BaseModel], ...], said: str) -> Any:
    """Text as it is, and a mapping as the one of these models that has its first key, so that an error is about that form."""
    if isinstance(value, (str, *forms)) and value != "":
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"should be {said}")
    form = next((f for f in forms if next(iter(f.model_fields)) in value), None)
    if form is None:
        raise ValueError(f"should be {said}")
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise ValueError(faults(error)) from None


_PATH_FORMS = "a path, {csv: PATH, column: TITLE, unit: percent}, or {points: [[nm, value], ...]}"


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return CsvCurve(csv=Path(value))
    return _one_of(value, (Curve, CsvCurve), _PATH_FORMS)


NamedCurve = Annotated[CsvCurve | Curve, BeforeValidator(_named, json_schema_input_type=str | CsvCurve | Curve)]
"""A value of the spec's `curves:` mapping."""

Band = tuple[float, float]
"""Lowest and highest wavelength that pass, nm; inside all light passes, outside none."""


def check_band(band: Band) -> Band:
    """Refuse a band that is upside down or no light."""
    low, high = band
    if not 200 <= low < high <= 2000:
        raise ValueError(f"a band is two wavelengths in ascending order, 200 to 2000 nm, got {low:g}, {high:g}")
    return band


def _filter(value: Any) -> Any:
    if isinstance(value, list | tuple):
        try:
            low, high = (float(v) for v in value)
        except (TypeError, ValueError):
            raise ValueError("a band is two wavelengths, [lowest nm, highest nm]") from None
        return check_band((low, high))
    return _one_of(value, (Curve, CsvCurve), f"a band [nm, nm], the name of a curve, {_PATH_FORMS}")


_Reference = Annotated[str, Field(min_length=1, max_length=4096)]

Filter = Annotated[Band | _Reference | CsvCurve | Curve, BeforeValidator(_filter)]
"""A filter: a band, the name of a curve in the spec or its path, or the curve itself."""


def find_curve(given: str | CsvCurve | Curve, role: Role, curves: Mapping[str, CsvCurve | Curve]) -> Curve:
    """The curve that a name, a path or a mapping stands for; SpecError, with near names, if there is none."""
    if not isinstance(given, str):
        return given.load(given.name if isinstance(given, Curve) else given.column or given.csv.stem, role)
    if given in curves:
        return curves[given].load(given, role)
    if given.lower().endswith((".csv", ".txt")):
        return CsvCurve(csv=Path(given)).load(Path(given).stem, role)
    near = difflib.get_close_matches(letters(given), [letters(name) for name in curves], n=2)
    hints = [name for name in curves if letters(name) in near]
    hint = f"did you mean {' or '.join(hints)}?" if hints else f"known are: {', '.join(curves) or 'none'}."
    raise SpecError(
        f"there is no curve {given!r}, so what it passes is not known; {hint} Define it under `curves:`, "
        "or give the path of a CSV file"
    )


def resolved_filter(given: Band | str | CsvCurve | Curve, curves: Mapping[str, CsvCurve | Curve]) -> Band | Curve:
    """A band as it is, and a curve read; see `find_curve`."""
    return given if isinstance(given, tuple) else find_curve(given, "share", curves)


class Lines(Frozen):
    """Several laser lines at once.

    Attributes
    ----------
    lines_nm
        Power of each line, relative to each other, by wavelength in nm.
    """

    lines_nm: dict[Annotated[float, Field(ge=200, le=2000)], Annotated[float, Field(gt=0)]] = Field(min_length=1)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.lines_nm.items())))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _source(value: Any) -> Any:
    if _is_number(value):
        if not 200 <= value <= 2000:
            raise ValueError(f"a laser line is a wavelength from 200 to 2000 nm, not {value:g}")
        return value
    return _one_of(
        value,
        (Lines, Curve, CsvCurve),
        f"a laser line in nm, {{lines_nm: {{488: 1, 561: 0.5}}}}, a name, {_PATH_FORMS}",
    )


Source = Annotated[
    Annotated[float, Field(ge=200, le=2000)] | _Reference | Lines | CsvCurve | Curve, BeforeValidator(_source)
]
"""A light source: a line, several lines, or a curve of power per nm."""


def _efficiency(value: Any) -> Any:
    if _is_number(value):
        if not 0 < value <= 1:
            raise ValueError(f"a detector counts more than 0 and at most 1 of the photons, not {value:g}")
        return value
    return _one_of(value, (Curve, CsvCurve), f"a number above 0 and at most 1, the name of a curve, {_PATH_FORMS}")


QuantumEfficiency = Annotated[
    Annotated[float, Field(gt=0, le=1)] | _Reference | CsvCurve | Curve, BeforeValidator(_efficiency)
]
"""Quantum efficiency of a detector: one for all wavelengths, or a curve."""


def resolved_efficiency(given: float | str | CsvCurve | Curve, curves: Mapping[str, CsvCurve | Curve]) -> float | Curve:
    """A number as it is, and a curve read; see `find_curve`."""
    return float(given) if isinstance(given, float | int) else find_curve(given, "share", curves)
