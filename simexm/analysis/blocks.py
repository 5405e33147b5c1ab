"""The worker's side of an analysis: measure a block and write what it found."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simexm.analysis.contract import Analysis, Bench, Measured
from simexm.analysis.grid import Grid, volumes_of
from simexm.errors import OutputError
from simexm.jobs.sums_by_id import CellSums, write_part
from simexm.planning.outputs import Output, Volumes
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run import guard, volumes
from simexm.run.tables import part, to_arrow
from simexm.run.worker import peak_bytes
from simexm.stages.products import Product
from simexm.store.files import Stored, measure, writing
from simexm.store.location import Location


@dataclass(frozen=True)
class Context:
    """What a worker needs: the analysis, its inputs, the output, the parameter hash, and the memory that was predicted."""

    analysis: Analysis
    inputs: tuple[Result, ...]
    place: Place
    hash: str
    predicted_bytes: int


def measure_block(context: Context, number: int) -> dict[str, Any]:
    """Measure one block and write what it found; what is returned goes to the journal."""
    guard.refuse_other_run(context.hash, context.place)
    bench = _bench_of(context)
    measured = _Measured(context, bench, number, bench.measure(number))
    guard.refuse_other_run(context.hash, context.place)  # again: another run may have taken the output meanwhile
    stored, largest = measured.write_volumes()
    rows, tables = measured.write_tables()
    return {
        "rows": rows,
        "stored": stored,
        "tables": {folder: [one.nbytes, one.checksum] for folder, one in tables.items()},
        "largest": largest,
        "peak_bytes": peak_bytes(),
        "predicted_bytes": context.predicted_bytes,
    }


_benches: dict[str, Bench] = {}
_opening = threading.Lock()


def _bench_of(context: Context) -> Bench:
    """The opened inputs, once in each process for each driver."""
    name = context.hash + context.place.claim
    with _opening:
        if name not in _benches:
            _benches.clear()
            _benches[name] = context.analysis.open(context.inputs)
        return _benches[name]


def sums_part(where: Place, name: str, number: int) -> Location:
    """The file of one block's part of a table of sums."""
    return part(where, sums_folder(name), number)


def sums_folder(name: str) -> str:
    """Folder of the blocks' parts of a table of sums."""
    return f"{name}.parts"


@dataclass(frozen=True)
class _Measured:
    """What a block gave, and where it goes."""

    context: Context
    bench: Bench
    number: int
    found: Mapping[str, Measured]

    def __post_init__(self) -> None:
        declared = {*self.bench.columns, *(p.name for p in self.bench.products)}
        if unlike := declared ^ set(self.found):
            self._refuse(f"gives {', '.join(sorted(self.found))} instead of {', '.join(sorted(declared))}: {unlike}")

    def write_volumes(self) -> tuple[dict[str, list[list[Any]]], dict[str, list[float]]]:
        """Write images and label images; [bytes, checksum] of each shard, and the largest values, by the output's group."""
        where, grid = self.context.place, self.bench.grid
        stored: dict[str, list[list[Any]]] = {}
        if grid is None:
            return stored, {}
        planned = volumes_of(self.context.analysis.tag, grid, self.bench.products)
        arrays = {o.path: self._array(o, planned, grid) for o in planned.outputs}
        for frame in grid.frames:
            made = {o.path: arrays[o.path][o.at(frame)] for o in planned.outputs if o.made_in(frame)}
            for group, shards in volumes.write(planned, where, self.number, frame, made).items():
                stored.setdefault(group, []).extend(shards)
        return stored, {o.group: _largest(o, arrays[o.path]) for o in planned.outputs}

    def _array(self, output: Output, planned: Volumes, grid: Grid) -> NDArray[Any]:
        found = self.found[output.product.name]
        lead = tuple(n for n in (output.times, len(output.channels)) if n)
        shape = (*lead, *grid.blocks[self.number].shape)
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.dtype(output.dtype):
            given = f"{found.dtype} of {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            self._refuse(f"gives {given} for {output.product.name!r}, which is {output.dtype} of {shape}")
        assert isinstance(found, np.ndarray)
        return found

    def write_tables(self) -> tuple[dict[str, int], dict[str, Stored]]:
        """Write the block's sums and rows; rows by table, and files by folder."""
        where = self.context.place
        rows: dict[str, int] = {}
        stored: dict[str, Stored] = {}
        for name in self.bench.columns:
            sums = self.found[name]
            if not isinstance(sums, CellSums):
                self._refuse(f"gives {type(sums).__name__} for {name!r}, which is a table of sums (CellSums)")
            assert isinstance(sums, CellSums)
            stored[sums_folder(name)] = write_part(sums, sums_part(where, name, self.number), where.scratch)
            rows[name] = int(sums.ids.size)
        for product in (p for p in self.bench.products if p.kind == "table"):
            table = to_arrow(self._columns(product))
            with writing(part(where, product.name, self.number), where.scratch) as partial:
                pq.write_table(table, partial, compression="zstd")
                stored[product.name] = measure(partial)
            rows[product.name] = table.num_rows
        return rows, stored

    def _columns(self, product: Product) -> dict[str, NDArray[Any]]:
        """Columns in the declared order and data types, so that the parts of all blocks are of one schema."""
        found = self.found[product.name]
        if not isinstance(found, Mapping) or found.keys() != product.columns.keys():
            given = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            self._refuse(
                f"gives {given} for the table {product.name!r}, whose columns are {', '.join(product.columns)}"
            )
        assert isinstance(found, Mapping)
        types = {name: object if kind == "str" else np.dtype(kind) for name, kind in product.columns.items()}
        return {name: np.asarray(found[name], kind) for name, kind in types.items()}

    def _refuse(self, fault: str) -> None:
        raise OutputError(
            f"block {self.number} of the analysis {self.context.analysis.tag!r} {fault}; update its package"
        )


def _largest(output: Output, data: NDArray[Any]) -> list[float]:
    """Largest value of each channel at all times; of a label image the largest id."""
    if output.is_labels:
        return [data.max().item()]
    axes = tuple(n for n in range(data.ndim) if n != data.ndim - 4)
    return [float(n) for n in data.max(axis=axes)]
