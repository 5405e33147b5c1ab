"""Truth: labels on the image's grid, by the image's own transform."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import NmBox, Tiling, Triple
from simexm.kernels.numbers import gather as kernel
from simexm.stages.contract import LABELS, REGIONS, TRUTH, LabelPart, Quantity, Stage, Work, World

_AT_ONCE: Triple = (1, 128, 512)
"""Pixels whose centres are inverted together, so that coordinates take little memory."""


class Truth(Stage):
    """The cell at each pixel's centre: that of the half-open voxel which holds the centre before expansion.

    In exact arithmetic where expansion is uniform.

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
        tissue = world.geometry.transform.bound_inverse(wanted).grown(world.geometry.voxel_nm)
        return {q.name: tissue for q in self.inputs}

    def see(self, part: LabelPart, work: Work) -> None:
        """Gather the pixels whose centres lie in the part."""
        if part.again:
            return
        for name in ("", *self.regions):
            work.values.setdefault(_name(name), np.zeros(work.pixels.shape, np.int32))
        if work.world.geometry.transform.is_uniform:
            self._gather_axes(part, work)
        else:
            self._gather_points(part, work)

    def _gather_axes(self, part: LabelPart, work: Work) -> None:
        """Gather by the exact sampling of each axis."""
        geometry = work.world.geometry
        index: list[NDArray[np.int64]] = []
        where: list[slice] = []
        for axis, (sampling, corner) in enumerate(zip(geometry.axes, geometry.crop.start, strict=True)):
            centre = sampling.voxel_at_centre(work.pixels.start[axis], work.pixels.stop[axis]) + corner
            first, last = np.searchsorted(centre, (part.core.start[axis], part.core.stop[axis]))
            index.append(centre[first:last] - part.box.start[axis])
            where.append(slice(first, last))
        z, y, x = index
        at = (where[0], where[1], where[2])
        kernel.gather(part.index, z, y, x, work.values[_name("")][at])
        for name in self.regions:
            bit = work.world.region_bits[name]
            work.device.gather_where(part.on_device(), bit, z, y, x, work.values[_name(name)][at])

    def _gather_points(self, part: LabelPart, work: Work) -> None:
        """Gather pixel by pixel: where a centre lies outside the specimen, there is nothing, 0."""
        geometry = work.world.geometry
        core = part.core.intersect(geometry.crop)
        if core.is_empty:
            return
        reached = geometry.transform.bound(geometry.voxels_nm(core.relative_to(geometry.crop.start)))
        pixels = geometry.pixels(reached).intersect(work.pixels)
        bits = work.device.to_host(part.marked()) if self.regions else np.empty((0, 0, 0), np.uint8)
        for some in Tiling(pixels, _AT_ONCE):
            voxel = geometry.voxels_at_centres(some)
            here = np.ones(some.shape, np.bool_)
            for v, first, last in zip(voxel, core.start, core.stop, strict=True):
                here &= (v >= first) & (v < last)
            at = tuple(v[here] - first for v, first in zip(voxel, part.box.start, strict=True))
            where = some.relative_to(work.pixels.start).slices
            cells = part.index[at]
            work.values[_name("")][where][here] = cells
            for name in self.regions:
                inside = (bits[at] & work.world.region_bits[name]) != 0
                work.values[_name(name)][where][here] = np.where(inside, cells, 0)

    def run(self, work: Work) -> None:
        """Write cell indices of the tile, int32, (z, y, x), of all cells and of those in each region."""
        work.labels.survey()


def _name(region: str) -> str:
    return f"truth_{region}" if region else "truth"
