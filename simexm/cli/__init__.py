"""The command line: parse, call, render. One module for each heading of `simexm --help`, and one for sweeps."""

from simexm.cli import streams

streams.occupy()

from simexm.cli import bring_in, guard, judge, look, molecules, register, simulate, sweep, wiring  # noqa: E402 (they import libraries)
from simexm.cli.app import app, main  # noqa: E402

__all__ = ["app", "bring_in", "guard", "judge", "look", "main", "molecules", "register", "simulate", "sweep", "wiring"]
