"""Objects of a volume: connected components, their label image, and a table of their sizes, places and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, ReadPart, Score
from simexm.analysis.grid import Grid
from simexm.analysis.objects.borders import PAIRS, PARTS, at_border, join, pairs_of, parts_of, voxel_ids
from simexm.analysis.objects.foreground import Foreground, ForegroundReader
from simexm.analysis.objects.properties import OBJECTS, filled, properties
from simexm.analysis.volume import Volume, corner_nm, voxel_floats
from simexm.geometry.grid import Box, Tiling
from simexm.jobs.keyed_rows import MergedRows
from simexm.kernels.objects.components import Components
from simexm.kernels.objects.contacts import surface_crossings
from simexm.kernels.objects.runs import Runs
from simexm.kernels.objects.shapes import DEEPEST, deepest, depth, moments
from simexm.stages.products import labels

TABLE, IMAGE = "objects", "components"
SECONDS_PER_VOXEL = 6e-8
BYTES_PER_VOXEL = 60
"""Rough work of a voxel; and memory of one in a block, if each is a run of its own."""


class Objects(Foreground):
    """Number the connected objects of a volume and measure them.

    It writes the label image `components` and the table `objects`. An object's id is one more than the smallest index of its
    voxels, (z * ny + y) * nx + x, so it depends on neither blocks nor workers.

    Attributes
    ----------
    by
        components: connected voxels of one id are an object. ids: all voxels of an id are, connected or not; the table has these
        ids, and no label image is written.
    connectivity
        Neighbours of a voxel: 6 (faces), 18 (and edges), 26 (and corners).
    smallest_um3, largest_um3
        Volume from which, and up to which, an object counts.
    smallest_diagonal_um
        Diagonal of its box from which an object counts.
    """

    analysis: Literal["objects"] = "objects"
    by: Literal["components", "ids"] = "components"
    connectivity: Literal[6, 18, 26] = 26
    smallest_um3: float = Field(default=0.0, ge=0)
    largest_um3: float | None = Field(default=None, gt=0)
    smallest_diagonal_um: float = Field(default=0.0, ge=0)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open the volume; raises SourceError if its type does not fit, SpecError for a bad region."""
        self.refuse_other_count(inputs, 1, "VOLUME")
        return _ObjectsBench(self, inputs[0])

    def keeps(self, sizes: NDArray[np.int64], voxel_nm: tuple[float, float, float]) -> NDArray[np.bool_]:
        """Which objects count: voxels, and first and last z, y, x of the box, (n, 7)."""
        volume = sizes[:, 0] * (math.prod(voxel_nm) * 1e-9)
        sides = (sizes[:, 4:7] - sizes[:, 1:4] + 1) * (np.array(voxel_nm) * 1e-3)
        kept: NDArray[np.bool_] = volume >= self.smallest_um3
        if self.largest_um3 is not None:
            kept &= volume <= self.largest_um3
        kept &= np.sqrt((sides**2).sum(axis=1)) >= self.smallest_diagonal_um
        return kept


