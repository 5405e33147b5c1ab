"""Compute a part of the image with exactly the pixels of a run."""

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
    """Compute a box of pixels in the run's own tiles, so that every bit equals the run's.

    FFTs of another tile have another length, and their rounding may change a count, even with the same draws. In y and x
    whole tiles are computed. In z each plane is summed on its own, so that on the CPU only the box's planes are computed;
    a GPU computes planes in batches. Returns the arrays of the outputs that the frame, by default the first, makes, by path:
    (channels, z, y, x) for images, (z, y, x) for label images.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for tile in tiles_of(plan, box):
        computed = box_of_planes(tile, box) if plan.context.device == "cpu" else tile
        found = _of_frame(plan, source, counted, computed, frame or plan.frames[0])
        part = tile.intersect(box)
        inside = part.relative_to(computed.start).slices
        for path, values in found.arrays.items():
            if path not in arrays:
                arrays[path] = np.zeros((*values.shape[:-3], *box.shape), values.dtype)
            arrays[path][(..., *part.relative_to(box.start).slices)] = values[(..., *inside)]
    return arrays


def tiles_of(plan: Plan, box: Box) -> Iterator[Box]:
    """Yield the run's tiles that overlap a box, without a search through all tiles."""
    for block in _met(plan.blocks, box):
        yield from _met(Tiling(block, plan.tile), box)


def _met(tiling: Tiling, box: Box) -> Iterator[Box]:
    """Yield the cells of a tiling that overlap a box."""
    inside = box.intersect(tiling.box).relative_to(tiling.box.start)
    if inside.is_empty:
        return
    ranges = (range(a // n, -(-b // n)) for a, b, n in zip(inside.start, inside.stop, tiling.cell, strict=True))
    _, ny, nx = tiling.counts
    for z, y, x in product(*ranges):
        yield tiling[(z * ny + y) * nx + x]


def box_of_planes(tile: Box, box: Box) -> Box:
    """Cut a tile to the planes of a box."""
    return Box((max(tile.start[0], box.start[0]), *tile.start[1:]), (min(tile.stop[0], box.stop[0]), *tile.stop[1:]))


def _of_frame(plan: Plan, source: LabelSource, counted: Counted, box: Box, frame: Frame) -> BlockResult:
    frames = compute_frames(plan, source, counted, box, frames=[frame])
    try:
        return next(frames)
    finally:
        frames.close()
