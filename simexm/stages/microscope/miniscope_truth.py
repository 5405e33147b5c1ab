"""Truth of a movie: where each cell's light falls, and whether an ideal observer would see the cell.

All is that of the reference frame, the one in the middle of the movie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.imaging.footprints import Nodes, Patches
from simexm.stages.contract import Counted, CountPass, LabelPart, RunContext, TileState
from simexm.stages.microscope.miniscope_footprints import Raster, centres, sharp_light, sharp_patches
from simexm.stages.microscope.miniscope_image import Footprints
from simexm.stages.microscope.miniscope_plan import MiniscopePlan
from simexm.stages.products import Product
from simexm.stages.sample.activity import SEEN, SERIES

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
LIGHT = CountPass("sharp_light", ("light",))
"""Light of each cell that is not scattered, evenly lit, of 1 uM and a voxel of 1 um^3, in units of 2^-36."""
OBSERVED, PLANTED, UNITS = "footprints", "footprints_planted", "units"
_UNIT, _SHARE = 2.0**36, 2.0**40
_LEAST = 1e-6
"""Weights below are left out."""
_SEEN = 1e-3
"""A cell of whose sharp light less than this share falls into the field is no unit."""
_PAD = 4


class Seen(NamedTuple):
    """A cell in the pixels of a tile: row of the series, first row and column, and the share of its light on each pixel."""

    row: int
    y: int
    x: int
    weight: Array


def products() -> tuple[Product, ...]:
    """The tables."""
    sparse = {"unit": "int64", "y": "int32", "x": "int32", "weight": "float32"}
    sums = {"share": "int64", "power": "int64"}
    return (
        Product(OBSERVED, "table", columns=sparse),
        Product(PLANTED, "table", columns=sparse),
        Product(UNITS, "table", columns=sums, key="unit", merge="sum"),
    )


def reference(context: RunContext) -> int:
    """The frame in the middle, from 0 on."""
    return context.acquisition.length("time") // 2


def count_light(plan: MiniscopePlan, own: Box, part: LabelPart, context: RunContext) -> dict[str, NDArray[np.int64]]:
    """Add up the light of each cell's voxels in a box."""
    mine = part.index[own.relative_to(part.box.start).slices]
    by_plane = np.rint(sharp_light(plan, context) / math.prod(plan.light.voxel_um) * _UNIT).astype(np.int64)
    total = np.zeros(len(part.cells.ids), np.int64)
    for z, plane in enumerate(mine, own.start[0] - context.geometry.crop.start[0]):
        found = np.bincount(plane.ravel(), minlength=total.size)
        total += found * by_plane[z]
    total[part.cells.ids == 0] = 0
    return {"light": total}


def light_of(plan: MiniscopePlan, ids: NDArray[np.uint64], counted: Counted) -> Array:
    """Sharp light of each cell, evenly lit, of 1 uM."""
    return np.asarray(counted[LIGHT.name].look_up(ids)["light"] / _UNIT * math.prod(plan.light.voxel_um))


# ---------------------------------------------------------------- footprints


def seen(footprints: Footprints, plan: MiniscopePlan, state: TileState) -> list[Seen]:
    """Return what each cell of the tile shows in the reference frame."""
    made, context = footprints.made(state), state.context
    total = light_of(plan, made.ids, state.counted)
    one = (total > 0).astype(np.float64)
    if context.motion is None:
        raster = Raster(1, made.raster.start, made.raster.shape, lit=False)
        patches = sharp_patches(plan, context, made.ids, one, made.voxels, raster).joined()
        return [Seen(row, y, x, v / total[row]) for row, y, x, v in _each(patches)]
    path, time = context.motion.moved(context), reference(context)
    offset = -float(path.z_um[time])
    patches = sharp_patches(plan, context, made.ids, one, made.voxels, made.raster, offset).joined()
    y, x = footprints.sources(made.rows, made.columns, path, time)
    found = (_drawn(Seen(*p), made.raster, y, x) for p in _each(patches))
    return [s._replace(weight=s.weight / total[s.row]) for s in found if s is not None]


