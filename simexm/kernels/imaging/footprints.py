"""Images of single cells through scattering tissue, and their weighted sum.

A cell's footprint has two parts. The sharp one is the sum over its voxels of a disc, the geometric defocus, blurred by a
Gaussian; it is stored as a patch of pixels. The wide one, of scattered light, is a Gaussian about the cell's centre; where it is
wide it is held by lines along y and x on coarse nodes, and drawn into the image by cubic B-splines.

All sums have a fixed order, and no function of a mathematical library is used, so that results are the same on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers.detmath import exp

Array = NDArray[np.float64]
PER_PIXEL = 8
"""Samples of a disc's profile per pixel."""
SIGMAS = 3.5
"""Standard deviations at which Gaussians end."""
_FINE = 64


@njit(cache=True, nogil=True)
def _profiles(radii, sigma, cumulative, out):  # type: ignore[no-untyped-def]
    """See `profiles`; `cumulative` is the normal distribution's, `_FINE` samples to a standard deviation, from -8 on."""
    steps = 64
    norm = 1.0 / (sigma * np.sqrt(2.0 * np.pi))
    last = cumulative.size - 1
    for n in range(radii.size):
        radius = radii[n]
        if radius < 0.05 * sigma:
            for b in range(out.shape[1]):
                rho = b / PER_PIXEL
                out[n, b] = norm * norm * exp(-rho * rho / (2 * sigma * sigma))
            continue
        step = min(radius / steps, sigma / 4)
        count = int(np.ceil(2 * radius / step))
        step = 2 * radius / count
        for b in range(out.shape[1]):
            rho = b / PER_PIXEL
            total = 0.0
            for k in range(count):
                x = -radius + (k + 0.5) * step
                d = (rho - x) / sigma
                if d * d > 64:
                    continue
                place = (np.sqrt(radius * radius - x * x) / sigma + 8.0) * _FINE
                at = min(int(place), last - 1)
                below = cumulative[at] + min(place - at, 1.0) * (cumulative[at + 1] - cumulative[at])
                inside = 2.0 * below - 1.0
                total += norm * exp(-d * d / 2) * inside
            out[n, b] = total * step / (np.pi * radius * radius)


def profiles(radii: Array, sigma: float, bins: int) -> Array:
    """Return discs blurred by a Gaussian: light per pixel of a unit of light, (radii, bins), at b / PER_PIXEL from the centre.

    Lengths are in pixels. Along each chord of the disc the Gaussian is integrated by its distribution function.
    """
    t = (np.arange(16 * _FINE + 1) - 8 * _FINE) / _FINE
    density = np.array([exp(-v * v / 2) for v in t]) / np.sqrt(2 * np.pi)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / (2 * _FINE))])
    out = np.empty((radii.size, bins))
    _profiles(radii, sigma, cumulative, out)
    return out


@njit(cache=True, nogil=True)
def splat(z, y, x, light, level, table, origin, out):  # type: ignore[no-untyped-def]
    """Add the image of each voxel to a patch of pixels (float64) that begins at `origin`.

    `y` and `x` are the voxels' centres in pixels (that of pixel 0 at 0.5), `light` the light of a voxel in each plane z, and
    `level` the row of `table` for each voxel.
    """
    reach = (table.shape[1] - 2) / PER_PIXEL
    rows, columns = out.shape
    for i in range(z.size):
        amount, row = light[z[i]], level[i]
        cy, cx = y[i] - 0.5 - origin[0], x[i] - 0.5 - origin[1]
        for v in range(max(0, int(np.ceil(cy - reach))), min(rows, int(np.floor(cy + reach)) + 1)):
            dy2 = (v - cy) * (v - cy)
            for u in range(max(0, int(np.ceil(cx - reach))), min(columns, int(np.floor(cx + reach)) + 1)):
                place = np.sqrt(dy2 + (u - cx) * (u - cx)) * PER_PIXEL
                b = int(place)
                if b < table.shape[1] - 1:
                    part = place - b
                    out[v, u] += amount * (table[row, b] + part * (table[row, b + 1] - table[row, b]))


@njit(cache=True, nogil=True)
def line(centre, sigma, first, out):  # type: ignore[no-untyped-def]
    """Write a Gaussian of unit integral at the places first, first + 1, ..., in the same unit as `centre` and `sigma`."""
    norm = 1.0 / (sigma * np.sqrt(2.0 * np.pi))
    for i in range(out.size):
        d = (first + i - centre) / sigma
        out[i] = norm * exp(-d * d / 2)


class Patches(NamedTuple):
    """Sharp parts of footprints, one after the other."""

    cell: NDArray[np.int64]  # row of the series
    box: NDArray[np.int64]  # first row and column of pixels, rows, columns, and first value, (n, 5)
    values: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes


class Lines(NamedTuple):
    """Wide parts on coarse nodes: each the product of a line along y and one along x."""

    cell: NDArray[np.int64]
    box: NDArray[np.int64]  # first node along y and x, nodes along y and x, first value of each line, (n, 6)
    values: Array


@njit(cache=True, nogil=True)
def add_patches(cell, box, values, weight, out):  # type: ignore[no-untyped-def]
    """Add weight[cell] times each patch to the image."""
    for i in range(cell.size):
        w = weight[cell[i]]
        if w == 0.0:
            continue
        y0, x0, rows, columns, at = box[i]
        for v in range(rows):
            into = out[y0 + v, x0 : x0 + columns]
            part = values[at + v * columns : at + (v + 1) * columns]
            for u in range(columns):
                into[u] += w * part[u]


