"""Open a Matplotlib figure in a window, through the first toolkit that can; else say what to do instead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simexm.errors import SimexmError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NoWindowError(SimexmError):
    """No window can be opened; the message says what to install or to do instead."""

    exit_code = 2


def open_figure(title: str, size_inches: tuple[float, float], dpi: int, instead: str) -> Figure:
    """Open a black figure in a window; raises NoWindowError, whose message ends with `instead`: what to do meanwhile."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise NoWindowError(
            "there is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); over ssh, log in with "
            f"`ssh -X`, {instead}"
        )
    faults = []
    for figure_of in TOOLKITS:
        try:
            return figure_of(title, size_inches, dpi)
        except ImportError:  # it is not installed
            continue
        except _DisplayError as error:
            faults.append(str(error))
    if not faults:
        raise NoWindowError(
            "nothing to open a window with is installed: type `sudo apt install python3-tk` for the system's Python, or "
            f"`pip install PySide6-Essentials` for any, {instead}"
        )
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "of this session"
    raise NoWindowError(
        f"no window can be opened on the display {display} ({'; '.join(faults)}); repair that, or over ssh log in again with "
        f"`ssh -X`, {instead}"
    )


class _DisplayError(Exception):
    """A toolkit is installed, but cannot open the display."""


def _tk(title: str, size_inches: tuple[float, float], dpi: int) -> Figure:
    import tkinter

    try:
        held = tkinter.Tk()  # held until the window is open: an X server whose last client left may refuse the next one
    except tkinter.TclError as error:
        raise _DisplayError(str(error)) from None
    try:
        held.withdraw()
        return _figure("TkAgg", title, size_inches, dpi)
    finally:
        held.destroy()


def _qt(title: str, size_inches: tuple[float, float], dpi: int) -> Figure:
    import matplotlib.backends.qt_compat  # noqa: F401 (an ImportError where no Qt is installed)

    with _other_client():
        return _figure("QtAgg", title, size_inches, dpi)


@contextmanager
def _other_client() -> Iterator[None]:
    """Open the display in another process first, since Qt ends a process that cannot; hold it meanwhile."""
    program = (
        "from matplotlib.backends.qt_compat import QtWidgets\n"
        "app = QtWidgets.QApplication([])\nprint(flush=True)\ninput()"
    )
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, text=True, errors="replace", stdin=pipe, stdout=pipe, stderr=pipe) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        try:
            if not client.stdout.readline():
                said = client.stderr.read().splitlines()
                raise _DisplayError(said[0] if said else "it does not answer")
            yield
        finally:
            client.kill()


TOOLKITS = (_tk, _qt)
"""Best first: Tk comes with most Pythons."""


def _figure(backend: str, title: str, size_inches: tuple[float, float], dpi: int) -> Figure:
    from matplotlib import pyplot

    pyplot.switch_backend(backend)
    return pyplot.figure(num=title, figsize=size_inches, dpi=dpi, facecolor="black")
