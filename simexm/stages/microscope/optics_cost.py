"""Cost of the optics: time, and memory of host and GPU."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

from simexm.geometry.grid import Box, Triple
from simexm.kernels.devices.array_device import CAPACITY as ARRAY_CAPACITY
from simexm.kernels.emission.emit import CAPACITY
from simexm.kernels.imaging import far, gridding, image
from simexm.stages.contract import RunContext
from simexm.stages.microscope.haze_image import AT_ONCE, PLANES, windows_of
from simexm.stages.microscope.optics_plan import MOST_PLANAR, MOST_TABLES, OpticsPlan, ring_depth
from simexm.stages.roles import ImagingCost

SECONDS_PER_NODE = 9.5e-9
TERM_SHARE = 0.5
"""Time that each further term of the light takes, of that of the first."""
FIELD_BYTES = 240
"""Memory for the fields of one depth: of five components, on a grid twice as long as a table of transfer functions."""
HAZE_SHARE = 0.2
"""Time that far light takes, of that of the near range."""


@dataclass(frozen=True)
class OpticsCost(ImagingCost):
    """Cost by the nodes of the simulation grid that tiles transform and hold."""

    plan: OpticsPlan
    seconds_per_pixel = 80e-9

    def relative(self, axis: int, pixels: int) -> float:
        """Nodes along z, pixels along y and x, with halos."""
        if axis == 0:
            return pixels * self.plan.subdivision[0] + 2 * self.plan.reach
        return image.fast_pixels(pixels + 2 * self.plan.halo, self.plan.subdivision[1])

    @property
    def seconds_per_cost(self) -> float:
        """Seconds by the number of transformed nodes."""
        return (
            math.prod(self.plan.subdivision[1:])
            * len(self.plan.looks())
            * (1 + TERM_SHARE * (self.plan.rank - 1))
            * SECONDS_PER_NODE
            * (1 + HAZE_SHARE * (self.plan.haze is not None))
        )

    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Spectra of node planes, deposit ring, transfer functions, and spectra of image planes."""
        part, views = self._views(tile)
        grid = self.plan.lateral(part)
        fine = grid.nodes[0] * grid.nodes[1]
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        spectra = rows * columns * self.plan.window(Box.of_shape(tile)) * 8 * self.plan.rank
        # the ring; of one plane, a few rows with their transform along x, and the band-limited plane during that along y
        ring = ring_depth(self.plan, chunk_nm + self.plan.spread_nm) * fine * 8
        once = image.ROWS * grid.nodes[1] * 8 + 2 * grid.nodes[0] * columns * 8 + self._moved_bytes(fine)
        transfer = self._table_bytes(tile) + self._depths(tile) * columns * self.plan.offsets * 2 * 4
        transfer += self._planar_bytes(tile, rows * columns)
        # the spectra that all frames share are held as well
        kept = self.kept_bytes(tile, channels) * (2 if context.acquisition.axes else 1)
        near = views * (spectra + ring + self._factor_bytes(fine)) + once + transfer + kept
        return self._kernel_bytes() + max(near, self._far_bytes(tile, channels))

    def _parts(self, tile: Triple) -> tuple[Triple, int]:
        """Shape and number of the parts into which frames cut a tile."""
        field = self.plan.field
        if field is None:
            return tile, 1
        y, x = (field.pieces(axis, tile[axis]) for axis in (1, 2))
        return (tile[0], -(-tile[1] // y), -(-tile[2] // x)), y * x

    def _views(self, tile: Triple) -> tuple[Triple, int]:
        """Shape of the parts of a tile, and how many grids a dye is deposited on at once."""
        part, count = self._parts(tile)
        dyes = [look.dye for look in self.plan.looks()]
        return part, count * max(map(dyes.count, dyes))

    def _factor_bytes(self, nodes: int) -> int:
        """Weights of the terms, while they are made and after."""
        terms = self.plan.terms
        return 0 if terms is None or len(terms.axes) < 2 else self.plan.rank * nodes * (8 + 4)

    def _moved_bytes(self, nodes: int) -> int:
        """A weighted plane, and moved dyes of a chunk on a CPU."""
        return (0 if self.plan.terms is None else 8 * nodes) + (0 if self.plan.field is None else 8 * 8 * CAPACITY)

    def _kernel_bytes(self) -> int:
        """Kernels of far light, which a process keeps."""
        haze = self.plan.haze
        if haze is None:
            return 0
        lengths = (b - a for a, b in itertools.pairwise(haze.starts))
        kernels = (n * (radius + 1) ** 2 for n, radius in zip(lengths, haze.radii, strict=True))
        return sum(kernels) * len(self.plan.pairs) * self._sides * self.plan.rank * 4

    @property
    def _sides(self) -> int:
        """Sides of a plane whose far light differs."""
        return 2 if self.plan.signed or self.plan.terms is not None else 1

    def _far_bytes(self, tile: Triple, channels: int) -> int:
        """Far light: of the largest level the transfer functions, spectra of image planes and planes of nodes; then planes."""
        haze = self.plan.haze
        if haze is None:
            return 0
        planes, most, fields = min(tile[0], PLANES), 0, 0
        windows = windows_of(haze, Box.of_shape(tile))
        for level, radius in enumerate(haze.radii):
            _, y, x = windows[haze.pixels[level].bit_length() - 1].shape
            # a tile that begins elsewhere may need one node more
            size = far.lengths((y + 1, x + 1), radius)
            cells, offsets = size[0] * (size[1] // 2 + 1), haze.starts[level + 1] - haze.starts[level]
            added = planes * cells * 12 + AT_ONCE * cells * 16 * (1 + len(self.plan.looks()))
            tables = len(self.plan.pairs) * self._sides * self.plan.rank * offsets
            held = channels * planes * cells * 8 + tables * cells * 4 + self._factor_bytes(cells)
            most = max(most, held + max(added, channels * planes * cells * 16))
            fields += channels * planes * y * x * 4
        return most + fields + 6 * AT_ONCE * tile[1] * tile[2] * 4

    def _depths(self, tile: Triple) -> int:
        """Depths that the planes of a tile blend, wherever it lies."""
        depths = len(self.plan.tables(Box.of_shape(tile)))
        return depths if self.plan.depths is None else min(depths + 1, len(self.plan.depths.foci))

    def _table_bytes(self, tile: Triple) -> int:
        """Radial tables: those that a process keeps and, for several depths, those that the tile blends."""
        depths = self.plan.depths
        tables = (1 + self.plan.signed) if depths is None else min(len(depths.foci), MOST_TABLES) + self._depths(tile)
        return len(self.plan.pairs) * self.plan.frequencies * self.plan.offsets * 8 * tables * self.plan.rank

    def _planar_bytes(self, tile: Triple, frequencies: int) -> int:
        """Transfer functions without symmetry: those of one dye on a tile's frequencies, and what a process keeps of others."""
        pairs = [p for p in self.plan.pairs if p.planar is not None]
        if not pairs:
            return 0
        foci = 1 if self.plan.depths is None else len(self.plan.depths.foci)
        largest = max(math.prod(p.planar) for p in pairs if p.planar is not None)
        tables = min(len(pairs) * foci, MOST_PLANAR) * self.plan.rank
        # while one is computed: the same with its margin, and the fields at one depth
        rows = max(p.planar[0] for p in pairs if p.planar is not None)
        computed = (self.plan.offsets + 2 * gridding.MARGIN) * 8 * largest + FIELD_BYTES * rows * rows
        return self.plan.offsets * 8 * (tables * largest + self._together(tile) * frequencies) + computed

    def _together(self, tile: Triple) -> int:
        """Pairs of one dye, times depths, terms and parts, whose transfer functions without symmetry are held together."""
        dyes = Counter(p.dye for p in self.plan.pairs if p.planar is not None)
        return max(dyes.values(), default=0) * self._depths(tile) * self.plan.rank * self._parts(tile)[1]

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Spectra of image planes."""
        part, count = self._parts(tile)
        grid = self.plan.lateral(part)
        return count * channels * tile[0] * grid.pixels[0] * (grid.pixels[1] // 2 + 1) * 8

    def device_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float, at_once: int) -> int:
        """GPU memory for `at_once` image planes, without temporary batches."""
        part, views = self._views(tile)
        grid = self.plan.lateral(part)
        low, high = self.plan.node_planes(Box.of_shape(tile))
        # the window of node planes, twice while it moves
        window = 2 * min(high - low, (at_once - 1) * self.plan.subdivision[0] + 2 * self.plan.reach + 1)
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        ring = (
            ring_depth(self.plan, chunk_nm + self.plan.spread_nm)
            * math.prod((n + 2 * self.plan.halo) * self.plan.subdivision[1] for n in part[1:])
            * 8
        )
        # the radial tables, and for each frequency its place in them and five factors
        response = self._table_bytes(tile) + len(self.plan.pairs) * (grid.band[0] + 1) * columns * 7 * 8
        response += self._together(tile) * rows * columns * self.plan.offsets * 8
        coarse = self.kept_bytes(tile, channels) * (2 if context.acquisition.axes else 1)
        spectra = rows * columns * window * 8 * self.plan.rank
        near = views * (spectra + ring + self._factor_bytes(grid.nodes[0] * grid.nodes[1])) + response + coarse
        near += 0 if self.plan.field is None else 6 * 8 * ARRAY_CAPACITY
        return max(near, self._far_bytes(tile, channels)) + channels * math.prod(tile) * (4 + 2)
