"""Frames of a tile, from the footprints of its cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.imaging import footprints as kernel
from simexm.kernels.imaging.footprints import Lines, Nodes, Patches, Splines
from simexm.stages.contract import CellSeries, LabelPart, TileState
from simexm.stages.microscope.miniscope_footprints import (
    FINE,
    Raster,
    Voxels,
    add_scattered,
    centres,
    concentrations_uM,
    sharp_patches,
)
from simexm.stages.microscope.miniscope_patches import Lining
from simexm.stages.microscope.miniscope_plan import NODE_PIXELS, Z_STEP_UM, MiniscopePlan, reach_pixels
from simexm.stages.motion_path import MotionPath
from simexm.stages.sample.activity import SEEN

Array = NDArray[np.float64]
_AT_ONCE = 256
"""Frames of the series that are read together."""


class _Made(NamedTuple):
    """Footprints of a tile, for light of one electron per uM um^3."""

    ids: NDArray[np.uint64]
    uM: Array
    voxels: Voxels
    raster: Raster
    sharp: dict[int, Patches]
    """By steps of the focus from its depth."""
    narrow: Patches
    """Scattered light that is not wide; of tissue at rest it is part of the sharp patches."""
    wide: Lines
    splines: Splines
    collected: Array
    """Vignette over the tile, (y, x)."""
    rows: Array
    columns: Array
    """Places of the pixels' centres in the image."""


