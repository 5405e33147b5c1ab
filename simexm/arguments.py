"""Checks of arguments of the Python functions; the command line cannot pass such mistakes."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from simexm.errors import SpecError
from simexm.geometry.grid import Triple, three


def whole_number(name: str, value: Any, least: int = -(2**63)) -> int:
    """Return a whole number of at most 64 bits; raises SpecError for anything else, or below `least`."""
    if type(value) is bool or not isinstance(value, Integral) or not least <= int(value) < 2**63:
        more = f", {least} or more" if least > -(2**63) else ""
        raise SpecError(f"{name} is {reprlib.repr(value)}; give a whole number{more}")
    return int(value)


def whole_numbers(name: str, value: Any) -> Triple:
    """Return three whole numbers, z y x; raises SpecError for anything else."""
    try:
        parts = [] if isinstance(value, str | bytes | Mapping) else list(value)
    except TypeError:
        parts = []
    if len(parts) != 3:
        raise SpecError(f"{name} is {reprlib.repr(value)}; give three whole numbers, z y x")
    return three(whole_number(f"{name} along {axis}", part) for axis, part in zip("zyx", parts, strict=True))


def text(name: str, value: Any) -> str:
    """Return a text; raises SpecError for anything else."""
    if not isinstance(value, str):
        raise SpecError(f"{name} is {reprlib.repr(value)}; give it as text")
    return value
