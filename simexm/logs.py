"""The logger `simexm`: the lines that a run's log.txt holds, warnings and errors, for whoever attaches a handler."""

from __future__ import annotations

import logging

logger = logging.getLogger("simexm")
logger.addHandler(logging.NullHandler())  # without one, Python would print them beside what is printed anyway
