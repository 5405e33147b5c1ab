"""Fetch a dye or protein from FPbase (https://www.fpbase.org) by name, as a CSV file that a spec can name.

FPbase answers GraphQL queries over HTTPS: lists of names, and of one dye or one state of a protein its figures and spectra
(Lambert, Nat. Methods 16, 277, 2019). The file is all that a spec needs from then on.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from simexm.errors import SimexmError, SpecError
from simexm.names import printable
from simexm.spectra.fluorophores import letters
from simexm.spectra.spectrum import Points, clear_baseline
from simexm.store.atomic_file import atomic_file
from simexm.store.documents import MalformedError, parse_mapping
from simexm.version import __version__

URL = "https://www.fpbase.org/graphql/"
_PAGES = "https://www.fpbase.org"
_SECONDS, _MOST_BYTES = 30.0, 1 << 25
_NAMES = "{ dyes { id name slug } proteins { id name slug } }"
_FIGURES = "extCoeff qy spectra { subtype data }"
_DYE = f"query($id: Int!) {{ dye(id: $id) {{ name {_FIGURES} }} }}"
_STATE = f"id name lifetime {_FIGURES}"
_PROTEIN = f"query($id: String!) {{ protein(id: $id) {{ name defaultState {{ id }} states {{ {_STATE} }} }} }}"


class _Known(BaseModel):
    id: str
    name: str
    slug: str
    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Spectrum(BaseModel):
    subtype: str
    data: list[tuple[float, float]]
    model_config = ConfigDict(allow_inf_nan=False)


class _State(BaseModel):
    """A dye, or one state of a protein, in FPbase's words."""

    id: int | str = ""
    name: str = ""
    extCoeff: float | None = Field(default=None, gt=0)
    qy: float | None = Field(default=None, gt=0, le=1)
    lifetime: float | None = Field(default=None, gt=0)
    spectra: list[_Spectrum] = []
    model_config = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class Fetched:
    """A dye as FPbase has it.

    Attributes
    ----------
    name, page
        Name in FPbase, and the address of its page.
    figures
        Extinction coefficient, quantum yield and lifetime by simexm's key; None where FPbase has none.
    spectra
        Points of `excitation` and `emission`.
    """

    name: str
    page: str
    figures: dict[str, float | None]
    spectra: dict[str, Points]

    @property
    def missing(self) -> list[str]:
        """Figures that the spec must add."""
        return [key for key, value in self.figures.items() if value is None]

    @property
    def file_name(self) -> str:
        """Name for the file."""
        return re.sub(r"[^\w.+-]+", "_", self.name).strip("._") + ".csv"

    def write(self, path: Path) -> None:
        """Write the CSV file that `csv:` of a dye names."""
        known = [f"# {key}: {value:g}" for key, value in self.figures.items() if value is not None]
        lacking = [f"# FPbase has no {key}; give it here or in the spec, with its source" for key in self.missing]
        origin = f"# source: FPbase, {self.name} ({self.page}), fetched on {datetime.now(UTC):%Y-%m-%d}"
        table = {kind: dict(points) for kind, points in self.spectra.items()}
        rows = sorted({nm for points in table.values() for nm in points})
        cells = [",".join([f"{nm:g}", *(_cell(points.get(nm)) for points in table.values())]) for nm in rows]
        header = ",".join(["wavelength_nm", *table])
        with atomic_file(path) as partial:
            partial.write_text("\n".join([origin, *known, *lacking, header, *cells]) + "\n", encoding="utf-8")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def fetch(name: str, url: str | None = None) -> Fetched:
    """Ask FPbase for a dye or a protein.

    Raises
    ------
    SpecError
        If FPbase does not know the name, with near ones, or has no spectra of it.
    SimexmError
        If FPbase cannot be reached or its answer cannot be used.
    """
    url = url or URL
    found = _ask(url, name, _NAMES, {})
    dyes, proteins = (_parsed(TypeAdapter(list[_Known]), found.get(kind), name) for kind in ("dyes", "proteins"))
    known = _find(name, [*proteins, *dyes])
    if known in proteins:
        answer = _ask(url, name, _PROTEIN, {"id": known.id}).get("protein") or {}
        states = _parsed(TypeAdapter(list[_State]), answer.get("states"), name)
        default = str((answer.get("defaultState") or {}).get("id", ""))
        state = next((s for s in states if str(s.id) == default), states[0] if states else _State())
    else:
        answer = _ask(url, name, _DYE, {"id": _parsed(TypeAdapter(int), known.id, name)}).get("dye") or {}
        state = _parsed(TypeAdapter(_State), answer, name)
    spectra = {s.subtype.upper(): _ordered(s.data, known.name) for s in state.spectra}
    absorption, emission = spectra.get("AB") or spectra.get("EX"), spectra.get("EM")
    if not absorption or not emission:
        lacking = "emission" if absorption else "excitation"
        raise SpecError(
            f"FPbase has no {lacking} spectrum of {printable(known.name)}, so it cannot be simulated; define it under `dyes:` "
            "by a CSV file of your own or by its peaks and widths"
        )
    figures = {
        "extinction_per_M_per_cm": state.extCoeff,
        "quantum_yield": state.qy,
        "lifetime_ns": state.lifetime,
    }
    page = f"{_PAGES}/{'protein' if known in proteins else 'dye'}/{known.slug}/"
    return Fetched(_line(known.name), _line(page), figures, {"excitation": absorption, "emission": emission})


