"""Verify a result: compare every file with the size and checksum that were recorded when it was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from simexm.errors import OutputError
from simexm.jobs.bitmap import Bitmap
from simexm.jobs.journal import Journal, Record
from simexm.result.place import COMPLETE, MANIFEST, PLAN, Place
from simexm.run import guard, maps
from simexm.run.layout import Layout, StoredFile, read_manifest
from simexm.run.levels import journal_of
from simexm.store import metadata
from simexm.store.documents import MalformedError
from simexm.store.files import Stored, measure
from simexm.store.listing import in_parallel
from simexm.store.location import Location, from_text

THREADS = 8
"""Files that are read at once, for disks of high latency; one thread alone checks gigabytes a second."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged file, and what is wrong with it."""

    path: Location
    what: str
    block: int | None = None  # or shard of a coarse level; None if the file belongs to neither
    level: int | None = None  # None for blocks

    def __str__(self) -> str:
        whose = "" if self.block is None else f"block {self.block}: "
        if self.level is not None:
            whose = f"level {self.level}, shard {self.block}: "
        return f"{whose}{self.path} {self.what}"


@dataclass
class Damaged:
    """Blocks, shards of coarse levels, and other files that must be repaired; one bit for each block or shard."""

    blocks: Bitmap = field(default_factory=Bitmap)
    levels: dict[int, Bitmap] = field(default_factory=dict)
    files: list[Location] = field(default_factory=list)

    def add(self, damage: Damage) -> None:
        """Record a damage."""
        if damage.block is None:
            self.files.append(damage.path)
        elif damage.level is None:
            self.blocks.add(damage.block)
        else:
            self.levels.setdefault(damage.level, Bitmap()).add(damage.block)


