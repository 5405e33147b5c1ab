"""Cut an image of membranes into supervoxels by a watershed that is exact in blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, ReadPart, Score
from simexm.analysis.grid import Grid
from simexm.analysis.objects.borders import PAIRS, PARTS, at_border, facing_layer, join, parts_of, voxel_ids
from simexm.analysis.registration.sides import absolute
from simexm.analysis.result_image import image_of
from simexm.analysis.volume import Volume, VolumeAnalysis, corner_nm, voxel_floats
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Tiling, Triple, three
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.objects.components import Components
from simexm.kernels.objects.landscape import depth_nm, depth_reach, membrane, membrane_reach
from simexm.kernels.objects.shapes import moments
from simexm.kernels.objects.watershed import drained
from simexm.names import FreeText
from simexm.sources.stack import grey
from simexm.stages.products import Product, labels

TABLE, SUPERVOXELS, MEMBRANE = "sizes", "supervoxels", "membrane"
SIZES = Keyed(("id",), {"voxels": "sum"})
SECONDS_PER_VOXEL = 2e-6
BYTES_PER_VOXEL = 80
"""Rough work of a voxel with its share of the halo; and memory of one, with the halo."""


class Segment(VolumeAnalysis):
    """Cut an image of membranes into supervoxels: the baseline that `simexm agglomerate` makes cells of.

    It writes the image `membrane` (0 to 255: how bright a voxel is beside its surroundings), the label image `supervoxels`, and
    the table `sizes`. Each voxel drains to its steepest neighbour that lies deeper below a membrane; those that reach one summit
    are a supervoxel, whatever the blocks. Its id is one more than the smallest index of its voxels.

    Attributes
    ----------
    channel
        Name or number of the channel with membranes, of a simulated result with several.
    smoothing_nm
        Standard deviation of the Gaussian that smooths the image.
    local_nm
        And of the one that averages its surroundings.
    threshold
        Voxels whose `membrane`, from 0 to 1, is above it are membrane; 0.5 is as bright as the surroundings.
    deepest_nm
        Depth below a membrane from which voxels are equally deep.
    rounding_nm
        Standard deviation of the Gaussian that smooths depths. A larger one gives fewer supervoxels.
    """

    analysis: Literal["segment"] = "segment"
    channel: FreeText | None = None
    smoothing_nm: float = Field(default=20.0, ge=0, le=1000)
    local_nm: float = Field(default=250.0, gt=0, le=10_000)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    deepest_nm: float = Field(default=300.0, gt=0, le=10_000)
    rounding_nm: float = Field(default=25.0, ge=0, le=1000)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open paths or results as images."""
        return tuple(self._image(one) for one in inputs)

    def _image(self, one: Any) -> Volume:
        if isinstance(one, Volume):
            return one
        if self.dataset is None and self.level == 0 and self.voxel_size_nm is None:
            found = image_of(absolute(str(getattr(one, "path", one))), self.channel)
            if found is not None:
                return found
        if self.channel is not None:
            raise SpecError(
                f"{getattr(one, 'path', one)} is read as a volume with one channel, so there is no channel {self.channel!r}; "
                "leave channel out"
            )
        return self._volume(one)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open the image; raises SourceError if it holds no grey values, SpecError for a bad region."""
        self.refuse_other_count(inputs, 1, "IMAGE")
        return _SegmentBench(self, inputs[0])

    def halo(self, voxel_nm: tuple[float, float, float]) -> Triple:
        """Voxels around a box that decide its supervoxels, one beside the box included."""
        one = membrane_reach(self.smoothing_nm, self.local_nm, voxel_nm)
        other = depth_reach(self.deepest_nm, self.rounding_nm, voxel_nm)
        return three(a + b + 1 for a, b in zip(one, other, strict=True))


class _SegmentBench(Bench):
    """The image in blocks."""

    def __init__(self, settings: Segment, volume: Volume) -> None:
        self.settings, self.volume = settings, volume
        self.whole, self.voxel_nm = settings.box(volume), voxel_floats(volume)
        self.read = grey(volume.stack, Box.of_shape(volume.shape)).read
        self.halo = settings.halo(self.voxel_nm)
        self.grid = Grid(
            self.whole.shape, volume.voxel_nm, corner_nm(volume, self.whole), largest_shard=settings.block_voxels
        )
        self.tiling = Tiling(self.whole, self.grid.blocks.cell)
        self.products = (
            Product(MEMBRANE, "image", "czyx", "uint8", "brightness beside the surroundings", (MEMBRANE,)),
            labels(SUPERVOXELS, "uint64"),
        )
        self.surveys, self.keyed = (PARTS, PAIRS), {TABLE: SIZES}
        self.inputs = {"image": volume.identity}
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        sides = zip(self.tiling.cell, self.whole.shape, self.halo, strict=True)
        largest = math.prod(min(n + 2 * h, m) for n, m, h in sides)
        self.block_bytes = BYTES_PER_VOXEL * largest
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Find the basins at the borders of a block and where they leave it, then which basins that joins."""
        if name == PAIRS:
            return {"pairs": _joined(self.tiling, number, read)}
        box = self.tiling[number]
        found, exits, _ = self._basins(box)
        numbers = at_border(found, box, self.whole)
        part = parts_of(found, box, self.whole, self.volume.shape)
        own = numbers[found.painted(np.arange(len(found), dtype=np.int32)).reshape(-1)[exits[:, 0]]]
        return {**part, "exits": np.column_stack([own, exits[:, 1:]])}

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the basins of all blocks."""
        join(self.blocks, read, folder, lambda sizes: np.ones(len(sizes), np.bool_))

    def _basins(self, box: Box) -> tuple[Components, NDArray[np.int64], NDArray[np.float32]]:
        """Basins in a box; exits (n, 4): index in the box, and z, y, x in the volume of where to; and `membrane` in the box."""
        s = self.settings
        wide = box.grown(self.halo).intersect(self.whole)
        image = self.read(wide)
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise SpecError(
                f"{self.volume.where} holds values that are no numbers in the voxels {wide}; write a copy without"
            )
        found = membrane(image, s.smoothing_nm, s.local_nm, self.voxel_nm)
        near = box.grown((1, 1, 1)).intersect(self.whole)
        heights = depth_nm(found, s.threshold, s.deepest_nm, s.rounding_nm, self.voxel_nm)
        basins, exits = drained(
            heights[near.relative_to(wide.start).slices], box.relative_to(near.start), self.voxel_nm
        )
        places = np.stack(np.unravel_index(exits[:, 1], near.shape), axis=1) + np.array(near.start)
        inner = np.ascontiguousarray(found[box.relative_to(wide.start).slices])
        return Components.of(basins, 26), np.column_stack([exits[:, 0], places]), inner

    def measure(self, number: int) -> Mapping[str, Any]:
        """Paint the supervoxels of a block and count their voxels."""
        box = self.tiling[number]
        found, _, bright = self._basins(box)
        ids = voxel_ids(found, box, self.volume.shape)
        numbers = at_border(found, box, self.whole)
        ids[numbers > 0] = self.joined["ids"][int(self.joined["first"][number]) + numbers[numbers > 0] - 1]
        grey_values = np.rint(bright * np.float32(255)).astype(np.uint8)
        sizes = {"id": ids, "voxels": moments(found)[0]}
        return {TABLE: sizes, SUPERVOXELS: found.painted(ids), MEMBRANE: grey_values[None]}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Count supervoxels."""
        import pyarrow as pa  # type: ignore[import-untyped]

        rows: MergedRows = sums[TABLE]
        count = sum(piece["id"].size for piece in rows)
        volume = math.prod(self.voxel_nm) * 1e-9
        scores = (
            Score("supervoxels", float(count), "supervoxels", "summits of the depth below membranes"),
            Score("volume", self.voxels * volume / max(1, count), "um^3", "mean volume of a supervoxel"),
        )

        def table() -> Any:
            for piece in rows:
                yield pa.table({**piece, "volume_um3": piece["voxels"] * volume})

        return Conclusion({TABLE: table()}, scores)


def _joined(tiling: Tiling, number: int, read: ReadPart) -> NDArray[np.int64]:
    """Pairs that drain into each other: number here, other block, number there, (n, 3)."""
    box = tiling[number]
    exits = read(PARTS, number)["exits"]
    found = [np.zeros((0, 3), np.int64)]
    steps = np.where(exits[:, 1:] < box.start, -1, np.where(exits[:, 1:] >= box.stop, 1, 0))
    for offset in np.unique(steps, axis=0):
        some = exits[np.all(steps == offset, axis=1)]
        other = int(np.ravel_multi_index(tuple(np.array(tiling.position(number)) + offset), tiling.counts))
        theirs = tiling[other]
        axis = int(np.flatnonzero(offset)[0])
        layer = facing_layer(read(PARTS, other), [-int(o) if n == axis else 0 for n, o in enumerate(offset)])
        u, v = (some[:, 1 + n] - theirs.start[n] for n in range(3) if n != axis)
        found.append(np.column_stack([some[:, 0], np.full(len(some), other), layer[u, v]]))
    return np.concatenate(found)
