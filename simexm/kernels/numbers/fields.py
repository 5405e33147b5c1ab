"""Random counts and normal numbers for every pixel of a box, each by the inverse distribution function from one number.

A pixel's number depends on its index and on the key alone, not on the box. Rows are drawn in vectorised steps; the results
are those of the scalar functions of `draws` and `detmath`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers import detmath, draws
from simexm.random import Key, philox, unit_double

LARGEST_MEAN = 2.0**31
"""Largest mean of a field: its counts still fit 32 bits."""
MEAN_CELLS, U_CELLS, UNSURE, GUIDE_MARGIN = 64, 1024, 255, 1e-9
"""Cells of `poisson_guide` per unit of the mean and of u, its mark for cells with several counts, and its margin."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


# One function per step of a row: LLVM does not vectorise Philox in a function that also searches or allocates (14 ns a pixel
# instead of 1.6).
@_jit
def _uniform_row(u, z, y, x0, draw, k0, k1):  # type: ignore[no-untyped-def]
    for k in range(u.shape[0]):
        words = philox(z, y, x0 + k, draw, k0, k1)
        u[k] = unit_double(words[0], words[1])


@_jit
def _normal_row(u, w, place, tails):  # type: ignore[no-untyped-def]
    """Set w[k] to `detmath.normal_quantile(u[k])`; `place` and `tails` are room for the 15 % in the tails."""
    found = 0
    for k in range(u.shape[0]):  # as if all were central: without a branch the loop is vectorised
        w[k] = detmath.quantile_centre(u[k] - 0.5)
    for k in range(u.shape[0]):
        place[found] = k
        found += not abs(u[k] - 0.5) <= detmath.CENTRAL
    for i in range(found):
        tails[0, i] = u[place[i]]
    detmath.normal_quantile_tails(tails[0, :found], tails[1, :found])
    for i in range(found):
        w[place[i]] = tails[1, i]


@_jit
def _expansion_row(w, mean, counts, certain):  # type: ignore[no-untyped-def]
    """Counts by the normal expansion, as in `poisson_quantile`, and whether its error bound allows no other count."""
    for k in range(w.shape[0]):
        root = math.sqrt(mean[k])
        x = max(draws.poisson_expansion_1(w[k], mean[k], root), 0.0)
        below = math.floor(x)
        error = draws.poisson_expansion_error_1(w[k], mean[k], root)
        certain[k] = (abs(w[k]) <= draws.EXPANSION_SIGMA) & (x - below > error) & (x - below < 1.0 - error)
        counts[k] = np.int64(below)


@_jit
def _large_row(counts, u, mean, chosen, room):  # type: ignore[no-untyped-def]
    """Draw the chosen pixels of a row, whose means are from `SMALL_MEAN`."""
    some = chosen.shape[0]
    their_u, their_mean, w = room.u[:some], room.mean[:some], room.w[:some]
    drawn, certain = room.counts[:some], room.certain[:some]
    for i in range(some):
        their_u[i] = u[chosen[i]]
        their_mean[i] = mean[chosen[i]]
    _normal_row(their_u, w, room.second, room.tails)
    _expansion_row(w, their_mean, drawn, certain)
    for i in range(some):
        counts[chosen[i]] = drawn[i] if certain[i] else draws.poisson_quantile(their_u[i], their_mean[i])


@_jit
def _poisson_row(counts, u, mean, guide, room):  # type: ignore[no-untyped-def]
    """Set counts[k] to `poisson_quantile(u[k], mean[k])`.

    Pixels are sorted by method without branches, which a processor could not predict.
    """
    large, small, unsure = 0, 0, 0
    for k in range(u.shape[0]):
        room.first[large] = k
        large += mean[k] >= draws.SMALL_MEAN
    if large:
        _large_row(counts, u, mean, room.first[:large], room)
    if large == u.shape[0]:
        return
    for k in range(u.shape[0]):
        room.first[small] = k
        small += not mean[k] >= draws.SMALL_MEAN
    for i in range(small):
        k = room.first[i]
        n = guide[int(max(np.float64(mean[k]), 0.0) * MEAN_CELLS), int(u[k] * U_CELLS)]
        counts[k] = n
        room.second[unsure] = k
        unsure += n == UNSURE
    for i in range(unsure):
        k = room.second[i]
        counts[k] = draws.poisson_quantile(u[k], np.float64(mean[k]))


class _Room(NamedTuple):
    """Intermediate results of a row of pixels."""

    u: NDArray[np.float64]
    mean: NDArray[np.float64]
    w: NDArray[np.float64]
    counts: NDArray[np.int64]
    certain: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    tails: NDArray[np.float64]


@_jit
def _row_room(n):  # type: ignore[no-untyped-def]
    return _Room(
        np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n, np.bool_), np.empty(n, np.int64),
        np.empty(n, np.int64), np.empty((2, n)),
    )  # fmt: skip


