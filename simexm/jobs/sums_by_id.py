"""Sums by cell: counts of all blocks, added up in bounded memory, stored, and looked up by id."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.names import FreeText
from simexm.store.claims import workspace
from simexm.store.documents import MalformedError, read_mapping, validate
from simexm.store.files import Stored, measure, writing
from simexm.store.listing import on_disk, read_ahead
from simexm.store.location import Location
from simexm.store.metadata import Count, Read, refused
from simexm.store.remote import Remote

SHARE_ROWS = 2_000_000
"""Rows of the parts in one share, which are added up in memory; more if `MOST_SHARES` shares are not enough."""

MOST_SHARES = 256


@dataclass
class CellSums:
    """Integer sums by cell; rows in ascending order of ids."""

    ids: NDArray[np.uint64]  # (n,)
    columns: dict[str, NDArray[np.int64]]  # (n,) each, by name

    @classmethod
    def none(cls, columns: Iterable[str]) -> CellSums:
        """Make sums without any cell."""
        return cls(np.zeros(0, np.uint64), dict.fromkeys(columns, np.zeros(0, np.int64)))

    def look_up(self, ids: NDArray[np.uint64]) -> dict[str, NDArray[np.int64]]:
        """Return the columns at these ids, (n,) each; 0 for a missing id."""
        place = np.searchsorted(self.ids, ids)
        found = place < self.ids.size
        found[found] = self.ids[place[found]] == ids[found]
        result = {}
        for name, values in self.columns.items():
            result[name] = np.zeros(len(ids), np.int64)
            result[name][found] = values[place[found]]
        return result

    def all_ids(self) -> NDArray[np.uint64]:
        """Return the ids."""
        return self.ids

    def largest(self, column: str) -> tuple[int, int]:
        """Return (id, value) of the largest value of a column, the smallest id of equals; (0, 0) if all are 0."""
        values = self.columns[column]
        if not values.size or not values.max():
            return 0, 0
        place = int(np.argmax(values))
        return int(self.ids[place]), int(values[place])


def add_up(parts: Sequence[CellSums]) -> CellSums:
    """Add up the rows of the same cells."""
    if len(parts) == 1:
        return parts[0]
    ids, where = np.unique(np.concatenate([p.ids for p in parts]), return_inverse=True)

    def add(values: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        total = np.zeros(ids.size, np.int64)
        np.add.at(total, where, np.concatenate(values))
        return total

    return CellSums(ids, {name: add([p.columns[name] for p in parts]) for name in parts[0].columns})


def write_part(sums: CellSums, path: Location, scratch: Location) -> Stored:
    """Write a block's part atomically."""
    with writing(path, scratch) as partial:
        pq.write_table(_arrow(sums), partial, compression="zstd")
        return measure(partial)


