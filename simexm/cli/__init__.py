"""The command line: parse, call, render. One module for each heading of `simexm --help`."""

from simexm.cli import streams

streams.occupy()

from simexm.cli import bring_in, guard, judge, look, molecules, register, simulate, wiring  # noqa: E402 (they import libraries)
from simexm.cli.app import app, main  # noqa: E402

__all__ = ["app", "bring_in", "guard", "judge", "look", "main", "molecules", "register", "simulate", "wiring"]
