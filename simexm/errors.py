"""Errors that a user sees.

Each message states the fact, what it would have caused, and what to type instead. The exit code tells a script
whether to mend its input (2) or to look at the run (1).
"""

from __future__ import annotations


class SimexmError(Exception):
    """Base of every error that simexm raises on purpose; printed without a traceback."""

    exit_code = 1


class SpecError(SimexmError, ValueError):
    """The specification cannot be run as it is written."""

    exit_code = 2


class SourceError(SimexmError, ValueError):
    """A source of labels exists but cannot be used."""

    exit_code = 2


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A source of labels does not exist."""


class SourceGoneError(SourceError):
    """A source of labels vanished, or was changed, while it was read."""

    exit_code = 1


class GoneError(SimexmError, FileNotFoundError):
    """A stored array vanished while it was read: its chunks are missing, and so are its metadata."""

    def __str__(self) -> str:
        return str(self.strerror)


class OutputError(SimexmError, OSError):
    """The output's place cannot be written, or holds something that must not be touched."""

    exit_code = 2


class NoResultError(OutputError):
    """There is no result of simexm at a path."""


class DiskError(OutputError):
    """The disk refused in the middle of the work: it is full, or gone."""

    exit_code = 1


class RunError(SimexmError, RuntimeError):
    """A run began and could not be finished; what was done is kept and `run` again does the rest."""


class SimexmWarning(UserWarning):
    """Something that the user did not ask for and should know: field, value, consequence, remedy."""
