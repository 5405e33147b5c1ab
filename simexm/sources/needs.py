"""Import libraries that only some sources need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from simexm.errors import SourceError


def need(module: str, what: str) -> Any:
    """Import a library of the extra `io`; raises SourceError if it is not installed. `what` begins the message."""
    try:
        return import_module(module)
    except ImportError as error:
        raise SourceError(f'{what}, and reading it needs {module}. Type: pip install "simexm[io]"') from error
