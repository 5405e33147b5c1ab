"""The logger `simexm`, to which the lines of a run's log.txt, warnings and errors go."""

from __future__ import annotations

import logging

logger = logging.getLogger("simexm")
logger.addHandler(logging.NullHandler())  # without one, Python would print them a second time
