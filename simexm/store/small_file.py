"""Read files that people write by hand, without hanging on a pipe or filling memory from a device."""

from __future__ import annotations

from pathlib import Path

from simexm.errors import SpecError
from simexm.store.location import usable
from simexm.units import size

MOST_BYTES = 32 * 2**20
"""Larger than any such file; it would take minutes to parse."""


def read_small(path: Path, what: str) -> bytes:
    """Read a file; `what` says in messages what it should be.

    Raises SpecError for a named pipe, a file that is too long, or an invalid name; OSError if it cannot be read.
    """
    usable(path)
    if path.is_fifo() and not path.is_relative_to("/dev"):  # `<(command)` of a shell is below /dev
        raise SpecError(f"{path} is a named pipe, which may never end, and a {what} is a file; name a file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SpecError(f"{path} is larger than {size(MOST_BYTES)}, which no {what} is; name the {what} itself")
    return content
