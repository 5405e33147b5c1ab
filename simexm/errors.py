"""Errors that a user sees.

Each message states the fact, what it would have caused, and what to type instead. Exit code 2 means that the input is wrong,
1 that the run failed.
"""

from __future__ import annotations


class SimexmError(Exception):
    """Base of every error that simexm raises on purpose; printed without a traceback."""

    exit_code = 1


class SpecError(SimexmError, ValueError):
    """The specification is wrong."""

    exit_code = 2


class SourceError(SimexmError, ValueError):
    """A source of labels exists but cannot be used."""

    exit_code = 2


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A source of labels does not exist."""


class SourceGoneError(SourceError):
    """A source of labels was removed or changed while it was read."""

    exit_code = 1


class GoneError(SimexmError, FileNotFoundError):
    """A stored array was removed while it was read: its chunks and its metadata are missing."""

    def __str__(self) -> str:
        return str(self.strerror)


class OutputError(SimexmError, OSError):
    """The output cannot be written, or holds data that must not be replaced."""

    exit_code = 2


class NoResultError(OutputError):
    """There is no result of simexm at a path."""


class DiskError(OutputError):
    """The disk failed during the work: it is full, or gone."""

    exit_code = 1


class RunError(SimexmError, RuntimeError):
    """A run could not be finished; finished blocks are kept, and `run` again resumes it."""


class SimexmWarning(UserWarning):
    """A consequence that the user should know: field, value, consequence, remedy."""
