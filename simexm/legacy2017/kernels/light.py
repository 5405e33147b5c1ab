"""Photons (before the blur) and background (after it) of SimExm (2017), plane by plane.

Each number is a function of a key and of the voxel's position in the volume, counter (z, y, x, 0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.emission.emit import uniforms
from simexm.kernels.numbers.detmath import exp_array
from simexm.kernels.numbers.fields import check_mean
from simexm.kernels.numbers.poisson_table import cumulative, tabled_quantile
from simexm.random import Key


def _table(mean: float) -> NDArray[np.float64]:
    """P(X <= n) of the counts that a small mean needs."""
    table: NDArray[np.float64] = cumulative(np.array([mean], np.float64), 24)[0]
    return table


@njit(cache=True, nogil=True)
def _photons(dyes, z, y0, x0, mean, table, k0, k1, out):  # type: ignore[no-untyped-def]
    ny, nx = dyes.shape
    columns = np.empty(nx, np.int64)
    u = np.empty(nx)
    for y in range(ny):
        n = 0
        for x in range(nx):
            out[y, x] = 0
            columns[n] = x
            n += dyes[y, x] != 0
        uniforms(u, z, y0 + y, x0, columns, n, k0, k1)
        for i in range(n):
            out[y, columns[i]] = dyes[y, columns[i]] * tabled_quantile(u[i], mean, table)


def photons(dyes: NDArray[np.int32], origin: Triple, mean: float, key: Key) -> NDArray[np.int64]:
    """Return the photons of one plane of voxels, int64; all dyes of a voxel emit the same draw of Poisson(mean).

    `dyes` are those per voxel, int32, (rows, columns), the first at `origin` in the volume, z y x; `mean` is the
    photons per dye (`simexm.legacy2017.spectra.mean_photons`), `key` that of the stream of channel and fluorophore.
    Raises ValueError if the mean cannot be drawn.
    """
    check_mean(mean, mean)
    out = np.empty(dyes.shape, np.int64)
    _photons(dyes, *origin, mean, _table(mean), *key, out)
    return out


@njit(cache=True, nogil=True)
def _add_background(z, y0, x0, mean, table, by_row, by_column, k0, k1, out):  # type: ignore[no-untyped-def]
    ny, nx = out.shape
    columns = np.arange(nx)
    u = np.empty(nx)
    for y in range(ny):
        uniforms(u, z, y0 + y, x0, columns, nx, k0, k1)
        for x in range(nx):
            out[y, x] += np.int64(np.rint(tabled_quantile(u[x], mean, table) * (by_row[y] * by_column[x])))


def vignette(size: int, start: int, stop: int) -> NDArray[np.float64]:
    """exp(-(i - size / 2)^2 / (0.5 size^2)) of the rows or columns start..stop of a crop of `size`."""
    i = np.arange(start, stop, dtype=np.float64)
    falloff: NDArray[np.float64] = exp_array(-((i - size / 2) ** 2) / (0.5 * size**2))
    return falloff


def add_background(
    mean: float,
    by_row: NDArray[np.float64],
    by_column: NDArray[np.float64],
    origin: Triple,
    key: Key,
    out: NDArray[np.int64],
) -> None:
    """Add background to one plane `out`, int64: Poisson(mean) in each voxel times the vignetting, rounded half to even.

    `mean` is the photons per voxel in the middle of the frame, `by_row` and `by_column` are the factors of the
    vignetting (`vignette`), `origin` is the position of the first voxel in the volume, z y x, and `key` that of the
    channel's stream. Raises ValueError if the mean cannot be drawn.
    """
    check_mean(mean, mean)
    if mean > 0.0:
        _add_background(*origin, mean, _table(mean), by_row, by_column, *key, out)
