"""Reading the files that people write by hand, without waiting for a pipe or filling the memory from a device."""

from __future__ import annotations

from pathlib import Path

from simexm.errors import SpecError
from simexm.store.location import usable
from simexm.units import size

MOST_BYTES = 32 * 2**20
"""No such file is as long as this; one that is would take minutes to parse."""


def read_small(path: Path, what: str) -> bytes:
    """Return what is in a file.

    Parameters
    ----------
    path
        The file.
    what
        What it should be, for messages.

    Raises
    ------
    SpecError
        If it cannot be a file of this kind: a named pipe, too long, or no name that a file can have.
    OSError
        If it cannot be read.
    """
    usable(path)
    if path.is_fifo() and not path.is_relative_to("/dev"):  # `<(command)` of a shell is below /dev
        raise SpecError(f"{path} is a named pipe, which may never end, and a {what} is a file; name a file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SpecError(f"{path} has more than {size(MOST_BYTES)}, which no {what} has; name the {what} itself")
    return content
