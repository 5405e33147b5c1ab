"""Making of footprints: the sharp image of each cell as a patch, its scattered light as a patch or as lines on nodes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.imaging import footprints as kernel
from simexm.kernels.imaging.footprints import PER_PIXEL, SIGMAS
from simexm.stages.contract import Counted, RunContext, TileState
from simexm.stages.microscope.miniscope_patches import Lining, Patching
from simexm.stages.microscope.miniscope_plan import NODE_PIXELS, RADIUS_STEP_PIXELS, WIDE_NODES, MiniscopePlan
from simexm.stages.sample.activity import SEEN, Activity

Array = NDArray[np.float64]
FINE = 3
"""Nodes per pixel of the sharp image of tissue that moves."""


@dataclass(frozen=True)
class Raster:
    """Where footprints have values: at the centres of pixels, or, for tissue that moves, on finer nodes of splines.

    A cubic B-spline has the variance of a third of a node squared, by which the light on nodes must be narrower; with two nodes
    per pixel that is the variance of a pixel.
    """

    per_pixel: int
    start: tuple[int, int]
    shape: tuple[int, int]
    lit: bool
    """Whether the illumination of the place at rest is part of the footprints."""

    @classmethod
    def still(cls, start: tuple[int, int], shape: tuple[int, int]) -> Raster:
        """The pixels of a tile."""
        return cls(1, start, shape, True)

    @classmethod
    def moving(cls, start: tuple[int, int], shape: tuple[int, int]) -> Raster:
        """Nodes from which every place between the centres of the pixels of a box can be drawn."""
        return cls(FINE, (FINE * start[0], FINE * start[1]), (FINE * shape[0] + 2, FINE * shape[1] + 2), False)

    def place(self, pixels: Array) -> Array:
        """Places of the image, in pixels, in values of the raster; value n has its centre at n + 0.5."""
        return pixels if self.per_pixel == 1 else pixels * self.per_pixel + 0.5

    def width_um(self, sigma_um: Array, pixel_um: float) -> Array:
        """Standard deviation on the raster of light whose image has this one."""
        return sigma_um if self.per_pixel == 1 else np.sqrt(sigma_um**2 - (pixel_um / self.per_pixel) ** 2 / 3)

    @property
    def per_value(self) -> int:
        """Light per pixel of a unit of light on one value."""
        return self.per_pixel**2


class Voxels:
    """Voxels of the cells near a tile, in ascending order of cells, so that sums do not depend on the tile."""

    def __init__(self, found: list[tuple[NDArray[np.uint64], NDArray[np.int32]]]) -> None:
        cells = np.concatenate([i for i, _ in found]) if found else np.zeros(0, np.uint64)
        places = np.concatenate([p for _, p in found]) if found else np.zeros((0, 3), np.int32)
        order = np.lexsort((places[:, 2], places[:, 1], places[:, 0], cells))
        self.cells, self.places = cells[order], places[order]
        first = np.flatnonzero(np.diff(self.cells, prepend=np.uint64(0)))
        self.spans = list(itertools.pairwise([*first.tolist(), self.cells.size]))

    def at(self, plan: MiniscopePlan, context: RunContext) -> tuple[Array, Array]:
        """Rows and columns of the voxels' centres, in pixels of the image."""
        g, light = context.geometry, plan.light
        phase = [float(p) / 1000 for p in g.phase_nm]
        at = self.places.astype(np.float64) + 0.5
        y, x = ((at[:, a] * light.voxel_um[a] - phase[a]) / light.pixel_um for a in (1, 2))
        return y, x


def concentrations_uM(context: RunContext, ids: NDArray[np.uint64]) -> Array:
    """Indicator in each cell."""
    assert isinstance(context.labeller, Activity)
    return context.labeller.concentrations_uM(ids, context.seed)


def sharp_light(plan: MiniscopePlan, context: RunContext) -> Array:
    """Light of a voxel that leaves the tissue without being scattered, by plane; of 1 uM, evenly lit."""
    light = plan.light
    depth: Array = (np.arange(context.geometry.crop.shape[0], dtype=np.float64) + 0.5) * light.voxel_um[0]
    return light.attenuation(depth) * light.ballistic(depth) * math.prod(light.voxel_um)


