"""Merge supervoxels to segments: the graph of their contacts, computed in blocks, and its agglomeration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, ReadPart, Score
from simexm.analysis.grid import Grid
from simexm.analysis.registration.sides import absolute
from simexm.analysis.result_image import ImageVolume
from simexm.analysis.segmentation.graph import EDGES_INPUT, Graph, edges_of_table
from simexm.analysis.segmentation.segment import SUPERVOXELS
from simexm.analysis.stored_table import StoredTable
from simexm.analysis.volume import Volume, VolumeAnalysis, corner_nm, same_grid, voxel_floats
from simexm.errors import NoResultError, OutputError
from simexm.geometry.grid import Box, Tiling
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.objects.edges import EDGE_COLUMNS, edges, means
from simexm.result.result import Result
from simexm.stages.products import labels
from simexm.store.location import Location

EDGES, MERGES, SEGMENTS = "edges", "merges", "segments"
BOUNDARIES = "boundaries"
EDGE_ROWS = Keyed(("first", "second"), dict.fromkeys(EDGE_COLUMNS, "sum"))
MERGE_ROWS = Keyed(("fragment", "cell"), {"voxels": "sum"})
STEPS = 65535
"""Values of boundaries are whole numbers of this part of 1."""
SECONDS_PER_VOXEL, BYTES_PER_VOXEL = 2e-7, 120
"""Rough work of a voxel; and memory of one in a block."""


@dataclass(frozen=True)
class _Inputs:
    """The supervoxels, and what says which of them belong together."""

    supervoxels: Volume
    boundaries: Volume | None
    edges: StoredTable | None

    @property
    def places(self) -> list[Location]:
        """Where they are stored."""
        return [place for one in (self.supervoxels, self.boundaries, self.edges) if one for place in one.places]


class Agglomerate(VolumeAnalysis):
    """Merge the supervoxels of a volume to segments.

    It reads SUPERVOXELS; then boundaries=PATH, a map from 0 (inside a cell) to 1 (membrane), or edges=PATH, a table with the
    columns first, second, area_um2 (default 1) and mean, or affinity, which is 1 - mean. Without either, boundaries are the image
    `membrane` of a result of `simexm segment`. It writes the label image `segments` and the tables `merges` (fragment, cell,
    voxels) and, of boundaries, `edges` (first, second, faces, area_um2, mean). A segment's id is that of its smallest supervoxel.

    Attributes
    ----------
    method
        mean: merge the two segments with the lowest mean along their contact, again and again, until none is below the threshold.
        components: merge all supervoxels whose own edge is below the threshold.
    threshold
        Mean of the boundary along a contact, from 0 to 1, below which it is none.
    smallest_um2
        Area by faces from which a contact counts.
    """

    analysis: Literal["agglomerate"] = "agglomerate"
    method: Literal["mean", "components"] = "mean"
    threshold: float = Field(default=0.5, ge=0, le=1)
    smallest_um2: float = Field(default=0.0, ge=0)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open SUPERVOXELS, and boundaries=PATH or edges=PATH."""
        if inputs and isinstance(inputs[0], _Inputs):
            return tuple(inputs)
        if not 1 <= len(inputs) <= 2:
            raise OutputError(
                f"agglomerate reads supervoxels, and one volume or table beside them, not {len(inputs)} inputs; type: simexm "
                f"agglomerate SUPERVOXELS {BOUNDARIES}=PATH"
            )
        result = _segmented(inputs[0])
        of = self.model_copy(update={"dataset": f"labels/{SUPERVOXELS}"}) if result and not self.dataset else self
        supervoxels = of._volume(inputs[0])
        if len(inputs) == 1:
            if result is None or self.level:
                raise OutputError(
                    f"{supervoxels.where} is no result of simexm segment at level 0, so nothing says which supervoxels belong "
                    f"together; add {BOUNDARIES}=PATH or {EDGES_INPUT}=PATH"
                )
            return (_Inputs(supervoxels, ImageVolume(str(result.path), None), None),)
        name, equals, path = str(inputs[1]).partition("=")
        if not equals or name not in (BOUNDARIES, EDGES_INPUT):
            raise OutputError(f"{inputs[1]}: the second input is given as {BOUNDARIES}=PATH or {EDGES_INPUT}=PATH")
        if name == EDGES_INPUT:
            return (_Inputs(supervoxels, None, StoredTable.of(path, EDGES, ("first", "second"))),)
        size = tuple(float(v) for v in supervoxels.voxel_nm)
        segmented = _segmented(path)
        map_of = ImageVolume(str(segmented.path), None) if segmented else Volume(absolute(path), None, 0, size)
        return (_Inputs(supervoxels, map_of, None),)

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Check that the inputs fit each other; raises SpecError if their grids do not agree."""
        return _AgglomerateBench(self, inputs[0])


def _segmented(one: Any) -> Result | None:
    """A result of `simexm segment`; None if the path is none."""
    try:
        found = one if isinstance(one, Result) else Result.open(str(getattr(one, "path", one)))
    except NoResultError:
        return None
    return found if found.kind == "segment" else None


class _AgglomerateBench(Bench):
    """The supervoxels in blocks."""

    def __init__(self, settings: Agglomerate, inputs: _Inputs) -> None:
        self.settings, self.volume, self.edges = settings, inputs.supervoxels, inputs.edges
        self.whole, self.voxel_nm = settings.box(self.volume), voxel_floats(self.volume)
        self.read = self.volume.numbers("labels")
        self.grid = Grid(
            self.whole.shape,
            self.volume.voxel_nm,
            corner_nm(self.volume, self.whole),
            largest_shard=settings.block_voxels,
        )
        self.tiling = Tiling(self.whole, self.grid.blocks.cell)
        self.products = (labels(SEGMENTS, "uint64"),)
        self.surveys = self.kept = (EDGES,)
        self.keyed = {MERGES: MERGE_ROWS}
        self.inputs = {"supervoxels": self.volume.identity}
        if self.edges is not None:
            edges_of_table(self.edges)  # finds faults before any work
            self.inputs = {**self.inputs, EDGES_INPUT: self.edges.identity}
        self.boundaries = inputs.boundaries
        if self.boundaries is not None:
            self.keyed = {**self.keyed, EDGES: EDGE_ROWS}
            self.inputs = {**self.inputs, BOUNDARIES: self.boundaries.identity}
            self._refuse_other_grid(self.boundaries)
            self.read_boundaries = self.boundaries.numbers("probability")
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        self.block_bytes = BYTES_PER_VOXEL * math.prod(n + 1 for n in self.tiling.cell)

    def _refuse_other_grid(self, boundaries: Volume) -> None:
        starts = same_grid(self.volume, boundaries)
        if boundaries.shape != self.volume.shape or any(map(any, starts[:2])):
            raise OutputError(
                f"{boundaries.where} has {boundaries.shape} voxels and {self.volume.where} has {self.volume.shape}, or another "
                "origin, so some contacts would have no value; give a map of the same grid"
            )

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Measure the edges that begin in a block, and count the voxels of its supervoxels."""
        box = self.tiling[number]
        wide = Box(box.start, tuple(n + 1 for n in box.stop)).intersect(self.whole)  # type: ignore[arg-type]
        ids = self.read(wide)
        own = box.relative_to(wide.start)
        known, voxels = np.unique(ids[own.slices], return_counts=True)
        made = {"ids": known[known > 0].astype(np.uint64), "voxels": voxels[known > 0]}
        if self.boundaries is None:
            return made
        values = np.rint(self.read_boundaries(wide) * np.float64(STEPS)).astype(np.int64)
        pairs, counts = edges(ids, values, own)
        return {**made, "pairs": pairs, "counts": counts}

    def join(self, read: ReadPart, folder: Path) -> None:
        """Agglomerate: write `ids.npy`, all supervoxels in ascending order, and `cells.npy`, the segment of each."""
        found = Graph.of_blocks(self.blocks, lambda number: read(EDGES, number))
        if self.edges is not None:
            pairs, area, mean = edges_of_table(self.edges)
            found.refuse_unknown(pairs, self.edges.path, self.volume.where)
        else:
            pairs = found.pairs
            area, mean = means(found.counts, self.voxel_nm)
            mean /= STEPS
        kept = area >= self.settings.smallest_um2
        cells = found.agglomerated(pairs[kept], area[kept], mean[kept], self.settings.method, self.settings.threshold)
        np.save(folder / "ids.npy", found.ids)
        np.save(folder / "cells.npy", cells)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Give each voxel of a block its segment."""
        part = self.parts(EDGES, number)
        cells = self._cells(part["ids"])
        values = self.read(self.tiling[number])
        painted = np.zeros(values.shape, np.uint64)
        if part["ids"].size:
            known = values != 0
            painted[known] = cells[np.searchsorted(part["ids"], values[known].astype(np.uint64))]
        made: dict[str, Any] = {
            SEGMENTS: painted,
            MERGES: {"fragment": part["ids"], "cell": cells, "voxels": part["voxels"]},
        }
        if self.boundaries is not None:
            ends = {"first": part["pairs"][:, 0], "second": part["pairs"][:, 1]}
            made[EDGES] = {**ends, **dict(zip(EDGE_COLUMNS, part["counts"].T, strict=True))}
        return made

    def _cells(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The segments of supervoxels in ascending order."""
        if not ids.size:
            return ids
        return np.asarray(self.joined["cells"][np.searchsorted(self.joined["ids"], ids)])

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Count fragments and segments."""
        rows: MergedRows = sums[MERGES]
        fragments = sum(piece["fragment"].size for piece in rows)
        # a segment has the id of its smallest fragment
        segments = sum(int((piece["fragment"] == piece["cell"]).sum()) for piece in rows)
        scores = [
            Score("fragments", float(fragments), "supervoxels", "supervoxels that were read"),
            Score("segments", float(segments), "segments", "segments that they were merged to"),
        ]
        tables: dict[str, Any] = {MERGES: (pa.table(piece) for piece in rows)}
        if self.boundaries is not None:
            edge_rows: MergedRows = sums[EDGES]
            count = sum(piece["first"].size for piece in edge_rows)
            scores.append(Score("edges", float(count), "edges", "pairs of supervoxels that share a face"))
            tables[EDGES] = self._edges(edge_rows)
        return Conclusion(tables, tuple(scores))

    def _edges(self, rows: MergedRows) -> Iterator[pa.Table]:
        for piece in rows:
            counts = np.stack([piece[name] for name in EDGE_COLUMNS], axis=1).reshape(-1, len(EDGE_COLUMNS))
            area, mean = means(counts, self.voxel_nm)
            faces = counts[:, :3].sum(axis=1)
            ends = {"first": piece["first"], "second": piece["second"]}
            yield pa.table({**ends, "faces": faces, "area_um2": area, "mean": mean / STEPS})
