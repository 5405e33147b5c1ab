"""Regions: which part of its cell a voxel belongs to."""

from __future__ import annotations

from typing import ClassVar, Literal

from simexm.geometry.grid import NmBox, three
from simexm.kernels.labels import regions as kernel
from simexm.stages.contract import LABELS, REGIONS, LabelPart, Quantity, RegionRule, RunContext, Stage, TileState


class Regions(Stage):
    """Membrane, cytosol, and any region for which the source has a mask.

    Membrane: voxels of a cell with a neighbour of another id (0 counts as an id; outside the volume there is no
    neighbour). Cytosol: the rest of the cell. Masks of the source are cut to cells.

    Attributes
    ----------
    neighbourhood
        26: neighbours in 3-D. 8: neighbours in the slice only, for slices much thicker than a pixel.
    """

    stage: Literal["regions"] = "regions"
    neighbourhood: Literal[26, 8] = 26

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (REGIONS,)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of one voxel along the axes of the neighbourhood."""
        halo = kernel.halo(self.neighbourhood)
        return {"labels": wanted.grown(three(h * v for h, v in zip(halo, context.geometry.voxel_nm, strict=True)))}

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Find the regions; the outermost voxels of the part's box are valid only on the volume's border."""
        masks = [(state.context.region_bits[name], mask) for name, mask in part.masks.items()]
        part.placed = state.device.put(part.index)
        part.regions = state.device.regions(part.placed, self.neighbourhood, masks)

    def run(self, state: TileState) -> None:
        """Write the rule by which membranes were found; it also decides how surfaces are measured."""
        state.write(REGIONS, RegionRule(in_slice=self.neighbourhood == 8))
