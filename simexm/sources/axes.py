"""Axes, units and voxel sizes as other programs write them: one reading for all formats."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any

from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Spacing, Triple, exact3
from simexm.sources.words import words
from simexm.units import times

_NM = {
    "angstrom": Fraction(1, 10),
    "nanometer": Fraction(1),
    "micrometer": Fraction(10**3),
    "millimeter": Fraction(10**6),
    "centimeter": Fraction(10**7),
    "meter": Fraction(10**9),
}
_SPELLINGS = {
    "å": "angstrom",
    "a": "angstrom",
    "ang": "angstrom",
    "ångström": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
_SECONDS = {
    "nanosecond": Fraction(1, 10**9),
    "microsecond": Fraction(1, 10**6),
    "millisecond": Fraction(1, 10**3),
    "second": Fraction(1),
    "minute": Fraction(60),
    "hour": Fraction(3600),
    "day": Fraction(86400),
}
_TIME_SPELLINGS = {
    "ns": "nanosecond",
    "us": "microsecond",
    "µs": "microsecond",  # micro sign
    "μs": "microsecond",  # Greek mu
    "ms": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
}
_TIME_NAMES = ("t", "time")
Spatial = tuple[int | None, int, int]
"""Positions of z, y and x among an array's axes; z is None where an array of planes in time has no such axis."""

UNITS = tuple(_NM)
"""Names of the lengths that `nm_per` knows, for messages."""

SMALLEST_NM, LARGEST_NM = Fraction(1, 20), Fraction(10**6)
"""Bounds of a plausible voxel size: half a hydrogen atom, and a millimetre."""


def nm_per(unit: str | bytes | None) -> Fraction | None:
    """Return how many nanometres a unit of length is.

    Parameters
    ----------
    unit
        Singular or plural, British or American, a symbol or a word, in any case: "um", "µm", "Micrometers", "metre".

    Returns
    -------
    Fraction or None
        None where the unit is no length, or is none that is known here, such as "pixel".
    """
    word = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else (unit or "")
    word = word.strip().strip("\0").lower().replace("metre", "meter")
    word = _SPELLINGS.get(word, word)
    if word not in _NM:
        singular = word.removesuffix("s")
        word = _SPELLINGS.get(singular, singular)
    return _NM.get(word)


def seconds_per(unit: str | None) -> Fraction | None:
    """Return how many seconds a unit of time is, by its name or symbol; None where it is none that is known here."""
    word = (unit or "").strip().lower()
    word = _TIME_SPELLINGS.get(word, word)
    return _SECONDS.get(word, _SECONDS.get(word.removesuffix("s")))


def space_and_time(where: str, names: Sequence[str], shape: Sequence[int]) -> tuple[Spatial, int | None]:
    """Return the positions of z, y and x among the axes of an array, and that of time; None where it has one time point.

    An array of t, y and x is a series of single planes.

    Parameters
    ----------
    where, names, shape
        As in `spatial_order`.

    Raises
    ------
    SourceError
        If z, y and x are not named once each, or another axis than time is longer than 1.
    """
    lower = [n.strip().lower() for n in names]
    time = next((i for i, n in enumerate(lower) if n in _TIME_NAMES), None)
    if time is None or len(lower) != len(shape):
        return spatial_order(where, names, shape), None
    rest = [i for i in range(len(lower)) if i != time]
    plane = [] if "z" in lower else ["z"]
    order = spatial_order(where, [*(names[i] for i in rest), *plane], [*(shape[i] for i in rest), *([1] * len(plane))])
    z, y, x = order
    return (rest[z] if z < len(rest) else None, rest[y], rest[x]), time if shape[time] > 1 else None


def spatial_order(where: str, names: Sequence[str], shape: Sequence[int]) -> Triple:
    """Return the positions of z, y and x among the axes of an array.

    Parameters
    ----------
    where
        What to call the array in messages.
    names
        One name for each axis, in any case and order.
    shape
        Length of each axis.

    Raises
    ------
    SourceError
        If z, y and x are not named once each, or another axis is longer than 1.
    """
    lower = [n.strip().lower() for n in names]
    told = ", ".join(n or "(no name)" for n in names)
    if len(lower) != len(shape):
        raise SourceError(
            f"{where}: the metadata names {len(names)} axes ({told}), but the array has {len(shape)}, so it is not known "
            "which are z, y and x. Correct the metadata, or write a copy without them in the order z, y, x."
        )
    if any(lower.count(axis) != 1 for axis in "zyx"):
        raise SourceError(
            f"{where} has the axes {told}, and a volume needs z, y and x once each; planes and rows would be mixed up. "
            "Correct the names of the axes, or write a copy in the order z, y, x."
        )
    longer = [
        f"{n or '(no name)'} of {s}"
        for n, s in zip(names, shape, strict=True)
        if n.strip().lower() not in tuple("zyx") and s != 1
    ]
    if longer:
        raise SourceError(
            f"{where} has besides z, y, x the axis {', '.join(longer)}, and it is not known which of its volumes is meant. "
            "Write the one that is meant as an array of its own."
        )
    return lower.index("z"), lower.index("y"), lower.index("x")


def implausible(voxel_size_nm: Sequence[Fraction | float]) -> str | None:
    """Return why no voxel has this size, as the end of a sentence; None where it can be right.

    Parameters
    ----------
    voxel_size_nm
        Along z, y, x.
    """
    if not all(SMALLEST_NM <= s <= LARGEST_NM for s in voxel_size_nm):
        told = times(voxel_size_nm)
        return (
            f"{told} nm (z y x), and a voxel is larger than an atom ({float(SMALLEST_NM):g} nm) and smaller than "
            f"{float(LARGEST_NM):g} nm along each axis; most often a unit was mistaken"
        )
    return None


def voxel_sizes(given: Any) -> Spacing:
    """Return sizes of a voxel along z, y, x, nm, that someone gave.

    Raises
    ------
    SpecError
        If they are not three positive numbers, or no voxel has this size.
    """
    try:
        sizes = () if isinstance(given, str | bytes | Mapping) else tuple(given)
        numbers = all(isinstance(s, Real) and not isinstance(s, bool) for s in sizes)
        good = len(sizes) == 3 and numbers and all(0 < float(s) < math.inf for s in sizes)
    except (TypeError, ValueError, OverflowError):  # no sequence, or arrays in it
        good = False
    if not good:
        raise SpecError(
            f"the voxel size, voxel_size_nm, is {reprlib.repr(given)}, and a voxel has a positive size along z, y and x, in nm; "
            "give three numbers, such as (40, 32, 32), on the command line --voxel-size 40 32 32"
        )
    why = implausible(sizes)
    if why:
        raise SpecError(f"voxel_size_nm is {why}. {words().voxel_size}")
    return exact3((sizes[0], sizes[1], sizes[2]))
