"""Where the core-seconds of a run went, added up from what its blocks told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simexm.jobs.journal import Journal, Record
from simexm.result.result import Result
from simexm.run.layout import LevelTold, sensible
from simexm.timing import PROFILE
from simexm.units import size

REST = "not told apart"
UNTIMED = "blocks done without --profile"


@dataclass(frozen=True)
class Row:
    """What one kind of work took, in all blocks together.

    Attributes
    ----------
    name
        Of the work.
    seconds
        On one core each.
    read
        Bytes of stored shards, compressed; of other stores than simexm writes nobody knows.
    written
        Bytes of files.
    """

    name: str
    seconds: float
    read: int = 0
    written: int = 0


def profile(result: Result) -> list[Row]:
    """The rows of a result, the longest first: all its blocks, the passes before them and the coarse levels after them."""
    where, parameter_hash = result.place, str(result.provenance["hash"])
    sums: dict[str, list[float]] = {}

    def add(name: str, seconds: float, read: float = 0, written: float = 0) -> None:
        row = sums.setdefault(name, [0.0, 0, 0])
        for n, value in enumerate((seconds, read, written)):
            row[n] += value

    for record in sensible(Journal(where.journal, parameter_hash).records()):
        rows = record.result.get(PROFILE)
        if rows is None:
            add(UNTIMED, record.seconds, 0, sum(_stored(record)))
            continue
        for name, row in rows.items():
            add(name, *row)
        add(REST, record.seconds - sum(seconds for seconds, _, _ in rows.values()))
    for folder in sorted(where.passes.iterdir()) if where.passes.is_dir() else ():
        for record in Journal(folder / "journal", parameter_hash).records():
            add(f"pass {folder.name}", record.seconds)
    levels = where.journal / "levels"
    for folder in sorted(levels.iterdir()) if levels.is_dir() else ():
        for record in sensible(Journal(folder, parameter_hash).records(), LevelTold):
            add("coarse levels", record.seconds, 0, sum(_stored(record)))
    found = [Row(name, seconds, int(read), int(written)) for name, (seconds, read, written) in sums.items()]
    return sorted(found, key=lambda row: (row.name in (REST, UNTIMED), -row.seconds))


def table(rows: list[Row]) -> list[tuple[str, ...]]:
    """The rows as text, heading first and sum last."""
    whole = sum(row.seconds for row in rows)
    total = Row("all", whole, sum(row.read for row in rows), sum(row.written for row in rows))
    lines = [("where blocks spent their time", "core-seconds", "share", "read", "written")]
    for row in (*rows, total):
        share = row.seconds / whole if whole else 0.0
        lines.append((row.name, f"{row.seconds:12.2f}", f"{share:5.1%}", _size(row.read), _size(row.written)))
    return [*lines]


def _size(nbytes: int) -> str:
    return f"{size(nbytes):>8}" if nbytes else ""


def _stored(record: Record) -> Iterator[int]:
    """Bytes of the shards and tables of a block, or of the shards of a coarse level."""
    for shards in record.result["stored"].values():
        yield from (int(nbytes) for nbytes, _ in shards)
    yield from (int(nbytes) for nbytes, _ in record.result.get("tables", {}).values())
