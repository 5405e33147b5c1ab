"""Truth: labels on the image's grid, by the image's own transform."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.grid import NmBox
from simexm.kernels import gather as kernel
from simexm.stages.base import LABELS, REGIONS, TRUTH, LabelBlock, Quantity, Stage, Work, World


class Truth(Stage):
    """The cell at each pixel's centre: that of the half-open voxel which holds the centre, in exact arithmetic.

    Attributes
    ----------
    regions
        Regions of which there are label images, too: `labels/LAYER_REGION` holds the layer's cells where they are in the region.
    """

    stage: Literal["truth"] = "truth"
    regions: tuple[str, ...] = ()

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (TRUTH,)

    @property
    def inputs(self) -> tuple[Quantity, ...]:
        """Regions, too, where they are wanted."""
        return (LABELS, REGIONS) if self.regions else (LABELS,)

    def needs(self, wanted: NmBox, world: World) -> dict[str, NmBox]:
        """The same box before expansion; a voxel of margin where the specimen is thinner than half a pixel."""
        tissue = wanted.scaled(1 / world.geometry.factor).grown(world.geometry.voxel_nm)
        return {q.name: tissue for q in self.inputs}

    def run(self, work: Work) -> None:
        """Write cell indices of the tile, int32, (z, y, x); see `LabelBlock.cells` for their ids."""
        labels: LabelBlock = work.values["labels"]
        geometry = work.world.geometry
        index: list[NDArray[np.int64]] = []
        for axis, (sampling, corner, start) in enumerate(
            zip(geometry.axes, geometry.crop.start, labels.box.start, strict=True)
        ):
            centre = sampling.voxel_at_centre(work.pixels.start[axis], work.pixels.stop[axis])
            index.append(centre + (corner - start))
        z, y, x = index
        truth = np.empty(work.pixels.shape, np.int32)
        kernel.gather(labels.index, z, y, x, truth)
        work.values["truth"] = truth
        for name in self.regions:
            cut = np.empty(work.pixels.shape, np.int32)
            bit = np.uint8(work.world.region_bits[name])
            kernel.gather_where(labels.index, work.values["regions"], bit, z, y, x, cut)
            work.values[f"truth_{name}"] = cut
