"""Wall seconds and memory of complete commands, with the processes that they start."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.end_to_end import machine

_EVERY_S = 0.2


class Measured(NamedTuple):
    """Measurement of one command: wall seconds, core-seconds of all its processes, largest sum of their PSS, bytes.

    PSS counts a page that n processes share as a n-th in each, so that the sum is what they take together.
    """

    seconds: float
    core_seconds: float
    peak_bytes: int


def measured(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None, cores: Sequence[int] | None = None
) -> Measured:
    """Run a command to its end, on these cores; its output is shown if it fails.

    Memory is looked at from any core, so that on a machine of more cores looking takes no time from the command.
    """
    before, start, peak = os.times(), time.perf_counter(), 0
    with (cwd / "output.txt").open("w+b") as output:
        process = psutil.Popen(
            list(words),
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=output,
            preexec_fn=partial(pin, cores) if cores else None,
        )
        while process.poll() is None:
            peak = max(peak, _pss(process))
            time.sleep(_EVERY_S)
    seconds, after = time.perf_counter() - start, os.times()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{(cwd / 'output.txt').read_text()[-4000:]}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(seconds, spent, peak)


def _pss(process: psutil.Process) -> int:
    """PSS of a process and its children, bytes."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in family:
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total


def pin(cores: Sequence[int]) -> None:
    """Bind this process and its children to these cores."""
    os.sched_setaffinity(0, cores)


def heading(cores: Sequence[int]) -> str:
    """Machine, cores and commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return f"machine: {machine()}, on cores {', '.join(map(str, cores))}; commit {commit.strip()}"
