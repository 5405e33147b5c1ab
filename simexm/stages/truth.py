"""Truth: labels on the image's grid, by the image's own transform."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.grid import NmBox
from simexm.stages.base import LABELS, TRUTH, LabelBlock, Quantity, Stage, Work, World


class Truth(Stage):
    """The cell at each pixel's centre: that of the half-open voxel which holds the centre, in exact arithmetic."""

    stage: Literal["truth"] = "truth"

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (TRUTH,)

    def needs(self, wanted: NmBox, world: World) -> dict[str, NmBox]:
        """The same box before expansion; a voxel of margin where the specimen is thinner than half a pixel."""
        return {"labels": wanted.scaled(1 / world.geometry.factor).grown(world.geometry.voxel_nm)}

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
        work.values["truth"] = labels.index[np.ix_(*index)]
