"""Order of axes, units of length and time, and voxel sizes, read alike from all formats."""

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

_LENGTHS = {  # nm, and other spellings
    "angstrom": (Fraction(1, 10), "å a ang ångström"),
    "nanometer": (Fraction(1), "nm"),
    "micrometer": (Fraction(10**3), "um µm μm micron"),  # micro sign and Greek mu
    "millimeter": (Fraction(10**6), "mm"),
    "centimeter": (Fraction(10**7), "cm"),
    "meter": (Fraction(10**9), "m"),
}
_NM = {word: nm for unit, (nm, symbols) in _LENGTHS.items() for word in (unit, *symbols.split())}
_TIMES = {  # seconds, and symbols
    "nanosecond": (Fraction(1, 10**9), "ns"),
    "microsecond": (Fraction(1, 10**6), "us µs μs"),  # micro sign and Greek mu
    "millisecond": (Fraction(1, 10**3), "ms"),
    "second": (Fraction(1), "s sec"),
    "minute": (Fraction(60), "min"),
    "hour": (Fraction(3600), "h"),
    "day": (Fraction(86400), "d"),
}
_SECONDS = {unit: seconds for unit, (seconds, _) in _TIMES.items()}
_TIME_SYMBOLS = {symbol: seconds for seconds, symbols in _TIMES.values() for symbol in symbols.split()}
_TIME_NAMES = ("t", "time")
Spatial = tuple[int | None, int, int]
"""Positions of z, y and x among an array's axes; z is None for a time series of single planes."""

UNITS = tuple(_LENGTHS)
"""Names of the lengths that `nm_per` knows, for messages."""

SMALLEST_NM, LARGEST_NM = Fraction(1, 20), Fraction(10**6)
"""Bounds of a plausible voxel size: half a hydrogen atom, and a millimetre."""


def nm_per(unit: str | bytes | None) -> Fraction | None:
    """Return the nanometres in a unit of length; None for other units, such as "pixel".

    Units are singular or plural, British or American, symbols or words, in any case: "um", "µm", "Micrometers", "metre".
    """
    word = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else (unit or "")
    word = word.strip().strip("\0").lower().replace("metre", "meter")
    return _NM.get(word, _NM.get(word.removesuffix("s")))


def seconds_per(unit: str | None) -> Fraction | None:
    """Return the seconds in a unit of time, by its name or symbol; None if it is not known."""
    word = (unit or "").strip().lower()
    return _TIME_SYMBOLS.get(word, _SECONDS.get(word.removesuffix("s")))


def space_and_time(where: str, names: Sequence[str], shape: Sequence[int]) -> tuple[Spatial, int | None]:
    """Return the positions of z, y and x among an array's axes, and of time; None if there is one time point.

    An array of t, y and x is a time series of single planes. Parameters are those of `spatial_order`.

    Raises SourceError if z, y or x is missing or named twice, or an axis other than time is longer than 1.
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
    """Return the positions of z, y and x among an array's axes, whose names come in any case and order.

    Raises SourceError if z, y or x is missing or named twice, or another axis is longer than 1.
    """
    lower = [n.strip().lower() for n in names]
    shown = [n or "(no name)" for n in names]
    if len(lower) != len(shape):
        raise SourceError(
            f"{where}: the metadata names {len(names)} axes ({', '.join(shown)}), but the array has {len(shape)}, so it is "
            "unclear which are z, y and x. Correct the metadata, or write a copy without them in the order z, y, x."
        )
    if any(lower.count(axis) != 1 for axis in "zyx"):
        raise SourceError(
            f"{where} has the axes {', '.join(shown)}, and a volume needs z, y and x once each; planes and rows would be mixed "
            "up. Correct the names of the axes, or write a copy in the order z, y, x."
        )
    others = zip(lower, shown, shape, strict=True)
    longer = [f"{name} of {n}" for axis, name, n in others if axis not in tuple("zyx") and n != 1]
    if longer:
        raise SourceError(
            f"{where} has the axis {', '.join(longer)} besides z, y, x, so it is unclear which of its volumes to read. "
            "Write that one as an array of its own."
        )
    return lower.index("z"), lower.index("y"), lower.index("x")


def implausible(voxel_size_nm: Sequence[Fraction | float]) -> str | None:
    """Return why a voxel size (z, y, x) is implausible, as the end of a sentence; None if it is plausible."""
    if not all(SMALLEST_NM <= s <= LARGEST_NM for s in voxel_size_nm):
        return (
            f"{times(voxel_size_nm)} nm (z y x), and a voxel is larger than an atom ({float(SMALLEST_NM):g} nm) and smaller "
            f"than {float(LARGEST_NM):g} nm along each axis; most often a unit is wrong"
        )
    return None


def voxel_sizes(given: Any) -> Spacing:
    """Check a voxel size that a user gave, nm along z, y, x.

    Raises SpecError if it is not three positive numbers, or implausible.
    """
    try:
        sizes = () if isinstance(given, str | bytes | Mapping) else tuple(given)
        numbers = all(isinstance(s, Real) and not isinstance(s, bool) for s in sizes)
        good = len(sizes) == 3 and numbers and all(0 < float(s) < math.inf for s in sizes)
    except (TypeError, ValueError, OverflowError):  # not a sequence, or one of arrays
        good = False
    if not good:
        raise SpecError(
            f"the voxel size, voxel_size_nm, is {reprlib.repr(given)}; give three positive numbers in nm along z, y and x, "
            "such as (40, 32, 32), on the command line --voxel-size 40 32 32"
        )
    why = implausible(sizes)
    if why:
        raise SpecError(f"voxel_size_nm is {why}. {words().voxel_size}")
    return exact3(sizes)
