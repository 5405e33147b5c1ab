"""Summarise how a run went: blocks over time, retries, and measured and predicted memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simexm.jobs.journal import Record
from simexm.units import GiB
from simexm.view.report.ink import ACCENT, INK, MUTED, new_figure, svg

_BINS = 120


@dataclass(frozen=True)
class Running:
    """Totals of the journal."""

    blocks: int
    retried: int  # blocks that took more than one attempt
    attempts: int  # most attempts of a block
    hosts: int
    begin: float  # of the first block, s since 1970
    end: float  # of the last block
    work_s: float  # of all blocks together
    longest_s: float
    peak_bytes: int  # of the fullest worker
    predicted_bytes: int  # for that worker, with as many blocks at once as it computed
    done: NDArray[np.int64]  # blocks done in each of equal parts of the time

    @property
    def seconds(self) -> float:
        """From the start of the first block to the end of the last, pauses included."""
        return self.end - self.begin


def read_running(records: Callable[[], Iterator[Record]]) -> Running | None:
    """Read a journal twice, one line at a time; None if it is empty."""
    blocks = retried = attempts = peak = predicted = 0
    begin, end, work, longest = float("inf"), 0.0, 0.0, 0.0
    hosts: set[str] = set()
    for record in records():
        blocks += 1
        retried += record.attempt > 1
        attempts = max(attempts, record.attempt)
        begin, end = min(begin, record.time - record.seconds), max(end, record.time)
        work, longest = work + record.seconds, max(longest, record.seconds)
        memory = (int(record.result.get("peak_bytes", 0)), int(record.result.get("predicted_bytes", 0)))
        peak, predicted = max((peak, predicted), memory)
        if len(hosts) < 1000:
            hosts.add(record.host)
    if not blocks:
        return None
    done = np.zeros(_BINS, np.int64)
    for record in records():
        done[min(_BINS - 1, int((record.time - begin) / max(end - begin, 1e-9) * _BINS))] += 1
    return Running(blocks, retried, attempts, len(hosts), begin, end, work, longest, peak, predicted, done)


def draw_speed(running: Running) -> str:
    """Draw the blocks done over time."""
    units = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    unit, name = next((u, n) for u, n in units if running.seconds > 3 * u or u == 1)
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(height=2.0)
    time = np.linspace(0, running.seconds / unit, _BINS + 1)
    axes.plot(time, np.concatenate([[0], np.cumsum(running.done)]), color=ACCENT, lw=1.8)
    axes.set_ylim(0, running.blocks * 1.05)
    axes.set_xlim(0, time[-1])
    axes.set_xlabel(f"{name} since the first block began")
    axes.set_ylabel("blocks done")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg(figure, "Blocks done over time")


def draw_memory(running: Running, predicted: Mapping[str, int]) -> str:
    """Draw measured and predicted memory of the fullest worker; `predicted` are the parts for one block."""
    total = running.predicted_bytes
    figure, axes = new_figure(height=1.25)
    axes.barh([1], [total / GiB], color=MUTED, height=0.5)
    axes.barh([0], [running.peak_bytes / GiB], color=ACCENT, height=0.5)
    axes.set_yticks([0, 1], ["measured", "predicted"], color=INK)
    axes.set_xlim(0, max(total, running.peak_bytes) / GiB * 1.25)
    for y, value in ((1, total), (0, running.peak_bytes)):
        axes.text(value / GiB, y, f" {value / GiB:.2f}", va="center", ha="left", fontsize=8, color=INK)
    axes.grid(visible=False)
    axes.set_xlabel("GiB in the fullest worker")
    axes.set_ylim(-0.5, 1.5)
    parts = ", ".join(f"{name} {size / GiB:.2f}" for name, size in predicted.items())
    return svg(figure, f"Memory of the fullest worker in GiB, measured and predicted (for one block: {parts})")
