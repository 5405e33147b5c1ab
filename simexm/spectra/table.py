"""Read CSV tables of spectra: a column of wavelengths in nm, and one or several curves."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from simexm.errors import SpecError
from simexm.spectra.spectrum import Points
from simexm.store.small_file import read_small

_WAVELENGTH = re.compile(r"(wavelengths?|lambda|wl|λ)?[\s_]*[(\[]?(nm|nanomet(er|re)s?)?[)\]]?", re.IGNORECASE)
_SHORTEST_NM, _LONGEST_NM = 100.0, 5000.0


@dataclass(frozen=True)
class Table:
    """A file of curves.

    Attributes
    ----------
    path
        The file.
    notes
        Text of comment lines `# key: value` above the header, by key.
    curves
        (wavelength nm, value) points by title of the column; blank cells are left out.
    """

    path: Path
    notes: dict[str, str]
    curves: dict[str, Points]


def read_table(path: Path, what: str) -> Table:
    """Read a CSV file whose first column is a wavelength in nm; `what` says in messages what it should hold.

    Raises
    ------
    SpecError
        If the file cannot be read, its first column is no wavelength in nm, a title is given twice or is missing, or a cell
        is no number.
    """
    try:
        lines = read_small(path, "table of spectra").decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{what} cannot be read from {path}: {error}; correct the path") from error
    comments = [line.lstrip("# ").partition(":") for line in lines if line.startswith("#")]
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip(" ,\t") and not line.startswith("#")]
    if not rows:
        raise SpecError(f"{path} is empty, and {what} was expected; its header should begin with wavelength_nm")
    titles = [title.strip() for title in next(csv.reader([rows[0][1]]))]
    while titles and not titles[-1]:
        titles.pop()
    _check_titles(path, titles)
    curves: dict[str, list[tuple[float, float]]] = {title: [] for title in titles[1:]}
    for number, line in rows[1:]:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        try:
            for title, cell in zip(titles[1:], cells[1:], strict=False):
                if cell:
                    curves[title].append((float(cells[0]), float(cell)))
        except ValueError as error:
            raise SpecError(f"{path}, line {number}: {error}; a cell holds one number or is blank") from error
    _check_wavelengths(path, curves)
    notes = {key.strip(): value.strip() for key, _, value in comments}
    return Table(path, notes, {title: tuple(points) for title, points in curves.items()})


def _check_titles(path: Path, titles: list[str]) -> None:
    first = titles[0] if titles else ""
    if not first or not _WAVELENGTH.fullmatch(first):
        raise SpecError(
            f"the first column of {path} is {first!r}, so the unit of its wavelengths is not known; it should be "
            "wavelength_nm, in nm, below a header"
        )
    if len(titles) < 2 or not all(titles):
        raise SpecError(
            f"{path}: a column has no title, so nobody knows what it holds; name every column in the header"
        )
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise SpecError(f"{path} has more than one column {', '.join(twice)}; rename or delete the others")


def _check_wavelengths(path: Path, curves: dict[str, list[tuple[float, float]]]) -> None:
    for points in curves.values():
        for wavelength_nm, _ in points:
            if not _SHORTEST_NM <= wavelength_nm <= _LONGEST_NM:
                raise SpecError(
                    f"{path} has a wavelength of {wavelength_nm:g}, which is no light in nm, so no dye would match it; "
                    "give wavelengths in nm"
                )
