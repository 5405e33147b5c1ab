"""A job: one function over many numbered blocks. Whatever is done over many blocks is done in this way.

A job keeps a journal, so that a later driver does only what is not done yet, and nothing that was found damaged is believed. It
shows its progress, writes its log, lists what failed, and merges what the blocks left when all are done. Who computes is not its
affair: see `Execute`.
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
    """A function over many blocks, and where its progress is kept.

    Attributes
    ----------
    function
        Called with `context` and a block's number; see `simexm.jobs.task.BlockFunction`.
    context
        The same for all blocks; it is pickled once for each worker.
    total
        Number of blocks.
    hash
        Parameter hash: decides what each block writes.
    folder
        Folder of the log and of the list of failures.
    journal
        Folder of the journal.
    scratch
        Folder for files that are being written.
    blocks
        What the blocks are called in messages.
    what
        What is being done, before the progress bar's numbers; empty for the images.
    shows_progress
        Whether the job takes long enough for a progress bar.
    voxels
        Voxels or pixels of the whole job, for the speed that the progress bar shows.
    core_seconds
        Expected work of the whole job; it shapes the first tasks only.
    is_sound
        Whether what a finished block left is there, by its record. Otherwise the block is done again.
    merge
        Called with the journal when all blocks are done; None where nothing is to be merged.
    lost
        Called where blocks failed: why the whole output takes nothing more, if that is so.
    """

    function: BlockFunction
    context: Any
    total: int
    hash: str
    folder: Location
    journal: Location
    scratch: Location
    blocks: str = "blocks"
    what: str = ""
    shows_progress: bool = True
    voxels: int = 0
    core_seconds: float | None = None
    is_sound: Callable[[Record], bool] = lambda record: True
    merge: Callable[[Journal], None] | None = None
    lost: Callable[[], RunError | None] = lambda: None

    def open_journal(self) -> Journal:
        """Open the journal, and drop the records of blocks that must be done again."""
        journal = Journal.open(self.journal, self.hash, self.scratch, self.total)
        journal.distrust(record.block for record in journal.records() if not self.is_sound(record))
        return journal


def run_job(job: Job, execute: Execute, *, quiet: bool = False) -> Journal:
    """Do the blocks that are not done yet, then merge.

    Parameters
    ----------
    job
        What to do.
    execute
        Who does it.
    quiet
        Show failures only.

    Returns
    -------
    Journal
        With a record of every block.

    Raises
    ------
    RunError
        If blocks failed. The others are kept, and the next call does only those that failed.
    OutputError
        If the journal is that of other parameters.
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
            f"The others are kept; {job.folder / FAILURES} lists them. Mend the cause and type the same command again"
        )
