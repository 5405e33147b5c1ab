"""Footprints of a tile's cells, and frames from them."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.imaging import footprints as kernel
from simexm.kernels.imaging.footprints import PER_PIXEL, SIGMAS, Lines, Patches, Splines
from simexm.stages.contract import CellSeries, LabelPart, TileState
from simexm.stages.microscope.miniscope_plan import NODE_PIXELS, RADIUS_STEP_PIXELS, WIDE_NODES, MiniscopePlan
from simexm.stages.sample.activity import SEEN, Activity

if TYPE_CHECKING:
    from simexm.stages.contract import RunContext

Array = NDArray[np.float64]
_AT_ONCE = 256
"""Frames of the series that are read together."""


class _Made(NamedTuple):
    """Footprints of a tile, for light of one electron per uM um^3."""

    sharp: Patches
    wide: Lines
    splines: Splines
    collected: Array
    """Vignette over the tile, (y, x)."""


class Footprints:
    """Voxels of the cells near a tile, then their footprints, then frames."""

    def __init__(self, plan: MiniscopePlan) -> None:
        self._plan = plan
        self._found: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []
        self._made: _Made | None = None
        self._read: tuple[int, Array] = (-1, np.zeros((0, 0)))

    def collect(self, part: LabelPart, state: TileState) -> None:
        """Keep the voxels of cells in a part: their ids, and their places in the specimen."""
        core = part.core.intersect(state.context.geometry.crop)
        if core.is_empty or self._made is not None:
            return
        index = part.index[core.relative_to(part.box.start).slices]
        at = np.nonzero(index)
        corner = np.array(core.start) - np.array(state.context.geometry.crop.start)
        places = np.stack(at, -1).astype(np.int32) + corner.astype(np.int32)
        self._found.append((part.cells.ids[index[at]], places))

    def image(self, state: TileState, series: CellSeries | None) -> NDArray[np.float32]:
        """Return the expected image of the current frame, (channel, 1, y, x), electrons."""
        if self._made is None:
            self._made = self._make(state)
            self._found = []
        made = self._made
        rows, columns = state.pixels.shape[1:]
        total = np.zeros((rows, columns))
        weight = self._brightness(state, series)
        kernel.add_patches(*made.sharp, weight, total)
        nodes = np.zeros(made.splines.shape)
        kernel.add_lines(*made.wide, weight, nodes)
        made.splines.draw(nodes, total)
        total *= made.collected
        out = np.empty((len(state.context.channels), 1, rows, columns), np.float32)
        for c, name in enumerate(state.context.channels):
            pairs = zip(self._plan.pairs, self._plan.electrons, strict=True)
            out[c, 0] = total * sum(e for p, e in pairs if p.channel == name) + self._plan.light.leakage_e
        return out

    def _brightness(self, state: TileState, series: CellSeries | None) -> Array:
        """Brightness of all cells in the current frame; of the saturated indicator if there is no series."""
        if series is None:
            return np.ones(state.counted[SEEN].all_ids().size)
        time = state.frame.time - 1
        window = time // _AT_ONCE
        if self._read[0] != window:
            values = series.read("brightness", window * _AT_ONCE, _AT_ONCE)
            self._read = window, np.ascontiguousarray(values.T.astype(np.float64))
        return np.ascontiguousarray(self._read[1][time % _AT_ONCE])

    # ---------------------------------------------------------------- footprints

    def _make(self, state: TileState) -> _Made:
        """Make the footprints; cells in ascending order of their ids, so that sums do not depend on the tile."""
        light, context = self._plan.light, state.context
        ids = state.counted[SEEN].all_ids()
        assert isinstance(context.labeller, Activity)
        uM = context.labeller.concentrations_uM(ids, context.seed)
        origin = state.pixels.start[1:]
        shape = (state.pixels.shape[1], state.pixels.shape[2])
        patches = _Patches(origin, shape)
        self._add_sharp(patches, context, ids, uM)
        lines = _Lines(Splines.of((origin[0], origin[1]), shape, NODE_PIXELS))
        self._add_scattered(patches, lines, state, ids, uM)
        y, x = (np.arange(n, dtype=np.float64) + a + 0.5 for n, a in zip(shape, origin, strict=True))
        return _Made(patches.joined(), lines.joined(), lines.splines, light.vignette(y[:, None], x))

    def _add_sharp(self, patches: _Patches, context: RunContext, ids: NDArray[np.uint64], uM: Array) -> None:
        """Add what is not scattered, voxel by voxel."""
        light, g = self._plan.light, context.geometry
        sigma = light.blur_um / light.pixel_um
        widest = light.widest_um(self._plan.deepest_um) / light.pixel_um
        table = _discs(widest, sigma)
        voxel = light.voxel_um
        depth: Array = (np.arange(g.crop.shape[0], dtype=np.float64) + 0.5) * voxel[0]
        amount = light.attenuation(depth) * light.ballistic(depth) * math.prod(voxel)
        cells = np.concatenate([i for i, _ in self._found]) if self._found else np.zeros(0, np.uint64)
        places = np.concatenate([p for _, p in self._found]) if self._found else np.zeros((0, 3), np.int32)
        order = np.lexsort((places[:, 2], places[:, 1], places[:, 0], cells))
        cells, places = cells[order], places[order]
        phase = [float(p) / 1000 for p in g.phase_nm]
        at = places.astype(np.float64) + 0.5
        y, x = ((at[:, a] * voxel[a] - phase[a]) / light.pixel_um for a in (1, 2))
        focus = light.focus_at(light.from_axis2_um(y, x))
        disc = light.disc_um(depth[places[:, 0]], focus) / light.pixel_um
        level = np.minimum(np.rint(disc / RADIUS_STEP_PIXELS), len(table) - 1).astype(np.int64)
        first = np.flatnonzero(np.diff(cells, prepend=np.uint64(0)))
        for a, b in itertools.pairwise([*first.tolist(), cells.size]):
            row = int(np.searchsorted(ids, cells[a]))
            if uM[row] == 0:
                continue
            far = float(disc[a:b].max()) + 4 * sigma + 1
            box = patches.box(y[a:b].min() - far, y[a:b].max() + far, x[a:b].min() - far, x[a:b].max() + far)
            if box is None:
                continue
            corner = np.array([box[0], box[1]], np.float64) + patches.origin
            out = np.zeros(box[2:])
            lit = float(light.illumination(np.array(y[a:b].mean()), np.array(x[a:b].mean())))
            kernel.splat(places[a:b, 0], y[a:b], x[a:b], amount * (uM[row] * lit), level[a:b], table, corner, out)
            patches.add(row, box, out)

    def _add_scattered(
        self, patches: _Patches, lines: _Lines, state: TileState, ids: NDArray[np.uint64], uM: Array
    ) -> None:
        """Add scattered light, a Gaussian about the centre of each cell: narrow ones as patches, wide ones on nodes."""
        light, g = self._plan.light, state.context.geometry
        found = state.counted[SEEN].look_up(ids)
        n = np.maximum(found["voxels"], 1).astype(np.float64)
        voxel, phase = light.voxel_um, [float(p) / 1000 for p in g.phase_nm]
        mean = [found[axis] / n - g.crop.start[a] + 0.5 for a, axis in enumerate("zyx")]
        depth = mean[0] * voxel[0]
        y, x = ((mean[a] * voxel[a] - phase[a]) / light.pixel_um for a in (1, 2))
        own = np.maximum(found["r2"] / n - (found["y"] / n) ** 2 - (found["x"] / n) ** 2, 0.0) / 2 * voxel[1] * voxel[2]
        sigma = np.sqrt(light.halo_um(depth) ** 2 + own + light.blur_um**2) / light.pixel_um
        amount = uM * found["voxels"] * math.prod(voxel) * light.illumination(y, x)
        amount *= light.attenuation(depth) * (1 - light.ballistic(depth))
        for row in np.flatnonzero(amount > 0):
            if sigma[row] >= WIDE_NODES * NODE_PIXELS:
                lines.add(int(row), float(y[row]), float(x[row]), float(sigma[row]), float(amount[row]))
                continue
            far = SIGMAS * sigma[row]
            box = patches.box(y[row] - far, y[row] + far, x[row] - far, x[row] + far)
            if box is not None:
                patches.add(int(row), box, amount[row] * _gaussian(box, patches.origin, y[row], x[row], sigma[row]))


@lru_cache(maxsize=4)
def _discs(widest: float, sigma: float) -> Array:
    """Profiles of discs up to the widest radius, `RADIUS_STEP_PIXELS` apart; lengths in pixels."""
    radii: Array = np.arange(math.ceil(widest / RADIUS_STEP_PIXELS) + 2, dtype=np.float64) * RADIUS_STEP_PIXELS
    return kernel.profiles(radii, sigma, math.ceil((widest + 4 * sigma) * PER_PIXEL) + 2)


def _gaussian(box: tuple[int, int, int, int], origin: Array, y: float, x: float, sigma: float) -> Array:
    """A Gaussian of unit integral at the pixels of a box."""
    along_y, along_x = np.empty(box[2]), np.empty(box[3])
    kernel.line(y - 0.5, sigma, box[0] + origin[0], along_y)
    kernel.line(x - 0.5, sigma, box[1] + origin[1], along_x)
    return np.asarray(along_y[:, None] * along_x)


class _Patches:
    """Patches while they are made; boxes are in pixels of the tile: first row and column, rows, columns."""

    def __init__(self, origin: tuple[int, ...], shape: tuple[int, int]) -> None:
        self.origin = np.array(origin, np.float64)
        self._shape = shape
        self._cells: list[int] = []
        self._boxes: list[tuple[int, int, int, int, int]] = []
        self._values: list[NDArray[np.float32]] = []
        self._size = 0

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


class _Lines:
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
