"""One block: read the ground truth with its halo, run the stages tile by tile, gather what is stored.

A pure function of plan, source and block number. It knows stages by what they read and write only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.engine.keyed import CellSums, add_up
from simexm.engine.memory import SLAB_BYTES
from simexm.engine.plan import Plan
from simexm.grid import Box, Tiling
from simexm.kernels.cells import CellIndex
from simexm.kernels.deposit import deposit_counts
from simexm.kernels.emit import Emitters
from simexm.kernels.gather import look_up
from simexm.sources.base import LabelSource
from simexm.stages.base import Chunk, Counted, EmitterStream, LabelBlock, Stage, Tally, Work

EmitterSink = Callable[[str, Emitters, NDArray[np.uint64]], None]
"""Called with a layer, emitters (nm of tissue from the specimen's corner) and the ids that their cell indices stand for."""


@dataclass
class BlockResult:
    """All that a block makes.

    Attributes
    ----------
    box
        Pixels of the image.
    arrays
        By the output's path: (channels, z, y, x) for images, (z, y, x) for labels.
    cells
        Counts by cell.
    statistics
        A few hundred bytes for the journal.
    """

    box: Box
    arrays: dict[str, NDArray[Any]]
    cells: CellSums
    statistics: dict[str, Any] = field(default_factory=dict)


def compute_box(
    plan: Plan, source: LabelSource, counted: Counted, box: Box, sink: EmitterSink | None = None
) -> BlockResult:
    """Compute a box of pixels, tile by tile.

    Parameters
    ----------
    plan
        What to do.
    source
        Where labels come from.
    counted
        Tables of the plan's passes.
    box
        A block, or any other box.
    sink
        Takes the emitters, if they are kept.
    """
    arrays = {
        o.path: np.zeros(box.shape if o.is_labels else (len(o.channels), *box.shape), o.dtype) for o in plan.outputs
    }
    parts: list[CellSums] = []
    images: list[dict[str, Any]] = [
        {"clipped": 0, "histogram": np.zeros(129, np.int64)} for _ in plan.outputs[0].channels
    ]
    unspecific: dict[str, int] = {}
    for tile in Tiling(box, plan.tile):
        work = compute_tile(plan, source, counted, tile, sink)
        _place(plan, work, arrays, tile.relative_to(box.start))
        parts.append(_counts(work, tuple(plan.world.dye_of_layer)))
        for total, new in zip(images, work.values.get("image_statistics", ()), strict=False):
            total["clipped"] += new["clipped"]
            total["histogram"] += new["histogram"]
        for layer, dyes in work.tally.unspecific.items():
            unspecific[layer] = unspecific.get(layer, 0) + dyes
    cells = add_up(parts)
    statistics = {
        "voxels": int(cells.columns["voxels"].sum()),
        "dyes": {layer: int(cells.columns[f"dyes_{layer}"].sum()) for layer in plan.world.dye_of_layer},
        "unspecific": {layer: n for layer, n in unspecific.items() if n},
        "images": [{"clipped": i["clipped"], "histogram": _sparse(i["histogram"])} for i in images],
    }
    return BlockResult(box, arrays, cells, statistics)


def compute_tile(plan: Plan, source: LabelSource, counted: Counted, tile: Box, sink: EmitterSink | None) -> Work:
    """Run the stages on one tile."""
    boxes = plan.boxes(tile)
    wanted = plan.geometry.voxels(boxes["labels"])
    labels, masks = read_labels(source, wanted, plan.world.masks)
    simulation = plan.simulation
    values: dict[str, Any] = {
        "labels": labels,
        "masks": masks,
        "dyes": simulation.fluorophores(),
        "channels": [c.name for c in simulation.microscope.all_channels],
    }
    work = Work(plan.world, tile, boxes, values, Tally(), counted)
    layers = tuple(plan.world.dye_of_layer)
    dyes = np.zeros((len(layers), *tile.shape), np.int64) if _keeps_labelled(plan) else None
    for stage in plan.stages:
        stage.run(work)
        if "emitters" in {q.name for q in stage.writes}:
            values["emitters"] = _tapped(values["emitters"], work, layers, dyes, sink)
    if "emitters" in values and not _consumed(plan.stages):
        stream: EmitterStream = values["emitters"]
        for dye in dict.fromkeys(stream.dyes.values()):
            for _ in stream.chunks(dye):
                pass
    # streams close over the work that holds them: a ring that would keep the tile's arrays until Python looks for rings
    for name in [n for n, v in values.items() if isinstance(v, EmitterStream)]:
        del values[name]
    if dyes is not None:
        values["labelled"] = dyes.astype(np.uint32)
    own = plan.geometry.own_voxels(tile).relative_to(labels.box.start)
    work.tally.voxels = np.bincount(labels.index[own.slices].reshape(-1), minlength=len(labels.cells.ids))
    return work


def read_labels(source: LabelSource, box: Box, masks: Sequence[str]) -> tuple[LabelBlock, dict[str, NDArray[np.bool_]]]:
    """Read a box and number its cells; with it the named masks.

    It is done slab by slab, so that ids of 64 bits need not be held at once, and a source that makes ids and masks in one go
    is asked for both of one slab together.
    """
    cells = CellIndex()
    index = np.empty(box.shape, np.int32)
    found = {name: np.empty(box.shape, np.bool_) for name in masks}
    plane = box.shape[1] * box.shape[2] * (source.dtype.itemsize + 4)
    depth = max(1, SLAB_BYTES // max(1, plane))
    # slabs end where chunks of 64 planes do, as far as they can, so that no chunk is decoded twice
    depth = depth // 64 * 64 or depth
    z = box.start[0]
    while z < box.stop[0]:
        stop = min(box.stop[0], (z // depth + 1) * depth)
        slab = Box((z, *box.start[1:]), (stop, *box.stop[1:]))
        here = slice(z - box.start[0], stop - box.start[0])
        index[here] = cells.add(source.read(slab))
        for name, mask in found.items():
            mask[here] = source.read_region(name, slab)
        z = stop
    return LabelBlock(box, index, cells), found


def _keeps_labelled(plan: Plan) -> bool:
    return any(o.path == "labelled" for o in plan.outputs) or plan.main == "labelled"


def _consumed(stages: tuple[Stage, ...]) -> bool:
    return any("expected" in {q.name for q in s.writes} for s in stages)


def _tapped(
    stream: EmitterStream,
    work: Work,
    layers: tuple[str, ...],
    counted: NDArray[np.int64] | None,
    sink: EmitterSink | None,
) -> EmitterStream:
    """The same stream, whose chunks are also counted per pixel and handed to the sink, as wanted."""
    if counted is None and sink is None:
        return stream
    z, y, x = (1.0 / float(p) for p in work.world.geometry.pixel_tissue_nm)
    labels: LabelBlock = work.values["labels"]

    def chunks(dye: str) -> Iterator[Chunk]:
        for chunk in stream.chunks(dye):
            if chunk.layer is not None:
                e = chunk.emitters
                if counted is not None:
                    deposit_counts(
                        e.z, e.y, e.x, e.weight, (z, y, x), work.pixels.start, counted[layers.index(chunk.layer)]
                    )
                if sink is not None:
                    mine = e.own != 0
                    sink(chunk.layer, e.select(mine), labels.cells.ids)
            yield chunk

    return EmitterStream(stream.dyes, stream.reach_nm, chunks)


def _place(plan: Plan, work: Work, arrays: Mapping[str, NDArray[Any]], where: Box) -> None:
    """Copy what a tile made into the block's arrays."""
    labels: LabelBlock = work.values["labels"]
    ids = labels.cells.ids
    labeller = plan.simulation.labeller
    for output in plan.outputs:
        if not output.is_labels:
            quantity = output.path or plan.main
            arrays[output.path][(slice(None), *where.slices)] = work.values[quantity]
        else:
            shown = ids
            if output.layer != "cells":
                flags = labeller.labelled(output.layer, ids, plan.world.seed, work.counted)
                shown = np.where(flags, ids, np.uint64(0))
            truth: NDArray[np.int32] = work.values[f"truth_{output.region}" if output.region else "truth"]
            look_up(shown.astype(output.dtype), truth, arrays[output.path][where.slices])


def _counts(work: Work, layers: tuple[str, ...]) -> CellSums:
    labels: LabelBlock = work.values["labels"]
    ids = labels.cells.ids
    assert work.tally.voxels is not None
    dyes = {f"dyes_{layer}": work.tally.dyes.get(layer, np.zeros(ids.size, np.int64)) for layer in layers}
    return by_id(ids, work.tally.voxels > 0, {"voxels": work.tally.voxels, **dyes})


def by_id(ids: NDArray[np.uint64], here: NDArray[np.bool_], columns: Mapping[str, NDArray[np.int64]]) -> CellSums:
    """Sums by cell index as sums by id, of the cells that are `here`."""
    here = here & (ids != 0)
    order = np.argsort(ids[here], kind="stable")
    return CellSums(ids[here][order], {name: n[here][order] for name, n in columns.items()})


def _sparse(histogram: NDArray[np.int64]) -> list[list[int]]:
    """Bins that hold something, as [bin, number]."""
    return [[int(b), int(histogram[b])] for b in np.flatnonzero(histogram)]