def merged(parts: Iterable[Location], rows: int, columns: Sequence[str], scratch: Location) -> Iterator[CellSums]:
    """Add up the blocks' parts by id, in memory bounded by `SHARE_ROWS` or a 256th of all rows.

    One pass over the parts, files of `write_part`, distributes their `rows` to files ("shares") by a hash of the id; then
    each share is added up, so that rows are in ascending order of ids within a share. Shares are written to `scratch`, or
    to a temporary folder if that is in an object store.
    """
    shares = min(MOST_SHARES, max(1, -(-rows // SHARE_ROWS)))
    none = CellSums.none(columns)
    if shares == 1:
        yield add_up([none, *(_sums(t) for t in read_ahead(read_table, parts, scratch))])
        return
    with workspace(scratch) as folder:
        files = [folder / f"{uuid.uuid4().hex}.partial" for _ in range(shares)]
        try:
            with contextlib.ExitStack() as stack:
                schema = _arrow(none).schema
                writers = [stack.enter_context(pq.ParquetWriter(f, schema, compression="zstd")) for f in files]
                for table in read_ahead(read_table, parts, scratch):
                    share = _share(table["id"].to_numpy(), shares)
                    for n in np.unique(share):
                        writers[n].write_table(table.filter(pa.array(share == n)))
            for file in files:
                yield add_up([none, _sums(read_table(file))])
                file.unlink()
        finally:
            for file in files:
                file.unlink(missing_ok=True)


class StoredSums:
    """Sums by cell in a folder that `store` wrote, one memory-mapped file a share, so that a look-up reads few of them.

    From an object store each process fetches a share once.
    """

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        try:
            self._about = validate(_About, read_mapping(folder / _ABOUT)).model_dump()
        except MalformedError as error:
            raise refused(folder / _ABOUT, error) from error
        self._shares: dict[int, CellSums] = {}

    def look_up(self, ids: NDArray[np.uint64]) -> dict[str, NDArray[np.int64]]:
        """Return the columns at these ids, (n,) each; 0 for a missing id."""
        shares = self._about["shares"]
        share = _share(ids, shares)
        result = {name: np.zeros(len(ids), np.int64) for name in self._about["largest"]}
        for n in np.unique(share):
            mine = share == n
            for name, values in self._share(int(n)).look_up(ids[mine]).items():
                result[name][mine] = values
        return result

    def all_ids(self) -> NDArray[np.uint64]:
        """Return all ids, ascending."""
        return np.sort(np.concatenate([self._share(n).ids for n in range(self._about["shares"])]))

    def largest(self, column: str) -> tuple[int, int]:
        """Return (id, value) of the largest value of a column, the smallest id of equals; (0, 0) if all are 0."""
        cell, value = self._about["largest"][column]
        return int(cell), int(value)

    def _share(self, n: int) -> CellSums:
        if n not in self._shares:
            with pa.memory_map(str(on_disk(self._folder / f"{n:03d}.arrow"))) as source:
                self._shares[n] = _sums(pa.ipc.open_file(source).read_all())
        return self._shares[n]


_ABOUT = "about.json"


class _About(Read):
    shares: Annotated[int, Field(ge=1, le=MOST_SHARES)]
    largest: dict[FreeText, Annotated[list[Count], Field(min_length=2, max_length=2)]]


def store(folder: Location, shares: Iterable[CellSums], columns: Sequence[str], scratch: Location) -> None:
    """Write sums for `StoredSums`; the description is written last and marks the folder as complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ABOUT).unlink(missing_ok=True)
    largest = dict.fromkeys(columns, (0, 0))
    number = 0
    for number, sums in enumerate(shares, 1):
        table = _arrow(sums)
        with (
            writing(folder / f"{number - 1:03d}.arrow", scratch) as partial,
            pa.OSFile(str(partial), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table.combine_chunks())
        for name in columns:
            found, best = sums.largest(name), largest[name]
            if found[1] > best[1] or (found[1] == best[1] and 0 < found[0] < best[0]):
                largest[name] = found
    with writing(folder / _ABOUT, scratch) as partial:
        partial.write_text(json.dumps({"shares": number, "largest": largest}))


def is_stored(folder: Location) -> bool:
    """Return whether `store` finished in this folder."""
    return (folder / _ABOUT).is_file()


def _share(ids: NDArray[np.uint64], shares: int) -> NDArray[np.uint64]:
    return (ids * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(shares)


def read_table(path: Location) -> pa.Table:
    """Read a Parquet file."""
    source = pa.BufferReader(path.read_bytes()) if isinstance(path, Remote) else path
    with pq.ParquetFile(source) as file:  # Arrow's own `read_table` imports its datasets for it, which is slow
        return file.read()


def _arrow(sums: CellSums) -> pa.Table:
    return pa.table({k: pa.array(v) for k, v in {"id": sums.ids, **sums.columns}.items()})


def _sums(table: pa.Table) -> CellSums:
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return CellSums(columns.pop("id"), columns)
