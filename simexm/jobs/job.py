"""Run one function over many numbered blocks: images, passes, coarse levels and analyses all work this way.

A job keeps a journal, so that a later driver does only the blocks that are missing or damaged. It shows progress, writes
a log, lists failures, and merges the blocks' outputs when all are done. An `Execute` computes the blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simexm.errors import RunError
from simexm.jobs.events import FAILURES, LOG, Execute, Listener, Message
from simexm.jobs.journal import Journal, Record, damaged_lines
from simexm.jobs.progress import FailedFile, LogFile, progress
from simexm.store.location import Location

if TYPE_CHECKING:
    from simexm.jobs.task import BlockFunction  # which loads distributed


@dataclass(frozen=True)
class Job:
    """A function over many blocks, and the files in which its progress is stored."""

    function: BlockFunction
    context: Any  # first argument of the function, pickled once for each worker
    total: int  # number of blocks
    hash: str  # parameter hash, which decides what each block writes
    folder: Location  # of the log and of the list of failures
    journal: Location  # folder of the journal
    scratch: Location  # folder for files that are being written
    blocks: str = "blocks"  # name of the blocks in messages
    what: str = ""  # name of the work before the progress bar's numbers; empty for images
    shows_progress: bool = True
    voxels: int = 0  # or pixels, of all blocks together, for the speed in the progress bar
    core_seconds: float | None = None  # expected for all blocks together; it sizes the first tasks only
    is_sound: Callable[[Record], bool] = lambda record: True  # whether the files of a finished block exist
    merge: Callable[[Journal], None] | None = None  # called when all blocks are done
    lost: Callable[[], RunError | None] = lambda: None  # makes an error if the whole output can no longer be written

    def open_journal(self) -> Journal:
        """Open the journal, and ignore the records of blocks whose files are missing."""
        journal = Journal.open(self.journal, self.hash, self.scratch, self.total)
        journal.distrust(record.block for record in journal.records() if not self.is_sound(record))
        return journal


def run_job(job: Job, execute: Execute, *, quiet: bool = False) -> Journal:
    """Do the blocks that are not done yet, then merge; return the journal with a record of every block.

    With `quiet`, only failures are shown. Raises RunError if blocks failed: the others are kept, and the next call does
    only those that failed. Raises OutputError if the journal was written with other parameters.
    """
    journal = job.open_journal()
    log = LogFile(job.folder / LOG)
    if journal.unreadable:
        log(Message(damaged_lines(journal)))
    if len(journal.done) < job.total:
        _execute(job, journal, execute, log, quiet)
    if job.merge is not None:
        job.merge(journal)
    return journal


def _execute(job: Job, journal: Journal, execute: Execute, log: Listener, quiet: bool) -> None:
    done = len(journal.done)
    with contextlib.ExitStack() as shown:
        listeners: list[Listener] = [log, FailedFile(job.folder / FAILURES)]
        if job.shows_progress:
            listeners.append(shown.enter_context(progress(job.total, job.voxels, done, quiet=quiet, what=job.what)))
        if done:
            for listen in listeners:
                listen(Message(f"resuming: {done} of {job.total} {job.blocks} are done"))
        outcome = execute(
            function=job.function,
            context=job.context,
            blocks=journal.done.missing(job.total),
            journal=journal,
            seconds_per_block=None if job.core_seconds is None else job.core_seconds / job.total,
            listeners=listeners,
        )
    if outcome.failed_count:
        if reason := job.lost():
            raise reason
        first = outcome.failed[0]
        raise RunError(
            f"{outcome.failed_count} of {job.total} {job.blocks} failed, the first with: {first.error} (on {first.host}). "
            f"The others are kept; {job.folder / FAILURES} lists the failures. Fix the cause and type the same command again"
        )
