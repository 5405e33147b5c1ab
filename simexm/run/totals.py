"""Add up the blocks' statistics, and make warnings from them."""

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
    """Sums over blocks."""

    blocks: int = 0
    voxels: int = 0  # in cells
    unspecific: dict[str, int] = field(default_factory=dict)  # dyes of each layer bound outside its cells
    clipped: list[int] = field(default_factory=list)  # saturated pixels by channel, in all frames
    histograms: list[NDArray[np.int64]] = field(default_factory=list)  # of counts in quarter octaves, likewise
    sums: dict[str, int] = field(default_factory=dict)  # of the tables' columns, and those of `Stage.sums`
    rows: dict[str, int] = field(default_factory=dict)  # number in the blocks' parts of each summed table
    largest: dict[str, list[float]] = field(default_factory=dict)  # value of each channel, by output

    def add(self, statistics: Mapping[str, Any]) -> None:
        """Add the `BlockResult.statistics` of a block."""
        self.blocks += 1
        self.voxels += statistics["voxels"]
        added = [(self.unspecific, statistics["unspecific"]), (self.rows, statistics.get("rows", {}))]
        for into, values in [*added, *((self.sums, sums) for sums in statistics["sums"].values())]:
            for name, number in values.items():
                into[name] = into.get(name, 0) + number
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
        """List warnings that are known only after the run: empty layers, clipped pixels."""
        texts = [text for stage in plan.stages for text in stage.end_warnings(self.sums)]
        pixels = int(np.prod(plan.shape)) * len(plan.frames)
        detector = plan.simulation.detector
        above = f"above about {detector.saturation_e:.3g} photo-electrons" if detector else "at the largest count"
        for channel, clipped in zip(plan.outputs[0].channels, self.clipped, strict=True):
            if clipped:
                texts.append(
                    f"{clipped} pixels of channel {channel!r} ({clipped / pixels:.2%}) are saturated, {above}; lower the light "
                    "or the detector's gain"
                )
        return texts