def sharp_patches(
    plan: MiniscopePlan,
    context: RunContext,
    ids: NDArray[np.uint64],
    uM: Array,
    voxels: Voxels,
    raster: Raster,
    focus_um: float = 0.0,
) -> Patching:
    """Make the patches of what is not scattered, voxel by voxel; `focus_um` is added to the depth of the focus."""
    light, fine = plan.light, raster.per_pixel
    patches = Patching(raster.start, raster.shape)
    sigma = float(raster.width_um(np.array(light.blur_um), light.pixel_um)) / light.pixel_um * fine
    widest = (light.widest_um(plan.deepest_um) + abs(focus_um) * light.aperture_ratio) / light.pixel_um * fine
    table = _discs(widest, sigma)
    amount = sharp_light(plan, context) * raster.per_value
    depth = (voxels.places[:, 0].astype(np.float64) + 0.5) * light.voxel_um[0]
    y, x = voxels.at(plan, context)
    focus = light.focus_at(light.from_axis2_um(y, x)) + focus_um
    disc = light.disc_um(depth, focus) / light.pixel_um * fine
    level = np.minimum(np.rint(disc / RADIUS_STEP_PIXELS), len(table) - 1).astype(np.int64)
    places_y, places_x = raster.place(y), raster.place(x)
    for a, b in voxels.spans:
        row = int(np.searchsorted(ids, voxels.cells[a]))
        if uM[row] == 0:
            continue
        far = float(disc[a:b].max()) + 4 * sigma + 1
        v, u = places_y[a:b], places_x[a:b]
        box = patches.box(v.min() - far, v.max() + far, u.min() - far, u.max() + far)
        if box is None:
            continue
        corner = np.array([box[0], box[1]], np.float64) + patches.origin
        out = np.zeros(box[2:])
        lit = float(light.illumination(np.array(y[a:b].mean()), np.array(x[a:b].mean()))) if raster.lit else 1.0
        kernel.splat(voxels.places[a:b, 0], v, u, amount * (uM[row] * lit), level[a:b], table, corner, out)
        patches.add(row, box, out)
    return patches


def centres(
    plan: MiniscopePlan, context: RunContext, counted: Counted, ids: NDArray[np.uint64]
) -> tuple[Array, Array, Array]:
    """Depth (um), row and column (pixels) of the cells' centres."""
    light, g = plan.light, context.geometry
    found = counted[SEEN].look_up(ids)
    n = np.maximum(found["voxels"], 1).astype(np.float64)
    voxel, phase = light.voxel_um, [float(p) / 1000 for p in g.phase_nm]
    mean = [found[axis] / n - g.crop.start[a] + 0.5 for a, axis in enumerate("zyx")]
    y, x = ((mean[a] * voxel[a] - phase[a]) / light.pixel_um for a in (1, 2))
    return mean[0] * voxel[0], y, x


def add_scattered(
    plan: MiniscopePlan,
    state: TileState,
    ids: NDArray[np.uint64],
    uM: Array,
    patches: Patching,
    lines: Lining,
    raster: Raster,
) -> None:
    """Add scattered light, a Gaussian about the centre of each cell: narrow ones as patches, wide ones on nodes."""
    light = plan.light
    found = state.counted[SEEN].look_up(ids)
    n = np.maximum(found["voxels"], 1).astype(np.float64)
    voxel = light.voxel_um
    depth, y, x = centres(plan, state.context, state.counted, ids)
    own = np.maximum(found["r2"] / n - (found["y"] / n) ** 2 - (found["x"] / n) ** 2, 0.0) / 2 * voxel[1] * voxel[2]
    sigma_um = np.sqrt(light.halo_um(depth) ** 2 + own + light.blur_um**2)
    sigma = sigma_um / light.pixel_um
    narrow = raster.width_um(sigma_um, light.pixel_um) / light.pixel_um * raster.per_pixel
    amount = uM * found["voxels"] * math.prod(voxel)
    if raster.lit:
        amount = amount * light.illumination(y, x)
    amount = amount * (light.attenuation(depth) * (1 - light.ballistic(depth)))
    places_y, places_x = raster.place(y), raster.place(x)
    for row in np.flatnonzero(amount > 0):
        if sigma[row] >= WIDE_NODES * NODE_PIXELS:
            lines.add(int(row), float(y[row]), float(x[row]), float(sigma[row]), float(amount[row]))
            continue
        far, v, u = SIGMAS * narrow[row], places_y[row], places_x[row]
        box = patches.box(v - far, v + far, u - far, u + far)
        if box is not None:
            light_of = amount[row] * raster.per_value
            patches.add(int(row), box, light_of * _gaussian(box, patches.origin, v, u, narrow[row]))


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
