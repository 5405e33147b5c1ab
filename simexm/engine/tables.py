"""Tables of a run: a Parquet part for each block, and a merge of bounded memory at the end."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simexm.engine.block import CellCounts, merged_counts
from simexm.engine.plan import Plan
from simexm.kernels.emit import Emitters
from simexm.store.place import Place
from simexm.store.shards import publish

SHARE_ROWS = 2_000_000
"""Rows of the parts that are merged at once, as long as that takes no more than `MOST_SHARES` shares."""

MOST_SHARES = 256


def _electrons(plan: Plan) -> dict[str, dict[str, float]]:
    """Photo-electrons that one dye of each layer gives each channel in the plane that it lies in."""
    optics = plan.world.optics
    assert optics is not None
    by_pair = {(p.channel, p.dye): p.in_focus for p in optics.pairs}
    channels = [c.name for c in plan.simulation.optics.all_channels]
    return {
        layer: {channel: by_pair.get((channel, dye), 0.0) for channel in channels}
        for layer, dye in plan.world.dye_of_layer.items()
    }


def cell_table(plan: Plan, counts: CellCounts) -> dict[str, NDArray[Any]]:
    """Columns of the table of cells, one row a cell of the specimen.

    `id`; `voxels` in the specimen; `layers` that label it, comma-separated; `dyes_LAYER`; `photons_CHANNEL`: photo-electrons
    that the channel expects of its dyes, each in the plane that it lies in.
    """
    labelling = plan.simulation.labelling
    flags = {n.name: labelling.labelled(n, counts.ids, plan.world.seed) != 0 for n in labelling.layers}
    layers = np.array([",".join(n for n, f in flags.items() if f[i]) for i in range(counts.ids.size)], dtype=object)
    columns: dict[str, NDArray[Any]] = {"id": counts.ids, "voxels": counts.voxels, "layers": layers}
    columns |= {f"dyes_{layer}": n for layer, n in counts.dyes.items()}
    electrons = _electrons(plan)
    for channel in (c.name for c in plan.simulation.optics.all_channels):
        columns[f"photons_{channel}"] = sum(
            (counts.dyes[layer] * electrons[layer][channel] for layer in counts.dyes), np.zeros(counts.ids.size)
        )
    return columns


def emitter_columns(plan: Plan, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    """Columns of the table of emitters.

    `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `layer`, `dye`; `cell`, 0 for unspecific label;
    `dyes` at the point; `photons_CHANNEL`, photo-electrons that the channel expects of them in the plane that they lie in.
    """
    origin = [float(o) for o in plan.geometry.image_origin_nm]
    columns: dict[str, NDArray[Any]] = {
        f"{axis}_nm": place + corner for axis, place, corner in zip("zyx", emitters[:3], origin, strict=True)
    }
    n = emitters.z.size
    columns["layer"] = np.full(n, layer, dtype=object)
    columns["dye"] = np.full(n, plan.world.dye_of_layer[layer], dtype=object)
    columns["cell"] = ids[emitters.cell]
    columns["dyes"] = emitters.weight
    for channel, electrons in _electrons(plan)[layer].items():
        columns[f"photons_{channel}"] = (emitters.weight * electrons).astype(np.float32)
    return columns


def counts_table(counts: CellCounts) -> pa.Table:
    """A block's counts as a table: the keyed part that `merge_cells` adds up."""
    columns = {"id": counts.ids, "voxels": counts.voxels} | {f"dyes_{k}": v for k, v in counts.dyes.items()}
    return pa.table({k: pa.array(v) for k, v in columns.items()})


def part(where: Place, number: int) -> Path:
    """The file of one block's counts of cells."""
    return where.tables / "cells.parts" / f"block-{number:07d}.parquet"


def emitter_part(where: Place, number: int) -> Path:
    """The file of one block's emitters."""
    return where.tables / "emitters" / f"block-{number:07d}.parquet"


def write_counts(counts: CellCounts, path: Path, scratch: Path) -> tuple[int, int]:
    """Write a block's part in one step; return its bytes and rows."""
    table = counts_table(counts)
    partial = scratch / f"{uuid.uuid4().hex}.partial"
    pq.write_table(table, partial, compression="zstd")
    size = partial.stat().st_size
    publish(partial, path)
    return size, table.num_rows


class EmitterFile:
    """A block's emitters, streamed into a Parquet file that appears whole; nothing where they are not kept.

    Attributes
    ----------
    sink
        Takes the emitters; None where they are not kept.
    bytes
        Size of the file once it is closed; 0 where there is none.
    """

    def __init__(self, plan: Plan, where: Place, number: int) -> None:
        self._plan = plan
        self._path = emitter_part(where, number)
        self._partial = where.scratch / f"{uuid.uuid4().hex}.partial"
        self._writer: pq.ParquetWriter | None = None
        self.sink = self._add if "emitters" in plan.simulation.keep else None
        self.bytes = 0

    def _add(self, layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        table = _arrow(emitter_columns(self._plan, layer, emitters, ids))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __enter__(self) -> EmitterFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is not None:
            self._partial.unlink(missing_ok=True)
        elif self._writer is not None:
            self.bytes = self._partial.stat().st_size
            publish(self._partial, self._path)
        elif self.sink is not None:
            self._path.unlink(missing_ok=True)


def _arrow(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    return pa.table({k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()})


def merge_cells(plan: Plan, where: Place, rows: int) -> None:
    """Add the blocks' parts up by id into `cells.parquet`, in memory bounded by `SHARE_ROWS` or a 256th of all rows.

    Rows are shared out among files by a hash of the id in one pass over the parts; then one share after the other is added up
    and appended, so that rows are in ascending order of ids within a share.

    Parameters
    ----------
    plan, where
        The run.
    rows
        Rows of all parts.
    """
    shares = min(MOST_SHARES, max(1, -(-rows // SHARE_ROWS)))
    parts: Iterator[Path] = (part(where, n) for n in range(len(plan.blocks)))
    partial = where.scratch / f"{uuid.uuid4().hex}.partial"
    writer: pq.ParquetWriter | None = None
    try:
        for counts in _shares(plan, where, parts, shares):
            table = _arrow(cell_table(plan, counts))
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    publish(partial, where.tables / "cells.parquet")


def _shares(plan: Plan, where: Place, parts: Iterator[Path], shares: int) -> Iterator[CellCounts]:
    """The counts of each share of the cells, added up by id."""
    if shares == 1:
        yield merged_counts([_none(plan), *(_counts_of(plan, pq.read_table(p)) for p in parts)])
        return
    files = [where.scratch / f"{uuid.uuid4().hex}.partial" for _ in range(shares)]
    schema = counts_table(_none(plan)).schema
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(f, schema, compression="zstd")) for f in files]
        for path in parts:
            table = pq.read_table(path)
            share = (table["id"].to_numpy() * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(shares)
            for n in np.unique(share):
                writers[n].write_table(table.filter(pa.array(share == n)))
    for file in files:
        yield merged_counts([_none(plan), _counts_of(plan, pq.read_table(file))])
        file.unlink()


def _none(plan: Plan) -> CellCounts:
    empty = np.zeros(0, np.int64)
    return CellCounts(np.zeros(0, np.uint64), empty, dict.fromkeys(plan.world.dye_of_layer, empty))


def _counts_of(plan: Plan, table: pa.Table) -> CellCounts:
    dyes = {layer: table[f"dyes_{layer}"].to_numpy() for layer in plan.world.dye_of_layer}
    return CellCounts(table["id"].to_numpy(), table["voxels"].to_numpy(), dyes)
