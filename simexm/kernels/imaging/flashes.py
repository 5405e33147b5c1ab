"""Images of single emitters, added one by one from a table of their response.

Where a few hundred of a million dyes are on, this takes a thousandth of the time of transforms of the whole plane.
The response, integrated over a pixel, is tabulated at `cuts` places per pixel and plane by plane along z, and interpolated by
cubic polynomials along each axis. The table is ragged: a plane's window holds the same share of its light as any other's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.numbers.ordered_product import add_product

Array = NDArray[np.float64]

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(6)
MARGIN = 2
"""Planes of the table beyond the range on each side, for the interpolation."""


class Spots(NamedTuple):
    """Response of an emitter in photo-electrons per pixel, by its distance below the plane."""

    step_nm: float  # distance of the table's planes; the middle one is in focus
    range_nm: float  # emitters farther off are not seen
    cuts: int  # places per pixel
    radius: NDArray[np.int64]  # (planes,), pixels: the window has 2 * radius + 1 a side
    first: NDArray[np.int64]  # (planes,): where a plane's values begin
    values: NDArray[np.float32]  # of each plane (cuts, cuts, 2 * radius + 3, 2 * radius + 3): part of a pixel, pixel
    held: float  # least share of a plane's light within its window


def sampled(image: Array, pitch_nm: float, pixel_nm: float, cuts: int, reach: int) -> Array:
    """Integrate a band-limited image over pixels whose centres lie at whole `cuts`-ths of a pixel from its middle.

    `image` (n, n) is per nm^2, n odd; the result has the places -reach ... reach, in pixels / cuts.
    """
    centres = np.arange(-reach, reach + 1) * (pixel_nm / cuts)
    places = (np.arange(image.shape[0]) - image.shape[0] // 2) * pitch_nm
    along = np.zeros((centres.size, places.size))
    for point, weight in zip(_POINTS, _WEIGHTS, strict=True):
        along += weight * pixel_nm / 2 * sinc_array((centres[:, None] + point * pixel_nm / 2 - places) / pitch_nm)
    half = np.zeros((centres.size, places.size))
    add_product(half, along, np.ascontiguousarray(image))
    found = np.zeros((centres.size, centres.size))
    add_product(found, half, np.ascontiguousarray(along.T))
    return found


def spots(planes: list[Array], step_nm: float, range_nm: float, cuts: int, share: float, light: float) -> Spots:
    """Make a table of planes as `sampled` returns them, all alike in size; each window holds `share` of what it could.

    `light` is that of a plane as far as it reaches.
    """
    largest = (planes[0].shape[0] // 2 - cuts) // cuts - 1
    radius, held, parts = [], 1.0, []
    for plane in planes:
        middle = plane.shape[0] // 2
        pixels = plane[middle % cuts :: cuts, middle % cuts :: cuts]
        centre = middle // cuts
        totals = [pixels[centre - r : centre + r + 1, centre - r : centre + r + 1].sum() for r in range(largest + 1)]
        r = next((r for r, t in enumerate(totals) if t >= share * totals[-1]), largest)
        radius.append(r)
        held = min(held, float(totals[r]) / light)
        n = 2 * r + 3
        start = middle - (r + 1) * cuts
        cut = plane[start : start + n * cuts, start : start + n * cuts]
        parts.append(cut.reshape(n, cuts, n, cuts).transpose(1, 3, 0, 2).astype(np.float32).ravel())
    sizes = [part.size for part in parts]
    first = np.cumsum([0, *sizes[:-1]])
    return Spots(step_nm, range_nm, cuts, np.array(radius), first.astype(np.int64), np.concatenate(parts), held)


@njit(cache=True, nogil=True)
def _cubic(t, out):  # type: ignore[no-untyped-def]
    """Weights of the points -1, 0, 1, 2 at t in [0, 1)."""
    out[0] = -t * (t - 1.0) * (t - 2.0) / 6.0
    out[1] = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
    out[2] = -(t + 1.0) * t * (t - 2.0) / 2.0
    out[3] = (t + 1.0) * t * (t - 1.0) / 6.0


@njit(cache=True, nogil=True, error_model="numpy")
def _add(below, y, x, amount, table, start_y, start_x, out):  # type: ignore[no-untyped-def]
    cuts, middle = table.cuts, table.radius.size // 2
    wz, wy, wx = np.empty(4), np.empty(4), np.empty(4)
    missed = 0
    for e in range(below.size):
        if abs(below[e]) > table.range_nm:
            missed += 1
            continue
        place = below[e] / table.step_nm
        z0 = np.int64(math.floor(place))
        _cubic(place - z0, wz)
        z0 += middle - 1
        row, column = np.int64(math.floor(y[e])), np.int64(math.floor(x[e]))
        ty, tx = (0.5 - (y[e] - row)) * cuts, (0.5 - (x[e] - column)) * cuts
        jy, jx = np.int64(math.floor(ty)), np.int64(math.floor(tx))
        _cubic(ty - jy, wy)
        _cubic(tx - jx, wx)
        for mz in range(4):
            radius = table.radius[z0 + mz]
            side = 2 * radius + 3
            base = table.first[z0 + mz]
            low_y, high_y = max(-radius, start_y - row), min(radius, start_y + out.shape[0] - 1 - row)
            low_x, high_x = max(-radius, start_x - column), min(radius, start_x + out.shape[1] - 1 - column)
            if low_x > high_x:
                continue
            width = high_x - low_x + 1
            for my in range(4):
                qy = jy + my - 1
                ry = qy % cuts
                cy = (qy - ry) // cuts
                for mx in range(4):
                    qx = jx + mx - 1
                    rx = qx % cuts
                    cx = (qx - rx) // cuts
                    w = amount[e] * wz[mz] * wy[my] * wx[mx]
                    corner = base + (ry * cuts + rx) * side * side + low_x + cx + radius + 1
                    for k in range(low_y, high_y + 1):
                        line = table.values[corner + (k + cy + radius + 1) * side :]
                        into = out[row + k - start_y, low_x + column - start_x :]
                        for i in range(width):
                            into[i] += w * line[i]
    return missed


def add(below_nm: Array, y: Array, x: Array, amount: Array, table: Spots, start: tuple[int, int], out: Array) -> int:
    """Add emitters to the pixels `out` (rows, columns) from `start` on; return how many lie beyond the range.

    They lie `below_nm` the plane and at y, x in pixels of the image, pixel i between i and i + 1.
    """
    return int(_add(below_nm, y, x, amount, table, start[0], start[1], out))
