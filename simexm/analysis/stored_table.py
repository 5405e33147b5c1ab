"""Tables as inputs of analyses: of results, Parquet and CSV files, and the synapses of a phantom; read piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.result.result import Result
from simexm.sources.phantom_stack import open_phantom
from simexm.store.location import Location, is_url, location
from simexm.store.parquet import table_file

Columns = dict[str, NDArray[Any]]


class StoredTable:
    """A stored table; it is opened again wherever it is unpickled.

    Parameters
    ----------
    path
        A result, NAME.zarr; a file, NAME.parquet or NAME.csv; or the description of a phantom, NAME.yaml.
    name
        Table of a result.
    needed
        Columns that it must have.
    """

    def __init__(self, path: str, name: str, needed: Sequence[str]) -> None:
        self._arguments = (path, name, tuple(needed))
        self.path, self.name = path, name
        if missing := [column for column in needed if column not in self.columns]:
            raise OutputError(
                f"{path} has no column {missing[0]!r}, but {', '.join(self.columns)}; name a table of {name} with "
                f"{', '.join(needed)}"
            )

    def __reduce__(self) -> tuple[type[StoredTable], tuple[Any, ...]]:
        return StoredTable, self._arguments

    @classmethod
    def of(cls, one: Any, name: str, needed: Sequence[str]) -> StoredTable:
        """Open a path, URL or result."""
        if isinstance(one, StoredTable):
            return one
        path = str(one.path if isinstance(one, Result) else one)
        return cls(path if is_url(path) else str(Path(path).expanduser().absolute()), name, needed)

    @property
    def places(self) -> list[Location]:
        """Where it is stored, which the output must not be."""
        place = location(self.path)
        return [place, place.with_suffix(".run")] if place.suffix == ".zarr" else [place]

    @cached_property
    def result(self) -> Result | None:
        """The result that it is a table of, if it is."""
        if not self.path.rstrip("/").endswith(".zarr"):
            return None
        found = Result.open(self.path)
        found.require_complete()
        return found

    @cached_property
    def identity(self) -> str:
        """Hash of the result, or of the file's bytes."""
        if self.result is not None:
            return f"{self.result.provenance['hash']} {self.name}"
        return hashlib.blake2b(location(self.path).read_bytes(), digest_size=16).hexdigest()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns."""
        return tuple(self._whole) if self._whole is not None else tuple(table_file(self._files[0]).schema_arrow.names)

    @cached_property
    def pieces(self) -> int:
        """Number of pieces."""
        return 1 if self._whole is not None else len(self._groups)

    def piece(self, number: int) -> Columns:
        """Read one piece: its columns by name."""
        if self._whole is not None:
            return self._whole
        file, group = self._groups[number]
        return _columns(table_file(self._files[file]).read_row_group(group))

    @cached_property
    def rows(self) -> int:
        """Number of rows."""
        if self._whole is not None:
            return len(next(iter(self._whole.values())))
        return sum(table_file(file).metadata.num_rows for file in self._files)

    @property
    def largest_piece(self) -> int:
        """Rows of the largest piece."""
        if self._whole is not None:
            return self.rows
        files = [table_file(file).metadata for file in self._files]
        return max((f.row_group(g).num_rows for f in files for g in range(f.num_row_groups)), default=0)

    def __iter__(self) -> Iterator[Columns]:
        return (self.piece(number) for number in range(self.pieces))

    def whole(self) -> Columns:
        """Read all pieces at once."""
        found = list(self)
        return {name: np.concatenate([piece[name] for piece in found]) for name in self.columns}

    @cached_property
    def _whole(self) -> Columns | None:
        """All columns of a table that is not stored as Parquet."""
        place = location(self.path)
        if place.suffix in (".yaml", ".yml"):
            return open_phantom(Path(self.path)).synapses()
        if place.suffix != ".csv":
            return None
        import pyarrow.csv  # type: ignore[import-untyped]  # late: few read it

        try:
            return _columns(pyarrow.csv.read_csv(self.path))
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise OutputError(f"the table {self.path} cannot be read: {error}; check the file") from error

    @cached_property
    def _files(self) -> list[Location]:
        if self.result is None:
            return [location(self.path)]
        if self.name not in self.result.tables:
            raise OutputError(
                f"{self.path} holds no table of {self.name}, but {', '.join(self.result.tables) or 'none'}; name a result that "
                "has one"
            )
        folder = self.result.place.tables
        one = folder / f"{self.name}.parquet"
        return [one] if one.exists() else sorted((folder / self.name).iterdir(), key=str)

    @cached_property
    def _groups(self) -> list[tuple[int, int]]:
        """File and row group of each piece."""
        return [(n, g) for n, file in enumerate(self._files) for g in range(table_file(file).num_row_groups)] or [
            (0, 0)
        ]


def _columns(table: Any) -> Columns:
    return {name: table[name].to_numpy() for name in table.column_names}


def hashes(inputs: Mapping[str, StoredTable | None]) -> dict[str, str]:
    """Hash of each input that was given."""
    return {name: table.identity for name, table in inputs.items() if table is not None}
