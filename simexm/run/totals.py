"""What the blocks' statistics add up to, and what that tells a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.detector.camera import BINS
from simexm.planning.plan import Plan


@dataclass
class Totals:
    """Sums over blocks.

    Attributes
    ----------
    blocks
        How many were added.
    voxels
        Voxels of cells.
    dyes, unspecific
        Dyes of each layer on its cells, and bound elsewhere.
    clipped, histograms
        Pixels cut at the camera's largest count, and counts in quarter octaves, by channel, of all rounds together.
    amplicons
        Amplicons in all; None where there are no rounds.
    lacking
        Cells that the codebook lacks.
    largest
        Largest value of each channel, by output.
    """

    blocks: int = 0
    voxels: int = 0
    dyes: dict[str, int] = field(default_factory=dict)
    unspecific: dict[str, int] = field(default_factory=dict)
    clipped: list[int] = field(default_factory=list)
    histograms: list[NDArray[np.int64]] = field(default_factory=list)
    amplicons: int | None = None
    lacking: int = 0
    largest: dict[str, list[float]] = field(default_factory=dict)

    def add(self, statistics: Mapping[str, Any]) -> None:
        """Add what `BlockResult.statistics` tells of one block."""
        self.blocks += 1
        self.voxels += statistics["voxels"]
        for into, values in ((self.dyes, statistics["dyes"]), (self.unspecific, statistics["unspecific"])):
            for layer, number in values.items():
                into[layer] = into.get(layer, 0) + number
        if "amplicons" in statistics:
            self.amplicons = (self.amplicons or 0) + statistics["amplicons"]
        for output, values in statistics["largest"].items():
            self.largest[output] = [*map(max, values, self.largest.get(output, values))]
        for c, image in enumerate(statistics["images"]):
            if c == len(self.clipped):
                self.clipped.append(0)
                self.histograms.append(np.zeros(BINS, np.int64))
            self.clipped[c] += image["clipped"]
            for bin_, number in image["histogram"]:
                self.histograms[c][bin_] += number

    def warnings(self, plan: Plan) -> list[str]:
        """What only the run could know: empty layers, clipped pixels."""
        told = []
        for layer in plan.simulation.labeller.named_layers:
            if not self.dyes.get(layer.name):
                told.append(
                    f"layer {layer.name!r} is empty: no labelled cell has a voxel of region {layer.region!r} that carries a "
                    "dye; check region, share of cells and density"
                )
        if self.amplicons == 0:
            told.append(
                "there is no amplicon at all, so no barcode can be read: no cell with a barcode has a voxel of the regions "
                "that holds one; check the regions, density_per_um3, cell_fraction and the codebook's ids"
            )
        if self.lacking:
            told.append(
                f"{self.lacking} cells are not in the codebook, so they carry no barcode and hold no amplicon; add lines "
                "id,barcode for them where that is not meant"
            )
        pixels = int(np.prod(plan.shape)) * len(plan.rounds)
        for channel, clipped in zip(plan.outputs[0].channels, self.clipped, strict=True):
            if clipped:
                told.append(
                    f"{clipped} pixels of channel {channel!r} ({clipped / pixels:.2%}) are cut at the camera's largest count; "
                    "lower the light or gain_counts_per_e, or raise bits"
                )
        return told
