"""The folders of a result: NAME.zarr, an OME-Zarr image with its labels, and NAME.run beside it with all that is not Zarr."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from simexm.engine.plan import Output, Plan, round_group
from simexm.errors import OutputError
from simexm.store.claims import claim, retire_claims
from simexm.store.files import Files, remove_tree
from simexm.store.location import Location, location
from simexm.store.metadata import RootAttributes, read_group
from simexm.store.omezarr import ShardedArray, write_group
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

MARK = "simexm"
PREPARING, INCOMPLETE, COMPLETE = "preparing", "incomplete", "complete"
"""Status of a result: its arrays may not all be there yet, or not any more; blocks are missing; all is there."""

PLAN, MANIFEST, SCRATCH, LOCK, JOBS, PROBE = "plan.json", "files.json", "scratch", "lock", "jobs", "probe"
SOURCE = "source.json"
"""How the labels' files were when the run began."""
RUN_NAMES = frozenset(
    {PLAN, MANIFEST, SOURCE, SCRATCH, "journal", "passes", "tables", "failed.jsonl", "preview.png", "log.txt"}
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
            return read_group(self.zarr, RootAttributes)[MARK]
        except RemoteError:
            raise
        except OSError:
            return None


def arrays(plan: Plan, place: Place, output: Output) -> tuple[ShardedArray, ...]:
    """The levels of one output. A shard holds one channel; see `Plan.storage` for the rest."""
    lead = (1,) if output.channels else ()
    channels = (len(output.channels),) if output.channels else ()
    return tuple(
        ShardedArray(
            place.files,
            f"{output.group}/{n}".lstrip("/"),
            (*channels, *level.shape),
            (*lead, *storage.shard),
            (*lead, *storage.chunk),
            output.dtype,
            "czyx" if output.channels else "zyx",
        )
        for n, (level, storage) in enumerate(zip(plan.levels, plan.storage, strict=True))
    )


def prepare(plan: Plan, place: Place) -> None:
    """Make the folders and the arrays' metadata. The image's own metadata come last, so that viewers see no half result.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    retire_scratch(place)
    claim(place.scratch)
    mark = place.mark()
    if mark is None or mark.get("status") == PREPARING:
        _write_all(plan, place)
    else:
        _mend_metadata(plan, place)
    for folder in (place.journal, place.tables):
        folder.mkdir(exist_ok=True)


def _mend_metadata(plan: Plan, place: Place) -> None:
    """Write again what was damaged since an earlier run wrote it: the end of this one would take it for sound."""
    if not has_plan(plan, place):
        write_plan(plan, place)
    for output in plan.outputs:
        for array in arrays(plan, place, output):
            if not array.is_created():
                array.create()


def retire_scratch(place: Place) -> None:
    """Take the claims of earlier drivers away, with what killed workers left in them."""
    retire_claims(place.run / SCRATCH)


def write_plan(plan: Plan, place: Place) -> None:
    """Write `plan.json`: the plan, and the spec that it came from."""
    Files(place.run, place.scratch).put(PLAN, _plan_bytes(plan))


def has_plan(plan: Plan, place: Place) -> bool:
    """Whether `plan.json` is as `write_plan` would write it."""
    try:
        return (place.run / PLAN).read_bytes() == _plan_bytes(plan)
    except OSError:
        return False


def _plan_bytes(plan: Plan) -> bytes:
    return (json.dumps({**plan.to_mapping(), "spec": plan.simulation.to_mapping()}, indent=2) + "\n").encode()


def write_mark(plan: Plan, place: Place, status: str) -> None:
    """Mark a result as ours, and say how far it is."""
    write_attributes(place, "", {MARK: {"hash": plan.hash, **contents(plan), "status": status}})


def _write_all(plan: Plan, place: Place) -> None:
    write_plan(plan, place)
    # a result is marked as ours before anything is in it, so that one that was never finished is known by its mark, too
    write_mark(plan, place, PREPARING)
    for path in place.zarr.iterdir():  # of one that was stopped here
        if path.is_dir():
            remove_tree(path)
    for output in plan.outputs:
        for array in arrays(plan, place, output):
            array.create()
    write_attributes(place, labels_group(plan), {})
    for output in plan.outputs:
        if output.group:
            write_attributes(place, output.group, {})
    write_mark(plan, place, INCOMPLETE)


def contents(plan: Plan) -> dict[str, list[str]]:
    """What stands below the root beside the main image's own arrays: the outputs' groups, and those of rounds."""
    rounds = {"rounds": [round_group(n) for n in plan.rounds]} if plan.barcodes else {}
    return {"outputs": [o.group for o in plan.outputs if o.group], **rounds}


def labels_group(plan: Plan) -> str:
    """The group of the label images: the image's, or the first round's."""
    return f"{round_group(plan.rounds[0])}/labels".lstrip("/")


def write_attributes(place: Place, path: str, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group in one step."""
    write_group(place.files, path, attributes)


def check_free(plan: Plan, place: Place) -> str | None:
    """A warning where the disk seems too small for the result, else None; object stores do not tell."""
    if isinstance(place.zarr, Remote):
        return None
    folder = next(p for p in (place.zarr, *place.zarr.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    needed = plan.stored_bytes // 2  # counts compress to about half
    if needed > free:
        return f"about {needed / 1e9:.2g} GB will be written, but {folder} has {free / 1e9:.2g} GB free; the run may stop halfway"
    return None