class Footprints:
    """Voxels of the cells near a tile, then their footprints, then frames."""

    def __init__(self, plan: MiniscopePlan) -> None:
        self._plan = plan
        self._found: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []
        self._kept: _Made | None = None
        self._read: tuple[int, Array] = (-1, np.zeros((0, 0)))

    def collect(self, part: LabelPart, state: TileState) -> None:
        """Keep the voxels of cells in a part: their ids, and their places in the specimen."""
        core = part.core.intersect(state.context.geometry.crop)
        if core.is_empty or self._kept is not None:
            return
        index = part.index[core.relative_to(part.box.start).slices]
        at = np.nonzero(index)
        corner = np.array(core.start) - np.array(state.context.geometry.crop.start)
        places = np.stack(at, -1).astype(np.int32) + corner.astype(np.int32)
        self._found.append((part.cells.ids[index[at]], places))

    def made(self, state: TileState) -> _Made:
        """Footprints, made once."""
        if self._kept is None:
            self._kept = self._make(state)
            self._found = []
        return self._kept

    def image(self, state: TileState, series: CellSeries | None, time: int) -> NDArray[np.float32]:
        """Return the expected image of a frame, counted from 0 on, (channel, 1, y, x), electrons."""
        made, motion = self.made(state), state.context.motion
        weight = self._brightness(state, series, time)
        if motion is None:
            total = self._at_rest(made, weight)
        else:
            total = self._moved(made, weight, state, motion.moved(state.context), time)
        total *= made.collected
        out = np.empty((len(state.context.channels), 1, *total.shape), np.float32)
        for c, name in enumerate(state.context.channels):
            pairs = zip(self._plan.pairs, self._plan.electrons, strict=True)
            out[c, 0] = total * sum(e for p, e in pairs if p.channel == name) + self._plan.light.leakage_e
        return out

    def _at_rest(self, made: _Made, weight: Array) -> Array:
        total = np.zeros(made.collected.shape)
        kernel.add_patches(*made.sharp[0], weight, total)
        nodes = np.zeros(made.splines.shape)
        kernel.add_lines(*made.wide, weight, nodes)
        made.splines.draw(nodes, total)
        return total

    def _moved(self, made: _Made, weight: Array, state: TileState, path: MotionPath, time: int) -> Array:
        """Tissue drawn where it lies in a frame: what every pixel shows is looked up in the tissue at rest."""
        weight = weight * self.lit(state, made, path, time)
        sharp = np.zeros(made.raster.shape)
        for patches, share in self.focused(state, made, float(path.z_um[time])):
            kernel.add_patches(*patches, weight * share, sharp)
        kernel.add_patches(*made.narrow, weight, sharp)
        nodes = np.zeros(made.splines.shape)
        kernel.add_lines(*made.wide, weight, nodes)
        y, x = self.sources(made.rows, made.columns, path, time)
        total = np.zeros(made.collected.shape)
        Nodes(made.raster.start, 1 / FINE, sharp).draw(y, x, total)
        Nodes(made.splines.first, NODE_PIXELS, nodes).draw(y, x, total)
        return total

    def focused(self, state: TileState, made: _Made, z_um: float) -> list[tuple[Patches, float]]:
        """Sharp patches of tissue moved along the axis, and their shares: those of the two nearest steps of the focus."""
        step = math.floor(-z_um / Z_STEP_UM)
        part = -z_um / Z_STEP_UM - step
        found = []
        for n, share in ((step, 1 - part), (step + 1, part)):
            if share <= 0:
                continue
            if n not in made.sharp:
                made.sharp[n] = sharp_patches(
                    self._plan, state.context, made.ids, made.uM, made.voxels, made.raster, n * Z_STEP_UM
                ).joined()
            found.append((made.sharp[n], share))
        return found

    def lit(self, state: TileState, made: _Made, path: MotionPath, time: int) -> Array:
        """Illumination of each cell where it lies in a frame: it stays with the microscope."""
        if self._plan.light.illumination_edge == 1:
            return np.ones(made.ids.size)
        _, y, x = centres(self._plan, state.context, state.counted, made.ids)
        return self._plan.light.illumination(*self._plan.light.moved(y, x, path, time))

    def sources(self, rows: Array, columns: Array, path: MotionPath, time: int) -> tuple[Array, Array]:
        """Places at rest of the tissue that rows and columns of the image show in a frame; of each pixel, if it is turned."""
        dy, dx = (float(v[time]) / self._plan.light.pixel_um for v in (path.y_um, path.x_um))
        if not path.rotation_rad[time]:
            return rows - dy, columns - dx
        cy, cx = (n / 2 for n in self._plan.light.field)
        cos, sin = math.cos(path.rotation_rad[time]), math.sin(path.rotation_rad[time])
        y, x = np.meshgrid(rows - dy - cy, columns - dx - cx, indexing="ij")
        return cos * y - sin * x + cy, sin * y + cos * x + cx

    def _brightness(self, state: TileState, series: CellSeries | None, time: int) -> Array:
        """Brightness of all cells in a frame; of the saturated indicator if there is no series."""
        if series is None:
            return np.ones(state.counted[SEEN].all_ids().size)
        window = time // _AT_ONCE
        if self._read[0] != window:
            values = series.read("brightness", window * _AT_ONCE, _AT_ONCE)
            self._read = window, np.ascontiguousarray(values.T.astype(np.float64))
        return np.ascontiguousarray(self._read[1][time % _AT_ONCE])

    def _make(self, state: TileState) -> _Made:
        """Make the footprints; cells in ascending order of their ids."""
        plan, context = self._plan, state.context
        ids = state.counted[SEEN].all_ids()
        uM = concentrations_uM(context, ids)
        origin = state.pixels.start[1], state.pixels.start[2]
        shape = (state.pixels.shape[1], state.pixels.shape[2])
        grown, wide = origin, shape
        if context.motion is not None:
            reach = reach_pixels(context, plan.light)
            grown, wide = (
                (origin[0] - reach[0], origin[1] - reach[1]),
                (shape[0] + 2 * reach[0], shape[1] + 2 * reach[1]),
            )
        raster = Raster.still(origin, shape) if context.motion is None else Raster.moving(grown, wide)
        voxels = Voxels(self._found)
        patches = sharp_patches(plan, context, ids, uM, voxels, raster)
        narrow = patches if context.motion is None else patches.empty()
        lines = Lining(Splines.of(grown, wide, NODE_PIXELS))
        add_scattered(plan, state, ids, uM, narrow, lines, raster)
        y, x = (np.arange(n, dtype=np.float64) + a + 0.5 for n, a in zip(shape, origin, strict=True))
        collected = plan.light.vignette(y[:, None], x)
        sharp = {0: patches.joined()}
        return _Made(ids, uM, voxels, raster, sharp, narrow.joined(), lines.joined(), lines.splines, collected, y, x)
