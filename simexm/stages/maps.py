"""Maps: coarse volumes of the whole specimen that a stage makes in a pass of its own before imaging.

The nodes of a map lie at the centres of cells that divide or join pixels: `per_plane` cells to a plane along z at all
levels, and one to `pixels[level]` pixels along y and x. A block of pixels owns the nodes of its cells, at all levels; blocks
at the image's borders own those beyond it, too. So blocks share no node, and a node's value is a function of the specimen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Spacing, Triple, three, triple

MARGIN = 2
"""Planes beyond the first and the last one whose cells belong to a map; cells of the coarsest level along y and x: 1."""


@dataclass(frozen=True)
class MapPass:
    """A map of the whole specimen; each level's values are sums of those of the finest one."""

    name: str
    layers: tuple[str, ...]
    per_plane: int
    """Nodes to a plane, an odd number, so that one lies in the plane."""
    pixels: tuple[int, ...]
    """Pixels to a node along y and x by level, powers of 2 in ascending order, at most 16."""
    spread: float
    """Cells of the finest level around a node from which it takes its value."""
    reach_pixels: int
    """Pixels along y and x around a tile from which imaging reads the map."""
    beyond: Triple = (0, 0, 0)
    """Planes and pixels by which things may be moved out of the image; the latter are multiples of the coarsest node."""
    origin_nm: tuple[Spacing, Spacing] = ((Fraction(0),) * 3, (Fraction(0),) * 3)
    """How far what belongs to a node lies from it at least and at most, nm of expanded tissue."""

    @property
    def planes_beyond(self) -> int:
        """Planes of the map beyond the first and the last one of the image."""
        return MARGIN + self.beyond[0]

    def cell_nm(self, pixel_nm: Spacing) -> Spacing:
        """Size of a cell of the finest level."""
        z, y, x = pixel_nm
        return z / self.per_plane, y * self.pixels[0], x * self.pixels[0]

    def own(self, box: Box, image: Triple) -> Box:
        """Pixels whose cells a box of pixels owns, in an image of this shape: the box, and beyond it at the borders."""
        coarsest = self.pixels[-1]
        before = (self.planes_beyond, *(coarsest + more for more in self.beyond[1:]))
        along = zip(image[1:], before[1:], strict=True)
        after = (image[0] + self.planes_beyond + 1, *(-(-n // coarsest) * coarsest + more for n, more in along))
        start = triple(a if a else -m for a, m in zip(box.start, before, strict=True))
        stop = triple(e if b == n else b for b, n, e in zip(box.stop, image, after, strict=True))
        return Box(start, stop)

    def cells(self, box: Box, level: int) -> Box:
        """Cells of a level that a box of pixels consists of."""
        n, p = self.per_plane, self.pixels[level]
        start, stop = (three((z * n, y // p, x // p)) for z, y, x in (box.start, box.stop))
        return Box(start, stop)

    def levels(self, finest: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Values of all levels, from those of the finest one, (layers, z, y, x)."""
        found = [finest]
        for before, after in itertools.pairwise(self.pixels):
            values = found[-1]
            for _ in range((after // before).bit_length() - 1):
                values = values[:, :, ::2] + values[:, :, 1::2]
                values = values[..., ::2] + values[..., 1::2]
            found.append(values)
        return found
