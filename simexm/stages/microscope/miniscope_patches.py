"""Footprints while they are made, cell after cell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.imaging import footprints as kernel
from simexm.kernels.imaging.footprints import SIGMAS, Lines, Patches, Splines
from simexm.stages.microscope.miniscope_plan import NODE_PIXELS

Array = NDArray[np.float64]


class Patching:
    """Patches while they are made; boxes are in pixels of the tile: first row and column, rows, columns."""

    def __init__(self, origin: tuple[int, ...], shape: tuple[int, int]) -> None:
        self.origin = np.array(origin, np.float64)
        self._shape = shape
        self._cells: list[int] = []
        self._boxes: list[tuple[int, int, int, int, int]] = []
        self._values: list[NDArray[np.float32]] = []
        self._size = 0

    def empty(self) -> Patching:
        """The same without patches."""
        return Patching((int(self.origin[0]), int(self.origin[1])), self._shape)

    def box(self, low_y: float, high_y: float, low_x: float, high_x: float) -> tuple[int, int, int, int] | None:
        """Return the tile's pixels between places of the image, in pixels; None if there are none."""
        y0, x0 = (max(0, math.floor(v - o)) for v, o in zip((low_y, low_x), self.origin, strict=True))
        y1, x1 = (
            min(n, math.ceil(v - o) + 1) for v, o, n in zip((high_y, high_x), self.origin, self._shape, strict=True)
        )
        return (y0, x0, y1 - y0, x1 - x0) if y1 > y0 and x1 > x0 else None

    def add(self, row: int, box: tuple[int, int, int, int], values: Array) -> None:
        """Add the patch of a cell."""
        self._cells.append(row)
        self._boxes.append((*box, self._size))
        self._values.append(values.astype(np.float32).ravel())
        self._size += values.size

    def joined(self) -> Patches:
        """All patches."""
        box = np.array(self._boxes, np.int64).reshape(-1, 5)
        return Patches(np.array(self._cells, np.int64), box, np.concatenate([np.zeros(0, np.float32), *self._values]))


class Lining:
    """Lines while they are made."""

    def __init__(self, splines: Splines) -> None:
        self.splines = splines
        self._cells: list[int] = []
        self._boxes: list[list[int]] = []
        self._values: list[Array] = []
        self._size = 0

    def add(self, row: int, y: float, x: float, sigma: float, amount: float) -> None:
        """Add the scattered light of a cell; lengths in pixels. Splines widen it by a third of a node squared."""
        narrow = math.sqrt((sigma / NODE_PIXELS) ** 2 - 1 / 3)
        box, lines = [], []
        for place, first, count in zip((y, x), self.splines.first, self.splines.shape, strict=True):
            centre = place / NODE_PIXELS
            low = max(first, math.ceil(centre - SIGMAS * narrow))
            high = min(first + count, math.floor(centre + SIGMAS * narrow) + 1)
            if high <= low:
                return
            along = np.empty(high - low)
            kernel.line(centre, narrow, float(low), along)
            box.append((low - first, along.size))
            lines.append(along / NODE_PIXELS)
        lines[0] = lines[0] * amount
        (y0, rows), (x0, columns) = box
        self._cells.append(row)
        self._boxes.append([y0, x0, rows, columns, self._size, self._size + rows])
        self._values += lines
        self._size += rows + columns

    def joined(self) -> Lines:
        """All lines."""
        box = np.array(self._boxes, np.int64).reshape(-1, 6)
        return Lines(np.array(self._cells, np.int64), box, np.concatenate([np.zeros(0), *self._values]))
