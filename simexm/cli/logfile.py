"""The option --log-file: append the lines of the log, with date and time, to a file."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from simexm.errors import OutputError, SimexmWarning
from simexm.logs import logger
from simexm.version import __version__


class _File(logging.FileHandler):
    """A log file on a disk that may fill up: an error at the first line, one warning later."""

    begun = False

    def handleError(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logger.removeHandler(self)
        if not self.begun:
            raise _refused(self.baseFilename, error) from error
        warnings.warn(
            f"the log file {self.baseFilename} cannot be written any more: {error.strerror or error}; later lines are "
            "missing there; those of a run are in NAME.run/log.txt",
            SimexmWarning,
            stacklevel=2,
        )

    def close(self) -> None:
        """See `logging.Handler`; a failed write was reported before."""
        with contextlib.suppress(OSError, ValueError):
            super().close()


class _Lines(logging.Formatter):
    """As in a run's log.txt."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        return f"{time} {level}{record.getMessage()}"


def _open(ctx: typer.Context, path: Path | None) -> Path | None:
    """Append log lines to the file until the command ends, its errors included."""
    if path is None or ctx.resilient_parsing:
        return path
    try:
        handler = _File(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise _refused(str(path), error) from error
    handler.setFormatter(_Lines())
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    def close() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()

    ctx.find_root().call_on_close(close)
    logger.info("simexm %s: %s", __version__, shlex.join(["simexm", *sys.argv[1:]]))
    handler.begun = True
    return path


def _refused(path: str, error: OSError) -> OutputError:
    return OutputError(
        f"the log file {path} cannot be written: {error.strerror or error}; name a file that you may write, on a disk with room"
    )


LogFileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="File to append log lines to, with date and time.",
        show_default="only NAME.run/log.txt",
        callback=_open,
    ),
]
