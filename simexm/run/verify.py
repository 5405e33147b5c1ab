"""Looking for damage: every file of a result against the size and checksum that were recorded when it was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from simexm.errors import OutputError
from simexm.jobs.bitmap import Bitmap
from simexm.jobs.journal import Journal, Record
from simexm.result.place import COMPLETE, MANIFEST, PLAN, Place
from simexm.run import guard
from simexm.run.layout import Layout, Left, read_manifest
from simexm.run.levels import journal_of
from simexm.store import metadata
from simexm.store.documents import MalformedError
from simexm.store.files import measure
from simexm.store.listing import in_parallel
from simexm.store.location import Location, from_text

THREADS = 8
"""Files that are read at once; a disk far away takes that many, and one thread checks gigabytes a second."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written.

    Attributes
    ----------
    path
        The file.
    what
        What is wrong with it.
    block
        The block, or the shard of a coarse level, that it belongs to, if any.
    level
        The coarse level; None for blocks.
    """

    path: Location
    what: str
    block: int | None = None
    level: int | None = None

    def __str__(self) -> str:
        whose = "" if self.block is None else f"block {self.block}: "
        if self.level is not None:
            whose = f"level {self.level}, shard {self.block}: "
        return f"{whose}{self.path} {self.what}"


@dataclass
class Damaged:
    """What must be made again, in a bit a block.

    Attributes
    ----------
    blocks
        Blocks.
    levels
        Shards of coarse levels, by level.
    files
        Files that belong to neither.
    """

    blocks: Bitmap = field(default_factory=Bitmap)
    levels: dict[int, Bitmap] = field(default_factory=dict)
    files: list[Location] = field(default_factory=list)

    def add(self, damage: Damage) -> None:
        """Take note of one."""
        if damage.block is None:
            self.files.append(damage.path)
        elif damage.level is None:
            self.blocks.add(damage.block)
        else:
            self.levels.setdefault(damage.level, Bitmap()).add(damage.block)


class Verification:
    """One look at all files of a result; iterate over it for what is damaged.

    Parameters
    ----------
    where
        The result.
    progress
        Called with blocks verified and all blocks.
    plan_is_new
        Whether plan.json was just written anew, so that it tells where the shards are whatever checksum is recorded of it.

    Attributes
    ----------
    files, bytes
        What was looked at so far.
    damaged
        What was found so far.
    unfinished
        Blocks that a run did not get to; in a complete result a block without a record is damaged instead.

    Raises
    ------
    OutputError
        If there is no result.
    """

    def __init__(
        self, where: Place, progress: Progress = lambda done, total: None, *, plan_is_new: bool = False
    ) -> None:
        self.where = where
        self._plan_is_new = plan_is_new
        self.files = self.bytes = self.unfinished = 0
        self.damaged = Damaged()
        self._progress = progress
        mark = where.mark()
        if mark is None and read_plan(where) is None:
            raise OutputError(_nothing(where))
        self._complete = (where.run / MANIFEST).is_file() if mark is None else mark.get("status") == COMPLETE

    @property
    def sound(self) -> bool:
        """Whether the result is whole, as far as was looked."""
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
            return  # where the shards are is written nowhere else; who mends the plan looks again
        layout = Layout.of(plan)
        try:
            yield from self._recorded(self.where.journal, plan["hash"], layout, None)
            for level in range(layout.owned, len(layout.levels)):
                yield from self._recorded(journal_of(self.where, level), plan["hash"], layout, level)
            yield from self._counted(plan["hash"], layout.count)
        except FileNotFoundError as error:
            raise OutputError(
                f"{error.filename} vanished: a run is writing {self.where.zarr}; verify it again when that has ended"
            ) from None

    def _manifest(self) -> Iterator[Damage]:
        path = self.where.run / MANIFEST
        try:
            told = read_manifest(self.where)
        except MalformedError as error:
            yield Damage(path, str(error))
            return
        except OutputError:
            raise
        except OSError as error:
            yield Damage(path, f"cannot be read: {error.strerror or error}")
            return
        for left in told:
            if what := self._compare(left):
                yield Damage(from_text(left.path), what)

    def _recorded(self, path: Location, parameter_hash: str, layout: Layout, level: int | None) -> Iterator[Damage]:
        """Compare what a journal tells of; then name what it should tell of and does not."""
        total = layout.total(level)
        seen = Bitmap()
        journal = Journal(path, parameter_hash, total=total)

        def records() -> Iterator[Record]:
            if path.is_dir():
                for record in journal.records():
                    seen.add(record.block)
                    yield record

        def look(record: Record) -> list[Damage]:
            try:
                if level is None:
                    files = list(layout.of_block(self.where, record.block, record.result))
                else:
                    files = list(layout.of_level(self.where, level, record.block, record.result))
            except MalformedError as error:
                return [Damage(path, f"holds a record that {error}", record.block, level)]
            return [Damage(from_text(f.path), what, record.block, level) for f in files if (what := self._compare(f))]

        for found in in_parallel(look, records(), THREADS):
            yield from found
            self._progress(len(seen), total)
        yield from _damaged_lines(journal)
        for number in seen.missing(total):
            if self._complete:
                yield Damage(path, "holds no record of it", number, level)
            else:
                self.unfinished += level is None

    def _counted(self, parameter_hash: str, blocks: int) -> Iterator[Damage]:
        """Look at the journals of passes; their tables are named in the list of files."""
        for folder in sorted(self.where.passes.iterdir()) if self.where.passes.is_dir() else ():
            if (folder / "journal").is_dir():
                journal = Journal(folder / "journal", parameter_hash, total=blocks)
                for _ in journal.records():
                    pass
                yield from _damaged_lines(journal)

    def _compare(self, left: Left) -> str | None:
        """What is wrong with a file, or None."""
        path, stored = from_text(left.path), left.stored
        self.files += 1
        self.bytes += stored.nbytes
        try:
            size = path.stat().st_size
            if not stored.nbytes:
                return "is there, though nothing but zeros was written"
            if size != stored.nbytes:
                return f"has {size} bytes instead of {stored.nbytes}"
            return None if measure(path) == stored else "holds other bytes than were written"
        except (FileNotFoundError, NotADirectoryError):
            return "is missing" if stored.nbytes else None
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"


def read_plan(where: Place) -> dict[str, Any] | None:
    """What `plan.json` of a run or an analysis holds; None where it cannot be read, or neither wrote it."""
    try:
        return metadata.read_plan(where.run)
    except OSError:
        return None


def _damaged_lines(journal: Journal) -> Iterator[Damage]:
    for segment, lines in journal.damaged.items():
        yield Damage(segment, f"holds {lines} lines that are torn or have another checksum")


def _nothing(where: Place) -> str:
    """Why a place cannot be verified: there is nothing, or neither of the files that tell what there is can be believed."""
    if not where.zarr.exists():
        return f"{where.zarr} does not exist, so there is nothing to verify; name a NAME.zarr that a run wrote"
    faults = []
    for read in (
        lambda: metadata.read_group(where.zarr, metadata.RootAttributes),
        lambda: metadata.read_plan(where.run),
    ):
        try:
            read()
        except OSError as error:
            faults.append(str(error).partition(": it was damaged")[0])
    return (
        f"{where.zarr} is no simexm result, or neither of the files that tell what is in it can be believed, so nothing is "
        f"touched: {'; '.join(faults)}. Make it anew with `simexm run --overwrite` and another --output"
    )
