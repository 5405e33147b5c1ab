"""Progress in a notebook: a bar that is updated in place, with messages below it.

Plain HTML, since widgets need a package of their own and are missing from a saved notebook.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from simexm.jobs.events import Event, Retried, RunFinished

_EVERY_S = 0.2
_KEPT_LINES = 8


class Counts(Protocol):
    """Numbers and text of the bar."""

    total: int

    @property
    def completed(self) -> int:
        """Blocks done."""

    def add(self, event: Event) -> None:
        """Count an event."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class InNotebook:
    """Listener that shows a bar in the running cell, and below it the lines that `describe` returns for events."""

    def __init__(self, counts: Counts, describe: Callable[[Event], str | None]) -> None:
        from IPython.display import display

        self._counts, self._describe = counts, describe
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._shown_s = time.monotonic()
        self._handle: Any = display(self._html(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._counts.add(event)
        text = None if isinstance(event, Retried) else self._describe(event)  # retries are counted in the bar
        if text is not None:
            self._lines.append(text)
        if text is not None or isinstance(event, RunFinished) or time.monotonic() - self._shown_s > _EVERY_S:
            self._shown_s = time.monotonic()
            self._handle.update(self._html(), raw=True)

    def _html(self) -> dict[str, str]:
        text = str(self._counts)
        share = 100 * self._counts.completed / max(self._counts.total, 1)
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines)
        page = (
            '<div style="font-size: 13px; line-height: 1.5; color: inherit">'
            '<div style="height: 6px; max-width: 30em; border-radius: 3px; background: rgba(128, 128, 128, .3)">'
            f'<div style="height: 6px; width: {share:.1f}%; border-radius: 3px; background: #3b82d0"></div></div>'
            f'<div>{escape(text)}</div><div style="color: #808080">{lines}</div></div>'
        )
        return {"text/html": page, "text/plain": "\n".join([text, *self._lines])}
