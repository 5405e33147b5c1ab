"""Tables of a run: a Parquet part for each block, and a merge of bounded memory at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
    """Columns of the table of emitters.

    `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `layer`, `dye`; `cell`, 0 for unspecific label;
    `dyes` at the point; `photons_CHANNEL`, photo-electrons that the channel expects of them in the plane that they lie in.
    Layers whose dye differs from frame to frame have neither dye nor photons.
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
    """Folder of the parts that blocks write of a table."""
    return f"{table.name}.parts" if table.merge == "sum" else table.name


def part(where: Place, folder: str, number: int) -> Location:
    """The file of one block's part of a table."""
    return where.tables / folder / f"block-{number:07d}.parquet"


def write_parts(plan: Plan, where: Place, number: int, result: BlockResult) -> dict[str, Stored]:
    """Write a block's parts of all tables, each in one step, by folder; the emitters' is written as they come."""
    stored = {}
    for product in (t.product for t in plan.tables):
        path = part(where, folder(product), number)
        if product.name in result.rows:
            with writing(path, where.scratch) as partial:
                pq.write_table(to_arrow(result.rows[product.name]), partial, compression="zstd")
                stored[folder(product)] = measure(partial)
        elif product.name in result.sums:
            stored[folder(product)] = write_part(result.sums[product.name], path, where.scratch)
    return stored


class EmitterFile:
    """A block's emitters, streamed into a Parquet file that appears whole; nothing where they are not kept.

    Attributes
    ----------
    sink
        Takes the emitters; None where they are not kept.
    stored
        What was written, once it is closed.
    """

    def __init__(self, plan: Plan, where: Place, number: int) -> None:
        self._plan = plan
        self._path = part(where, EMITTERS.name, number)
        self._scratch = where.scratch
        self._whole = contextlib.ExitStack()  # from the first emitter on, the file that will appear
        self._writer: pq.ParquetWriter | None = None
        self.sink = self._add if EMITTERS.name in plan.simulation.keep else None
        self.stored = EMPTY

    def _add(self, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        table = to_arrow(emitter_columns(self._plan, layer, emitters, ids))
        if self._writer is None:
            self._partial = self._whole.enter_context(writing(self._path, self._scratch))
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
            self._whole.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._whole.__exit__(kind, error, trace)


def to_arrow(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Columns as a table; those of objects are texts."""
    return pa.table({k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()})


def merge(plan: Plan, where: Place, rows: Mapping[str, int], counted: Counted) -> dict[str, int]:
    """Add up the blocks' parts of each table that is added up, and make the tables that are derived of it.

    See `sums_by_id.merged` for order and memory.

    Parameters
    ----------
    plan, where
        The run.
    rows
        Rows of all parts, by table.
    counted
        Tables of the passes before.

    Returns
    -------
    dict
        Sums over the rows, see `Stage.sums`.
    """
    totals: dict[str, int] = {}
    for table in (t for t in plan.tables if t.product.merge == "sum"):
        product = table.product
        parts = (part(where, folder(product), n) for n in range(len(plan.blocks)))
        made = made_of(plan, product)
        writers: dict[str, pq.ParquetWriter] = {}
        with contextlib.ExitStack() as stack:
            partial = {
                one.product.name: stack.enter_context(writing(where.tables / file_name(one.product), where.scratch))
                for one in made
            }
            for sums in merged(parts, rows.get(product.name, 0), list(product.columns), where.scratch):
                for name, columns in finished(plan, product, sums, counted, totals).items():
                    data = to_arrow(columns)
                    if name not in writers:
                        writers[name] = stack.enter_context(
                            pq.ParquetWriter(partial[name], data.schema, compression="zstd")
                        )
                    writers[name].write_table(data)
    return totals


def made_of(plan: Plan, product: Product) -> list[Table]:
    """The tables that are made of the sums of a table: itself, and those derived of it."""
    return [t for t in plan.tables if t.product == product or t.product.source == product.name]


def finished(
    plan: Plan, product: Product, sums: CellSums, counted: Counted, totals: dict[str, int]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Columns of the tables that are made of some rows of a table, by name; adds to `totals` what stages sum over them."""
    columns = {product.key: sums.ids, **sums.columns}
    tables = {}
    for table in made_of(plan, product):
        stage = plan.stages[table.stages[0]]
        tables[table.product.name] = stage.table(table.product, columns, plan.context, counted)
        for name, value in stage.sums(table.product, columns).items():
            totals[name] = totals.get(name, 0) + value
    return tables


def file_name(table: Product) -> str:
    """File of a table that is merged, or folder of one that is not."""
    return table.name if table.merge == "rows" else f"{table.name}.parquet"
