"""Parse values of a 2017 configuration file, and describe the valid ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Reads:
    """Parser of a value, for the annotation of a model's field; `expected` names the valid values after "should be"."""

    expected: str
    parse: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self, handler(source))

    def __call__(self, value: Any) -> Any:
        """Parse a value."""
        try:
            return self.parse(value)
        except (ValueError, OverflowError):
            hint = "; a comma makes a list, so put quotes around it" if self is TEXT and isinstance(value, list) else ""
            raise ValueError(f"should be {self.expected}{hint}") from None


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False, unit: str = "") -> Reads:
    """A finite number from `low` (or above it) to `high`."""

    def parse(value: Any) -> float:
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError
        read = float(value)
        if not (math.isfinite(read) and low <= read <= high) or (above and read == low):
            raise ValueError
        return read

    return Reads("a number" + _limits(low, high, above) + _in(unit), parse)


def whole(low: int, high: float = math.inf, *, unit: str = "") -> Reads:
    """A whole number from `low` to `high`."""
    return Reads(f"a whole number{_limits(low, high)}{_in(unit)}", lambda value: _whole(value, low, high))


def wholes(names: Sequence[str], low: int, *, unit: str = "") -> Reads:
    """Whole numbers separated by commas, one for each name."""

    def parse(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(names):
            raise ValueError
        return tuple(_whole(part, low, math.inf) for part in value)

    return Reads(f"{len(names)} whole numbers {', '.join(names)}{_limits(low, math.inf)}{_in(unit)}", parse)


def choice(names: Sequence[str]) -> Reads:
    """One of a few names, in any case, with space, _ or - between words."""

    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        plain = re.sub(r"[\s_-]+", " ", value.strip()).casefold()
        if plain not in names:
            raise ValueError
        return plain

    return Reads(f"{', '.join(names[:-1])} or {names[-1]}", parse)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[value.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


BOOLEAN = Reads("True or False", _boolean)
TEXT = Reads("a text", _text)


def _whole(value: Any, low: float, high: float) -> int:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError
    read = int(value)
    if not low <= read <= high:
        raise ValueError
    return read


def _limits(low: float, high: float, above: bool = False) -> str:
    if math.isfinite(high):
        return f" from {low:g} to {high:g}"
    return f" above {low:g}" if above else f" of at least {low:g}"


def _in(unit: str) -> str:
    return f", in {unit}" if unit else ""
