"""How far a run is, told by what lies in NAME.run: from any machine that sees it, whether the driver runs or not."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simexm.errors import OutputError, SpecError
from simexm.jobs.batch.record import Record
from simexm.jobs.events import FAILURES
from simexm.jobs.journal import Journal
from simexm.jobs.lock_owner import Holder, holder
from simexm.jobs.sums_by_id import is_stored
from simexm.result.place import LOCK, Place
from simexm.store.location import Location
from simexm.store.metadata import read_plan
from simexm.store.refusals import RemoteError

_RECENT_S = 600.0  # what the speed is taken from


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes
    ----------
    blocks, done, failed
        Blocks of the run; those in the journal; and those that the last attempt set aside.
    passes
        Passes before the images, by name: whether they are finished, and their blocks that are done.
    complete
        Whether the result is whole.
    blocks_per_s, left_s
        Speed of late, and the time that is left at this speed; None while nobody knows.
    driver
        The process that leads the run, or was killed while it did: host, pid, and whether it lives; None where there is none.
    driver_job
        The job in which `simexm submit` put it, where it did.
    jobs, workers
        Jobs by phase and connected workers, as the driver saw them last.
    """

    blocks: int
    done: int
    failed: int
    passes: dict[str, dict[str, Any]]
    complete: bool
    blocks_per_s: float | None
    left_s: float | None
    driver: Holder | None
    driver_job: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    workers: int | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def status(output: str | Path) -> Status:
    """Read how far the run that writes `output` is; changes nothing.

    Raises
    ------
    SpecError
        No run has begun there.
    """
    where = Place.where(output)
    record = Record(where.jobs)
    driver = holder(where.run / LOCK)
    try:
        plan = read_plan(where.run)
        blocks, parameter_hash = plan["blocks"]["count"], plan["hash"]
    except RemoteError as error:
        raise SpecError(f"{where.run} cannot be read: {error.strerror}") from error
    except OutputError:
        raise
    except OSError:
        if not record.driver():
            raise SpecError(
                f"{where.run} holds no run of simexm, so there is nothing to tell; name the NAME.zarr that a run writes"
            ) from None
        return Status(0, 0, 0, {}, False, None, None, driver, record.driver())
    times = _times(where.journal, parameter_hash, blocks)
    speed = _speed(times) if driver and driver.alive else None
    mark = where.mark()
    seen = record.last_seen()
    jobs: dict[str, int] = {}
    for job in seen["jobs"].values() if driver else ():
        jobs[job["phase"]] = jobs.get(job["phase"], 0) + 1
    left = max(0, blocks - len(times))
    return Status(
        blocks=blocks,
        done=len(times),
        failed=_count_lines(where.run / FAILURES),
        passes=_passes(where, parameter_hash, blocks),
        complete=mark is not None and mark.get("status") == "complete",
        blocks_per_s=speed,
        left_s=left / speed if speed else None,
        driver=driver,
        driver_job=record.driver(),
        jobs=jobs,
        workers=seen["workers"] if driver else None,
    )


def _times(journal: Location, parameter_hash: str, blocks: int) -> array[float]:
    """When each block was done, in order; the driver may merge segments meanwhile."""
    for _ in range(5):
        try:
            found = array("d", (record.time for record in Journal(journal, parameter_hash, total=blocks).records()))
        except FileNotFoundError:
            if not journal.is_dir():
                break
            continue
        return array("d", sorted(found))
    return array("d")


def _speed(times: array[float]) -> float | None:
    if not times:
        return None
    first = times[bisect_left(times, times[-1] - _RECENT_S)]
    since = len(times) - bisect_right(times, first)  # blocks of one task are told at once, and were done before
    return since / (times[-1] - first) if since else None


def _passes(where: Place, parameter_hash: str, blocks: int) -> dict[str, dict[str, Any]]:
    if not where.passes.is_dir():
        return {}
    return {
        folder.name: {
            "finished": is_stored(folder / "table"),
            "done": len(_times(folder / "journal", parameter_hash, blocks)),
        }
        for folder in sorted(where.passes.iterdir())
        if folder.is_dir()
    }


def _count_lines(path: Location) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
