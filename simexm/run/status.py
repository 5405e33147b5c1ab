"""Read the progress of a run from the files in NAME.run, on any machine, whether the driver is running or not."""

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

_RECENT_S = 600.0  # the speed is that of the last so many seconds


@dataclass(frozen=True)
class Status:
    """Progress of a run."""

    blocks: int
    done: int  # blocks in the journal
    failed: int  # blocks that the last attempt set aside
    passes: dict[str, dict[str, Any]]  # by name: `finished`, and the number of blocks `done`
    complete: bool
    blocks_per_s: float | None  # recent speed; None while unknown
    left_s: float | None  # remaining time at this speed
    driver: Holder | None  # the process that drives the run, or was killed while it did
    driver_job: dict[str, Any] = field(default_factory=dict)  # if `simexm submit` started the driver
    jobs: dict[str, int] = field(default_factory=dict)  # number by phase, as last recorded by the driver
    workers: int | None = None  # connected ones, as last recorded by the driver

    def to_mapping(self) -> dict[str, Any]:
        """Convert to plain data."""
        return asdict(self)


def status(output: str | Path) -> Status:
    """Read the progress of the run that writes `output`, without changing anything; raise SpecError if there is none."""
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
                f"{where.run} holds no run of simexm, so there is nothing to report; name the NAME.zarr of a run"
            ) from None
        return Status(0, 0, 0, {}, False, None, None, driver, record.driver())
    times = _times(where.journal, parameter_hash, blocks)
    speed = _speed(times) if driver and driver.alive else None
    mark = where.mark()
    seen = record.read_state()
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
    """Read when each block was finished, in order; try again if the driver merges segments meanwhile."""
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
    since = len(times) - bisect_right(times, first)  # blocks of one task have one time, at the task's end
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
