"""The record of finished blocks: immutable numbered segments of JSON lines, written by the driver alone.

A line is one finished block::

    {"block": 7, "hash": "9f2c...", "attempt": 1, "host": "node3", "seconds": 1.25, "time": 1.7e9, "result": {...},
     "crc32c": "1a2b3c4d"}

`result` is what the block function returned: sizes, checksums, statistics, empty or not. `crc32c` is the checksum of the
line up to that key. A line without it, or with a wrong one, is ignored: its block is computed again, and the next driver
removes the line. Lines are gathered for a second at most, written to a temporary file, synced, and renamed to the next
number (in a store: put, unless the object exists), so that every segment is complete. From time to time the newest are
merged into one (``000000-000511.jsonl``), so that long runs do not leave many files; a segment that a merged one covers
is ignored and removed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c

from simexm.errors import OutputError
from simexm.jobs.bitmap import Bitmap
from simexm.names import printable
from simexm.store.files import remove_all, writing
from simexm.store.listing import read_ahead
from simexm.store.location import Location
from simexm.store.metadata import MOST_SHARDS
from simexm.store.remote import Remote

COMMIT_S = 0.5
_MERGE_FILES = 512
_MERGE_BYTES = 1 << 23  # a segment is read into memory
_NAME = re.compile(r"([0-9]{6,18})(?:-([0-9]{6,18}))?\.jsonl")
_LARGEST_BYTES = 1 << 28  # of a segment that is read
_LATEST_S = 1e11  # thousands of years; limit for times since 1970 and for durations
_SEAL = (b',"crc32c":"', b'"}')
_SEAL_BYTES = len(_SEAL[0]) + 8 + len(_SEAL[1])
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class Record:
    """One finished block; see the module's docstring."""

    block: int
    attempt: int
    host: str
    seconds: float
    time: float
    result: Mapping[str, Any]


_FIELDS = frozenset({"hash", *Record.__slots__})


