"""The operating systems that simexm runs on."""

from __future__ import annotations

import os
import sys

_TEXT = (
    "simexm runs on Linux and macOS, not on Windows itself: install it in the Windows Subsystem for Linux (type `wsl --install`) "
    "and run it there"
)


def refuse_windows() -> None:
    """Refuse to run on Windows: ImportError for a program that imports simexm, one line and exit code 2 for the command."""
    platform: str = sys.platform  # `str`, or mypy assumes the system that it runs on
    if platform != "win32":
        return
    if os.path.basename(sys.argv[0]).removesuffix(".exe") in ("simexm", "-m"):  # or `python -m simexm.cli`
        print(f"error: {_TEXT}", file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_TEXT)
