"""Maps of the whole specimen, made block by block before the images: in memory, or a file for each block and level.

Files are shards of 32-bit floats, which hold integers exactly up to 2^24; one of a block without any value holds `EMPTY` instead,
so that a missing one is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.geometry.grid import Box, NmBox, Tiling, Triple, combine, exact, three, triple
from simexm.planning.plan import Plan, needed
from simexm.result.place import Place
from simexm.run.labels import TileLabels
from simexm.run.layout import Exists
from simexm.sources.base import LabelSource
from simexm.stages.contract import Counted, LabelPart, MapPass, NodeMap, Stage, Tile
from simexm.store.files import Files, Stored
from simexm.store.listing import presence
from simexm.store.location import Location
from simexm.store.shards import Ranges, decode_shard, encode_shard, opened_shard

CHUNK = (8, 64, 64)
"""Nodes of a chunk, z, y, x."""
EMPTY = b"\0"
"""Content of the file of a block whose values are all 0."""
_DTYPE = np.dtype("<f4")


def all_maps(plan: Plan) -> Iterator[tuple[Stage, MapPass]]:
    """Yield every map with the stage that makes it."""
    for stage in plan.stages:
        for wanted in stage.maps(plan.context):
            yield stage, wanted


def map_box(
    plan: Plan, source: LabelSource, counted: Counted, stage: Stage, wanted: MapPass, box: Box
) -> list[NDArray[np.int64]]:
    """Values of a map at the nodes that a box of pixels owns, (layers, z, y, x) for each level."""
    whole = wanted.cells(wanted.own(box, plan.shape), 0)
    finest = np.zeros((len(wanted.layers), *whole.shape), np.int64)
    coarsest = wanted.pixels[-1]
    z, y, x = plan.tile
    cut = (z, *(max(coarsest, n // coarsest * coarsest) for n in (y, x)))
    for tile in Tiling(box, triple(cut)):
        cells = wanted.cells(wanted.own(tile, plan.shape), 0)
        finest[(..., *cells.relative_to(whole.start).slices)] = _map_tile(
            plan, source, counted, stage, wanted, tile, cells
        )
    return wanted.levels(finest)


def _map_tile(
    plan: Plan, source: LabelSource, counted: Counted, stage: Stage, wanted: MapPass, pixels: Box, cells: Box
) -> NDArray[np.int64]:
    """Run the stages before `stage` on what lies near the nodes of some cells, and make its map of them."""
    context = plan.context
    cell = wanted.cell_nm(context.geometry.pixel_nm)
    start, stop = (combine(corner, cell, lambda n, c: n * c) for corner in (cells.start, cells.stop))
    low, high = wanted.origin_nm
    start, stop = (combine(corner, far, lambda a, b: a + b) for corner, far in ((start, low), (stop, high)))
    grown = NmBox(start, stop).grown(three(exact(wanted.spread) * c for c in cell))
    before = plan.stages[: plan.stages.index(stage)]
    boxes = needed(before, context, {q.name: grown for q in stage.inputs})
    tile = Tile(context, pixels, boxes, counted)
    visitors = [(one, tile.of(one)) for one in before]

    def visit(part: LabelPart) -> None:
        for one, state in visitors:
            one.visit(part, state)

    tile.stream = TileLabels(source, context.geometry.voxels(boxes["labels"]), context.masks, plan.part, visit)
    tile.begin(plan.frames[0])
    for one in before:
        one.run(tile.of(one))
    values = stage.map(wanted, cells, tile.of(stage))
    tile.release()
    return values


# ---------------------------------------------------------------- in memory


@dataclass(frozen=True)
class InMemory:
    """A map in memory; see `NodeMap`."""

    start: list[Triple]
    """First cell of each level."""
    levels: list[NDArray[np.float32]]

    def read(self, level: int, box: Box) -> NDArray[np.float32]:
        """See `NodeMap`."""
        values = self.levels[level]
        whole = Box.at(self.start[level], triple(values.shape[1:]))
        out = np.zeros((len(values), *box.shape), np.float32)
        part = box.intersect(whole)
        if not part.is_empty:
            inside = values[(..., *part.relative_to(whole.start).slices)]
            out[(..., *part.relative_to(box.start).slices)] = inside
        return out


def in_memory(plan: Plan, source: LabelSource, counted: Counted, around: Box | None = None) -> dict[str, NodeMap]:
    """Make all maps in memory; only as far as a box of pixels needs them, by default whole."""
    found: dict[str, NodeMap] = {}
    image = Box.of_shape(plan.shape)
    for stage, wanted in all_maps(plan):
        whole = wanted.own(image, plan.shape)
        cells = [wanted.cells(whole, level) for level in range(len(wanted.pixels))]
        levels = [np.zeros((len(wanted.layers), *c.shape), np.float32) for c in cells]
        seen = image
        if around is not None:
            far = wanted.reach_pixels
            seen = around.grown((0, far, far)).with_z(0, plan.shape[0])
        for box in plan.blocks:
            if box.intersect(seen).is_empty:
                continue
            own = wanted.own(box, plan.shape)
            for level, values in enumerate(map_box(plan, source, counted, stage, wanted, box)):
                inside = wanted.cells(own, level).relative_to(cells[level].start)
                levels[level][(..., *inside.slices)] = values
        found[wanted.name] = InMemory([c.start for c in cells], levels)
    return found


# ---------------------------------------------------------------- on disk


def folder(where: Place, wanted: MapPass) -> Location:
    """Return the folder of a map, with its journal and files."""
    return where.passes / wanted.name


def _file(number: int, level: int) -> str:
    return f"block-{number:07d}.{level}"


def file_in(folder: Location, number: int, level: int) -> Location:
    """Return a block's file of a level, in the folder of a map."""
    return folder / "nodes" / _file(number, level)


