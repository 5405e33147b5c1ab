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

from simexm.jobs.sums_by_id import CellSums, merged
from simexm.kernels.emission.emit import Emitters
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.stages.contract import Counted
from simexm.stages.sample.barcodes import AMPLICONS
from simexm.store.files import EMPTY, Stored, measure, remove, writing
from simexm.store.location import Location


def _electrons(plan: Plan) -> dict[str, dict[str, float]]:
    """Photo-electrons that one dye of each layer gives each channel in the plane that it lies in."""
    by_pair = {(p.channel, p.dye): p.in_focus for p in plan.imaging.formation.pairs}
    channels = [c.name for c in plan.simulation.microscope.all_channels]
    return {
        layer: {channel: by_pair.get((channel, dye), 0.0) for channel in channels}
        for layer, dye in plan.world.dye_of_layer.items()
    }


def cell_table(plan: Plan, counts: CellSums, counted: Counted) -> dict[str, NDArray[Any]]:
    """Columns of the table of cells, one row a cell of the specimen.

    `id`; `voxels` in the specimen; `layers` that label it, comma-separated; `amplicons` where there are rounds; `dyes_LAYER`;
    `photons_CHANNEL`: photo-electrons that the channel expects of its layers' dyes, each in the plane that it lies in.
    """
    labeller, seed = plan.simulation.labeller, plan.world.seed
    flags = {n.name: labeller.labelled(n.name, counts.ids, seed, counted) != 0 for n in labeller.named_layers}
    layers = np.array([",".join(n for n, f in flags.items() if f[i]) for i in range(counts.ids.size)], dtype=object)
    dyes = {layer: counts.columns[f"dyes_{layer}"] for layer in plan.world.dye_of_layer}
    columns: dict[str, NDArray[Any]] = {"id": counts.ids, "voxels": counts.columns["voxels"], "layers": layers}
    if plan.barcodes:
        columns[AMPLICONS] = counts.columns[AMPLICONS]
    columns |= {f"dyes_{layer}": n for layer, n in dyes.items()}
    electrons = _electrons(plan)
    for channel in (c.name for c in plan.simulation.microscope.all_channels):
        columns[f"photons_{channel}"] = sum(
            (n * electrons[layer][channel] for layer, n in dyes.items()), np.zeros(counts.ids.size)
        )
    return columns


def emitter_columns(plan: Plan, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    """Columns of the table of emitters.

    `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `layer`, `dye`; `cell`, 0 for unspecific label;
    `dyes` at the point; `photons_CHANNEL`, photo-electrons that the channel expects of them in the plane that they lie in.
    Dyes of amplicons have the layer `amplicons`, and neither dye nor photons, which differ from round to round.
    """
    origin = [float(o) for o in plan.geometry.specimen_origin_nm]
    columns: dict[str, NDArray[Any]] = {
        f"{axis}_nm": place + corner for axis, place, corner in zip("zyx", emitters[:3], origin, strict=True)
    }
    n = emitters.z.size
    columns["layer"] = np.full(n, layer, dtype=object)
    columns["dye"] = np.full(n, plan.world.dye_of_layer.get(layer), dtype=object)
    columns["cell"] = ids[emitters.cell]
    columns["dyes"] = emitters.weight
    unknown = {c.name: np.nan for c in plan.simulation.microscope.all_channels}
    for channel, electrons in _electrons(plan).get(layer, unknown).items():
        columns[f"photons_{channel}"] = (emitters.weight * electrons).astype(np.float32)
    return columns


CELL_PARTS, EMITTERS = "cells.parts", "emitters"
"""Folders of the tables that blocks write; a third one is AMPLICONS."""


def part(where: Place, folder: str, number: int) -> Location:
    """The file of one block's part of a table: its counts of cells, its emitters, or its amplicons."""
    return where.tables / folder / f"block-{number:07d}.parquet"


def write_amplicons(where: Place, number: int, columns: Mapping[str, NDArray[Any]]) -> Stored:
    """Write a block's amplicons in one step."""
    with writing(part(where, AMPLICONS, number), where.scratch) as partial:
        pq.write_table(_arrow(columns), partial, compression="zstd")
        return measure(partial)


def barcode_table(plan: Plan, counts: CellSums) -> dict[str, NDArray[Any]]:
    """Columns of the table of barcodes, one row a cell that carries one: `id`, `barcode`, `amplicons` in the specimen."""
    assert plan.barcodes is not None
    texts = np.array(plan.barcodes.texts(plan.barcodes.codes(counts.ids, plan.world.seed)), dtype=object)
    some = texts != ""
    return {"id": counts.ids[some], "barcode": texts[some], AMPLICONS: counts.columns[AMPLICONS][some]}


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
        self._path = part(where, EMITTERS, number)
        self._scratch = where.scratch
        self._whole = contextlib.ExitStack()  # from the first emitter on, the file that will appear
        self._writer: pq.ParquetWriter | None = None
        self.sink = self._add if EMITTERS in plan.simulation.keep else None
        self.stored = EMPTY

    def _add(self, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        table = _arrow(emitter_columns(self._plan, layer, emitters, ids))
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


def _arrow(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    return pa.table({k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()})


def merge_cells(plan: Plan, where: Place, rows: int, counted: Counted) -> int:
    """Add the blocks' parts up by id into `cells.parquet`, and `barcodes.parquet`; see `keyed.merged` for order and memory.

    Parameters
    ----------
    plan, where
        The run.
    rows
        Rows of all parts.
    counted
        Tables of the passes before.

    Returns
    -------
    int
        Cells that the codebook lacks, where there is one.
    """
    lacking = 0
    parts = (part(where, CELL_PARTS, n) for n in range(len(plan.blocks)))
    names = ["cells", *(["barcodes"] if plan.barcodes else [])]
    writers: dict[str, pq.ParquetWriter] = {}
    with contextlib.ExitStack() as stack:
        partial = {
            name: stack.enter_context(writing(where.tables / f"{name}.parquet", where.scratch)) for name in names
        }
        for sums in merged(parts, rows, count_columns(plan), where.scratch):
            lacking += plan.barcodes.lacking(sums.ids) if plan.barcodes else 0
            for name in names:
                table = _arrow(cell_table(plan, sums, counted) if name == "cells" else barcode_table(plan, sums))
                if name not in writers:
                    writers[name] = stack.enter_context(
                        pq.ParquetWriter(partial[name], table.schema, compression="zstd")
                    )
                writers[name].write_table(table)
    return lacking


def count_columns(plan: Plan) -> tuple[str, ...]:
    """What the blocks count of each cell."""
    dyes = (f"dyes_{layer}" for layer in plan.world.dye_of_layer)
    return ("voxels", *dyes, *((AMPLICONS,) if plan.barcodes else ()))
