"""Skeletons of the objects of a volume: traced in blocks, joined at gates, as trees with radii, and a table of their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, ReadPart, Score
from simexm.analysis.objects.borders import PAIRS, PARTS, at_border, join, parts_of
from simexm.analysis.skeletons.by_id import by_id
from simexm.analysis.skeletons.gates import gates_in, gates_of, keep_gates
from simexm.analysis.skeletons.trees import Along, Trees
from simexm.analysis.volume import Volume, VolumeAnalysis, same_grid, voxel_floats
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, Tiling, triple
from simexm.jobs.keyed_rows import Keyed, Reducer
from simexm.kernels.objects.components import Components
from simexm.kernels.objects.shapes import moments
from simexm.kernels.skeletons.near import most_frequent
from simexm.kernels.skeletons.queue import BYTES_PER_VOXEL as QUEUE_BYTES
from simexm.kernels.skeletons.surface import surface_distance
from simexm.kernels.skeletons.trace import BYTES_PER_VOXEL as TRACE_BYTES
from simexm.kernels.skeletons.trace import trace
from simexm.kernels.skeletons.units import Units
from simexm.result.skeletons import GROUP, TABLE, VERTICES, grid_of

JOINTS = "joints"
SECONDS_PER_VOXEL = 4e-6
WIDE_BYTES = 24
"""Memory of a voxel of a block with its halo: ids, components and distances."""
_VERTICES: dict[str, Reducer] = {"parent": "max", "surface": "max"}
_JOINTS = Keyed(("id", "one", "other"), {"width": "max"})
_NO_PARENT = -1
_RESERVED = (
    "id", "voxel", "vertex", "parent", "surface", "z", "y", "x", "z_nm", "y_nm", "x_nm", "radius_nm", "length_nm",
)  # fmt: skip
"""Columns that a sampled volume cannot be named after."""
_CLASSES = 255
"""Largest value of a sampled volume."""


class Skeletons(VolumeAnalysis):
    """Trace a skeleton in each object of a volume of ids: a tree of voxels along its middle, with radii.

    It writes the tables `skeletons`, one row for each id, and `vertices`, each after its parent. Each connected part of an id
    has one tree. Skeletons are traced in blocks and joined where the common cross-section is widest, so `block_voxels` decides
    them.

    Attributes
    ----------
    scale, constant_nm
        A path stands for all of its object within scale * radius + constant_nm of it (along paths inside). What lies farther away
        gets a branch: smaller values give more and shorter branches.
    smallest_um3
        Volume from which a connected part of an id gets a tree.
    largest_radius_nm
        Radius that all larger ones count as, such as those of cell bodies: so far a block looks beyond its borders.
    sampled
        Names of further volumes, on the same grid, given after the first: masks such as myelin, or classes. Each vertex gets the
        most frequent value around it (column NAME), and the one with most cable along the tree (NAME_along).
    window_nm
        How far around a vertex a volume is sampled, along each axis.
    along_um
        Length of the tree around a vertex, half in each direction, over which the majority is taken.
    body_radius_nm
        Vertices of this radius or more are in a cell body: they keep their value, and the majority leaves them out.
    block_voxels
        Side of a block. It decides where skeletons are joined, so other blocks give slightly other ones.
    """

    analysis: Literal["skeletons"] = "skeletons"
    scale: float = Field(default=1.5, ge=0, le=100)
    constant_nm: float = Field(default=300.0, gt=0, le=1e5)
    smallest_um3: float = Field(default=0.0, ge=0)
    largest_radius_nm: float = Field(default=1000.0, gt=0, le=1e4)
    sampled: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z_]*$", max_length=40)], ...] = ()
    window_nm: float = Field(default=100.0, ge=0, le=1000)
    along_um: float = Field(default=10.0, ge=0, le=1000)
    body_radius_nm: float | None = Field(default=None, gt=0)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open the volume; raises SourceError if its type does not fit, SpecError for a bad region."""
        named = [f"the volume of {name}" for name in self.sampled]
        self.refuse_other_count(inputs, 1 + len(self.sampled), " ".join(["VOLUME", *named]))
        if len({*self.sampled, *_RESERVED}) < len(self.sampled) + len(_RESERVED):
            raise OutputError(
                f"sampled names {', '.join(self.sampled)} repeat each other, or one of the columns {', '.join(_RESERVED)}, which "
                "would be lost; give each volume a name of its own"
            )
        return _SkeletonsBench(self, *inputs)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open all volumes; `dataset` is that of the first."""
        rest = self.model_copy(update={"dataset": None})
        return tuple((rest if n else self)._volume(one) for n, one in enumerate(inputs))


class _SkeletonsBench(Bench):
    """The volume in blocks."""

    def __init__(self, settings: Skeletons, volume: Volume, *sampled: Volume) -> None:
        self.settings, self.volume = settings, volume
        self.whole, self.voxel_nm = settings.box(volume), voxel_floats(volume)
        self.units = Units.of(self.voxel_nm)
        self.read = volume.numbers("labels")
        self.most = min(1 << 15, self.units.whole(settings.largest_radius_nm))
        self.tiling = Tiling(self.whole, (settings.block_voxels,) * 3)
        self.halo = triple(math.ceil(settings.largest_radius_nm / v) + 1 for v in self.voxel_nm)
        self.surveys = (PARTS, PAIRS)
        columns: dict[str, Reducer] = {**_VERTICES, **dict.fromkeys(settings.sampled, "max")}
        self.keyed = {VERTICES: Keyed(("id", "voxel"), columns), JOINTS: _JOINTS}
        self.inputs = {"volume": volume.identity}
        self.samples = {}
        for name, other in zip(settings.sampled, sampled, strict=True):
            start, other_start, shape = same_grid(volume, other)
            if start != (0, 0, 0) or shape != volume.shape:
                raise SpecError(
                    f"{other.where} does not cover {volume.where}, so vertices outside it would have no {name}; sample a volume "
                    "that does, or ingest a part of the first"
                )
            self.inputs[name] = other.identity
            self.samples[name] = (other.numbers("labels"), other_start)
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        inner = triple(map(min, self.tiling.cell, self.whole.shape))
        wide = math.prod(min(n + 2 * h, w) for n, h, w in zip(inner, self.halo, self.whole.shape, strict=True))
        self.block_bytes = WIDE_BYTES * wide + (TRACE_BYTES + QUEUE_BYTES) * math.prod(n + 2 for n in inner)

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Find the components at the borders of a block, then the gates between those that touch."""
        if name == PAIRS:
            return gates_of(self.tiling, number, self.units, read)
        box = self.tiling[number]
        return parts_of(Components.of(self.read(box), 26), box, self.whole, self.volume.shape)

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the components of all blocks, and choose the gates between them."""
        join(self.blocks, read, folder, lambda sizes: self._keeps(sizes[:, 0]))
        keep_gates(self.blocks, read, folder)

    @property
    def along(self) -> Along:
        """What is sampled, and over which length."""
        s = self.settings
        return Along(s.sampled, s.along_um * 500, math.inf if s.body_radius_nm is None else s.body_radius_nm)

    def _keeps(self, voxels: NDArray[np.int64]) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = voxels * (math.prod(self.voxel_nm) * 1e-9) >= self.settings.smallest_um3
        return kept

    def measure(self, number: int) -> Mapping[str, Any]:
        """Trace the skeletons in a block."""
        box = self.tiling[number]
        wide = box.grown(self.halo).intersect(self.whole)
        values, own = self.read(wide), box.relative_to(wide.start)
        found = Components.of(np.ascontiguousarray(values[own.slices]), 26)
        gates, start = gates_in(self.joined, number), np.array(box.start)
        surface = surface_distance(values, own, self.units.sides, self.most)
        traced = trace(
            found.painted(np.arange(1, len(found) + 1, dtype=np.int32)),
            surface,
            self.units,
            self._wanted(found, box, number),
            gates[:, :3] - start,
            self.settings.scale,
            self.settings.constant_nm,
        )
        z, y, x = traced.voxel.T
        voxel = self._index(traced.voxel + start)
        parent = np.where(traced.parent >= 0, voxel[traced.parent], _NO_PARENT) if voxel.size else voxel
        vertices = {"id": values[own.slices][z, y, x], "voxel": voxel, "parent": parent, "surface": surface[z, y, x]}
        for name, (read, offset) in self.samples.items():
            reach = triple(int(self.settings.window_nm // v) for v in self.voxel_nm)
            near = box.grown(reach).intersect(Box.of_shape(self.volume.shape))
            classes = most_frequent(read(near.shifted(offset)), traced.voxel + start - near.start, reach)
            if classes.max(initial=0) > _CLASSES:
                raise SpecError(
                    f"the volume of {name} holds the value {classes.max()}, and classes go up to {_CLASSES}; sample a mask or "
                    "classes, and use `simexm overlaps` for ids"
                )
            vertices[name] = classes.astype(np.int64)
        later = gates[self._index(gates[:, :3]) < self._index(gates[:, 3:])]  # each joint is told by one of its blocks
        z, y, x = (later[:, :3] - start).T
        one, other = self._index(later[:, :3]), self._index(later[:, 3:])
        joints = {"id": values[own.slices][z, y, x], "one": one, "other": other, "width": np.zeros(one.size)}
        return {VERTICES: vertices, JOINTS: joints}

    def _index(self, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of voxels, (n, 3), in the volume."""
        _, ny, nx = self.volume.shape
        found: NDArray[np.int64] = (voxels[:, 0] * ny + voxels[:, 1]) * nx + voxels[:, 2]
        return found

    def _wanted(self, found: Components, box: Box, number: int) -> NDArray[np.bool_]:
        """Which components of a block get a tree: those that are large enough as a whole."""
        wanted = self._keeps(moments(found)[0])
        numbers = at_border(found, box, self.whole)
        crossing = numbers > 0
        wanted[crossing] = self.joined["ids"][int(self.joined["first"][number]) + numbers[crossing] - 1] > 0
        return wanted

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Put the trees together, piece by piece."""
        counts = {"objects": 0, "trees": 0, "length": 0.0}
        for trees in self._trees(sums):
            rows = trees.summary()
            counts["objects"] += rows.num_rows
            counts["trees"] += int(rows["trees"].to_numpy().sum())
            counts["length"] += math.fsum(rows["cable_um"].to_pylist())
        scores = (
            Score("objects", float(counts["objects"]), "objects", "ids that have a skeleton"),
            Score("trees", float(counts["trees"]), "trees", "connected parts of them, each a tree"),
            Score("cable", counts["length"], "um", "length of all edges"),
        )
        summaries, vertices = (
            (trees.summary() for trees in self._trees(sums)),
            (trees.vertices() for trees in self._trees(sums)),
        )
        return Conclusion(
            {TABLE: summaries, VERTICES: vertices},
            scores,
            {GROUP: grid_of(self.volume.voxel_nm, self.volume.origin_nm)},
        )

    def _trees(self, sums: Mapping[str, Any]) -> Iterator[Trees]:
        for vertices, joints in by_id(sums[VERTICES], sums[JOINTS]):
            yield Trees.of(
                vertices, joints, self.volume.shape, self.voxel_nm, self.volume.origin_nm, self.units.nm, self.along
            )
