"""The folder NAME.run/jobs: ids of a run's jobs, their last known states, and their logs.

A driver that was killed leaves its jobs behind: running ones end when their workers lose it, waiting ones
`death_timeout_s` after they begin. The next run cancels them earlier, by the ids in this folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from simexm.errors import OutputError, SimexmWarning
from simexm.jobs.batch.queues import QUEUES, JobState, Phase, Queue
from simexm.store.documents import MalformedError, parse_mapping, read_mapping, validate
from simexm.store.listing import links_below

_IDS, _STATE, _DRIVER = "jobs.jsonl", "state.json", "driver.json"
_GONE_S = 60.0
"""Time that cancelled jobs may take to end."""


class Record:
    """The folder of a run's jobs, with their output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        owner = self.folder.parent if self.folder.name == "jobs" else self.folder
        word = re.sub(r"[^A-Za-z0-9_.-]", "_", owner.stem)[:24]
        # of the jobs in the queue, unique to this run
        self.name = f"simexm-{word}-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]}"

    @property
    def driver_name(self) -> str:
        """Name of the job that runs the driver itself."""
        return f"{self.name}-driver"

    def make(self) -> None:
        """Make the folder; raise OutputError if that is impossible, or a link in it leads elsewhere."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.folder}: {error.strerror}; choose another --output") from error
        for link in links_below(self.folder):
            raise OutputError(
                f"{link} is a symbolic link, so files written there would go elsewhere; remove it: rm {link}"
            )

    def log_of(self, job: str) -> Path:
        """Return the file of a job's output."""
        return self.folder / f"{job}.out"

    def log_tail(self, job: str, lines: int = 8) -> str:
        """Read the last lines of a job's output."""
        try:
            text = self.log_of(job).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])

    def submitted(self, kind: str, job: str) -> None:
        """Record a job that was just submitted."""
        line = {"id": job, "kind": kind, "name": self.name, "time": round(time.time(), 3)}
        with (self.folder / _IDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def jobs(self) -> list[dict[str, Any]]:
        """List all jobs of the last run in order of submission, without torn lines and jobs of other runs."""
        return [job for job in _lines(self.folder / _IDS) if job["name"] == self.name]

    def write_state(self, kind: str, states: Mapping[str, JobState], workers: int) -> None:
        """Record the queue's states of jobs, and the number of connected workers."""
        jobs = {job: {"phase": s.phase, "reason": s.reason, "where": s.where} for job, s in states.items()}
        _replace(self.folder / _STATE, {"time": round(time.time(), 3), "kind": kind, "workers": workers, "jobs": jobs})

    def read_state(self) -> dict[str, Any]:
        """Read `jobs` and `workers` as `write_state` wrote them last; empty and None without a file."""
        return _load(self.folder / _STATE, _Seen) or {"jobs": {}, "workers": None}

    def write_driver(self, kind: str, job: str) -> None:
        """Record the job that runs the driver."""
        driver = {"id": job, "kind": kind, "name": self.driver_name, "time": round(time.time(), 3)}
        _replace(self.folder / _DRIVER, driver)

    def driver(self) -> dict[str, Any]:
        """Read the job that runs the driver; empty without one."""
        found = _load(self.folder / _DRIVER, _Job)
        return found if found.get("name") == self.driver_name else {}

    def cancel_leftovers(self) -> None:
        """Cancel jobs that a killed driver has left in the queue, and delete their records. The driver must be dead."""
        kinds = {entry["kind"] for entry in self.jobs()} & set(QUEUES)
        for kind in kinds:
            left = clear_queue(QUEUES[kind], self.name)
            if left is None:
                warnings.warn(
                    f"an earlier run may have left jobs called {self.name} in {kind}, which does not answer on this machine; "
                    f"on one where it does, cancel them with {QUEUES[kind].cancel_command}",
                    SimexmWarning,
                    stacklevel=2,
                )
            elif left:
                raise OutputError(
                    f"jobs {', '.join(left)} of an earlier run do not end, and would write into the same output; wait for them, "
                    f"or type: {QUEUES[kind].cancel_command} {' '.join(left)}"
                )
        for name in (_IDS, _STATE):
            (self.folder / name).unlink(missing_ok=True)


def clear_queue(queue: Queue, name: str) -> list[str] | None:
    """Cancel all jobs called `name` and wait for their end; return those that do not end, None if the queue is silent."""
    until = time.monotonic() + _GONE_S
    asked: set[str] = set()
    while True:
        states = queue.states(name)
        if not states:
            return [] if states is not None else None
        fresh = states.keys() - asked
        if fresh:
            queue.cancel(sorted(fresh))
            asked |= fresh
        elif time.monotonic() > until:
            return sorted(states)
        time.sleep(0.3 if time.monotonic() < until - _GONE_S + 3 else 2.0)


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(MalformedError):
                found.append(validate(_Job, parse_mapping(line)).model_dump())
    return found


def _load(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    try:
        return validate(model, read_mapping(path)).model_dump()
    except (OSError, MalformedError):
        return {}


class _Job(BaseModel):
    """A job as it was submitted; only numbers are ids, since they become arguments of the queue's commands."""

    id: str = Field(pattern="^[0-9]{1,18}$")
    kind: Literal["slurm", "lsf"]
    name: str = Field(pattern="^simexm-[A-Za-z0-9_.-]{1,64}$")
    time: float = Field(default=0.0, allow_inf_nan=False)


class _State(BaseModel):
    phase: Phase


class _Seen(BaseModel):
    jobs: dict[str, _State]
    workers: int = Field(ge=0, lt=1 << 31)


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
