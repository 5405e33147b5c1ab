"""Which operating systems simexm runs on."""

from __future__ import annotations

import os
import sys

_TEXT = (
    "simexm runs on Linux and macOS, not on Windows itself: install it in the Windows Subsystem for Linux (type `wsl --install`) "
    "and run it there"
)


def refuse_windows() -> None:
    """Say on Windows in one line that nothing would work there.

    Raises
    ------
    ImportError
        To a program that imports simexm.
    SystemExit
        With status 2, to the `simexm` command.
    """
    platform: str = sys.platform  # mypy takes the system it runs on for the only one
    if platform != "win32":
        return
    if os.path.basename(sys.argv[0]).removesuffix(".exe") in ("simexm", "-m"):  # or `python -m simexm.cli`
        print(f"error: {_TEXT}", file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(_TEXT)
