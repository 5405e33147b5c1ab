"""Apply transforms to a table of points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from simexm.analysis.contract import Bench, Conclusion, Measured
from simexm.analysis.registration.chain import Chain
from simexm.analysis.registration.foreign.content import digest_of
from simexm.errors import OutputError
from simexm.jobs.sums_by_id import CellSums
from simexm.stages.products import Product
from simexm.store.location import Location

POINTS = "points"
PLACE = ("z_um", "y_um", "x_um")
TABLES = (".csv", ".parquet")


class PointFile:
    """A table of points; opened again wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.places: list[Location] = [Path(path)]

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.path,)

    @cached_property
    def identity(self) -> str:
        """Digest of the file."""
        return digest_of(Path(self.path))

    def read(self, columns: Sequence[str], place: str) -> pa.Table:
        """Read the file; raises OutputError if it is no table, or lacks one of `columns`, which give each point a `place`."""
        try:
            read = pyarrow.csv.read_csv if self.path.lower().endswith(".csv") else pyarrow.parquet.read_table
            found = read(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise OutputError(
                f"{self.path} cannot be read as a table: {error}; give a .csv or .parquet file"
            ) from error
        if missing := [name for name in columns if name not in found.column_names]:
            raise OutputError(
                f"{self.path} has no column {missing[0]}, so its points have no {place}; name the columns "
                f"{', '.join(columns)} (um)"
            )
        return found


class PointTable(PointFile):
    """A table of points of one volume."""

    @cached_property
    def table(self) -> pa.Table:
        """Its numeric columns, with z_um, y_um, x_um; raises OutputError without these."""
        found = self.read(PLACE, "place")
        kept = [f.name for f in found.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
        if lost := [name for name in PLACE if name not in kept]:
            raise OutputError(f"the column {lost[0]} of {self.path} holds no numbers; correct it")
        return found.select(kept)


ROWS = 1 << 18
"""Points of a block."""


class ApplyToPoints(Bench):
    """A table of points, moved."""

    def __init__(self, chain: Chain, points: PointTable) -> None:
        self.chain, self.points = chain, points
        table = points.table
        types = {
            f.name: "float64" if f.name in PLACE else str(np.dtype(f.type.to_pandas_dtype())) for f in table.schema
        }
        self.products = (Product(POINTS, "table", columns=types),)
        self.inputs = {**chain.inputs, "points": points.identity}
        self.blocks = max(1, -(-table.num_rows // ROWS))
        self.voxels = table.num_rows
        self.core_seconds = 1e-5 * table.num_rows
        self.block_bytes = 600 * ROWS + Chain(chain.transforms, True, 1.0).field_bytes + 2 * table.nbytes

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Move a range of rows: to the fixed side, or to the moving one if `inverse`."""
        part = self.points.table.slice(number * ROWS, ROWS)
        columns = {name: part[name].to_numpy() for name in part.column_names}
        place = np.stack([np.asarray(columns[name], np.float64) for name in PLACE])
        if place.shape[1]:
            place = self.chain.to_moving(place) if self.chain.inverse else self.chain.to_fixed(place)
        return {POINTS: {**columns, **dict(zip(PLACE, place, strict=True))}}

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Nothing to add."""
        return Conclusion({})
