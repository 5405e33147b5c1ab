"""Listeners that report the progress of a run, on the terminal, in a notebook and in the run's folder."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from simexm.jobs import events
from simexm.jobs.events import BlockFailed, Event, Listener, Message, Retried, RunStarted, WorkerLost
from simexm.logs import logger
from simexm.names import printable
from simexm.store.files import append
from simexm.store.location import Location
from simexm.units import count, duration

_PLAIN_EVERY_S = 5.0
_NOTEBOOK_EVERY_S, _NOTEBOOK_LINES = 0.2, 8


def describe(event: Event) -> str | None:
    """Describe an event in one line without control characters; None for a finished block."""
    match event:
        case RunStarted():
            text = f"running on {count(event.workers, 'worker')} with {count(event.threads, 'thread')}"
        case Retried():
            text = f"block {event.block} failed on {event.host} (attempt {event.attempt}), will be tried again: {event.error}"
        case BlockFailed(failure):
            text = f"block {failure.block} set aside after {count(failure.attempts, 'attempt')}: {failure.error}"
        case WorkerLost():
            text = f"worker {event.worker} died; {count(len(event.blocks), 'block')} will be run again"
        case Message():
            text = event.text
        case events.RunFinished():
            end = "finished" if event.complete else "stopped"
            failed = f", {count(event.failed, 'block')} failed" if event.failed else ""
            text = f"{end}: {count(event.done, 'block')} done in {duration(event.seconds)}{failed}"
        case events.BlockDone():
            return None
    return printable(text)


def describe_to_user(event: Event) -> str | None:
    """Describe an event with the dashboard's address, which is secret: for a terminal or notebook, never for a file."""
    text = describe(event)
    return f"{text}, dashboard at {event.dashboard}" if isinstance(event, RunStarted) and event.dashboard else text


@contextlib.contextmanager
def progress(
    total: int,
    voxels: int,
    already_done: int = 0,
    console: Console | None = None,
    quiet: bool = False,
    what: str = "",
) -> Iterator[Listener]:
    """Yield a listener that shows a live bar in a terminal or a notebook, elsewhere a plain line every few seconds.

    `voxels` of the job, or pixels, give the speed. Blocks that are `already_done` count as done, but not for the speed.
    `what` names the work, empty for images. With `quiet`, only failures are shown.
    """
    tally = _Tally(total, voxels / max(total, 1), already_done, what)
    if console is None and not quiet and in_notebook():
        yield _InNotebook(tally)
        return
    console = console or Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _Plain(tally, console, quiet)
        return
    with Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=console, transient=False) as bar:
        yield _Live(tally, bar)


class LogFile:
    """Listener that writes each event but finished blocks, which are in the journal, to a text file and to the logger."""

    def __init__(self, path: Location) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Append an event, with date and time."""
        text = describe(event)
        if text is None:
            return
        if isinstance(event, BlockFailed) and event.failure.traceback:
            text += "\n" + printable(event.failure.traceback.rstrip())
        level = logging.WARNING if isinstance(event, Retried | WorkerLost) else logging.INFO
        logger.log(logging.ERROR if isinstance(event, BlockFailed) else level, "%s", text)
        append(self.path, f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")


class FailedFile:
    """Listener that lists the blocks set aside in a file of JSON lines; no file without failures."""

    def __init__(self, path: Location) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Append a block that was set aside."""
        if isinstance(event, RunStarted):
            self.path.unlink(missing_ok=True)
        elif isinstance(event, BlockFailed):
            append(self.path, json.dumps(asdict(event.failure)) + "\n")


class _Tally:
    """Text of the bar: blocks, speed, time left."""

    def __init__(self, total: int, voxels_per_block: float, already_done: int, what: str) -> None:
        self.what = f"{what}: " if what else ""
        self.total = total
        self.voxels_per_block = voxels_per_block
        self.already_done = already_done
        self.done = self.failed = self.retried = 0
        self.start_s = time.monotonic()

    def add(self, event: Event) -> None:
        """Count an event."""
        match event:
            case RunStarted():
                self.start_s = time.monotonic()
            case events.BlockDone():
                self.done += 1
            case BlockFailed():
                self.failed += 1
            case Retried():
                self.retried += 1

    @property
    def completed(self) -> int:
        return self.already_done + self.done

    def __str__(self) -> str:
        elapsed_s = max(time.monotonic() - self.start_s, 1e-9)
        text = f"{self.what}{self.completed}/{self.total} blocks"
        if self.done:
            left_s = (self.total - self.completed - self.failed) * elapsed_s / self.done
            text += f", {self.done * self.voxels_per_block / elapsed_s / 1e6:.1f} Mvoxel/s, {duration(left_s)} left"
        if self.retried:
            text += f", {self.retried} retried"
        if self.failed:
            text += f", {self.failed} failed"
        return text


class _InNotebook:
    """Shows a bar in the running cell, with messages below it.

    Plain HTML, since widgets need a package of their own and are missing from a saved notebook.
    """

    def __init__(self, tally: _Tally) -> None:
        from IPython.display import display

        self.tally = tally
        self.lines: deque[str] = deque(maxlen=_NOTEBOOK_LINES)
        self.shown_s = time.monotonic()
        self.handle: Any = display(self._html(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self, event: Event) -> None:
        self.tally.add(event)
        text = None if isinstance(event, Retried) else describe_to_user(event)  # retries are counted in the bar
        if text is not None:
            self.lines.append(text)
        if text is not None or time.monotonic() - self.shown_s > _NOTEBOOK_EVERY_S:
            self.shown_s = time.monotonic()
            self.handle.update(self._html(), raw=True)

    def _html(self) -> dict[str, str]:
        text = str(self.tally)
        share = 100 * self.tally.completed / max(self.tally.total, 1)
        lines = "".join(f"<div>{escape(line)}</div>" for line in self.lines)
        page = (
            '<div style="font-size: 13px; line-height: 1.5; color: inherit">'
            '<div style="height: 6px; max-width: 30em; border-radius: 3px; background: rgba(128, 128, 128, .3)">'
            f'<div style="height: 6px; width: {share:.1f}%; border-radius: 3px; background: #3b82d0"></div></div>'
            f'<div>{escape(text)}</div><div style="color: #808080">{lines}</div></div>'
        )
        return {"text/html": page, "text/plain": "\n".join([text, *self.lines])}


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _Live:
    def __init__(self, tally: _Tally, bar: Progress) -> None:
        self.tally = tally
        self.bar = bar
        self.task = bar.add_task("", total=tally.total, completed=tally.already_done, text=str(tally))

    def __call__(self, event: Event) -> None:
        self.tally.add(event)
        self.bar.update(self.task, completed=self.tally.completed, text=str(self.tally))
        text = describe_to_user(event)
        if text is not None and not isinstance(event, Retried):  # retries are counted in the bar
            self.bar.console.print(text, markup=False, highlight=False)


class _Plain:
    def __init__(self, tally: _Tally, console: Console, quiet: bool) -> None:
        self.tally = tally
        self.console = console
        self.quiet = quiet
        self.printed_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.tally.add(event)
        if self.quiet:
            if isinstance(event, BlockFailed | WorkerLost | Message):
                self._print(describe(event))
        elif text := describe(event):
            self._print(text)
        elif time.monotonic() - self.printed_s > _PLAIN_EVERY_S:
            self.printed_s = time.monotonic()
            self._print(str(self.tally))

    def _print(self, text: str | None) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
