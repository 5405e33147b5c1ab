"""Tables of a run: a Parquet part for each block, merged at the end in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.jobs.sums_by_id import CellSums, merged, write_part
from simexm.kernels.emission.points import Emitters
from simexm.planning.outputs import Table
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.run.block import BlockResult
from simexm.stages.contract import EMITTERS, Counted
from simexm.stages.products import Product
from simexm.stages.roles import electrons_of
from simexm.store.files import EMPTY, Stored, measure, remove, writing
from simexm.store.location import Location


def emitter_columns(plan: Plan, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    """Make the columns of the emitter table.

    `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `layer`, `dye`; `cell`, 0 for unspecific label;
    `dyes`, their number at the point; `photons_CHANNEL`, expected photo-electrons of the channel with the plane in focus.
    Layers whose dye varies between frames have neither dye nor photons.
    """
    origin = [float(o) for o in plan.geometry.specimen_origin_nm]
    columns: dict[str, NDArray[Any]] = {
        f"{axis}_nm": place + corner for axis, place, corner in zip("zyx", emitters[:3], origin, strict=True)
    }
    n = emitters.z.size
    columns["layer"] = np.full(n, layer, dtype=object)
    columns["dye"] = np.full(n, plan.context.dye_of_layer.get(layer), dtype=object)
    columns["cell"] = ids[emitters.cell]
    columns["dyes"] = emitters.weight
    unknown = dict.fromkeys(plan.context.channels, np.nan)
    for channel, electrons in electrons_of(plan.context).get(layer, unknown).items():
        columns[f"photons_{channel}"] = (emitters.weight * electrons).astype(np.float32)
    return columns


def folder(table: Product) -> str:
    """Return the folder of a table's parts."""
    return f"{table.name}.parts" if table.merge == "sum" else table.name


def part(where: Place, folder: str, number: int) -> Location:
    """Return the file of one block's part of a table."""
    return where.tables / folder / f"block-{number:07d}.parquet"


def write_parts(
    plan: Plan, where: Place, number: int, result: BlockResult, frames_only: bool = False
) -> dict[str, Stored]:
    """Write a block's parts of all tables but the emitters', each atomically; return them by folder.

    With `frames_only`, of tables to which every frame adds.
    """
    stored = {}
    for product in (t.product for t in plan.tables if t.product.each_frame or not frames_only):
        path = part(where, folder(product), number)
        if product.name in result.rows:
            with writing(path, where.scratch) as partial:
                pq.write_table(to_arrow(result.rows[product.name]), partial, compression="zstd")
                stored[folder(product)] = measure(partial)
        elif product.name in result.sums:
            stored[folder(product)] = write_part(result.sums[product.name], path, where.scratch)
    return stored


class EmitterFile:
    """Stream a block's emitters through `sink` into a Parquet file that is renamed into place when complete."""

    def __init__(self, plan: Plan, where: Place, number: int) -> None:
        self._plan = plan
        self._path = part(where, EMITTERS.name, number)
        self._scratch = where.scratch
        self._file = contextlib.ExitStack()  # open from the first emitter on
        self._writer: pq.ParquetWriter | None = None
        self.sink = self._add if EMITTERS.name in plan.simulation.keep else None
        self.stored = EMPTY  # size and checksum, once it is closed

    def _add(self, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        table = to_arrow(emitter_columns(self._plan, layer, emitters, ids))
        if self._writer is None:
            self._partial = self._file.enter_context(writing(self._path, self._scratch))
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __enter__(self) -> EmitterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                self.stored = measure(self._partial)
            elif self.sink is not None and kind is None:
                remove(self._path, self._scratch)
        except BaseException as failed:
            self._file.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._file.__exit__(kind, error, trace)


def to_arrow(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Convert columns to a table; columns of objects are texts."""
    return pa.table({k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()})


def merge(plan: Plan, where: Place, rows: Mapping[str, int], counted: Counted) -> dict[str, int]:
    """Add up the blocks' parts of each summed table, and make the tables derived from it.

    See `sums_by_id.merged` for order and memory; `rows` are the numbers of rows of all parts, by table, and `counted` the
    tables of the plan's passes. Returns sums over the rows, see `Stage.sums`.
    """
    totals: dict[str, int] = {}
    for product in (t.product for t in plan.tables if t.product.merge == "sum"):
        parts = (part(where, folder(product), n) for n in range(len(plan.blocks)))
        partial: dict[str, Path] = {}
        writers: dict[str, pq.ParquetWriter] = {}
        with contextlib.ExitStack() as stack:
            for one in (t.product for t in derived(plan, product)):
                partial[one.name] = stack.enter_context(writing(where.tables / file_name(one), where.scratch))
            for sums in merged(parts, rows.get(product.name, 0), list(product.columns), where.scratch):
                for name, columns in finished(plan, product, sums, counted, totals).items():
                    data = to_arrow(columns)
                    if name not in writers:
                        writer = pq.ParquetWriter(partial[name], data.schema, compression="zstd")
                        writers[name] = stack.enter_context(writer)
                    writers[name].write_table(data)
    return totals


def derived(plan: Plan, product: Product) -> list[Table]:
    """List a summed table and the tables derived from it."""
    return [t for t in plan.tables if t.product == product or t.product.source == product.name]


def finished(
    plan: Plan, product: Product, sums: CellSums, counted: Counted, totals: dict[str, int]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Make the columns of a summed table and those derived from it for some rows; add the stages' sums to `totals`."""
    columns = {product.key: sums.ids, **sums.columns}
    tables = {}
    for table in derived(plan, product):
        stage = plan.stages[table.stages[0]]
        tables[table.product.name] = stage.table(table.product, columns, plan.context, counted)
        for name, value in stage.sums(table.product, columns).items():
            totals[name] = totals.get(name, 0) + value
    return tables


def file_name(table: Product) -> str:
    """Return the file of a merged table, or the folder of one that is not merged."""
    return table.name if table.merge == "rows" else f"{table.name}.parquet"
