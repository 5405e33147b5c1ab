"""A measured light sheet: relative intensity by the distance from its plane, at one or several places along its way."""

from __future__ import annotations

import csv
import itertools
import math
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.errors import SpecError
from simexm.settings import Frozen
from simexm.store.small_file import read_small

Array = NDArray[np.float64]
TITLES = ("z_um", "intensity", "along_um")
MOST_ROWS = 100_000
DARK = 0.01
"""Share of the maximum below which a profile may end; beyond its ends it is dark."""


class SheetProfile(Frozen):
    """A measured sheet; in a spec the path of its file alone will do.

    Attributes
    ----------
    csv
        Path of a file with the columns `z_um`, distance from the sheet's plane in um of expanded tissue, and `intensity`,
        relative; with a third, `along_um`, profiles at several places along the way of the light.
    along_um
        The places; filled in from the file, like the following.
    z_um, intensity
        Distances and intensities of the profile at each place. The largest intensity of all is 1.
    """

    csv: Path
    along_um: tuple[float, ...] = ()
    z_um: tuple[tuple[float, ...], ...] = Field(default=(), repr=False)
    intensity: tuple[tuple[float, ...], ...] = Field(default=(), repr=False)

    def fault(self, what: str) -> SpecError:
        """An error about the file."""
        return SpecError(f"sheet_profile {self.csv} {what}")

    def read(self) -> Self:
        """Copy with the profiles of the file; as it is if it has them. SpecError if the file cannot be used."""
        if self.along_um:
            if not len(self.along_um) == len(self.z_um) == len(self.intensity):
                raise self.fault("is half filled in; give the path of the file alone")
            return self
        found: dict[float, list[tuple[float, float]]] = {}
        for place, z, value in self._rows():
            found.setdefault(place, []).append((z, value))
        most = max(value for profile in found.values() for _, value in profile)
        if most <= 0:
            raise self.fault("is dark everywhere; give the intensity of the sheet")
        profiles = [sorted(found[place]) for place in sorted(found)]
        for place, profile in zip(sorted(found), profiles, strict=True):
            self._check(place, profile, most)
        return self.model_copy(
            update={
                "csv": Path(self.csv.name),
                "along_um": tuple(sorted(found)),
                "z_um": tuple(tuple(z for z, _ in profile) for profile in profiles),
                "intensity": tuple(tuple(value / most for _, value in profile) for profile in profiles),
            }
        )

    def _rows(self) -> list[tuple[float, float, float]]:
        try:
            lines = read_small(self.csv, "profile of a light sheet").decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.fault(f"cannot be read: {error}; correct the path") from error
        rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip(" ,\t") and not line.startswith("#")]
        titles = [title.strip() for title in next(csv.reader([rows[0][1]]))] if rows else []
        wanted = "z_um,intensity or z_um,along_um,intensity"
        if sorted(titles) not in (sorted(TITLES), sorted(TITLES[:2])):
            raise self.fault(
                f"begins with {', '.join(titles) or 'nothing'}, so what its columns hold, and in which unit, is not known; "
                f"its first line should be {wanted}"
            )
        if not 1 < len(rows) <= MOST_ROWS:
            raise self.fault(f"has {len(rows) - 1} rows of numbers; give 2 to {MOST_ROWS}")
        found = []
        for number, line in rows[1:]:
            cells = dict(zip(titles, next(csv.reader([line])), strict=False))
            try:
                z, value = float(cells["z_um"]), float(cells["intensity"])
                place = float(cells.get("along_um", 0.0))
            except (KeyError, ValueError):
                raise self.fault(f"line {number}: {line!r} is not {len(titles)} numbers; correct it") from None
            if not all(map(math.isfinite, (z, value, place))) or value < 0:
                raise self.fault(
                    f"line {number}: {line!r} has a value that is negative or no number, which no intensity is; subtract less "
                    "background, or leave the line out"
                )
            found.append((place, z, value))
        return found

    def _check(self, place: float, profile: list[tuple[float, float]], most: float) -> None:
        where = f"at along_um {place:g} " if place else ""
        if any(a[0] == b[0] for a, b in itertools.pairwise(profile)):
            raise self.fault(f"{where}has two intensities at one z_um; leave one")
        if not profile[0][0] < 0 < profile[-1][0]:
            raise self.fault(f"{where}has one side of the sheet only; z_um is negative above its plane, positive below")

    def check_reach(self, reach_um: float) -> None:
        """Refuse profiles that end, still bright, within the range over which light is computed."""
        for place, z, values in zip(self.along_um, self.z_um, self.intensity, strict=True):
            for end, value in ((z[0], values[0]), (z[-1], values[-1])):
                if abs(end) < reach_um and value > DARK:
                    raise self.fault(
                        f"ends at z_um {end:g} (along_um {place:g}) with {value:.0%} of its maximum, but light is computed up to "
                        f"{reach_um:.3g} um from the plane; measure further, or set a lower axial_range_um"
                    )

    def at(self, z_nm: Array, along_nm: Array) -> Array:
        """Relative intensity, as distances and places broadcast, and dark beyond the ends of z.

        By a natural cubic spline between distances, which has no corners, and linear between places.
        """
        z, along = z_nm / 1000, along_nm / 1000
        each = [_spline(z, *rows) for rows in zip(self.z_um, self.intensity, strict=True)]
        if len(each) == 1:
            return each[0] + 0.0 * along
        places = np.array(self.along_um)
        place = np.clip(along, places[0], places[-1])
        total = np.zeros(np.broadcast_shapes(z.shape, along.shape))
        for n, profile in enumerate(each):
            hat = np.zeros(len(each))
            hat[n] = 1.0
            total += np.interp(place, places, hat) * profile
        return total


def _spline(z: Array, at: tuple[float, ...], values: tuple[float, ...]) -> Array:
    """The natural cubic spline through values at ascending places; 0 where it is negative, and beyond its ends."""
    x, y, bend = np.array(at), np.array(values), np.array(_bends(at, values))
    i = np.clip(np.searchsorted(x, z, side="right") - 1, 0, x.size - 2)
    h = x[i + 1] - x[i]
    b = (z - x[i]) / h
    a = 1 - b
    curve = a * y[i] + b * y[i + 1] + ((a * a * a - a) * bend[i] + (b * b * b - b) * bend[i + 1]) * (h * h / 6)
    return np.where((z < x[0]) | (z > x[-1]), 0.0, np.maximum(curve, 0.0))


@lru_cache(maxsize=64)
def _bends(at: tuple[float, ...], values: tuple[float, ...]) -> tuple[float, ...]:
    """Second derivatives of the spline, by elimination in order: the same on every machine."""
    n = len(at)
    upper, right = [0.0] * n, [0.0] * n
    for i in range(1, n - 1):
        before, after = at[i] - at[i - 1], at[i + 1] - at[i]
        slope = (values[i + 1] - values[i]) / after - (values[i] - values[i - 1]) / before
        pivot = 2 * (before + after) - before * upper[i - 1]
        upper[i] = after / pivot
        right[i] = (6 * slope - before * right[i - 1]) / pivot
    for i in range(n - 2, 0, -1):
        right[i] -= upper[i] * right[i + 1]
    return tuple(right)