class Journal:
    """The journal of one output. Use `Journal.open` to write to it."""

    def __init__(
        self, path: Location, parameter_hash: str, scratch: Location | None = None, total: int = MOST_SHARDS
    ) -> None:
        self.path = path
        self.scratch = scratch or path
        self.parameter_hash = parameter_hash
        self.total = min(total, MOST_SHARDS)
        self.done = Bitmap()  # includes blocks of the next commit
        self.unreadable = 0  # damaged lines (torn, or with a wrong checksum) that `open` removed
        self.damaged: dict[Location, int] = {}  # damaged lines of each segment when it was last read
        self._lines: list[bytes] = []
        self._oldest = 0.0  # monotonic time of the first line that waits
        self._next = 0
        self._unmerged = 0  # segments since the last merged one, and their bytes
        self._unmerged_bytes = 0

    @classmethod
    def open(
        cls, path: Location, parameter_hash: str, scratch: Location | None = None, total: int = MOST_SHARDS
    ) -> Journal:
        """Open or begin the journal in the folder `path`, and remove damaged lines from it.

        Segments are written in `scratch`, by default the journal's own folder; once it is deleted, every further write
        fails. A line with a number of a block above `total`, that of the run's blocks, is damaged.

        Raises OutputError if the folder holds blocks of another parameter hash, or cannot be read or made.
        """
        journal = cls(path, parameter_hash, scratch, total)
        try:
            path.mkdir(parents=True, exist_ok=True)
            for leftover in path.iterdir():
                if leftover.suffix == ".partial":
                    leftover.unlink()
            journal._load()
            journal._clean()
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot use the journal {path}: {error.strerror}. Fix that, or choose another --output"
            ) from error
        return journal

    def append(self, block: int, *, attempt: int, host: str, seconds: float, result: Mapping[str, Any]) -> None:
        """Add a finished block. It is safe on disk after the next commit."""
        line = {
            "block": block,
            "hash": self.parameter_hash,
            "attempt": attempt,
            "host": host,
            "seconds": round(seconds, 6),
            "time": round(time.time(), 3),
            "result": result,
        }
        if not self._lines:
            self._oldest = time.monotonic()
        self._lines.append(_sealed(_encode(line).encode()))
        self.done.add(block)

    def commit_if_due(self) -> None:
        """Commit if the oldest waiting line is `COMMIT_S` seconds old."""
        if self._lines and time.monotonic() - self._oldest >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write the waiting lines as one segment, synced to the disk.

        Raises OutputError if the disk is full or gone; the lines are kept for the next try.
        """
        if not self._lines:
            return
        try:
            self._publish(f"{self._next:06d}.jsonl", self._lines)
            self._count_segment(sum(map(len, self._lines)))
            self._lines = []
            self._next += 1
            if self._unmerged >= _MERGE_FILES or self._unmerged_bytes >= _MERGE_BYTES:
                self._merge()
        except OSError as error:
            raise OutputError(
                f"cannot write the journal {self.path}: {error.strerror}. Blocks finished since the last commit would be "
                "done again. Free some space or restore the disk, then type the same command again"
            ) from error

    def records(self) -> Iterator[Record]:
        """Yield each finished block's last record, in no particular order, one segment in memory at a time."""
        self.commit()
        seen = Bitmap()
        for path, _, _ in reversed(self._segments()):
            for entry in self._entries(path):
                if entry["hash"] == self.parameter_hash and entry["block"] not in seen:
                    seen.add(entry["block"])
                    yield Record(**{name: entry[name] for name in Record.__slots__})

    def distrust(self, blocks: Iterable[int]) -> None:
        """Remove blocks that must be done again from `done`."""
        for block in blocks:
            self.done.discard(block)

    def _segments(self) -> list[tuple[Location, int, int]]:
        """List segments that no merged one covers, in order, with their first and last number."""
        found = []
        for path in self.path.iterdir():
            if match := _NAME.fullmatch(path.name):
                first = int(match[1])
                found.append((path, first, int(match[2] or first)))
        found.sort(key=lambda segment: (segment[1], -segment[2]))
        segments, covered = [], -1
        for segment in found:
            if segment[2] > covered:
                segments.append(segment)
                covered = segment[2]
        return segments

    def _load(self) -> None:
        for path, first, last in self._segments():
            for entry in self._entries(path):
                if entry["hash"] != self.parameter_hash:
                    raise OutputError(
                        f"{self.path} was written with other parameters (hash {printable(entry['hash'])[:12]}, now "
                        f"{self.parameter_hash[:12]}): one image would mix two simulations. Use the former "
                        "specification, choose another --output, or start again with --overwrite"
                    )
                self.done.add(entry["block"])
            self._next = last + 1
            if first == last:
                self._count_segment(path.stat().st_size)

    def _entries(self, path: Location) -> Iterator[dict[str, Any]]:
        """Yield the valid lines of a segment, the last first, and count the others in `damaged`."""
        self.damaged.pop(path, None)
        for line in reversed(_lines(path)):
            entry = _parse(line, self.total)
            if entry is None:
                self.damaged[path] = self.damaged.get(path, 0) + 1
            else:
                yield entry

    def _clean(self) -> None:
        """Remove damaged lines from the files."""
        self.unreadable = sum(self.damaged.values())
        for path in self.damaged:
            with writing(path, self.scratch) as partial, partial.open("wb") as file:
                file.writelines(line + b"\n" for line in _lines(path) if _parse(line, self.total) is not None)

    def _publish(self, name: str, lines: Iterable[bytes]) -> None:
        with writing(self.path / name, self.scratch, new=True) as partial, partial.open("wb") as file:
            file.writelines(lines)

    def _count_segment(self, size: int) -> None:
        self._unmerged += 1
        self._unmerged_bytes += size

    def _merge(self) -> None:
        """Merge the segments that are not merged yet. A crash at any point loses nothing and counts nothing twice."""
        singles = [segment for segment in self._segments() if segment[1] == segment[2]]
        self._unmerged = self._unmerged_bytes = 0
        if len(singles) > 1:
            name = f"{singles[0][1]:06d}-{singles[-1][2]:06d}.jsonl"
            files = [path for path, _, _ in singles]
            self._publish(name, read_ahead(lambda path: path.read_bytes().rstrip(b"\n") + b"\n", files, self.path))
            remove_all(files)


def damaged_lines(journal: Journal) -> str:
    """Describe the lines that were removed, for the log."""
    return (
        f"{journal.unreadable} lines of {journal.path} were torn or had a wrong checksum; they were removed, and their "
        "blocks are computed again"
    )


def _sealed(line: bytes) -> bytes:
    """Append the checksum to a line of JSON as its last key, and a line break."""
    before, after = _SEAL
    return b"%s%s%08x%s\n" % (line[:-1], before, google_crc32c.value(line[:-1]), after)


def _lines(path: Location) -> list[bytes]:
    """Read the lines of a segment; a file larger than any segment is read as one damaged line."""
    if not isinstance(path, Remote) and path.stat().st_size > _LARGEST_BYTES:
        return [b""]
    return path.read_bytes().splitlines()


def _parse(line: bytes, total: int) -> dict[str, Any] | None:
    """Parse a line; None if it is torn, has a wrong checksum, or was not written by a driver."""
    body, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    if seal != b"%s%08x%s" % (_SEAL[0], google_crc32c.value(body), _SEAL[1]):
        return None
    try:
        entry = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.keys() >= _FIELDS and _is_valid(entry, total) else None


def _is_valid(entry: Mapping[str, Any], total: int) -> bool:
    """Check types and ranges of an entry."""
    block, attempt, seconds, time = entry["block"], entry["attempt"], entry["seconds"], entry["time"]
    return (
        type(block) is type(attempt) is int
        and 0 <= block < total
        and attempt > 0
        and type(seconds) in (int, float)
        and type(time) in (int, float)
        and 0 <= seconds < _LATEST_S
        and 0 <= time < _LATEST_S
        and type(entry["hash"]) is type(entry["host"]) is str
        and type(entry["result"]) is dict
    )