class Verification:
    """Check all files of a result; iterate over it for the damages.

    `progress` is called with the numbers of verified and of all blocks. With `plan_is_new`, plan.json was just written
    again and is used to find the shards whatever its recorded checksum. Raises OutputError if there is no result.
    """

    def __init__(
        self, where: Place, progress: Progress = lambda done, total: None, *, plan_is_new: bool = False
    ) -> None:
        self.where = where
        self._plan_is_new = plan_is_new
        self.files = self.bytes = 0  # number and size of the files checked so far
        self.unfinished = (
            0  # blocks that are not done; in a complete result a block without a record is damaged instead
        )
        self.damaged = Damaged()  # found so far
        self._progress = progress
        mark = where.mark()
        if mark is None and read_plan(where) is None:
            raise OutputError(_nothing(where))
        self._complete = (where.run / MANIFEST).is_file() if mark is None else mark.get("status") == COMPLETE

    @property
    def sound(self) -> bool:
        """Whether the result is complete and undamaged, as far as it was checked."""
        d = self.damaged
        return not (d.blocks or d.levels or d.files or self.unfinished)

    def __iter__(self) -> Iterator[Damage]:
        for damage in self._all():
            self.damaged.add(damage)
            yield damage

    def _all(self) -> Iterator[Damage]:
        for link in guard.links_in(self.where):
            yield Damage(link, f"is a symbolic link to {os.readlink(link)}, which no run makes")
        plan = read_plan(self.where)
        named: list[Damage] = []
        if self._complete:
            named = list(self._manifest())
            yield from named
        plan_file = self.where.run / PLAN
        if plan is None and plan_file not in {d.path for d in named}:
            yield Damage(plan_file, "is missing or cannot be read")
        if plan is None or (plan_file in {d.path for d in named} and not self._plan_is_new):
            return  # only the plan lists the shards; repair writes it again and then verifies again
        layout = Layout.of(plan)
        try:
            yield from self._recorded(self.where.journal, plan["hash"], layout, None)
            for level in range(layout.owned, len(layout.levels)):
                yield from self._recorded(journal_of(self.where, level), plan["hash"], layout, level)
            yield from self._counted(plan["hash"])
        except FileNotFoundError as error:
            raise OutputError(
                f"{error.filename} disappeared: a run is writing {self.where.zarr}; verify it again when that has ended"
            ) from None

    def _manifest(self) -> Iterator[Damage]:
        path = self.where.run / MANIFEST
        try:
            files = read_manifest(self.where)
        except MalformedError as error:
            yield Damage(path, str(error))
            return
        except OutputError:
            raise
        except OSError as error:
            yield Damage(path, f"cannot be read: {error.strerror or error}")
            return
        for file in files:
            if what := self._compare(file):
                yield Damage(from_text(file.path), what)

    def _recorded(self, path: Location, parameter_hash: str, layout: Layout, level: int | None) -> Iterator[Damage]:
        """Compare the files of a journal's records; then yield the blocks without a record."""
        total = layout.total(level)
        seen = Bitmap()
        journal = Journal(path, parameter_hash, total=total)

        def records() -> Iterator[Record]:
            if path.is_dir():
                for record in journal.records():
                    seen.add(record.block)
                    yield record

        def check(record: Record) -> list[Damage]:
            try:
                if level is None:
                    files = list(layout.of_block(self.where, record.block, record.result))
                else:
                    files = list(layout.of_level(self.where, level, record.block, record.result))
            except MalformedError as error:
                return [Damage(path, f"holds a record that {error}", record.block, level)]
            return [Damage(from_text(f.path), what, record.block, level) for f in files if (what := self._compare(f))]

        for found in in_parallel(check, records(), THREADS):
            yield from found
            self._progress(len(seen), total)
        yield from _damaged_lines(journal)
        for number in seen.missing(total):
            if self._complete:
                yield Damage(path, "holds no record of it", number, level)
            else:
                self.unfinished += level is None

    def _counted(self, parameter_hash: str) -> Iterator[Damage]:
        """Check the journals of passes, and the files of maps; the tables of passes are in the manifest."""
        for folder in sorted(self.where.passes.iterdir()) if self.where.passes.is_dir() else ():
            if (folder / "journal").is_dir():
                journal = Journal(folder / "journal", parameter_hash)
                for record in journal.records():
                    for level, stored in enumerate(record.result.get("nodes", ())):
                        path = maps.file_in(folder, record.block, level)
                        if what := self._compare(StoredFile(str(path), Stored(*stored))):
                            yield Damage(path, what)
                yield from _damaged_lines(journal)

    def _compare(self, file: StoredFile) -> str | None:
        """Return what is wrong with a file, or None."""
        path, stored = from_text(file.path), file.stored
        self.files += 1
        self.bytes += stored.nbytes
        try:
            size = path.stat().st_size
            if not stored.nbytes:
                return "exists, although the block was empty"
            if size != stored.nbytes:
                return f"has {size} bytes instead of {stored.nbytes}"
            return None if measure(path) == stored else "has changed since it was written"
        except (FileNotFoundError, NotADirectoryError):
            return "is missing" if stored.nbytes else None
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"


def read_plan(where: Place) -> dict[str, Any] | None:
    """Read the `plan.json` of a run or an analysis; None if it is unreadable or was not written by one."""
    try:
        return metadata.read_plan(where.run)
    except OSError:
        return None


def _damaged_lines(journal: Journal) -> Iterator[Damage]:
    for segment, lines in journal.damaged.items():
        yield Damage(segment, f"holds {lines} lines that are torn or have another checksum")


def _nothing(where: Place) -> str:
    """Explain why a place cannot be verified: it does not exist, or both files that describe the result are damaged."""
    if not where.zarr.exists():
        return f"{where.zarr} does not exist, so there is nothing to verify; name a NAME.zarr that a run wrote"
    faults = []
    try:
        metadata.read_group(where.zarr, metadata.RootAttributes)
    except OSError as error:
        faults.append(str(error).partition(": it was damaged")[0])
    try:
        metadata.read_plan(where.run)
    except OSError as error:
        faults.append(str(error).partition(": it was damaged")[0])
    return (
        f"{where.zarr} is no simexm result, or both files that describe it are damaged, so nothing is touched: "
        f"{'; '.join(faults)}. Compute it again with `simexm run --overwrite` and another --output"
    )