def _line(text: str) -> str:
    """Text of FPbase on one line, without control characters."""
    return " ".join(printable(text).split())


def _find(name: str, known: Sequence[_Known]) -> _Known:
    """The entry of this name, whatever its capitals, spaces and dashes; SpecError with near names if there is none."""
    wanted = letters(name)
    exact = [k for k in known if k.name == name] or [k for k in known if wanted in (letters(k.name), letters(k.slug))]
    if exact:
        return exact[0]
    by_letters = {letters(k.name): k.name for k in known}
    near = [by_letters[found] for found in difflib.get_close_matches(wanted, by_letters, n=4)]
    hint = f"did you mean {' or '.join(map(printable, near))}?" if near else f"look it up at {_PAGES}"
    raise SpecError(f"FPbase knows no dye or protein {name!r}, so nothing was fetched; {hint}")


def _ordered(data: Sequence[tuple[float, float]], name: str) -> Points:
    """Points in order, without noise below 0; SpecError for other negative values."""
    points = clear_baseline(tuple(sorted(dict(data).items())))
    if any(value < 0 for _, value in points):
        raise SpecError(
            f"FPbase's spectrum of {printable(name)} has negative values, so it is not used; measure the dye"
        )
    return points


def _parsed(form: TypeAdapter[Any], value: Any, name: str) -> Any:
    try:
        return form.validate_python(value)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise SimexmError(
            f"FPbase's answer about {name!r} is not of the known form ({place}: {error.errors()[0]['msg']}), so nothing was "
            f"fetched; {_BY_HAND}"
        ) from None


_BY_HAND = "export the spectrum as CSV at https://www.fpbase.org/spectra/ and name that file by `csv:`"


def _ask(url: str, name: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data of FPbase's answer to a GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    agent = {"Content-Type": "application/json", "User-Agent": f"simexm/{__version__}"}
    try:
        with urlopen(Request(url, body, agent), timeout=_SECONDS) as response:
            answer = parse_mapping(response.read(_MOST_BYTES))
    except HTTPError as error:
        error.close()
        raise SimexmError(
            f"FPbase refused the request ({error.code}), so {name!r} was not fetched; {_BY_HAND}"
        ) from None
    except MalformedError as error:
        raise SimexmError(f"FPbase's answer {error}, so {name!r} was not fetched; {_BY_HAND}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SimexmError(
            f"FPbase cannot be reached ({reason}), so {name!r} was not fetched; try again where there is a network, or there "
            f"{_BY_HAND}"
        ) from None
    data = answer.get("data")
    if answer.get("errors") or not isinstance(data, dict):
        raise SimexmError(f"FPbase did not answer the question about {name!r}, so nothing was fetched; {_BY_HAND}")
    return data