def _each(patches: Patches) -> Iterator[tuple[int, int, int, Array]]:
    for row, (y, x, rows, columns, at) in zip(patches.cell.tolist(), patches.box.tolist(), strict=True):
        yield row, y, x, patches.values[at : at + rows * columns].reshape(rows, columns).astype(np.float64)


def _drawn(patch: Seen, raster: Raster, source_y: Array, source_x: Array) -> Seen | None:
    """Draw the patch of a cell, on nodes, into the pixels of the tile that look at it; None if none does."""
    values = np.pad(patch.weight, _PAD)
    first = raster.start[0] + patch.y - _PAD, raster.start[1] + patch.x - _PAD
    low = [(n + 1) / raster.per_pixel for n in first]
    high = [(n + size - 3) / raster.per_pixel for n, size in zip(first, values.shape, strict=True)]
    if source_y.ndim == 1:
        rows = np.flatnonzero((source_y >= low[0]) & (source_y <= high[0]))
        columns = np.flatnonzero((source_x >= low[1]) & (source_x <= high[1]))
    else:
        inside = (source_y >= low[0]) & (source_y <= high[0]) & (source_x >= low[1]) & (source_x <= high[1])
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size or not columns.size:
        return None
    down, across = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    y, x = (
        (source_y[down], source_x[across]) if source_y.ndim == 1 else (source_y[down, across], source_x[down, across])
    )
    out = np.zeros((rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]))
    y, x = np.clip(y, low[0], high[0]), np.clip(x, low[1], high[1])
    Nodes(first, 1 / raster.per_pixel, values).draw(np.ascontiguousarray(y), np.ascontiguousarray(x), out)
    return Seen(patch.row, int(rows[0]), int(columns[0]), out)


def observed_rows(footprints: Footprints, plan: MiniscopePlan, state: TileState) -> Columns:
    """Rows of the observed footprints."""
    found = seen(footprints, plan, state)
    ids, start = footprints.made(state).ids, state.pixels.start
    parts: list[tuple[NDArray[Any], ...]] = []
    for one in found:
        y, x = np.nonzero(one.weight >= _LEAST)
        weight = one.weight[y, x].astype(np.float32)
        parts.append((np.full(y.size, ids[one.row], np.int64), y + one.y + start[1], x + one.x + start[2], weight))
    return _sparse(parts)