@_jit
def _poisson_field(mean, z0, y0, x0, k0, k1, guide):  # type: ignore[no-untyped-def]
    counts = np.empty(mean.shape, np.uint32)
    u, room = np.empty(mean.shape[2]), _row_room(mean.shape[2])
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            _uniform_row(u, z0 + i, y0 + j, x0, 0, k0, k1)
            _poisson_row(counts[i, j], u, mean[i, j], guide, room)
    return counts


@_jit
def _fill_guide(guide):  # type: ignore[no-untyped-def]
    for i in range(guide.shape[0]):
        lowest, highest = max(i / MEAN_CELLS - GUIDE_MARGIN, 0.0), (i + 1) / MEAN_CELLS + GUIDE_MARGIN
        for j in range(guide.shape[1] - 1):  # the last column holds the upper tail, which needs all digits
            least = draws.poisson_quantile(max(j / U_CELLS - GUIDE_MARGIN, 2.0**-53), lowest)
            most = draws.poisson_quantile((j + 1) / U_CELLS + GUIDE_MARGIN, highest)
            guide[i, j] = least if least == most else UNSURE


@cache
def poisson_guide() -> NDArray[np.uint8]:
    """Counts of small means where mean and u to a few digits decide them, (means, u); elsewhere `UNSURE`.

    The quantile rises with u and with the mean, so it is constant in a cell whose lowest and highest corner agree. The
    margin about each cell is far above the rounding of the sums, so looking up and summing give the same count.
    """
    guide = np.full((int(draws.SMALL_MEAN) * MEAN_CELLS, U_CELLS), UNSURE, np.uint8)
    _fill_guide(guide)
    return guide


@_jit
def _normal_field(nz, ny, nx, z0, y0, x0, draw, k0, k1):  # type: ignore[no-untyped-def]
    field = np.empty((nz, ny, nx))
    u, place, tails = np.empty(nx), np.empty(nx, np.int64), np.empty((2, nx))
    for i in range(nz):
        for j in range(ny):
            _uniform_row(u, z0 + i, y0 + j, x0, draw, k0, k1)
            _normal_row(u, field[i, j], place, tails)
    return field


def check_mean(lowest: float, highest: float) -> None:
    """Raise ValueError if a mean is NaN or above `LARGEST_MEAN`."""
    if not (lowest <= highest <= LARGEST_MEAN):
        raise ValueError(f"means from {lowest} to {highest}: a Poisson field needs numbers up to {LARGEST_MEAN:.0f}")


def poisson_field(
    mean: NDArray[np.float32] | NDArray[np.float64], z0: int, y0: int, x0: int, key: Key
) -> NDArray[np.uint32]:
    """Draw a Poisson count for every pixel of a box, uint32.

    Pixel (i, j, k) uses the random number of counter (z0 + i, y0 + j, x0 + k, 0) only, so its count does not depend on
    the box or on other pixels.

    Parameters
    ----------
    mean
        Expected counts, (z, y, x); 0 is drawn unless positive. ValueError if one is NaN or above `LARGEST_MEAN`.
    z0, y0, x0
        Index of the first pixel in the image.
    key
        Key of the stream, one per channel and purpose (`simexm.random.derive_key`).
    """
    if mean.size:
        check_mean(float(mean.min()), float(mean.max()))
    counts: NDArray[np.uint32] = _poisson_field(mean, z0, y0, x0, *key, poisson_guide())
    return counts


@_jit
def _lose_pulses(counts, mean, z0, y0, x0, k0, k1, dead_share):  # type: ignore[no-untyped-def]
    """Replace Poisson counts by those that are counted."""
    u = np.empty(mean.shape[2])
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            _uniform_row(u, z0 + i, y0 + j, x0, 0, k0, k1)
            for k in range(u.shape[0]):
                counts[i, j, k] = draws.counted_pulses(np.int64(counts[i, j, k]), u[k], mean[i, j, k], dead_share)


def pulse_count_field(
    mean: NDArray[np.float64], z0: int, y0: int, x0: int, key: Key, dead_share: float
) -> NDArray[np.uint32]:
    """Draw the pulses counted in every pixel of a box, as `poisson_field` does; see `draws.pulse_count_quantile`."""
    counts = poisson_field(mean, z0, y0, x0, key)
    _lose_pulses(counts, mean, z0, y0, x0, *key, dead_share)
    return counts


def normal_field(
    shape: tuple[int, int, int], z0: int, y0: int, x0: int, key: Key, draw: int = 0
) -> NDArray[np.float64]:
    """Draw a standard normal number for every pixel of a box, float64, as `poisson_field` does.

    `draw` is the fourth word of the counter, for streams with several numbers per pixel.
    """
    field: NDArray[np.float64] = _normal_field(*shape, z0, y0, x0, draw, *key)
    return field
