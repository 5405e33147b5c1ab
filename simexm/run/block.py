"""Compute one block: read the ground truth with its halo, run the stages tile by tile, gather the outputs.

A pure function of plan, source and block number. It knows stages only by what they read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Tiling
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.detector.camera import BINS
from simexm.kernels.emission.points import Emitters
from simexm.kernels.labels.cells import count_voxels
from simexm.planning.outputs import Output
from simexm.planning.plan import Plan
from simexm.run.labels import TileLabels
from simexm.sources.base import LabelSource
from simexm.stages.contract import (
    EMITTERS,
    EXPECTED,
    LABELLED,
    Chunk,
    Counted,
    EmitterStream,
    LabelPart,
    Stage,
    Tile,
)
from simexm.stages.frames import Frame
from simexm.timing import timed, timed_each

EmitterSink = Callable[[str, Emitters, NDArray[np.uint64]], None]
"""Called with a layer, emitters (nm of tissue from the specimen's corner) and the ids of their cell indices."""

Columns = dict[str, NDArray[Any]]


@dataclass
class BlockResult:
    """One frame of a block.

    `arrays` are those of the outputs that the frame makes, by path: (channels, z, y, x) for images, (z, y, x) for labels.
    """

    box: Box  # pixels of the image
    frame: Frame
    arrays: Columns
    sums: dict[str, CellSums]  # rows of tables that are added up over blocks; of the specimen, not of the frame
    rows: dict[str, Columns]  # rows of the other tables, likewise; those of frames with the last frame
    statistics: dict[str, Any] = field(default_factory=dict)  # of this and all earlier frames, for the journal


def compute_box(
    plan: Plan, source: LabelSource, counted: Counted, box: Box, sink: EmitterSink | None = None
) -> BlockResult:
    """Compute a box of pixels of the first frame; see `compute_frames`."""
    frames = compute_frames(plan, source, counted, box, sink)
    try:
        return next(frames)
    finally:
        frames.close()


def compute_frames(
    plan: Plan,
    source: LabelSource,
    counted: Counted,
    box: Box,
    sink: EmitterSink | None = None,
    frames: Sequence[Frame] | None = None,
) -> Generator[BlockResult, None, None]:
    """Compute a box of pixels for some frames, by default all, each tile by tile; drop one result before you ask for the next.

    If the box, a block or any other, is a single tile, and tissue does not move between frames, what they share is kept
    between them; otherwise it is computed again for each frame, so that memory grows neither with the frames nor with the
    box. `counted` are the tables of the plan's passes.
    """
    tiles = Tiling(box, plan.tile)
    tables = _Tables(plan)
    images: list[dict[str, Any]] = [
        {"clipped": 0, "histogram": np.zeros(BINS, np.int64)} for _ in plan.outputs[0].channels
    ]
    voxels, unspecific = 0, dict[str, int]()
    largest: dict[str, list[float]] = {}
    kept: tuple[Tile, _Tap] | None = None
    frames = plan.frames if frames is None else frames
    for frame in frames:
        outputs = [o for o in plan.outputs if o.made_in(frame)]
        arrays = {o.path: np.zeros((*(len(o.channels),) * (not o.is_labels), *box.shape), o.dtype) for o in outputs}
        for pixels in tiles:
            tile, tap = kept or prepare_tile(plan, source, counted, pixels, frame, sink)
            compute_tile(plan, tile, tap, frame)
            with timed("tiles put together"):
                _copy(plan, tile, outputs, arrays, pixels.relative_to(box.start))
            for total, new in zip(images, tile.tally.images, strict=False):
                total["clipped"] += new.clipped
                total["histogram"] += new.histogram
            with timed("tables"):
                tables.add_frame(tile)
            if frame == plan.frames[0]:
                with timed("tables"):
                    voxels += tables.add(tile)
                for layer, dyes in tile.tally.unspecific.items():
                    unspecific[layer] = unspecific.get(layer, 0) + dyes
            if len(tiles) == 1 and not plan.context.transforms and frame != frames[-1]:
                kept = tile, tap
                tile.begin(frame)
            else:
                kept = None
                tile.release()
            del tile, tap
        for output in outputs:
            data = arrays[output.path]
            most = [part.max().item() for part in (data[None] if output.is_labels else data)]
            largest[output.group] = [*map(max, most, largest.get(output.group, most))]
        sums = tables.sums()
        statistics = {
            "voxels": voxels,
            "sums": {t: {c: int(n.sum()) for c, n in cells.columns.items()} for t, cells in sums.items()},
            "unspecific": {layer: n for layer, n in unspecific.items() if n},
            "largest": dict(largest),
            "images": [{"clipped": i["clipped"], "histogram": _sparse(i["histogram"])} for i in images],
        }
        result = BlockResult(box, frame, arrays, sums, tables.rows(frame == frames[-1]), statistics)
        del arrays
        yield result
        del result


class _Tables:
    """Gather the rows of a block's tables, tile by tile."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sums: dict[str, list[CellSums]] = {}
        self._rows: dict[str, list[Columns]] = {}
        for table in plan.tables:
            if table.product.merge == "sum":
                self._sums[table.product.name] = [CellSums.none(table.product.columns)]
            elif table.product.merge == "rows" and not table.product.optional:
                self._rows[table.product.name] = []

    def add(self, tile: Tile) -> int:
        """Add the stages' rows of a tile; return the number of voxels in its cells."""
        for table in (t for t in self._plan.tables if not t.product.each_frame):
            name, columns = table.product.name, table.product.columns
            for stage in (self._plan.stages[n] for n in table.stages):
                if name in self._sums:
                    found = stage.rows(table.product, tile.of(stage))
                    self._sums[name].append(_summed(found, table.product.key, columns))
                elif name in self._rows:
                    self._rows[name].append(stage.rows(table.product, tile.of(stage)))
        return int(tile.tally.voxels.at(tile.cell_ids)[tile.cell_ids != 0].sum())

    def add_frame(self, tile: Tile) -> None:
        """Add the stages' rows of tables to which every frame adds."""
        for table in (t for t in self._plan.tables if t.product.each_frame):
            for stage in (self._plan.stages[n] for n in table.stages):
                self._rows[table.product.name].append(stage.rows(table.product, tile.of(stage)))

    def sums(self) -> dict[str, CellSums]:
        """Return the rows of tables that are added up, one for each key."""
        self._sums = {name: [add_up(parts)] for name, parts in self._sums.items()}
        return {name: parts[0] for name, parts in self._sums.items()}

    def rows(self, complete: bool) -> dict[str, Columns]:
        """Return the rows of the other tables; of those to which every frame adds, once they are `complete`."""
        partial = set() if complete else {t.product.name for t in self._plan.tables if t.product.each_frame}
        return {
            name: {c: np.concatenate([p[c] for p in parts]) for c in parts[0]}
            for name, parts in self._rows.items()
            if parts and name not in partial
        }


def _summed(found: Mapping[str, NDArray[Any]], key: str, columns: Iterable[str]) -> CellSums:
    """Add up a stage's rows of a table by key, with zeros in the columns of other stages."""
    keys, where = np.unique(found[key].astype(np.uint64), return_inverse=True)
    sums = CellSums(keys, {column: np.zeros(keys.size, np.int64) for column in columns})
    for column in found.keys() - {key}:
        np.add.at(sums.columns[column], where, found[column])
    return sums


def prepare_tile(
    plan: Plan, source: LabelSource, counted: Counted, pixels: Box, frame: Frame, sink: EmitterSink | None
) -> tuple[Tile, _Tap]:
    """Begin a tile with this frame, and run the stages that all frames share; none if there is only one frame."""
    boxes = plan.boxes(pixels, frame)
    tile = Tile(plan.context.at(frame), pixels, boxes, counted)
    own = plan.geometry.own_voxels(pixels)
    visitors = [(stage, tile.of(stage)) for stage in plan.stages]

    def visit(part: LabelPart) -> None:
        for stage, state in visitors:
            with timed(stage.tag):
                stage.visit(part, state)
        mine = own.intersect(part.core).relative_to(part.box.start)
        if not part.again and not mine.is_empty:
            with timed("cells: count voxels"):
                count_voxels(part.index, mine.start, mine.stop, tile.tally.voxels.at(part.cells.ids))

    wanted = plan.geometry.voxels(boxes["labels"])
    with timed("cells: index"):  # includes the first call of compiled code in each worker
        tile.stream = TileLabels(source, wanted, plan.context.masks, plan.part, visit, plan.context.greys)
    tap = _Tap(plan, tile, sink)
    tap.begin(frame)
    _run(plan, tile, plan.once_and_each[0], tap)
    tile.share()
    return tile, tap


def compute_tile(plan: Plan, tile: Tile, tap: _Tap, frame: Frame) -> None:
    """Run the stages on one tile, for one frame."""
    tile.begin(frame)
    tap.begin(frame)
    _run(plan, tile, plan.once_and_each[1], tap)
    if EMITTERS.name in tile.values and not any(EXPECTED in s.writes for s in plan.stages):  # no stage reads them
        stream: EmitterStream = tile.values[EMITTERS.name]
        for dye in dict.fromkeys(stream.dyes.values()):
            for _ in stream.chunks(dye):
                pass
    if tap.counts is not None:
        tile.values[LABELLED.name] = tile.device.to_host(tap.counts).astype(np.uint32)
    tile.labels.survey()


def _run(plan: Plan, tile: Tile, stages: tuple[Stage, ...], tap: _Tap) -> None:
    last = next((s for s in reversed(plan.stages) if EMITTERS in s.writes), None)
    for stage in stages:
        with timed(stage.tag):
            stage.run(tile.of(stage))
        if stage is last:
            tile.values[EMITTERS.name] = tap.of(_timed(tile.values[EMITTERS.name]))


def _timed(stream: EmitterStream) -> EmitterStream:
    def chunks(dye: str) -> Iterator[Chunk]:
        return timed_each(
            stream.chunks(dye), "emission", lambda chunk: f"emission: {chunk.layer}" if chunk.layer else ""
        )

    return replace(stream, chunks=chunks)


class _Tap:
    """Count a stream of emitters per pixel, and pass those of the first frame to the sink."""

    def __init__(self, plan: Plan, tile: Tile, sink: EmitterSink | None) -> None:
        self._plan, self._tile, self._sink = plan, tile, sink
        self._layers = list(plan.context.emits)
        self._labelled = [o for o in plan.outputs if o.product.name == LABELLED.name]
        self._frame: Frame | None = None
        self.counts: Any | None = None  # dyes per pixel of the frame, (layers, z, y, x), if an output needs them

    def begin(self, frame: Frame) -> None:
        """Restart the counts for another frame."""
        if frame != self._frame:
            self._frame, self.counts = frame, None
            if any(o.made_in(frame) for o in self._labelled):
                self.counts = self._tile.device.zeros((len(self._layers), *self._tile.pixels.shape), np.int64)

    def of(self, stream: EmitterStream) -> EmitterStream:
        """Wrap a stream, so that its emitters are counted and stored."""
        if not self._labelled and self._sink is None:
            return stream

        def chunks(dye: str) -> Iterator[Chunk]:
            for chunk in stream.chunks(dye):
                if chunk.layer is not None:
                    self._record(chunk, chunk.layer, stream.kept_as)
                yield chunk

        # dyes that are counted in each frame must be streamed in each
        counted = any(o.varies for o in self._labelled)
        return replace(stream, chunks=chunks, varying=frozenset(stream.dyes.values()) if counted else stream.varying)

    def _record(self, chunk: Chunk, layer: str, kept_as: Mapping[str, str]) -> None:
        tile, device = self._tile, self._tile.device
        if self.counts is not None:
            geometry = tile.context.geometry
            uniform = geometry.transform.is_uniform
            z, y, x = (1.0 / float(p) for p in (geometry.pixel_tissue_nm if uniform else geometry.pixel_nm))
            pixels = self.counts[self._layers.index(layer), ...]
            with timed("labelled: count dyes"):
                left = chunk.emitters
                for stage in self._plan.stages:
                    left = stage.remaining(left, layer, tile.of(stage))
                placed = left if uniform else left.moved(geometry.transform.apply)
                device.deposit_counts(placed, (z, y, x), tile.pixels.start, pixels)
        if self._sink is not None and self._frame == self._plan.frames[0]:
            emitters = Emitters(*(device.to_host(column) for column in chunk.emitters))
            with timed("tables"):
                self._sink(kept_as.get(layer, layer), emitters.select(emitters.own != 0), tile.cell_ids)


def _copy(plan: Plan, tile: Tile, outputs: Sequence[Output], arrays: Mapping[str, NDArray[Any]], where: Box) -> None:
    """Copy a tile's outputs into the block's arrays."""
    for output in outputs:
        part = arrays[output.path][(..., *where.slices)]
        if output.is_labels:
            stage = plan.stages[output.stage]
            stage.store(output.product, tile.of(stage), part)
        else:
            part[...] = tile.device.to_host(tile.values[output.product.name])


def by_id(ids: NDArray[np.uint64], chosen: NDArray[np.bool_], columns: Mapping[str, NDArray[np.int64]]) -> CellSums:
    """Turn sums by cell index into sums by id, for the chosen cells."""
    chosen = chosen & (ids != 0)
    order = np.argsort(ids[chosen], kind="stable")
    return CellSums(ids[chosen][order], {name: n[chosen][order] for name, n in columns.items()})


def _sparse(histogram: NDArray[np.int64]) -> list[list[int]]:
    """List the bins that are not empty, as [bin, number]."""
    return [[int(b), int(histogram[b])] for b in np.flatnonzero(histogram)]
