"""Standard input, output and error that are full, closed, or know few letters: none of them ends a command in a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from simexm.errors import SimexmError

_SIGPIPE = 13  # not in Python's `signal` on every system
_COLUMNS = 20
"""A terminal of fewer is none, and would get one letter a line."""


class LostOutputError(SimexmError):
    """Standard output takes nothing more."""


class ClosedPipeError(LostOutputError):
    """Whoever read standard output has ended, such as `head`: nothing is wrong, and nothing is to be told."""

    exit_code = 128 + _SIGPIPE  # what a shell reports of other programs then


class _Output(io.FileIO):
    """Standard output; after its first failure it swallows what still comes, so that no second one hides the first."""

    lost = False

    def write(self, data: Any, /) -> int:
        """Write, or tell what the system refused.

        Raises
        ------
        LostOutputError
            At the first failure.
        """
        if self.lost:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.lost = True
            if isinstance(error, BrokenPipeError):
                raise ClosedPipeError("the pipe is closed") from None
            raise LostOutputError(
                f"standard output cannot be written: {error.strerror}; what the command prints is lost; send it to a "
                "terminal, or to a file that has room"
            ) from None


class _Errors(io.FileIO):
    """Standard error: where it cannot be written, there is nobody to tell, and the work goes on."""

    def write(self, data: Any, /) -> int:
        """Write if that is possible."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def occupy() -> None:
    """Open the null device under the number of each stream that the caller closed.

    Else the next file that is opened gets that number, and what a library prints lands in it, here or in a worker. To be
    called before any library is imported, for some open files at once.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


def guard() -> None:
    """Make the three streams safe to print to; letters that a terminal lacks are written as escapes."""
    for name, kind in (("stdin", None), ("stdout", _Output), ("stderr", _Errors)):
        before = getattr(sys, name)
        if before is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
        elif kind is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                before.flush()
                setattr(sys, name, _over(kind(before.fileno(), "w", closefd=False), before))
    columns = os.environ.get("COLUMNS", "")
    if columns and not (columns.isdecimal() and int(columns) >= _COLUMNS):
        del os.environ["COLUMNS"]


def _over(raw: io.FileIO, before: io.TextIOWrapper) -> io.TextIOWrapper:
    """A text stream over `raw`, as another one was."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def flush() -> LostOutputError | None:
    """Write what is held back; the failure, if standard output took it no more."""
    found = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except LostOutputError as error:
            found = error
        except (OSError, ValueError):
            pass
    return found
