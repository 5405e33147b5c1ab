"""Tables of a run: a Parquet part for each block, and a merge of bounded memory at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simexm.engine.block import CellCounts, merged_counts
from simexm.engine.plan import Plan
from simexm.kernels.emit import Emitters

PARTITION_ROWS = 2_000_000
"""Rows of the parts that are merged at once."""

__all__ = ["cell_table", "emitter_columns", "merge_cells", "merged_counts", "write_counts"]


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


def write_counts(counts: CellCounts, path: Path, scratch: Path) -> int:
    """Write a block's part in one step; return its bytes."""
    return replace_table(counts_table(counts), path, scratch)


def replace_table(table: pa.Table, path: Path, scratch: Path) -> int:
    """Write a Parquet file that appears whole; return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch / f"{path.parent.name}-{path.name}.partial"
    pq.write_table(table, partial, compression="zstd")
    size = partial.stat().st_size
    partial.replace(path)
    return size


def merge_cells(plan: Plan, parts: list[Path], path: Path, scratch: Path) -> int:
    """Add the blocks' parts up by id into one table, in memory bounded by `PARTITION_ROWS`; return its rows.

    Rows are shared out by a hash of the id; one share after the other is read from all parts, added up and appended, so rows
    are in ascending order of ids within a share.
    """
    total = sum(pq.read_metadata(p).num_rows for p in parts)
    shares = max(1, -(-total // PARTITION_ROWS))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch / f"{path.name}.partial"
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for share in range(shares):
            columns = cell_table(plan, merged_counts([*_share(plan, parts, share, shares)]))
            table = pa.table(
                {k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()}
            )
            rows += table.num_rows
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    partial.replace(path)
    return rows


def _share(plan: Plan, parts: Iterable[Path], share: int, shares: int) -> Iterator[CellCounts]:
    empty = np.zeros(0, np.int64)
    yield CellCounts(np.zeros(0, np.uint64), empty, dict.fromkeys(plan.world.dye_of_layer, empty))
    for part in parts:
        table = pq.read_table(part)
        ids = table["id"].to_numpy()
        mine = (ids * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(shares) == share
        dyes = {layer: table[f"dyes_{layer}"].to_numpy()[mine] for layer in plan.world.dye_of_layer}
        yield CellCounts(ids[mine], table["voxels"].to_numpy()[mine], dyes)
