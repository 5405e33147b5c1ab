"""A part of the image, of the very pixels that a run writes there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Tiling
from simexm.planning.plan import Plan
from simexm.run.block import BlockResult, compute_frames
from simexm.sources.base import LabelSource
from simexm.stages.contract import Counted
from simexm.stages.frames import Frame


def excerpt(
    plan: Plan, source: LabelSource, counted: Counted, box: Box, frame: Frame | None = None
) -> dict[str, NDArray[Any]]:
    """Compute a box of pixels in the run's own tiles, so that every bit is the run's.

    The transforms of another tile have another length, and their rounding may change a count: the same draws are not enough.
    Across the axis whole tiles are computed, wherever the box ends. Along it each plane is summed on its own, so that only the
    planes that are wanted are made; not so on a GPU, which takes planes in batches.

    Parameters
    ----------
    plan
        What a run would do.
    source
        Where labels come from.
    counted
        Tables of the plan's passes.
    box
        Pixels, inside the image.
    frame
        Which of the plan's frames; left out, the first.

    Returns
    -------
    dict
        By the output's path: (channels, z, y, x) for images, (z, y, x) for labels, of what the frame makes.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for tile in tiles_of(plan, box):
        made = box_of_planes(tile, box) if plan.context.device == "cpu" else tile
        found = _of_frame(plan, source, counted, made, frame or plan.frames[0])
        part = tile.intersect(box)
        for path, values in found.arrays.items():
            if path not in arrays:
                arrays[path] = np.zeros((*values.shape[:-3], *box.shape), values.dtype)
            arrays[path][(..., *part.relative_to(box.start).slices)] = values[
                (..., *part.relative_to(made.start).slices)
            ]
    return arrays


def tiles_of(plan: Plan, box: Box) -> Iterator[Box]:
    """The tiles that a run computes, of which some pixel is in the box; only these are looked at."""
    for block in _met(plan.blocks, box):
        yield from _met(Tiling(block, plan.tile), box)


def _met(tiling: Tiling, box: Box) -> Iterator[Box]:
    """The cells of a tiling that meet a box."""
    inside = box.intersect(tiling.box).relative_to(tiling.box.start)
    if inside.is_empty:
        return
    ranges = (range(a // n, -(-b // n)) for a, b, n in zip(inside.start, inside.stop, tiling.cell, strict=True))
    _, ny, nx = tiling.counts
    for z, y, x in product(*ranges):
        yield tiling[(z * ny + y) * nx + x]


def box_of_planes(tile: Box, box: Box) -> Box:
    """A tile's planes that a box wants."""
    return Box((max(tile.start[0], box.start[0]), *tile.start[1:]), (min(tile.stop[0], box.stop[0]), *tile.stop[1:]))


def _of_frame(plan: Plan, source: LabelSource, counted: Counted, box: Box, frame: Frame) -> BlockResult:
    frames = compute_frames(plan, source, counted, box)
    try:
        return next(f for f in frames if f.frame == frame)
    finally:
        frames.close()
