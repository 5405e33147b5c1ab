"""The commands of batch queues: submit a script, list the states of jobs, cancel jobs."""

from __future__ import annotations

import contextlib
import functools
import getpass
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from simexm.errors import RunError

Phase = Literal["waiting", "running", "ending"]
_COMMAND_S = 60.0

_SLURM_PHASES: Mapping[str, Phase] = {
    "PENDING": "waiting", "CONFIGURING": "waiting", "REQUEUED": "waiting", "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting", "SPECIAL_EXIT": "waiting", "RESV_DEL_HOLD": "waiting",
    "RUNNING": "running", "SUSPENDED": "running", "STOPPED": "running", "SIGNALING": "running", "RESIZING": "running",
}  # fmt: skip
_LSF_PHASES: Mapping[str, Phase] = {
    "PEND": "waiting", "PSUSP": "waiting", "WAIT": "waiting", "PROV": "waiting",
    "RUN": "running", "USUSP": "running", "SSUSP": "running", "UNKWN": "running",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobState:
    """State of a job in the queue: its phase, the reason why it waits, and the host where it runs."""

    phase: Phase
    reason: str = ""
    where: str = ""


class SubmitError(RunError):
    """The queue refused a job; the message quotes its answer."""


@dataclass(frozen=True)
class Queue:
    """One kind of batch queue, slurm or lsf, and its programs."""

    kind: str
    submit_command: str
    cancel_command: str
    list_command: str

    def look(self, job: str) -> str:
        """Return the command that shows a job."""
        return f"squeue -j {job}" if self.kind == "slurm" else f"bjobs {job}"

    def submit(self, script: str) -> str:
        """Submit a job script and return the queue's answer.

        Raises SubmitError if the queue refuses it, or this machine has no such queue.
        """
        if shutil.which(self.submit_command) is None:
            raise SubmitError(
                f"{self.submit_command} is not on this machine's PATH, so no job can be submitted; log in where jobs are "
                "submitted from, or run without --cluster"
            )
        try:
            done = _run([self.submit_command], script)
        except subprocess.TimeoutExpired:
            raise SubmitError(
                f"{self.submit_command} did not answer within {_COMMAND_S:.0f} s; is the queue up?"
            ) from None
        if done.returncode:
            said = " ".join((done.stderr + " " + done.stdout).split()) or f"nothing, with exit code {done.returncode}"
            raise SubmitError(f"{self.submit_command} refused the job and printed: {said}")
        return done.stdout

    def states(self, name: str) -> dict[str, JobState] | None:
        """List the user's jobs called `name` that have not ended, by id; None if the queue does not answer."""
        try:
            return self._slurm(name) if self.kind == "slurm" else self._lsf(name)
        except (OSError, subprocess.TimeoutExpired):
            return None

    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs; those that have already ended, and a queue that does not answer, are ignored."""
        if jobs := list(jobs):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                _run([self.cancel_command, *jobs])

    def _slurm(self, name: str) -> dict[str, JobState] | None:
        words = ["-h", "-a", "-u", getpass.getuser(), "-n", name, "-o", "%A|%T|%r|%N"]
        done = _run([self.list_command, *words])
        if done.returncode:
            return None
        states = {}
        for line in done.stdout.splitlines():
            job, state, reason, where = line.split("|", 3)
            states[job] = JobState(_SLURM_PHASES.get(state, "ending"), "" if reason == "None" else reason, where)
        return states

    def _lsf(self, name: str) -> dict[str, JobState] | None:
        words = ["-J", name, "-noheader", "-o", "jobid stat exec_host delimiter='|'"]
        done = _run([self.list_command, *words])
        if done.returncode and not any(
            said in done.stderr for said in ("is not found", "No unfinished job", "No matching")
        ):
            return None
        states = {}
        for line in done.stdout.splitlines():
            job, state, where = line.split("|", 2)
            if state not in ("DONE", "EXIT"):
                states[job] = JobState(_LSF_PHASES.get(state, "ending"), "", where.strip("-"))
        return states


QUEUES = {
    "slurm": Queue("slurm", "sbatch", "scancel", "squeue"),
    "lsf": Queue("lsf", "bsub", "bkill", "bjobs"),
}


def describe(states: Mapping[str, JobState] | None) -> str:
    """Describe the state of the queue in one line."""
    if states is None:
        return "the queue does not answer"
    if not states:
        return "no job is in the queue"
    parts = []
    for phase in ("running", "waiting", "ending"):
        jobs = [job for job, state in states.items() if state.phase == phase]
        if not jobs:
            continue
        text = f"{len(jobs)} {phase}"
        reasons = Counter(states[job].reason for job in jobs if states[job].reason)
        if phase == "waiting" and reasons:
            text += f" ({', '.join(reason for reason, _ in reasons.most_common(3))})"
        parts.append(f"{text}: {', '.join(jobs[:4])}{', ...' if len(jobs) > 4 else ''}")
    return "jobs " + "; ".join(parts)


def _run(command: list[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of the queue, protected from Ctrl-C in the terminal."""
    run = functools.partial(
        subprocess.run, capture_output=True, text=True, timeout=_COMMAND_S, start_new_session=True, check=False
    )
    return run(command, stdin=subprocess.DEVNULL) if given is None else run(command, input=given)
