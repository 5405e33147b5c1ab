"""Tables by one or several ids whose rows are added up, or whose extremes are taken, over all blocks in bounded memory.

Blocks write parts in ascending order. The merge reads them in any order, spills sorted runs to disk, and goes through all runs at
once in ranges of the keys, so its output ascends by the keys and depends on neither the blocks nor their order.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.jobs.sums_by_id import read_table
from simexm.store.claims import workspace
from simexm.store.listing import read_ahead
from simexm.store.location import Location

Columns = Mapping[str, NDArray[Any]]
Reducer = Literal["sum", "min", "max"]
_REDUCE: dict[str, Any] = {"sum": np.add, "min": np.minimum, "max": np.maximum}

ROWS = 1_000_000
"""Rows that are sorted in memory at once; a run on disk has no more."""
_SAMPLE = 1000
"""Of so many rows of a run, one is looked at to choose the ranges."""


@dataclass(frozen=True)
class Keyed:
    """A table by keys (uint64), and what becomes of the other columns (int64) where rows have equal keys."""

    keys: tuple[str, ...]
    columns: Mapping[str, Reducer]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.keys, *self.columns)

    def arrow(self, columns: Columns) -> pa.Table:
        """Convert columns to a table, with the declared names, order and types."""
        return pa.table({name: pa.array(self._typed(name, columns[name])) for name in self.names})

    def reduced(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Reduce rows of equal keys, (columns, n), to one each, in ascending order of the keys."""
        if not rows.shape[1]:
            return rows
        keys = [rows[n].view(np.uint64) for n in range(len(self.keys))]
        order = np.lexsort(keys[::-1])
        rows = rows[:, order]
        new = np.any(rows[: len(keys), 1:] != rows[: len(keys), :-1], axis=0)
        starts = np.flatnonzero(np.concatenate([[True], new]))
        found = np.empty((len(rows), starts.size), np.int64)
        found[: len(keys)] = rows[: len(keys), starts]
        for n, how in enumerate(self.columns.values(), len(keys)):
            _REDUCE[how].reduceat(rows[n], starts, out=found[n])
        return found

    def rows(self, table: pa.Table) -> NDArray[np.int64]:
        """Return the columns of a part, (columns, n)."""
        found = [self._typed(name, table[name].to_numpy()).view(np.int64) for name in self.names]
        return np.stack(found) if table.num_rows else np.empty((len(found), 0), np.int64)

    def by_name(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return rows (columns, n) as columns by name."""
        return {name: column.view(self._type(name)) for name, column in zip(self.names, rows, strict=True)}

    def _type(self, name: str) -> type[Any]:
        return np.uint64 if name in self.keys else np.int64

    def _typed(self, name: str, column: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(column, self._type(name))


class MergedRows:
    """The merged rows of all parts, in pieces of bounded size; it can be iterated more than once.

    Parameters
    ----------
    keyed
        The table.
    parts
        Returns the files of all blocks.
    scratch
        Folder for the sorted runs.
    rows
        Rows in memory at once.
    """

    def __init__(
        self, keyed: Keyed, parts: Callable[[], Iterable[Location]], scratch: Location, rows: int = ROWS
    ) -> None:
        self._keyed, self._parts, self._scratch, self._rows = keyed, parts, scratch, rows

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        with workspace(self._scratch) as space:
            folder = space / f"{uuid.uuid4().hex}.partial"
            folder.mkdir()
            try:
                for rows in self._merged(folder):
                    yield self._keyed.by_name(rows)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _merged(self, folder: Path) -> Iterator[NDArray[np.int64]]:
        held: list[NDArray[np.int64]] = [np.empty((len(self._keyed.names), 0), np.int64)]
        runs: list[Path] = []
        for table in read_ahead(read_table, self._parts(), self._scratch):
            for start in range(0, table.num_rows, self._rows):
                held.append(self._keyed.rows(table.slice(start, self._rows)))
                if sum(one.shape[1] for one in held) >= self._rows:
                    held = [self._keyed.reduced(np.concatenate(held, axis=1))]
                    if held[0].shape[1] >= self._rows // 2:
                        runs.append(self._spilled(folder, len(runs), held.pop()))
                        held = [np.empty((len(self._keyed.names), 0), np.int64)]
        rest = self._keyed.reduced(np.concatenate(held, axis=1))
        if not runs:
            yield rest
            return
        runs.append(self._spilled(folder, len(runs), rest))
        opened = [np.load(run, mmap_mode="r") for run in runs]
        begins = [0] * len(opened)
        for border in [*self._borders(opened), None]:
            ends = [one.shape[1] if border is None else self._place(one, border) for one in opened]
            pieces = [np.asarray(one[:, a:b]) for one, a, b in zip(opened, begins, ends, strict=True)]
            begins = ends
            yield self._keyed.reduced(np.concatenate(pieces, axis=1))

    def _spilled(self, folder: Path, number: int, rows: NDArray[np.int64]) -> Path:
        path = folder / f"{number}.npy"
        np.save(path, rows)
        return path

    def _borders(self, runs: Sequence[NDArray[np.int64]]) -> list[tuple[int, ...]]:
        """Keys at which ranges of about as many rows as fit into memory begin."""
        keys = range(len(self._keyed.keys))
        step = max(1, min(_SAMPLE, self._rows // (4 * len(runs))))
        sample = np.concatenate([np.asarray(one[list(keys), ::step]) for one in runs], axis=1).view(np.uint64)
        sample = sample[:, np.lexsort([sample[n] for n in reversed(keys)])]
        every = max(1, self._rows // (2 * step))
        return [tuple(map(int, sample[:, n])) for n in range(every, sample.shape[1], every)]

    def _place(self, run: NDArray[np.int64], border: tuple[int, ...]) -> int:
        """The first row of a run whose keys are not below a border."""
        return place_of([run[n].view(np.uint64) for n in range(len(border))], border, after=False)


def place_of(columns: Sequence[NDArray[np.uint64]], key: Sequence[int], after: bool) -> int:
    """The first row of sorted columns that is not below a key; with `after`, the first that is beyond it."""
    low, high = 0, columns[0].shape[0]
    for column, value in zip(columns, key, strict=True):
        some = column[low:high]
        low, high = (
            low + int(np.searchsorted(some, np.uint64(value), "left")),
            low + int(np.searchsorted(some, np.uint64(value), "right")),
        )
    return high if after else low