def list_files(where: Place, wanted: MapPass) -> Exists:
    """List the files of a map once; return a function that looks one up."""
    return presence(folder(where, wanted) / "nodes")


def files_of(where: Place, wanted: MapPass, number: int) -> list[Location]:
    """List the files of a block."""
    return [file_in(folder(where, wanted), number, level) for level in range(len(wanted.pixels))]


def write_block(
    plan: Plan, where: Place, source: LabelSource, counted: Counted, name: str, number: int
) -> dict[str, Any]:
    """Make a map of one block and write its files; return its record for the map's journal."""
    stage, wanted = next((s, m) for s, m in all_maps(plan) if m.name == name)
    files = Files(folder(where, wanted) / "nodes", where.scratch)
    stored: list[Stored] = []
    for level, values in enumerate(map_box(plan, source, counted, stage, wanted, plan.blocks[number])):
        chunk = _chunk(values.shape)
        shard = tuple(-(-n // c) * c for n, c in zip(values.shape, chunk, strict=True))
        data = encode_shard(values.astype(_DTYPE), shard, chunk) or EMPTY
        stored.append(files.put(_file(number, level), data))
    return {"nodes": [[s.nbytes, s.checksum] for s in stored]}


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *(min(n, whole) for n, whole in zip(CHUNK, shape[1:], strict=True)))


@dataclass(frozen=True)
class _OnDisk:
    """A map in files; see `NodeMap`."""

    plan: Plan
    where: Place
    wanted: MapPass

    def read(self, level: int, box: Box) -> NDArray[np.float32]:
        out = np.zeros((len(self.wanted.layers), *box.shape), np.float32)
        blocks = self.plan.blocks
        ranges = [self._along(axis, level, box.start[axis], box.stop[axis]) for axis in range(3)]
        _, ny, nx = blocks.counts
        for z, y, x in itertools.product(*ranges):
            number = (z * ny + y) * nx + x
            own = self.wanted.cells(self.wanted.own(blocks[number], self.plan.shape), level)
            part = own.intersect(box)
            if not part.is_empty:
                inside = out[(..., *part.relative_to(box.start).slices)]
                self._read_block(number, level, own, part.relative_to(own.start), inside)
        return out

    def _along(self, axis: int, level: int, start: int, stop: int) -> range:
        """Blocks along an axis that may own cells from `start` to `stop`."""
        n, count = self.plan.blocks.cell[axis], self.plan.blocks.counts[axis]
        first, last = (start // self.wanted.per_plane, (stop - 1) // self.wanted.per_plane)
        if axis:
            first, last = (v * self.wanted.pixels[level] for v in (start, stop))
        return range(min(max(first // n, 0), count - 1), min(max(last // n, 0), count - 1) + 1)

    def _read_block(self, number: int, level: int, own: Box, part: Box, out: NDArray[np.float32]) -> None:
        path = file_in(folder(self.where, self.wanted), number, level)
        shape = (len(self.wanted.layers), *own.shape)
        chunk = _chunk(shape)
        shard = tuple(-(-n // c) * c for n, c in zip(shape, chunk, strict=True))
        with opened_shard(path) as data:
            if not data:
                raise OutputError(
                    f"{path} is missing, and with it the far light of its block; run `simexm verify --repair`"
                )
            if (data.last(2) if isinstance(data, Ranges) else data[:2]) != EMPTY:
                found = np.empty(out.shape, _DTYPE)
                decode_shard(data, shard, chunk, (0, *part.start), found)
                out[...] = found


def on_disk(plan: Plan, where: Place) -> Mapping[str, NodeMap]:
    """Open the maps of a run."""
    return {wanted.name: _OnDisk(plan, where, wanted) for _, wanted in all_maps(plan)}
