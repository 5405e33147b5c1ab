"""Read the labels of a tile in parts, so that memory does not grow with the tile.

If possible, parts end one voxel before the end of a chunk of 64 voxels: regions depend on the next voxel, so a part is
complete up to the voxel before the last one read. The last two planes are kept for the next parts in z, where most parts
meet, so that they are not read twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Triple
from simexm.kernels.labels.cells import CellIndex
from simexm.planning.memory import brick
from simexm.sources.base import LabelSource
from simexm.stages.contract import LabelPart, LabelStream
from simexm.timing import timed

_INDEX = ""
"""Name of the cell indices, beside the names of masks."""

_READ = "labels: read and decode"


def read_part(source: LabelSource, box: Box, masks: Sequence[str]) -> LabelPart:
    """Read a box as one part, with the named masks."""
    cells = CellIndex()
    arrays = _empty(box.shape, masks)
    _read(source, box, cells, arrays)
    return LabelPart(box, box, arrays.pop(_INDEX), cells, arrays)


def _split(arrays: dict[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Split arrays into masks and grey values."""
    masks = {name: array for name, array in arrays.items() if array.dtype == np.bool_}
    return masks, {name: array for name, array in arrays.items() if name not in masks}


class TileLabels(LabelStream):
    """The labels, masks and grey values of a box of a source, in parts of `part` voxels (z y x).

    A box of one part is read once and kept. `visit` is called with every part before it is yielded, with a kept one once.
    """

    def __init__(
        self,
        source: LabelSource,
        box: Box,
        masks: Sequence[str],
        part: Triple,
        visit: Callable[[LabelPart], None],
        greys: Sequence[str] = (),
    ) -> None:
        bounds = [part_bounds(a, b, n) for a, b, n in zip(box.start, box.stop, part, strict=True)]
        z, y, x = (list(itertools.pairwise(b)) for b in bounds)
        super().__init__(box, 1 if len(y) == len(x) == 1 else max(b - a for a, b in z))
        self._source, self._beside, self._visit = source, (masks, greys), visit
        self._ranges = z, y, x
        self._keeps = len(z) == len(y) == len(x) == 1
        self._kept: LabelPart | None = None

    def parts(self) -> Iterator[LabelPart]:
        """Yield the parts."""
        if self._kept is not None:
            self._kept.again = True
            yield self._kept
            return
        for part in _Parts(self._source, self, self._ranges, *self._beside):
            part.again = self.seen
            self._visit(part)
            if self._keeps:
                self._kept = part
            yield part
            if not self._keeps:
                # free these before the next part is read, even if the part is still referenced
                part.placed = part.regions = None
        self.seen = True


def part_bounds(start: int, stop: int, size: int) -> list[int]:
    """List the bounds of parts of `size` voxels along an axis: one voxel before multiples of `size`."""
    if stop - start <= size:
        return [start, stop]
    first = (start + 1) // size * size + size
    inner = [b - 1 for b in range(first, stop, size)]
    return [start, *(b for b in inner if start < b < stop), stop]


class _Parts:
    """Iterate once over the parts of a stream."""

    def __init__(
        self,
        source: LabelSource,
        stream: LabelStream,
        ranges: tuple[Sequence[tuple[int, int]], ...],
        masks: Sequence[str],
        greys: Sequence[str] = (),
    ) -> None:
        self.source, self.stream, self.ranges = source, stream, ranges
        room = [max(b - a for a, b in axis) + 2 for axis in self.ranges]
        most = int(np.prod([min(r, n) for r, n in zip(room, stream.box.shape, strict=True)]))
        self.room = _empty((most,), masks, greys)
        # the last two planes read in this layer of parts, and those of the layer below
        across = (2, *stream.box.shape[1:]) if len(ranges[0]) > 1 else (0, 0, 0)
        self.above, self.below = _empty(across, masks, greys), _empty(across, masks, greys)

    def __iter__(self) -> Iterator[LabelPart]:
        for z in self.ranges[0]:
            opens = True
            for y, x in itertools.product(*self.ranges[1:]):
                yield self._part(Box((z[0], y[0], x[0]), (z[1], y[1], x[1])), opens)
                opens = False
            self.above, self.below = self.below, self.above

    def _part(self, core: Box, opens: bool) -> LabelPart:
        whole = self.stream.box
        box = core.grown((1, 1, 1)).intersect(whole)
        arrays = {name: room[: box.size].reshape(box.shape) for name, room in self.room.items()}
        held = 0 if core.start[0] == whole.start[0] else 2
        across = box.relative_to(whole.start).slices[1:]
        for name, array in arrays.items() if held else ():
            array[:2] = self.below[name][:, *across]
        fresh = Box((box.start[0] + held, *box.start[1:]), box.stop)
        _read(self.source, fresh, self.stream.cells, {name: array[held:] for name, array in arrays.items()})
        for name, array in arrays.items() if core.stop[0] < whole.stop[0] else ():
            self.above[name][:, *across] = array[-2:]
        index = arrays.pop(_INDEX)
        return LabelPart(core, box, index, self.stream.cells, *_split(arrays), opens=opens)


def _empty(shape: tuple[int, ...], masks: Sequence[str], greys: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Allocate arrays for cell indices, named `_INDEX`, masks and grey values."""
    types = {_INDEX: np.int32, **dict.fromkeys(masks, np.bool_), **dict.fromkeys(greys, np.float32)}
    return {name: np.empty(shape, dtype) for name, dtype in types.items()}


def _read(source: LabelSource, box: Box, cells: CellIndex, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Read a box into arrays, brick by brick, ids and masks of a brick together: a source may compute both at once."""
    shape = brick(box.shape, source.dtype.itemsize)
    axes = [_cuts(a, b, n) for a, b, n in zip(box.start, box.stop, shape, strict=True)]
    for z, y, x in itertools.product(*axes):
        one = Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))
        inside = one.relative_to(box.start).slices
        for name, array in arrays.items():
            if name == _INDEX:
                with timed(_READ):
                    ids = source.read(one)
                with timed("cells: index"):
                    cells.add_to(ids, array[inside])
                del ids  # before the next are read
            else:
                with timed(_READ):
                    array[inside] = source.read_field(name, one)
                if array.dtype == np.float32 and not np.isfinite(array[inside]).all():
                    raise SourceError(
                        f"the grey field {name!r} holds values that are no 32-bit numbers between voxels {one.start} and "
                        f"{one.stop} (NaN, infinite, or too large), which give no density; write a copy without them"
                    )


def _cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) at multiples of `size`."""
    inner = range((start // size + 1) * size, stop, size)
    return list(itertools.pairwise((start, *inner, stop)))
