"""Make jobs that write to a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simexm.errors import RunError
from simexm.jobs.job import Job
from simexm.result.place import Place
from simexm.run import guard
from simexm.store.location import Location

if TYPE_CHECKING:
    from simexm.jobs.task import BlockFunction


def job_in(
    where: Place, parameter_hash: str, total: int, function: BlockFunction, context: Any, journal: Location, **more: Any
) -> Job:
    """Make a job with its journal, log and scratch files in a result; see `simexm.jobs.job.Job` for the parameters."""

    def lost() -> RunError | None:
        return guard.lost(where) if guard.is_lost(where) or guard.is_gone(where) else None

    return Job(function, context, total, parameter_hash, where.run, journal, where.scratch, lost=lost, **more)
