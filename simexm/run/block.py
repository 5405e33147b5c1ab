"""One block: read the ground truth with its halo, run the stages tile by tile, gather what is stored.

A pure function of plan, source and block number. It knows stages by what they read and write only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Tiling
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.detector.camera import BINS
from simexm.kernels.emission.amplicons import Amplicons
from simexm.kernels.emission.emit import Emitters
from simexm.kernels.labels.cells import count_voxels, counts
from simexm.kernels.numbers.gather import look_up
from simexm.planning.plan import Plan
from simexm.run.labels import TileLabels
from simexm.sources.base import LabelSource
from simexm.stages.contract import Chunk, Counted, EmitterStream, LabelPart, Stage, Tally, Work
from simexm.stages.sample.barcodes import AMPLICONS
from simexm.timing import timed, timed_each

EmitterSink = Callable[[str, Emitters, NDArray[np.uint64]], None]
"""Called with a layer, emitters (nm of tissue from the specimen's corner) and the ids that their cell indices stand for."""


@dataclass
class BlockResult:
    """All that a block makes of one image: the only one, or that of a round.

    Attributes
    ----------
    box
        Pixels of the image.
    round
        Which round it is, from 1 on; 0 where there are none.
    arrays
        By the output's path: (channels, z, y, x) for images, (z, y, x) for labels (with the first round alone).
    cells
        Counts by cell, of the specimen, not of the round.
    statistics
        A few hundred bytes for the journal; of this round and those before together.
    amplicons
        Columns of the table of amplicons.
    """

    box: Box
    round: int
    arrays: dict[str, NDArray[Any]]
    cells: CellSums
    statistics: dict[str, Any] = field(default_factory=dict)
    amplicons: dict[str, NDArray[Any]] = field(default_factory=dict)


def compute_box(
    plan: Plan, source: LabelSource, counted: Counted, box: Box, sink: EmitterSink | None = None
) -> BlockResult:
    """Compute a box of pixels, of the first round where there are several; see `compute_rounds`."""
    rounds = compute_rounds(plan, source, counted, box, sink)
    try:
        return next(rounds)
    finally:
        rounds.close()


def compute_rounds(
    plan: Plan, source: LabelSource, counted: Counted, box: Box, sink: EmitterSink | None = None
) -> Generator[BlockResult, None, None]:
    """Compute a box of pixels, tile by tile, and round by round: drop one result before you ask for the next.

    What is the same in all rounds is kept between them where the box is a single tile, and made again where it is not, so that
    memory follows neither the rounds nor the box.

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
    tiles = Tiling(box, plan.tile)
    parts: list[CellSums] = []
    images: list[dict[str, Any]] = [
        {"clipped": 0, "histogram": np.zeros(BINS, np.int64)} for _ in plan.outputs[0].channels
    ]
    unspecific: dict[str, int] = {}
    largest: dict[str, list[float]] = {}
    amplicons: list[dict[str, NDArray[Any]]] = []
    kept: Work | None = None
    for number in plan.rounds:
        arrays = {
            o.path: np.zeros(box.shape if o.is_labels else (len(o.channels), *box.shape), o.dtype)
            for o in plan.outputs
            if o.round == number
        }
        for tile in tiles:
            work = kept or prepare_tile(plan, source, counted, tile, sink)
            compute_tile(plan, work, number)
            with timed("tiles put together"):
                _place(plan, work, arrays, tile.relative_to(box.start))
            for total, new in zip(images, work.values.get("image_statistics", ()), strict=False):
                total["clipped"] += new["clipped"]
                total["histogram"] += new["histogram"]
            if number == plan.rounds[0]:
                with timed("tables"):
                    parts.append(_counts(work, tuple(plan.world.dye_of_layer)))
                for layer, dyes in work.tally.unspecific.items():
                    unspecific[layer] = unspecific.get(layer, 0) + dyes
                if plan.barcodes:
                    amplicons.append(_amplicons(plan, work))
            if len(tiles) == 1 and number != plan.rounds[-1]:
                kept = work
                _forget(plan, work)
            else:
                kept = None
                _release(work)
            del work
        for output in (o for o in plan.outputs if o.round == number):
            data = arrays[output.path]
            largest[output.group] = [part.max().item() for part in (data[None] if output.is_labels else data)]
        cells = add_up(parts)
        parts = [cells]
        statistics = {
            "voxels": int(cells.columns["voxels"].sum()),
            "dyes": {layer: int(cells.columns[f"dyes_{layer}"].sum()) for layer in plan.world.dye_of_layer},
            "unspecific": {layer: n for layer, n in unspecific.items() if n},
            "largest": dict(largest),
            "images": [{"clipped": i["clipped"], "histogram": _sparse(i["histogram"])} for i in images],
        }
        rows = {k: np.concatenate([a[k] for a in amplicons]) for k in amplicons[0]} if amplicons else {}
        if plan.barcodes:
            statistics["amplicons"] = int(cells.columns["amplicons"].sum())
        result = BlockResult(box, number, arrays, cells, statistics, rows)
        del arrays
        yield result
        del result


def prepare_tile(plan: Plan, source: LabelSource, counted: Counted, tile: Box, sink: EmitterSink | None) -> Work:
    """Begin a tile and run the stages that are the same in all rounds; none where there are no rounds."""
    boxes = plan.boxes(tile)
    simulation = plan.simulation
    values: dict[str, Any] = {
        "dyes": simulation.fluorophores(),
        "channels": [c.name for c in simulation.microscope.all_channels],
        "sink": sink,
    }
    work = Work(plan.world, tile, boxes, values, Tally(), counted)
    own = plan.geometry.own_voxels(tile)

    def see(part: LabelPart) -> None:
        for stage in plan.stages:
            with timed(stage.tag):
                stage.see(part, work)
        mine = own.intersect(part.core).relative_to(part.box.start)
        if not part.again and not mine.is_empty:
            with timed("cells: count voxels"):
                count_voxels(part.index, mine.start, mine.stop, work.tally.voxels.at(part.cells.ids))

    wanted = plan.geometry.voxels(boxes["labels"])
    with timed("cells: index"):  # with the first use of compiled code in each worker
        work.stream = TileLabels(source, wanted, plan.world.masks, plan.part, see)
    _run(plan, work, _stages(plan)[0])
    return work


def compute_tile(plan: Plan, work: Work, number: int) -> None:
    """Run the stages on one tile, for the round `number`."""
    values, tile = work.values, work.pixels
    work.round = number
    if _keeps_labelled(plan):
        values["counting"] = work.device.zeros((len(plan.labelled_names), *tile.shape), np.int64)
    _run(plan, work, _stages(plan)[1])
    if "emitters" in values and not _consumed(plan.stages):
        stream: EmitterStream = values["emitters"]
        for dye in dict.fromkeys(stream.dyes.values()):
            for _ in stream.chunks(dye):
                pass
    if _keeps_labelled(plan):
        values["labelled"] = work.device.to_host(values.pop("counting")).astype(np.uint32)
    work.labels.survey()


def _stages(plan: Plan) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """The stages that are the same in all rounds, and those that are run for each: all where there are no rounds."""
    if plan.barcodes is None:
        return (), plan.stages
    once: list[Stage] = []
    each: list[Stage] = []
    varying: set[str] = set()
    for stage in plan.stages:
        changes = bool(varying & {q.name for q in stage.inputs})
        (each if changes else once).append(stage)
        if changes or stage is plan.barcodes:
            varying |= {q.name for q in stage.writes}
    return tuple(once), tuple(each)


def _run(plan: Plan, work: Work, stages: tuple[Stage, ...]) -> None:
    last = [s for s in plan.stages if "emitters" in {q.name for q in s.writes}][-1:]
    for stage in stages:
        with timed(stage.tag):
            stage.run(work)
        if last and stage is last[0]:
            work.values["emitters"] = _tapped(plan, work, _timed(work.values["emitters"]))


def _forget(plan: Plan, work: Work) -> None:
    """Drop what a round made."""
    for stage in _stages(plan)[1]:
        for q in stage.writes:
            work.values.pop(q.name, None)
    work.values.pop("labelled", None)


def _release(work: Work) -> None:
    """Streams close over the work that holds them: a ring that would keep the tile's arrays until Python looks for rings."""
    work.stream = None
    for name in [n for n, v in work.values.items() if isinstance(v, EmitterStream)]:
        del work.values[name]


def _keeps_labelled(plan: Plan) -> bool:
    return any(o.path == "labelled" for o in plan.outputs) or plan.main == "labelled"


def _consumed(stages: tuple[Stage, ...]) -> bool:
    return any("expected" in {q.name for q in s.writes} for s in stages)


def _timed(stream: EmitterStream) -> EmitterStream:
    def chunks(dye: str) -> Iterator[Chunk]:
        return timed_each(
            stream.chunks(dye), "emission", lambda chunk: f"emission: {chunk.layer}" if chunk.layer else ""
        )

    return replace(stream, chunks=chunks)


def _tapped(plan: Plan, work: Work, stream: EmitterStream) -> EmitterStream:
    """The stream of emitters, whose chunks are also counted per pixel and handed to the sink, as wanted."""
    sink: EmitterSink | None = work.values["sink"]
    counts = _keeps_labelled(plan)
    if not counts and sink is None:
        return stream
    geometry = work.world.geometry
    uniform = geometry.transform.is_uniform
    z, y, x = (1.0 / float(p) for p in (geometry.pixel_tissue_nm if uniform else geometry.pixel_nm))
    names = plan.labelled_names

    def chunks(dye: str) -> Iterator[Chunk]:
        for chunk in stream.chunks(dye):
            if chunk.layer is not None:
                if counts:
                    pixels = work.values["counting"][names.index(chunk.layer), ...]
                    with timed("labelled: count dyes"):
                        placed = chunk.emitters if uniform else chunk.emitters.moved(geometry.transform.apply)
                        work.device.deposit_counts(placed, (z, y, x), work.pixels.start, pixels)
                if sink is not None and work.round <= 1:
                    emitters = Emitters(*(work.device.to_host(column) for column in chunk.emitters))
                    layer = chunk.layer if chunk.layer in work.world.dye_of_layer else AMPLICONS
                    with timed("tables"):
                        sink(layer, emitters.select(emitters.own != 0), work.labels.cells.ids)
            yield chunk

    # what is counted must come by in each round
    varying = frozenset(stream.dyes.values()) if counts else stream.varying
    return EmitterStream(stream.dyes, stream.reach_nm, chunks, varying)


def _place(plan: Plan, work: Work, arrays: Mapping[str, NDArray[Any]], where: Box) -> None:
    """Copy what a tile made into the block's arrays."""
    ids = work.labels.cells.ids
    labeller = plan.simulation.labeller
    for output in plan.outputs:
        if output.round != work.round:
            continue
        if not output.is_labels:
            quantity = output.path or plan.main
            arrays[output.path][(slice(None), *where.slices)] = work.device.to_host(work.values[quantity])
        else:
            shown = ids
            if output.layer != "cells":
                flags = labeller.labelled(output.layer, ids, plan.world.seed, work.counted)
                shown = np.where(flags, ids, np.uint64(0))
            truth: NDArray[np.int32] = work.values[f"truth_{output.region}" if output.region else "truth"]
            look_up(shown.astype(output.dtype), truth, arrays[output.path][where.slices])


def _counts(work: Work, layers: tuple[str, ...]) -> CellSums:
    ids, tally = work.labels.cells.ids, work.tally
    columns = {f"dyes_{layer}": tally.dyes.get(layer, counts()).at(ids) for layer in layers}
    if tally.amplicons is not None:
        columns[AMPLICONS] = tally.amplicons.at(ids)
    voxels = tally.voxels.at(ids)
    return by_id(ids, voxels > 0, {"voxels": voxels, **columns})


def _amplicons(plan: Plan, work: Work) -> dict[str, NDArray[Any]]:
    """Columns of the table of amplicons, of the tile's own.

    `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `cell`; `region`; `dyes`.
    """
    assert plan.barcodes is not None
    found: Amplicons = work.values[AMPLICONS]
    mine = found.select(found.own != 0)
    origin = [float(o) for o in plan.geometry.specimen_origin_nm]
    regions = np.array([s.region for s in plan.barcodes.amplicons], dtype=object)
    return {
        **{f"{axis}_nm": mine.place[:, n] + origin[n] for n, axis in enumerate("zyx")},
        "cell": work.labels.cells.ids[mine.cell],
        "region": regions[mine.region],
        "dyes": mine.dyes,
    }


def by_id(ids: NDArray[np.uint64], here: NDArray[np.bool_], columns: Mapping[str, NDArray[np.int64]]) -> CellSums:
    """Sums by cell index as sums by id, of the cells that are `here`."""
    here = here & (ids != 0)
    order = np.argsort(ids[here], kind="stable")
    return CellSums(ids[here][order], {name: n[here][order] for name, n in columns.items()})


def _sparse(histogram: NDArray[np.int64]) -> list[list[int]]:
    """Bins that hold something, as [bin, number]."""
    return [[int(b), int(histogram[b])] for b in np.flatnonzero(histogram)]