class _ObjectsBench(Bench):
    """The volume in blocks."""

    def __init__(self, settings: Objects, volume: Volume) -> None:
        self.settings, self.volume = settings, volume
        self.whole, self.voxel_nm = settings.box(volume), voxel_floats(volume)
        self.reader = ForegroundReader(settings, volume, self.whole)
        grid = Grid(
            self.whole.shape, volume.voxel_nm, corner_nm(volume, self.whole), largest_shard=settings.block_voxels
        )
        if settings.by == "components":
            self.grid, self.products = grid, (labels(IMAGE, "uint64"),)
            self.surveys = (PARTS, PAIRS)
        self.tiling = Tiling(self.whole, grid.blocks.cell)
        self.keyed = {TABLE: OBJECTS}
        self.inputs = {"volume": volume.identity}
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        halo = max(DEEPEST, *settings.halo(volume)) + 1
        self.block_bytes = BYTES_PER_VOXEL * math.prod(n + 2 * halo for n in self.tiling.cell)

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Find the components at the borders of a block, then which of them touch."""
        if name == PAIRS:
            return pairs_of(self.tiling, number, self.settings.connectivity, read)
        box = self.tiling[number]
        found = Components.of(self.reader.read(box), self.settings.connectivity)
        return parts_of(found, box, self.whole, self.volume.shape)

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the components of all blocks."""
        join(self.blocks, read, folder, self._keeps)

    def _keeps(self, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.settings.keeps(sizes, self.voxel_nm)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Measure what of each object lies in a block, and paint it."""
        box = self.tiling[number]
        wide = box.grown((DEEPEST,) * 3).intersect(self.whole)
        values = self.reader.read(wide)
        inner = np.ascontiguousarray(values[box.relative_to(wide.start).slices])
        if self.settings.by == "ids":
            found = _by_value(inner)
            ids = found.values
        else:
            found = Components.of(inner, self.settings.connectivity)
            ids = self._ids(found, box, number)
        some = ids > 0
        made = {TABLE: {name: column[some] for name, column in self._measured(found, ids, values, box, wide).items()}}
        if self.settings.by == "ids":
            return made
        return {**made, IMAGE: found.painted(ids)}

    def _ids(self, found: Components, box: Box, number: int) -> NDArray[np.uint64]:
        """Id of each component, 0 for those that do not count."""
        voxels, _, boxes = moments(found)
        ids = np.where(self._keeps(np.column_stack([voxels, boxes])), voxel_ids(found, box, self.volume.shape), 0)
        numbers = at_border(found, box, self.whole)
        first = int(self.joined["first"][number])
        crossing = numbers > 0
        ids[crossing] = self.joined["ids"][first + numbers[crossing] - 1]
        return ids.astype(np.uint64)

    def _measured(
        self, found: Components, ids: NDArray[np.uint64], values: NDArray[Any], box: Box, wide: Box
    ) -> dict[str, NDArray[Any]]:
        near = box.grown((1, 1, 1)).intersect(self.whole)
        around = Runs.of(np.ascontiguousarray(values[near.relative_to(wide.start).slices]))
        own = box.relative_to(near.start)
        depths = depth(values)[box.relative_to(wide.start).slices]
        voxels, sums, boxes = moments(found)
        return filled(
            ids,
            voxels,
            sums,
            boxes,
            surface_crossings(around, own.start, own.stop, found.runs, found.of_run, len(found)),
            deepest(found, depths, box.start, self.volume.shape),
            box.start,
        )

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Turn sums into properties, piece by piece."""
        rows: MergedRows = sums[TABLE]
        objects = voxels = 0
        for piece in rows:
            kept = self._kept(piece)
            objects += int(kept.sum())
            voxels += int(piece["voxels"][kept].sum())
        volume = voxels * (math.prod(self.voxel_nm) * 1e-9)
        scores = (
            Score("objects", float(objects), "objects", "objects that count"),
            Score("volume", volume, "um^3", "volume of all objects that count"),
        )
        return Conclusion({TABLE: self._table(rows)}, scores)

    def _kept(self, piece: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        return self._keeps(np.column_stack([piece[name] for name in ("voxels", "z0", "y0", "x0", "z1", "y1", "x1")]))

    def _table(self, rows: MergedRows) -> Iterator[pa.Table]:
        origin = tuple(float(o) for o in self.volume.origin_nm)
        for piece in rows:
            kept = self._kept(piece)
            some = {name: column[kept] for name, column in piece.items()}
            yield pa.table(properties(some, self.voxel_nm, origin, self.volume.shape))


def _by_value(values: NDArray[Any]) -> Components:
    """All voxels of a value as one component."""
    runs = Runs.of(values)
    _, first, of_run = np.unique(runs.value, return_index=True, return_inverse=True)
    return Components(runs, (of_run + 1).astype(np.int32), first.astype(np.int64))
