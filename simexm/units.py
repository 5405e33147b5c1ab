"""Format sizes, times, lengths and counts for printing; stored values are not written by these."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

GiB = 1 << 30


def size(nbytes: float) -> str:
    """Format bytes with three digits: "512 B", "1.5 GiB"."""
    value, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.3g} {units[0]}"


def duration(seconds: float) -> str:
    """Format seconds: "3.2 s", "5 min 03 s", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def times(values: Iterable[Any]) -> str:
    """Format numbers along axes, whole ones exactly: "24 x 512 x 512", "40 x 162.5 x 162.5"."""
    return " x ".join(str(int(v)) if isinstance(v, Integral) else f"{float(v):.6g}" for v in values)


def count(number: int, thing: str) -> str:
    """Format a number of things: "1 block", "3 blocks"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
