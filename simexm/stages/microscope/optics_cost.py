"""What the optics cost: time and memory, of the host and of a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simexm.geometry.grid import Box, Triple
from simexm.kernels.imaging import image
from simexm.stages.contract import RunContext
from simexm.stages.microscope.optics_plan import OpticsPlan, ring_depth
from simexm.stages.roles import ImagingCost

SECONDS_PER_NODE = 6.5e-9


@dataclass(frozen=True)
class OpticsCost(ImagingCost):
    """By the nodes of the simulation grid that tiles transform and hold."""

    plan: OpticsPlan
    seconds_per_pixel = 80e-9

    def relative(self, axis: int, pixels: int) -> float:
        """Nodes along z, pixels along the others, halos included."""
        if axis == 0:
            return pixels * self.plan.subdivision[0] + 2 * self.plan.reach
        return image.fast_pixels(pixels + 2 * self.plan.halo, self.plan.subdivision[1])

    @property
    def seconds_per_cost(self) -> float:
        """By the nodes that all tiles transform."""
        return math.prod(self.plan.subdivision[1:]) * len(self.plan.dyes()) * SECONDS_PER_NODE

    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Spectra of node planes, the ring where dyes are deposited, transfer functions, and spectra of the image's planes."""
        grid = self.plan.lateral(tile)
        fine = grid.nodes[0] * grid.nodes[1]
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        spectra = rows * columns * self.plan.window(Box.of_shape(tile)) * 8
        # the ring; of one plane some rows and their transform along x, and all of it, cut to the band, on the way along y
        ring = ring_depth(self.plan, chunk_nm) * fine * 8
        ring += image.ROWS * grid.nodes[1] * 8 + 2 * grid.nodes[0] * columns * 8
        transfer = (
            len(self.plan.pairs) * self.plan.frequencies * (self.plan.reach + 1) * 8
            + columns * (self.plan.reach + 1) * 4
        )
        # what is the same in all frames is kept
        return spectra + ring + transfer + self.kept_bytes(tile, channels) * (2 if context.acquisition.axes else 1)

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Spectra of the image's planes."""
        grid = self.plan.lateral(tile)
        return channels * tile[0] * grid.pixels[0] * (grid.pixels[1] // 2 + 1) * 8

    def device_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float, at_once: int) -> int:
        """The same of a GPU's memory, where so many image planes are made at once, but for what comes and goes in batches."""
        grid = self.plan.lateral(tile)
        low, high = self.plan.node_planes(Box.of_shape(tile))
        # the window of node planes, and once more while it moves up
        window = 2 * min(high - low, (at_once - 1) * self.plan.subdivision[0] + 2 * self.plan.reach + 1)
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        ring = (
            ring_depth(self.plan, chunk_nm)
            * math.prod((n + 2 * self.plan.halo) * self.plan.subdivision[1] for n in tile[1:])
            * 8
        )
        # the radial tables, and for each frequency where in them it lies and five factors
        response = len(self.plan.pairs) * (
            self.plan.frequencies * (self.plan.reach + 1) * 8 + (grid.band[0] + 1) * columns * 7 * 8
        )
        coarse = tile[0] * grid.pixels[0] * (grid.pixels[1] // 2 + 1) * 8 * (2 if context.acquisition.axes else 1)
        return rows * columns * window * 8 + ring + response + channels * (coarse + math.prod(tile) * (4 + 2))
