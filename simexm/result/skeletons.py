"""Skeletons as an earlier analysis stored them: their tables, and the grid whose voxels are the vertices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.geometry.grid import Spacing, exact3
from simexm.result.result import Result
from simexm.store.location import Location
from simexm.store.metadata import read_group
from simexm.store.parquet import table_file

GROUP, TABLE, VERTICES = "skeletons", "skeletons", "vertices"


def grid_of(voxel_nm: Spacing, origin_nm: Spacing) -> dict[str, Any]:
    """The grid of the vertices as attributes, in exact fractions of nm."""
    return {"voxel_nm": [str(v) for v in voxel_nm], "origin_nm": [str(o) for o in origin_nm]}


@dataclass(frozen=True)
class StoredSkeletons:
    """The output of `simexm skeletons`."""

    result: Result

    @classmethod
    def open(cls, one: Any) -> StoredSkeletons:
        """Open a result or its path; raises OutputError if it holds no skeletons."""
        result = one if isinstance(one, Result) else Result.open(one)
        result.require_complete()
        if result.kind != "skeletons":
            raise OutputError(
                f"{result.path} holds the output of `simexm {result.kind}`, not skeletons; type: simexm skeletons LABELS, and "
                "name what it writes"
            )
        return cls(result)

    @cached_property
    def grid(self) -> tuple[Spacing, Spacing]:
        """Size of a voxel, and lower corner of the first one, nm; z, y, x."""
        found = read_group(self.result.path / GROUP)
        return exact3(found["voxel_nm"]), exact3(found["origin_nm"])

    @cached_property
    def files(self) -> list[Location]:
        """Files of the table of vertices, in order."""
        return sorted((self.result.place.tables / VERTICES).iterdir(), key=lambda p: p.name)

    @cached_property
    def identity(self) -> str:
        """Parameter hash of the analysis, which decides the skeletons."""
        return str(self.result.provenance["hash"])

    def rows(self) -> list[int]:
        """Number of vertices in each file."""
        return [table_file(file).metadata.num_rows for file in self.files]

    def read(self, file: int) -> dict[str, NDArray[Any]]:
        """Columns of the vertices in a file."""
        return columns_of(table_file(self.files[file]).read())

    def of_id(self, wanted: int) -> dict[str, NDArray[Any]]:
        """Columns of the vertices of an id; empty if it has none."""
        parts = [columns_of(table_file(file).read()) for file in self._files_with(wanted)]
        found = {name: np.concatenate([p[name] for p in parts]) for name in (parts[0] if parts else ())}
        return {name: column[found["id"] == wanted] for name, column in found.items()}

    def _files_with(self, wanted: int) -> list[Location]:
        """Files whose range of ids includes one; ids ascend over all files."""
        spans = self._spans
        return [file for file, (low, high) in zip(self.files, spans, strict=True) if low <= wanted <= high]

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """First and last id of each file."""
        ids = [table_file(file).read(columns=["id"])["id"] for file in self.files]
        return [(i[0].as_py(), i[-1].as_py()) if len(i) else (1, 0) for i in ids]

    def longest(self, most: int) -> list[int]:
        """Ids of the longest skeletons, the longest first."""
        table = self.result.table(TABLE)
        order = np.argsort(-table["cable_um"].to_numpy(), kind="stable")[:most]
        return [int(i) for i in table["id"].to_numpy()[order]]

    def whole_objects(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the vertices of all objects in pieces that never cut one."""
        held: dict[str, NDArray[Any]] = {}
        for n in range(len(self.files)):
            more = self.read(n)
            held = {k: np.concatenate([held[k], more[k]]) for k in more} if held else more
            cut = int(np.searchsorted(held["id"], held["id"][-1], "left")) if held["id"].size else 0
            if cut:
                yield {k: column[:cut] for k, column in held.items()}
                held = {k: column[cut:] for k, column in held.items()}
        if held:
            yield held


def columns_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Columns of a table as arrays."""
    return {name: table[name].to_numpy() for name in table.column_names}
