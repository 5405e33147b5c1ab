"""Scale values to 8 bits, and merge channels in colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

To8Bit = Callable[[NDArray[Any]], NDArray[np.uint8]]


def to_8bit(low: float, high: float, dtype: np.dtype[Any]) -> To8Bit:
    """Return a function that maps `low` to 0 and `high` to 255, rounds to nearest and clips; all is 0 if high <= low.

    For planes (of `dtype`) of up to 16 bits it uses a table.
    """

    def scale(values: NDArray[Any]) -> NDArray[np.uint8]:
        out = np.zeros(values.shape, np.uint8)
        if high > low:
            _scale(np.ascontiguousarray(values).reshape(-1), float(low), float(high) - float(low), out.reshape(-1))
        return out

    if dtype.kind != "u" or dtype.itemsize > 2:
        return scale
    table = scale(np.arange(np.iinfo(dtype).max + 1))
    return lambda values: table[values]


@njit(cache=True, nogil=True)
def _scale(values, low, span, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        out[i] = np.uint8(min(max(np.rint((np.float64(values[i]) - low) * 255.0 / span), 0.0), 255.0))


def side_by_side(planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Merge up to three planes as red, green and blue, (rows, columns, 3); missing ones are black."""
    rgb = np.zeros((*planes[0].shape, 3), np.uint8)
    for c, plane in enumerate(planes):
        rgb[..., c] = plane
    return rgb


def in_colors(planes: Sequence[NDArray[np.uint8]], colors: Sequence[str]) -> NDArray[np.uint8]:
    """Add planes in their colours RRGGBB, (rows, columns, 3); sums are clipped at 255."""
    total = np.zeros((*planes[0].shape, 3), np.uint32)
    for plane, color in zip(planes, colors, strict=True):
        table = np.rint(np.arange(256)[:, None] * np.array(list(bytes.fromhex(color))) / 255).astype(np.uint32)
        total += table[plane]
    return np.minimum(total, 255).astype(np.uint8)