@njit(cache=True, nogil=True)
def add_lines(cell, box, values, weight, out):  # type: ignore[no-untyped-def]
    """Add weight[cell] times each product of lines to the nodes."""
    for i in range(cell.size):
        w = weight[cell[i]]
        if w == 0.0:
            continue
        y0, x0, rows, columns, at_y, at_x = box[i]
        along = values[at_x : at_x + columns]
        for v in range(rows):
            a = w * values[at_y + v]
            into = out[y0 + v, x0 : x0 + columns]
            for u in range(columns):
                into[u] += a * along[u]


@njit(cache=True, nogil=True)
def _splines(first, count, per_node, nodes, weights):  # type: ignore[no-untyped-def]
    """First node and the four cubic B-splines at the centre of each pixel; nodes lie at pixel corners n * per_node."""
    for i in range(count):
        place = (first + i + 0.5) / per_node
        n = int(np.floor(place))
        t = place - n
        s = 1.0 - t
        nodes[i] = n - 1
        weights[i, 0] = s * s * s / 6
        weights[i, 1] = (3 * t * t * t - 6 * t * t + 4) / 6
        weights[i, 2] = (3 * s * s * s - 6 * s * s + 4) / 6
        weights[i, 3] = t * t * t / 6


@njit(cache=True, nogil=True)
def _draw(grid, first_node, rows, row_weights, columns, column_weights, out):  # type: ignore[no-untyped-def]
    wide = np.empty(out.shape[1])
    summed = np.empty(grid.shape[1])
    for y in range(out.shape[0]):
        n = rows[y] - first_node[0]
        a, b, c, d = row_weights[y]
        for k in range(summed.size):
            summed[k] = a * grid[n, k] + b * grid[n + 1, k] + c * grid[n + 2, k] + d * grid[n + 3, k]
        for x in range(wide.size):
            m = columns[x] - first_node[1]
            wide[x] = (
                column_weights[x, 0] * summed[m]
                + column_weights[x, 1] * summed[m + 1]
                + column_weights[x, 2] * summed[m + 2]
                + column_weights[x, 3] * summed[m + 3]
            )
        for x in range(wide.size):
            out[y, x] += wide[x]  # fmt: skip


class Splines(NamedTuple):
    """How pixels of a box are drawn from nodes."""

    rows: NDArray[np.int64]
    row_weights: Array
    columns: NDArray[np.int64]
    column_weights: Array

    @classmethod
    def of(cls, start: tuple[int, int], shape: tuple[int, int], per_node: int) -> Splines:
        """Those of a box of pixels; `per_node` pixels lie between nodes."""
        rows, columns = np.empty(shape[0], np.int64), np.empty(shape[1], np.int64)
        row_weights, column_weights = np.empty((shape[0], 4)), np.empty((shape[1], 4))
        _splines(start[0], shape[0], per_node, rows, row_weights)
        _splines(start[1], shape[1], per_node, columns, column_weights)
        return cls(rows, row_weights, columns, column_weights)

    @property
    def first(self) -> tuple[int, int]:
        """First node along y and x."""
        return int(self.rows[0]), int(self.columns[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Nodes along y and x."""
        return int(self.rows[-1] - self.rows[0]) + 4, int(self.columns[-1] - self.columns[0]) + 4

    def draw(self, grid: Array, out: Array) -> None:
        """Add the nodes' splines to an image."""
        _draw(grid, np.array(self.first), self.rows, self.row_weights, self.columns, self.column_weights, out)


@njit(cache=True, nogil=True)
def _draw_at(grid, first_node, places_y, places_x, out):  # type: ignore[no-untyped-def]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            n, m = int(np.floor(places_y[y, x])), int(np.floor(places_x[y, x]))
            t, u = places_y[y, x] - n, places_x[y, x] - m
            n, m = n - 1 - first_node[0], m - 1 - first_node[1]
            s, v = 1.0 - t, 1.0 - u
            a, b, c, d = v * v * v, 3 * u * u * u - 6 * u * u + 4, 3 * v * v * v - 6 * v * v + 4, u * u * u
            total = 0.0
            for k in range(4):
                w = s * s * s if k == 0 else t * t * t
                if k == 1:
                    w = 3 * t * t * t - 6 * t * t + 4
                elif k == 2:
                    w = 3 * s * s * s - 6 * s * s + 4
                row = grid[n + k]
                total += w * (a * row[m] + b * row[m + 1] + c * row[m + 2] + d * row[m + 3])
            out[y, x] += total / 36


class Nodes(NamedTuple):
    """Coefficients of cubic B-splines on a grid, to be drawn at any place within."""

    first: tuple[int, int]
    """First node along y and x; node n lies at n * per_node, pixels."""
    per_node: float
    values: Array

    def draw(self, y: Array, x: Array, out: Array) -> None:
        """Add the splines at places y (rows) and x (columns), pixels; or, if these have two axes, at a place for each pixel."""
        first = np.array(self.first)
        y, x = y / self.per_node, x / self.per_node
        if y.ndim == 2:
            _draw_at(self.values, first, y, x, out)
            return
        (rows, row_weights), (columns, column_weights) = _cubic(y), _cubic(x)
        _draw(self.values, first, rows, row_weights, columns, column_weights, out)


def _cubic(places: Array) -> tuple[NDArray[np.int64], Array]:
    """First node and the four cubic B-splines at each place, in nodes."""
    n = np.floor(places)
    t, s = places - n, 1 - (places - n)
    four = s * s * s, 3 * t * t * t - 6 * t * t + 4, 3 * s * s * s - 6 * s * s + 4, t * t * t
    return n.astype(np.int64) - 1, np.ascontiguousarray(np.stack(four, -1) / 6)
