"""Values to 8 bits, and channels to colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.export.stack import Plane

To8Bit = Callable[[Plane], NDArray[np.uint8]]


def to_8bit(low: float, high: float, dtype: np.dtype[Any]) -> To8Bit:
    """Return a function that maps `low` to 0 and `high` to 255, rounds to nearest and cuts what lies outside.

    Where nothing lies above `low`, all is 0.

    Parameters
    ----------
    low, high
        A display window; 0 and the channel's maximum for the scaling of the 2017 program.
    dtype
        Data type of the planes; up to 16 bits a table does it.
    """

    def scale(values: Plane) -> NDArray[np.uint8]:
        if high <= low:
            return np.zeros(values.shape, np.uint8)
        scaled = np.rint((values.astype(np.float64) - low) * 255 / (high - low))
        return np.clip(scaled, 0, 255).astype(np.uint8)

    if dtype.kind != "u" or dtype.itemsize > 2:
        return scale
    table = scale(np.arange(np.iinfo(dtype).max + 1))
    return lambda plane: table[plane]


def side_by_side(planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Up to three planes as red, green and blue, (rows, columns, 3); those that are missing are black."""
    rgb = np.zeros((*planes[0].shape, 3), np.uint8)
    for c, plane in enumerate(planes):
        rgb[..., c] = plane
    return rgb


def in_colors(planes: Sequence[NDArray[np.uint8]], colors: Sequence[str]) -> NDArray[np.uint8]:
    """Any number of planes added in their colours RRGGBB, (rows, columns, 3); sums are cut at 255."""
    total = np.zeros((*planes[0].shape, 3), np.uint32)
    for plane, color in zip(planes, colors, strict=True):
        table = np.rint(np.arange(256)[:, None] * np.array(list(bytes.fromhex(color))) / 255).astype(np.uint32)
        total += table[plane]
    return np.minimum(total, 255).astype(np.uint8)
