"""A terminal for the tests: programs that believe that they print to one."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.markdown import ROOT

COLOUR = re.compile(r"\x1b\[[0-9;]*?(?<![0-9])(3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")
"""A code that sets a colour; bold, italic and the like are none."""


def simexm(*words: object) -> list[str]:
    """The command, in this Python."""
    return [sys.executable, "-m", "simexm.cli", *map(str, words)]


def environment(**changes: str) -> dict[str, str]:
    """This environment without what says how terminals are, and with simexm found wherever a program is started."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONPATH": path, **changes}


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, command: Sequence[str], folder: Path, **changes: str) -> None:
        self.end, other = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=other, stdout=other, stderr=other, env=environment(**changes), start_new_session=True
        )  # fmt: skip
        os.close(other)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.end)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.end, keys.encode())

    def until(self, words: str, seconds: float = 60) -> bool:
        """Read until these words have been printed; whether they have."""
        deadline = time.monotonic() + seconds
        while words not in self.seen and time.monotonic() < deadline:
            if not self._read(deadline - time.monotonic()):
                break
        return words in self.seen

    def all(self, seconds: float = 120) -> tuple[int, str]:
        """Read to the end; the exit code, and all that was printed."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(timeout=20), self.seen

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.end], [], [], max(0.0, seconds))
        new = b""
        with contextlib.suppress(OSError):  # which Linux raises at the end
            new = os.read(self.end, 1 << 16) if ready else b""
        self.seen += new.decode(errors="replace")
        return bool(new)
