"""Standard streams that are full, closed, or lack characters: none of these ends a command with a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from simexm.errors import SimexmError

_SIGPIPE = 13  # not in Python's `signal` on every system
_COLUMNS = 20
"""A narrower COLUMNS is ignored: it would give one letter a line."""


class LostOutputError(SimexmError):
    """Standard output cannot be written."""


class ClosedPipeError(LostOutputError):
    """The reader of standard output, such as `head`, has ended: no error, and nothing to print."""

    exit_code = 128 + _SIGPIPE  # as a shell reports it


class _Output(io.FileIO):
    """Standard output that discards all writes after its first failure, so that no second error hides the first."""

    lost = False

    def write(self, data: Any, /) -> int:
        """Write; raises LostOutputError at the first failure."""
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
                "terminal, or to a file on a disk with space"
            ) from None


class _Errors(io.FileIO):
    """Standard error that ignores failed writes: they cannot be reported, and the work goes on."""

    def write(self, data: Any, /) -> int:
        """Write if possible."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def occupy() -> None:
    """Open the null device at the number of each stream that the caller closed.

    Otherwise the next opened file gets that number, and libraries print into it, in this process or a worker. Call it before
    any library is imported, since some open files on import.
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
    """Make the three streams safe to print to; characters that a terminal lacks are written as escapes."""
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
    """A text stream over `raw` with the settings of `before`."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def flush() -> LostOutputError | None:
    """Flush both streams; return the failure if standard output could not be written."""
    found = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except LostOutputError as error:
            found = error
        except (OSError, ValueError):
            pass
    return found
