"""Add up the core-seconds of a run by kind of work, from the records of its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simexm.jobs.journal import Journal, Record
from simexm.result.result import Result
from simexm.run.layout import LevelRecord, valid_records
from simexm.timing import PROFILE
from simexm.units import size

REST = "not attributed"
UNTIMED = "blocks done without --profile"


@dataclass(frozen=True)
class Row:
    """One kind of work in all blocks together."""

    name: str
    seconds: float  # on one core each
    read: int = 0  # bytes of stored shards, compressed; unknown for stores that simexm did not write
    written: int = 0  # bytes of files


def profile(result: Result) -> list[Row]:
    """Make the rows of a result, the longest first, of its passes, blocks and coarse levels."""
    where, parameter_hash = result.place, str(result.provenance["hash"])
    sums: dict[str, list[float]] = {}

    def add(name: str, seconds: float, read: float = 0, written: float = 0) -> None:
        row = sums.setdefault(name, [0.0, 0, 0])
        for n, value in enumerate((seconds, read, written)):
            row[n] += value

    for record in valid_records(Journal(where.journal, parameter_hash).records()):
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
        for record in valid_records(Journal(folder, parameter_hash).records(), LevelRecord):
            add("coarse levels", record.seconds, 0, sum(_stored(record)))
    found = [Row(name, seconds, int(read), int(written)) for name, (seconds, read, written) in sums.items()]
    return sorted(found, key=lambda row: (row.name in (REST, UNTIMED), -row.seconds))


def table(rows: list[Row]) -> list[tuple[str, ...]]:
    """Format the rows as text, heading first and sum last."""
    seconds = sum(row.seconds for row in rows)
    total = Row("all", seconds, sum(row.read for row in rows), sum(row.written for row in rows))
    lines: list[tuple[str, ...]] = [("where blocks spent their time", "core-seconds", "share", "read", "written")]
    for row in (*rows, total):
        share = row.seconds / seconds if seconds else 0.0
        sizes = (f"{size(nbytes):>8}" if nbytes else "" for nbytes in (row.read, row.written))
        lines.append((row.name, f"{row.seconds:12.2f}", f"{share:5.1%}", *sizes))
    return lines


def _stored(record: Record) -> Iterator[int]:
    """Yield the bytes of the shards and tables of a block, or of the shards of a coarse level."""
    for shards in record.result["stored"].values():
        yield from (int(nbytes) for nbytes, _ in shards)
    yield from (int(nbytes) for nbytes, _ in record.result.get("tables", {}).values())
