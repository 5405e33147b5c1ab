"""The folders of a result: NAME.zarr, an OME-Zarr image with its labels, and NAME.run beside it with all that is not Zarr."""

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
"""Kind of a result that is no analysis's."""
PREPARING, INCOMPLETE, COMPLETE = "preparing", "incomplete", "complete"
"""Status of a result: its arrays may not all be there yet, or not any more; blocks are missing; all is there."""

PLAN, MANIFEST, SCRATCH, LOCK, JOBS, PROBE = "plan.json", "files.json", "scratch", "lock", "jobs", "probe"
SCORES = "scores.parquet"
SOURCE = "source.json"
"""How the labels' files were when the run began."""
RUN_NAMES = frozenset(
    {PLAN, MANIFEST, SOURCE, SCRATCH, "journal", "passes", "tables", SCORES, FAILURES, "preview.png", LOG}
)
"""All that runs put into NAME.run, but the lock, and the jobs of batch queues, which outlast a run that is made again."""


@dataclass(frozen=True)
class Place:
    """Where a result stands.

    Attributes
    ----------
    zarr
        The folder NAME.zarr, on a disk or behind a URL.
    claim
        Name of the driver's own folder in `scratch/`: the next driver takes it away, and with it the power to write of
        every worker that an earlier one left; see `simexm.store.files`.
    """

    zarr: Location
    claim: str = ""

    @classmethod
    def at(cls, output: str | Path | Remote) -> Place:
        """The place, on a disk or in a store, that a user named.

        Raises
        ------
        OutputError
            If the name does not end in .zarr.
        SpecError
            If nothing can be written to a URL of this kind.
        """
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
        """The same, whatever its name; links are followed."""
        return cls(location(output))

    def claimed(self) -> Self:
        """The same for a driver that begins, and holds the lock."""
        return replace(self, claim=uuid.uuid4().hex)

    @property
    def run(self) -> Location:
        """The folder NAME.run."""
        return self.zarr.with_suffix(".run")

    @property
    def journal(self) -> Location:
        """Record of finished blocks."""
        return self.run / "journal"

    @property
    def passes(self) -> Location:
        """What passes before the images counted."""
        return self.run / "passes"

    @property
    def tables(self) -> Location:
        """Parquet tables."""
        return self.run / "tables"

    @property
    def jobs(self) -> Path:
        """Jobs of batch queues and what they printed: on a disk, to which queues print; below the working folder for a URL."""
        if isinstance(self.run, Remote):
            word = hashlib.sha256(str(self.run).encode()).hexdigest()[:8]
            return Path("simexm-jobs").resolve() / f"{self.run.stem}-{word}"
        return self.run / JOBS

    @property
    def scratch(self) -> Location:
        """Files that are being written."""
        return self.run / SCRATCH / self.claim

    @property
    def files(self) -> Files:
        """The Zarr's files."""
        return Files(self.zarr, self.scratch)

    def mark(self) -> dict[str, Any] | None:
        """What the result says of itself; None where there is no simexm result, or a damaged one.

        Raises RemoteError where a store refuses.
        """
        try:
            found: dict[str, Any] = read_group(self.zarr, RootAttributes)[MARK]
        except RemoteError:
            raise
        except OSError:
            return None
        return found


def refuse_other_format(zarr: Location, told: Mapping[str, Any], consequence: str) -> None:
    """Refuse to go on with a result whose files are of another format; to read it is another matter.

    Parameters
    ----------
    zarr
        The result.
    told
        The attribute `simexm` of the result, or its `plan.json`.
    consequence
        What would happen, as the end of a sentence.

    Raises
    ------
    OutputError
        With what to type instead.
    """
    found = told.get("format")
    if found == FORMAT_VERSION:
        return
    version = told.get("versions", {}).get("simexm")
    what = "of no format version" if found is None else f"of format version {found}"
    made_by = "the simexm that made it" if version is None else f"the simexm that made it ({version})"
    raise OutputError(
        f"{zarr} is {what}, and this simexm writes format version {FORMAT_VERSION}: {consequence}. It still opens, shows and "
        f"exports. To make it again, type simexm run SPEC --output {zarr} --overwrite; to go on with it, use {made_by}"
    )


def retire_scratch(place: Place) -> None:
    """Take the claims of earlier drivers away, with what killed workers left in them."""
    retire_claims(place.run / SCRATCH)
