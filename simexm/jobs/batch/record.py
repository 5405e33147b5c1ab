"""What is known of a run's jobs outside its driver: NAME.run/jobs, with their ids, their last seen state, and their logs.

A driver that was killed leaves its jobs behind: those that run end by themselves when their workers lose it, and those
that wait end `death_timeout_s` after they begin. The next run cancels them before, by what stands here.
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
from simexm.store.documents import MalformedError, obey, parse_mapping, read_mapping
from simexm.store.listing import links_below

_IDS, _STATE, _DRIVER = "jobs.jsonl", "state.json", "driver.json"
_GONE_S = 60.0
"""How long cancelled jobs may take to end."""


class Record:
    """The folder of a run's jobs.

    Attributes
    ----------
    folder
        Where it is; the jobs' output goes there, too.
    name
        What the jobs are called in the queue, and no other run's jobs are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        owner = self.folder.parent if self.folder.name == "jobs" else self.folder
        word = re.sub(r"[^A-Za-z0-9_.-]", "_", owner.stem)[:24]
        self.name = f"simexm-{word}-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]}"

    @property
    def driver_name(self) -> str:
        """What a job that holds the driver itself is called."""
        return f"{self.name}-driver"

    def make(self) -> None:
        """Make the folder.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.folder}: {error.strerror}; choose another --output") from error
        for link in links_below(self.folder):
            raise OutputError(
                f"{link} is a symbolic link, and what is written there would go elsewhere; remove it: rm {link}"
            )

    def log_of(self, job: str) -> Path:
        """What a job printed."""
        return self.folder / f"{job}.out"

    def log_tail(self, job: str, lines: int = 8) -> str:
        """The last lines of it."""
        try:
            text = self.log_of(job).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])

    def submitted(self, kind: str, job: str) -> None:
        """Write down a job that was just submitted."""
        line = {"id": job, "kind": kind, "name": self.name, "time": round(time.time(), 3)}
        with (self.folder / _IDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of the last run, as they were submitted; a line that is torn, or names another run's job, is passed over."""
        return [job for job in _lines(self.folder / _IDS) if job["name"] == self.name]

    def seen(self, kind: str, states: Mapping[str, JobState], workers: int) -> None:
        """Write down what the queue told."""
        jobs = {job: {"phase": s.phase, "reason": s.reason, "where": s.where} for job, s in states.items()}
        _replace(self.folder / _STATE, {"time": round(time.time(), 3), "kind": kind, "workers": workers, "jobs": jobs})

    def last_seen(self) -> dict[str, Any]:
        """What `seen` wrote last, but for the time; no jobs and workers where there is nothing."""
        return _load(self.folder / _STATE, _Seen) or {"jobs": {}, "workers": None}

    def driver_submitted(self, kind: str, job: str) -> None:
        """Write down the job that holds the driver."""
        _replace(
            self.folder / _DRIVER, {"id": job, "kind": kind, "name": self.driver_name, "time": round(time.time(), 3)}
        )

    def driver(self) -> dict[str, Any]:
        """What `driver_submitted` wrote last; empty where there is nothing."""
        found = _load(self.folder / _DRIVER, _Job)
        return found if found.get("name") == self.driver_name else {}

    def cancel_leftovers(self) -> None:
        """Cancel what a driver that was killed has left in the queue, and forget it. Its driver must be gone."""
        kinds = {entry["kind"] for entry in self.jobs()} & set(QUEUES)
        for kind in kinds:
            left = clear_queue(QUEUES[kind], self.name)
            if left is None:
                warnings.warn(
                    f"an earlier run left jobs called {self.name} in {kind}, which does not answer here; where it does, look "
                    f"for them, and cancel them with {QUEUES[kind].cancel_command}",
                    SimexmWarning,
                    stacklevel=2,
                )
            elif left:
                raise OutputError(
                    f"jobs {', '.join(left)} of an earlier run do not end, and would write beside this one; wait for them, or "
                    f"type: {QUEUES[kind].cancel_command} {' '.join(left)}"
                )
        for name in (_IDS, _STATE):
            (self.folder / name).unlink(missing_ok=True)


def clear_queue(queue: Queue, name: str) -> list[str] | None:
    """Cancel all jobs called `name` and wait until they have ended; those that do not. None: the queue does not answer."""
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
                found.append(_told(parse_mapping(line), _Job))
    return found


def _load(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    try:
        return _told(read_mapping(path), model)
    except (OSError, MalformedError):
        return {}


def _told(value: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return obey(model, value).model_dump()


class _Job(BaseModel):
    """A job as it was submitted; ids are numbers, since they go to the queue's commands."""

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
