"""An analysis in a worker: measure a block and write its volumes and tables."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Analysis, Bench, Measured
from simexm.analysis.grid import Grid, volumes_of
from simexm.analysis.joined import open_joined, read_part
from simexm.errors import OutputError
from simexm.jobs.sums_by_id import CellSums, write_part
from simexm.planning.outputs import Output, Volumes
from simexm.result.place import Place
from simexm.run import guard, volumes
from simexm.run.tables import part, to_arrow
from simexm.run.worker import peak_bytes
from simexm.stages.products import Product
from simexm.store.files import Stored, measure, writing
from simexm.store.location import Location


@dataclass(frozen=True)
class Context:
    """What a worker needs to measure a block."""

    analysis: Analysis
    inputs: tuple[Any, ...]
    place: Place
    hash: str
    predicted_bytes: int


def measure_block(context: Context, number: int) -> dict[str, Any]:
    """Measure and write one block; return its record for the journal."""
    guard.refuse_other_run(context.hash, context.place)
    bench = bench_of(context)
    if bench.surveys and not bench.joined:
        bench.parts = partial(read_part, context.place)
        bench.joined = open_joined(context.place)
    block = _MeasuredBlock(context, bench, number, bench.measure(number))
    guard.refuse_other_run(context.hash, context.place)  # again: another run may own the output by now
    stored, largest = block.write_volumes()
    rows, tables = block.write_tables()
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


def bench_of(context: Context) -> Bench:
    """The opened inputs: opened once in each process for each driver."""
    name = context.hash + context.place.claim
    with _opening:
        if name not in _benches:
            _benches.clear()
            _benches[name] = context.analysis.open(context.inputs)
        return _benches[name]


def sums_part(where: Place, name: str, number: int) -> Location:
    """File of a block's part of a table of sums."""
    return part(where, _sums_folder(name), number)


def _sums_folder(name: str) -> str:
    return f"{name}.parts"


@dataclass(frozen=True)
class _MeasuredBlock:
    """What a block measured, checked against the bench's declarations and written."""

    context: Context
    bench: Bench
    number: int
    found: Mapping[str, Measured]

    def __post_init__(self) -> None:
        declared = {*self.bench.columns, *self.bench.keyed, *(p.name for p in self.bench.products)}
        if unlike := declared ^ set(self.found):
            self._refuse(f"returns {', '.join(sorted(self.found))} instead of {', '.join(sorted(declared))}: {unlike}")

    def write_volumes(self) -> tuple[dict[str, list[list[Any]]], dict[str, list[float]]]:
        """Write images and label images; return [bytes, checksum] of each shard, and the largest values, by group."""
        where, grid = self.context.place, self.bench.grid
        stored: dict[str, list[list[Any]]] = {}
        if grid is None:
            return stored, {}
        planned = volumes_of(self.context.analysis.tag, grid, self.bench.products)
        arrays = {o.path: self._array(o, planned, grid) for o in planned.outputs}
        writer = volumes.Writer(planned, where, self.number)
        for frame in grid.frames:
            made = {o.path: arrays[o.path][o.at(frame)] for o in planned.outputs if o.made_in(frame)}
            for group, shards in writer.add(frame, made).items():
                stored.setdefault(group, []).extend(shards)
        return stored, {o.group: _largest(o, arrays[o.path]) for o in planned.outputs}

    def _array(self, output: Output, planned: Volumes, grid: Grid) -> NDArray[Any]:
        found = self.found[output.product.name]
        lead = tuple(n for n in (output.times, len(output.channels)) if n)
        shape = (*lead, *grid.blocks[self.number].shape)
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.dtype(output.dtype):
            given = f"{found.dtype} of {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            self._refuse(f"returns {given} for {output.product.name!r}, which is {output.dtype} of {shape}")
        return found

    def write_tables(self) -> tuple[dict[str, int], dict[str, Stored]]:
        """Write the block's sums and rows; return the numbers of rows by table, and the files by folder."""
        where = self.context.place
        rows: dict[str, int] = {}
        stored: dict[str, Stored] = {}
        for name in self.bench.columns:
            sums = self.found[name]
            if not isinstance(sums, CellSums):
                self._refuse(f"returns {type(sums).__name__} for {name!r}, which is a table of sums (CellSums)")
            stored[_sums_folder(name)] = write_part(sums, sums_part(where, name, self.number), where.scratch)
            rows[name] = int(sums.ids.size)
        tables = {_sums_folder(name): keyed.arrow(self._keyed(name)) for name, keyed in self.bench.keyed.items()}
        tables |= {p.name: to_arrow(self._columns(p)) for p in self.bench.products if p.kind == "table"}
        for folder, table in tables.items():
            with writing(part(where, folder, self.number), where.scratch) as partial:
                pq.write_table(table, partial, compression="zstd")
                stored[folder] = measure(partial)
            rows[folder.removesuffix(".parts")] = table.num_rows
        return rows, stored

    def _keyed(self, name: str) -> Mapping[str, NDArray[Any]]:
        found, names = self.found[name], self.bench.keyed[name].names
        if not isinstance(found, Mapping) or found.keys() != {*names}:
            given = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            self._refuse(f"returns {given} for the table {name!r}, with columns {', '.join(names)}")
        return found

    def _columns(self, product: Product) -> dict[str, NDArray[Any]]:
        """Columns in the declared order and dtypes, so that the parts of all blocks have one schema."""
        found = self.found[product.name]
        if not isinstance(found, Mapping) or found.keys() != product.columns.keys():
            given = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            self._refuse(f"returns {given} for the table {product.name!r}, with columns {', '.join(product.columns)}")
        types = {name: object if kind == "str" else np.dtype(kind) for name, kind in product.columns.items()}
        return {name: np.asarray(found[name], kind) for name, kind in types.items()}

    def _refuse(self, fault: str) -> NoReturn:
        tag = self.context.analysis.tag
        raise OutputError(f"block {self.number} of the analysis {tag!r} {fault}; update its package")


def _largest(output: Output, data: NDArray[Any]) -> list[float]:
    """Largest value of each channel over time; of a label image the largest id."""
    if output.is_labels:
        return [data.max().item()]
    axes = tuple(n for n in range(data.ndim) if n != data.ndim - 4)
    return [float(n) for n in data.max(axis=axes)]
