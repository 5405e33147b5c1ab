"""The option --log-file: what a run tells, with date and time, in a file of the user's choice."""

from __future__ import annotations

import logging
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from simexm import __version__
from simexm.errors import OutputError
from simexm.logs import logger


class _Lines(logging.Formatter):
    """As in a run's log.txt."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        return f"{time} {level}{record.getMessage()}"


def _open(ctx: typer.Context, path: Path | None) -> Path | None:
    """Write what the logger is told to the file, until the command line ends, so that its errors are told there, too."""
    if path is None or ctx.resilient_parsing:
        return path
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the log file {path} cannot be written: {error.strerror or error}; name a file that you may write"
        ) from error
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
    return path


LogFileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="File to which what happens is added, a line with date and time each.",
        show_default="NAME.run/log.txt alone",
        callback=_open,
    ),
]