def planted_rows(footprints: Footprints, plan: MiniscopePlan, state: TileState) -> Columns:
    """Rows of the planted footprints: the share of a cell's voxels above or below each pixel, by area."""
    made, context = footprints.made(state), state.context
    light, voxels = plan.light, made.voxels
    y, x = voxels.at(plan, context)
    if context.motion is not None:
        y, x = plan.light.moved(y, x, context.motion.moved(context), reference(context))
    cells = np.searchsorted(made.ids, voxels.cells)
    volume = state.counted[LIGHT.name].look_up(made.ids)["light"] > 0
    counts = np.maximum(state.counted[SEEN].look_up(made.ids)["voxels"], 1)
    half = [light.voxel_um[a] / light.pixel_um / 2 for a in (1, 2)]
    (_, rows, columns), start = state.pixels.shape, state.pixels.start
    keys, shares = [], []
    for dy in range(math.ceil(2 * half[0]) + 1):
        v = np.floor(y - half[0]) + dy
        part_y = np.clip(np.minimum(v + 1, y + half[0]) - np.maximum(v, y - half[0]), 0, None) / (2 * half[0])
        for dx in range(math.ceil(2 * half[1]) + 1):
            u = np.floor(x - half[1]) + dx
            part_x = np.clip(np.minimum(u + 1, x + half[1]) - np.maximum(u, x - half[1]), 0, None) / (2 * half[1])
            r, c = v.astype(np.int64) - start[1], u.astype(np.int64) - start[2]
            inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns) & (part_y * part_x > 0) & volume[cells]
            keys.append(((cells * rows + r) * columns + c)[inside])
            shares.append((part_y * part_x / counts[cells])[inside])
    key, where = np.unique(np.concatenate(keys), return_inverse=True)
    weight = np.bincount(where, np.concatenate(shares), key.size)
    cell, place = np.divmod(key, rows * columns)
    return _sparse([(made.ids[cell].astype(np.int64), place // columns + start[1], place % columns + start[2], weight)])


def _sparse(parts: list[tuple[NDArray[Any], ...]]) -> Columns:
    types = {"unit": np.int64, "y": np.int32, "x": np.int32, "weight": np.float32}
    return {
        name: np.concatenate([np.zeros(0), *(p[n] for p in parts)]).astype(dtype)
        for n, (name, dtype) in enumerate(types.items())
    }


# ---------------------------------------------------------------- units


def unit_rows(footprints: Footprints, plan: MiniscopePlan, state: TileState) -> Columns:
    """Sums over the tile's pixels: the share of a cell's light, and the square of its signal over the noise."""
    made, context, time = footprints.made(state), state.context, reference(state.context)
    expected = footprints.image(state, state.series.get(SERIES), time)[:, 0].astype(np.float64)
    strongest = int(np.argmax(expected.sum(axis=(1, 2))))
    pairs = zip(plan.pairs, plan.electrons, strict=True)
    electrons = sum(e for p, e in pairs if p.channel == context.channels[strongest])
    noise2, per_e = _noise(context)
    variance = expected[strongest] * per_e + noise2
    amount = light_of(plan, made.ids, state.counted) * made.uM * electrons
    _, y, x = centres(plan, context, state.counted, made.ids)
    if context.motion is not None:
        y, x = plan.light.moved(y, x, context.motion.moved(context), time)
    amount *= plan.light.illumination(y, x)
    found = seen(footprints, plan, state)
    share, power = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    for n, one in enumerate(found):
        at = slice(one.y, one.y + one.weight.shape[0]), slice(one.x, one.x + one.weight.shape[1])
        signal = one.weight * made.collected[at] * amount[one.row]
        share[n] = np.rint(one.weight.sum() * _SHARE)
        power[n] = np.rint((signal * signal / variance[at]).sum() * 1e6)
    return {"unit": made.ids[[one.row for one in found]].astype(np.uint64), "share": share, "power": power}


def _noise(context: RunContext) -> tuple[float, float]:
    """Variance of a dark pixel, and that for each electron; without a detector, of photons alone."""
    if context.detector is None:
        return 1.0, 1.0
    dark = context.detector.background_e
    low, high = (context.detector.noise_e(dark + e, context) ** 2 for e in (0.0, 1000.0))
    return low, (high - low) / 1000


def unit_table(
    plan: MiniscopePlan, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted, threshold: float
) -> Columns:
    """Columns of the table of units.

    `unit`, the cell's id; `depth_um`; `y_pixels`, `x_pixels`, its centre; `share`, the part of its sharp light that falls into
    the field; `in_focus`; `snr`, the largest rise of the movie over the noise of a frame, by the best linear filter of its
    pixels; `detectable`, whether that reaches the threshold. Where a column answers a question, 1 is yes.
    """
    inside = sums["share"] >= _SEEN * _SHARE
    ids = sums["unit"][inside].astype(np.uint64)
    light = plan.light
    depth, y, x = centres(plan, context, counted, ids)
    focus = light.focus_at(light.from_axis2_um(y, x))
    if context.motion is not None:
        path, time = context.motion.moved(context), reference(context)
        focus = focus - path.z_um[time]
        y, x = light.moved(y, x, path, time)
    rise = _rise(counted, ids, context.acquisition.length("time"))
    snr = rise * np.sqrt(sums["power"][inside] / 1e6)
    return {
        "unit": ids.astype(np.int64),
        "depth_um": depth,
        "y_pixels": y,
        "x_pixels": x,
        "share": sums["share"][inside] / _SHARE,
        "in_focus": (np.abs(depth - focus) <= light.depth_of_field_um / 2).astype(np.uint8),
        "snr": snr,
        "detectable": (snr >= threshold).astype(np.uint8),
    }


def _rise(counted: Counted, ids: NDArray[np.uint64], frames: int) -> Array:
    """Largest minus least brightness of cells over the movie."""
    series = counted.series.get(SERIES)
    if series is None:
        return np.ones(ids.size)
    rows = np.searchsorted(series.ids, ids)
    low, high = np.full(ids.size, np.inf), np.zeros(ids.size)
    for first in range(0, frames, 1024):
        values = series.read("brightness", first, 1024)[rows]
        low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
    return np.asarray(high - low, np.float64)
