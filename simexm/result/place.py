"""Folders of a result: NAME.zarr, an OME-Zarr image with its labels, and NAME.run beside it with all other files."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from simexm.errors import OutputError
from simexm.jobs.events import FAILURES, LOG
from simexm.store.claims import retire_claims
from simexm.store.files import Files
from simexm.store.location import Location, location
from simexm.store.metadata import RootAttributes, read_group
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote
from simexm.version import FORMAT_VERSION

MARK = "simexm"
SIMULATION = "simulation"
"""Kind of a result that a simulation wrote, not an analysis."""
PREPARING, INCOMPLETE, COMPLETE = "preparing", "incomplete", "complete"
"""Status of a result: arrays may be missing; blocks are missing; complete."""

PLAN, MANIFEST, SCRATCH, LOCK, JOBS, PROBE = "plan.json", "files.json", "scratch", "lock", "jobs", "probe"
SCORES = "scores.parquet"
SOURCE = "source.json"
"""State of the labels' files when the run began."""
RUN_NAMES = frozenset(
    {PLAN, MANIFEST, SOURCE, SCRATCH, "journal", "passes", "tables", "points", SCORES, FAILURES, "preview.png", LOG}
)
"""Entries of NAME.run that --overwrite replaces; the lock and the jobs of batch queues remain."""


@dataclass(frozen=True)
class Place:
    """Folders of a result."""

    zarr: Location  # NAME.zarr, on a disk or behind a URL
    claim: str = ""  # name of the driver's folder in `scratch/`; see `simexm.store.claims`

    @classmethod
    def at(cls, output: str | Path | Remote) -> Place:
        """Check an output that a user named; raises OutputError if its name does not end in .zarr, SpecError for a bad URL."""
        place = cls.where(output)
        named = place.zarr if isinstance(place.zarr, Remote) else Path(str(output))
        if isinstance(named, Remote):
            named.refuse_read_only()
        if named.suffix != ".zarr" or place.zarr.suffix != ".zarr":
            better = (named.parent / (named.stem or "out")).with_suffix(".zarr")
            raise OutputError(
                f"the output {output} does not end in .zarr, by which viewers know an OME-Zarr; type --output {better}"
            )
        return place

    @classmethod
    def where(cls, output: str | Path | Remote) -> Place:
        """Do not check the name; links are followed."""
        return cls(location(output))

    def claimed(self) -> Self:
        """Return the place with a new claim, for a driver that holds the lock."""
        return replace(self, claim=uuid.uuid4().hex)

    @property
    def run(self) -> Location:
        """The folder NAME.run."""
        return self.zarr.with_suffix(".run")

    @property
    def journal(self) -> Location:
        """Journal of finished blocks."""
        return self.run / "journal"

    @property
    def passes(self) -> Location:
        """Counts from the passes before the images."""
        return self.run / "passes"

    @property
    def tables(self) -> Location:
        """Parquet tables."""
        return self.run / "tables"

    @property
    def jobs(self) -> Path:
        """Batch jobs and their logs; on a disk, where queues can write: for a URL below the working folder."""
        if isinstance(self.run, Remote):
            word = hashlib.sha256(str(self.run).encode()).hexdigest()[:8]
            return Path("simexm-jobs").resolve() / f"{self.run.stem}-{word}"
        return self.run / JOBS

    @property
    def scratch(self) -> Location:
        """The driver's claim, with files that are being written."""
        return self.run / SCRATCH / self.claim

    @property
    def files(self) -> Files:
        """The Zarr's files."""
        return Files(self.zarr, self.scratch)

    def mark(self) -> dict[str, Any] | None:
        """Read the attribute `simexm`; None if the result is missing or damaged. Raises RemoteError if a store refuses."""
        try:
            found: dict[str, Any] = read_group(self.zarr, RootAttributes)[MARK]
        except RemoteError:
            raise
        except OSError:
            return None
        return found


def refuse_other_format(zarr: Location, record: Mapping[str, Any], consequence: str) -> None:
    """Refuse to continue a result whose files have another format version; it can still be read.

    `record` is its attribute `simexm`, or its `plan.json`; `consequence` is what would happen, as a clause of the
    message. Raises OutputError if the version differs.
    """
    found = record.get("format")
    if found == FORMAT_VERSION:
        return
    version = record.get("versions", {}).get("simexm")
    what = "has no format version" if found is None else f"has format version {found}"
    writer = "the simexm that wrote it" if version is None else f"the simexm that wrote it ({version})"
    raise OutputError(
        f"{zarr} {what}, and this simexm writes format version {FORMAT_VERSION}: {consequence}. It still opens, shows and "
        f"exports. To compute it again, type simexm run SPEC --output {zarr} --overwrite; to continue it, use {writer}"
    )


def retire_scratch(place: Place) -> None:
    """Remove the claims of earlier drivers, with the files that killed workers left in them."""
    retire_claims(place.run / SCRATCH)
