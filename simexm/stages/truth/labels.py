"""Truth: labels on the pixel grid, by the transform of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import NmBox, Tiling, Triple, three
from simexm.kernels.deformation import places
from simexm.kernels.numbers import gather as kernel
from simexm.stages.contract import LABELS, REGIONS, TRUTH, LabelPart, Quantity, RunContext, Stage, TileState
from simexm.stages.products import Product, labels
from simexm.stages.truth.places import planes_of_voxels

_AT_ONCE: Triple = (24, 512, 512)
"""Pixels inverted together, to bound the memory of coordinates."""


class Truth(Stage):
    """The cell at each pixel centre: that of the half-open voxel that holds the centre before expansion.

    Computed in exact arithmetic if expansion is uniform.

    Attributes
    ----------
    regions
        Regions that get label images, too: `labels/LAYER_REGION` holds the layer's cells within the region.
    """

    stage: Literal["truth"] = "truth"
    regions: tuple[str, ...] = ()

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (TRUTH,)
    always: ClassVar[bool] = True
    on_grid: ClassVar[bool] = True

    @property
    def inputs(self) -> tuple[Quantity, ...]:
        """Labels and, if label images of regions are asked for, regions."""
        return (LABELS, REGIONS) if self.regions else (LABELS,)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The box before expansion, with a voxel of margin for specimens thinner than half a pixel."""
        tissue = context.geometry.transform.bound_inverse(wanted).grown(context.geometry.voxel_nm)
        return {q.name: tissue for q in self.inputs}

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Gather the pixels with centres in the part."""
        if part.again:
            return
        for name in ("", *self.regions):
            state.scratch.setdefault(name, np.zeros(state.pixels.shape, np.int32))
        if state.context.geometry.transform.is_uniform:
            self._gather_axes(part, state)
        else:
            self._gather_points(part, state)

    def _gather_axes(self, part: LabelPart, state: TileState) -> None:
        """Gather axis by axis, with exact sampling."""
        geometry = state.context.geometry
        index: list[NDArray[np.int64]] = []
        where: list[slice] = []
        for axis, (sampling, corner) in enumerate(zip(geometry.axes, geometry.crop.start, strict=True)):
            centre = sampling.voxel_at_centre(state.pixels.start[axis], state.pixels.stop[axis]) + corner
            first, last = np.searchsorted(centre, (part.core.start[axis], part.core.stop[axis]))
            index.append(centre[first:last] - part.box.start[axis])
            where.append(slice(first, last))
        z, y, x = index
        at = three(where)
        kernel.gather(part.index, z, y, x, state.scratch[""][at])
        for name in self.regions:
            bit = state.context.region_bits[name]
            state.device.gather_where(part.on_device(), bit, z, y, x, state.scratch[name][at])
        self._cut(state, at, np.ix_(*(i + first for i, first in zip((z, y, x), part.box.start, strict=True))))

    def _gather_points(self, part: LabelPart, state: TileState) -> None:
        """Gather pixel by pixel; 0 outside the specimen."""
        geometry = state.context.geometry
        core = part.core.intersect(geometry.crop)
        if core.is_empty:
            return
        reached = geometry.transform.bound(geometry.voxels_nm(core.relative_to(geometry.crop.start)))
        pixels = geometry.pixels(reached).intersect(state.pixels)
        bits = state.device.to_host(part.marked()) if self.regions else np.empty((0, 0, 0), np.uint8)
        within = [np.array(corner) for corner in (core.start, core.stop, part.box.start)]
        # where tissue is missing, the voxel itself counts, not only its label
        around = None if state.context.missing.get(state.context.frame) else places.Around(part.index, bits, *within)
        for some in Tiling(pixels, _AT_ONCE):
            inside = some.relative_to(state.pixels.start).slices
            for plane, voxels in enumerate(
                planes_of_voxels(geometry, some, around), some.start[0] - state.pixels.start[0]
            ):
                at = plane, *inside[1:]
                places.gather_at(part.index, *within, voxels, state.scratch[""][at])
                for name in self.regions:
                    bit = state.context.region_bits[name]
                    places.gather_where_at(part.index, bits, bit, *within, voxels, state.scratch[name][at])
                self._cut(state, at, tuple(voxels))

    def _cut(self, state: TileState, at: tuple[Any, ...], voxels: Sequence[NDArray[np.int64]]) -> None:
        """Clear pixels whose voxels the frame lacks; coordinates of voxels may be arrays that broadcast together."""
        for box in state.context.missing.get(state.context.frame, ()):
            inside: Any = True
            for v, first, last in zip(voxels, box.start, box.stop, strict=True):
                inside = inside & (v >= first) & (v < last)
            for name in ("", *self.regions):
                state.scratch[name][at][inside] = 0

    def run(self, state: TileState) -> None:
        """Write cell indices of the tile, int32, (z, y, x), of all cells and within each region."""
        state.labels.survey()
        state.write(TRUTH, dict(state.scratch))

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """Label images of all cells, of each layer, and of each layer within each region."""
        layers = tuple(context.dye_of_layer)
        whole = [labels(layer, context.id_dtype, layer=layer, region="") for layer in ("cells", *layers)]
        cut = [
            labels(f"{layer}_{region}", context.id_dtype, layer=layer, region=region)
            for region in self.regions
            for layer in layers
        ]
        return (*whole, *cut)

    def store(self, product: Product, state: TileState, out: NDArray[Any]) -> None:
        """Write the ids of the cells that the layer labels."""
        ids, layer = state.cell_ids, product.about["layer"]
        if layer != "cells":
            labeller = state.context.labeller
            assert labeller is not None
            flags = labeller.labelled(layer, ids, state.context.seed, state.counted)
            ids = np.where(flags, ids, np.uint64(0))
        kernel.look_up(ids.astype(out.dtype), state.scratch[product.about["region"]], out)

    def pixel_bytes(self, context: RunContext) -> int:
        """Cell indices."""
        return 4 * (1 + len(self.regions))

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """Regions with label images."""
        return tuple((region, "the stage truth makes label images of") for region in self.regions)
