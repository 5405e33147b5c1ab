"""Levels of a multiscale volume: their shapes, shards and chunks, and downsampling.

All functions are pure, so the writer of a block and the writer of the coarse levels agree without exchanging data. Level n
is computed from level n - 1, cell by cell; cells begin at multiples of the factors, so any region that begins at a multiple
of a level's factors can be downsampled by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Spacing, Triple, three, triple

LONGEST_AXIS = 64
FEWEST_LEVELS = 3
SMALLEST_SHARD = 32

Downsample = Callable[[NDArray[np.generic], Triple], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid."""

    factors: Triple  # elements of level 0 in one element of this level
    shape: Triple  # level 0's shape over the factors, rounded up
    spacing: Spacing  # size of an element, in the unit of level 0's


@dataclass(frozen=True, slots=True)
class Storage:
    """Elements along z, y, x of one level's shards and of the chunks inside them.

    An `owned` level has exactly one shard for each shard of level 0, written by the same block. Other levels are computed
    from the stored level above when all blocks are done.
    """

    shard: Triple
    chunk: Triple
    owned: bool


def plan_levels(shape: Triple, spacing: Spacing) -> tuple[Level, ...]:
    """Return the levels of a volume with this shape and spacing, full resolution first.

    Each level halves every axis longer than 1, except axes whose spacing is already at least twice the finest: they wait
    until spacing is isotropic within 2. The last level has no axis longer than 64. There are at least three levels, unless
    a single element is left before that.
    """
    if min(shape) < 1:
        raise ValueError(f"a volume of shape {shape} has no levels")
    levels = [Level((1, 1, 1), shape, spacing)]
    while max(levels[-1].shape) > LONGEST_AXIS or len(levels) < FEWEST_LEVELS:
        last = levels[-1]
        divisible = [s for s, n in zip(last.spacing, last.shape, strict=True) if n > 1]
        if not divisible:
            break
        step = triple(
            2 if n > 1 and s < 2 * min(divisible) else 1 for s, n in zip(last.spacing, last.shape, strict=True)
        )
        factors = triple(f * k for f, k in zip(last.factors, step, strict=True))
        z, y, x = (s * f for s, f in zip(spacing, factors, strict=True))
        levels.append(Level(factors, ceil_divide(shape, factors), (z, y, x)))
    return tuple(levels)


def plan_storage(levels: tuple[Level, ...], shard: Triple, chunk: Triple) -> tuple[Storage, ...]:
    """Return shards and chunks of each level, from level 0's shard and the largest chunk.

    A level's shard is level 0's divided by the level's factors, as long as they divide it and its longest axis is at least
    32. The remaining levels are small; each of their shards is a single chunk, so that computing one reads at most eight
    chunks of the level above.
    """
    storage: list[Storage] = []
    for level in levels:
        divides = all(n % f == 0 for n, f in zip(shard, level.factors, strict=True))
        own = triple(n // f for n, f in zip(shard, level.factors, strict=True))
        before = all(s.owned for s in storage)
        if before and divides and (level.factors == (1, 1, 1) or max(own) >= SMALLEST_SHARD):
            fitted = triple(_largest_divisor(n, c) for n, c in zip(own, chunk, strict=True))
            storage.append(Storage(own, fitted, True))
        else:
            powers_of_two = (1 << (n - 1).bit_length() for n in level.shape)
            fitted = triple(min(c, p) for c, p in zip(chunk, powers_of_two, strict=True))
            storage.append(Storage(fitted, fitted, False))
    return tuple(storage)


def ceil_divide(shape: Triple, factors: Triple) -> Triple:
    """Divide a shape by factors, rounding up."""
    return triple(-(-n // f) for n, f in zip(shape, factors, strict=True))


def step_factors(upper: Level, lower: Level) -> Triple:
    """Elements of `upper` along z, y, x in one element of `lower`, the next level."""
    return triple(b // a for a, b in zip(upper.factors, lower.factors, strict=True))


def pyramid(
    data: NDArray[np.generic], levels: tuple[Level, ...], downsample: Downsample
) -> tuple[NDArray[np.generic], ...]:
    """Downsample a region of the first of `levels` to all of them; return it and its coarser copies.

    `data` is (z, y, x). It begins at a multiple of every level's factors and ends at one, or where the volume ends.
    """
    found = [data]
    for upper, lower in itertools.pairwise(levels):
        found.append(downsample(found[-1], step_factors(upper, lower)))
    return tuple(found)


def downsample_mean(a: NDArray[np.generic], factors: Triple) -> NDArray[np.generic]:
    """Average the elements of each cell, clipped at the volume's end, in the same data type.

    Integers are summed exactly and rounded to nearest, halves to even; floats are summed in float64 in z, y, x order.
    So the result is the same on every machine and for every partition into aligned regions. Raises TypeError if `a` (z, y, x)
    holds neither floats nor integers of at most 32 bits.
    """
    if a.dtype.kind == "i" and a.dtype.itemsize <= 4:
        unsigned: NDArray[Any] = a.view(f"u{a.dtype.itemsize}")
        lift = unsigned.dtype.type(1 << (8 * a.dtype.itemsize - 1))  # even, so that halves are rounded alike
        lifted: NDArray[Any] = downsample_mean(unsigned ^ lift, factors) ^ lift
        return lifted.view(a.dtype)
    out = np.empty(ceil_divide(three(a.shape), factors), a.dtype)
    if a.dtype.kind == "u" and a.dtype.itemsize <= 4:
        _mean_integers(np.ascontiguousarray(a), *factors, out)
    elif a.dtype.kind == "f":
        _mean_floats(np.ascontiguousarray(a), *factors, out)
    else:
        raise TypeError(f"no mean of {a.dtype}: images are integers of up to 32 bits or floats")
    return out


def downsample_labels(a: NDArray[np.generic], factors: Triple) -> NDArray[np.generic]:
    """Return the mode of each cell of (z, y, x) integers; of equally frequent ids the largest.

    The mode keeps labels in place (a fixed corner would shift them by half a pixel against the averaged image) and never
    invents an id. Ties go to the largest id so that a thin process survives, not the background 0 beside it. At worst a
    cell costs the square of its elements, so `factors` should be small.
    """
    out = np.empty(ceil_divide(three(a.shape), factors), a.dtype)
    _mode(np.ascontiguousarray(a), *factors, out)
    return out


def extremes(a: NDArray[np.generic]) -> tuple[int, int]:
    """Smallest and largest of an array of integers, in one pass: half the time of NumPy's two."""
    smallest, largest = _extremes(np.ascontiguousarray(a).ravel())
    return int(smallest), int(largest)


@njit(cache=True, nogil=True)
def _extremes(flat):  # type: ignore[no-untyped-def]
    smallest, largest = flat[0], flat[0]
    for value in flat:
        smallest, largest = min(smallest, value), max(largest, value)
    return smallest, largest


@njit(cache=True, nogil=True)
def _mean_integers(a, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = a.shape
    whole = nx // fx
    line = np.empty(nx, np.uint64)
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, nz)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, ny)
            line[:] = 0
            for i in range(z * fz, z1):
                for j in range(y * fy, y1):
                    row = a[i, j]
                    for x in range(nx):
                        line[x] += np.uint64(row[x])
            area = (z1 - z * fz) * (y1 - y * fy)
            if fx == 2:
                _round_pairs(line, np.uint64(area * 2), out[z, y, :whole])
            else:
                for x in range(whole):
                    out[z, y, x] = _rounded(line[x * fx : (x + 1) * fx].sum(), np.uint64(area * fx))
            for x in range(whole, out.shape[2]):
                out[z, y, x] = _rounded(line[x * fx :].sum(), np.uint64(area * (nx - x * fx)))


@njit(cache=True, nogil=True)
def _rounded(total, n):  # type: ignore[no-untyped-def]
    """Divide by n, halves to even."""
    quotient = total // n
    twice = np.uint64(2) * (total - quotient * n)
    return quotient + np.uint64(twice > n or (twice == n and quotient & np.uint64(1)))


@njit(cache=True, nogil=True)
def _round_pairs(line, n, out):  # type: ignore[no-untyped-def]
    """Divide the sum of each two neighbours by n, halves to even; by shifts where n is a power of two."""
    bits = np.uint64(0)
    while np.uint64(1) << bits < n:
        bits += np.uint64(1)
    if np.uint64(1) << bits == n:
        below = (n >> np.uint64(1)) - np.uint64(1)
        for x in range(out.size):
            total = line[2 * x] + line[2 * x + 1]
            out[x] = (total + below + ((total >> bits) & np.uint64(1))) >> bits
    else:
        for x in range(out.size):
            out[x] = _rounded(line[2 * x] + line[2 * x + 1], n)


@njit(cache=True, nogil=True)
def _mean_floats(a, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = a.shape
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, nz)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, ny)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, nx)
                total = 0.0
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            total += np.float64(a[i, j, k])
                out[z, y, x] = total / ((z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx))


@njit(cache=True, nogil=True)
def _mode(a, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = a.shape
    cell = np.empty(fz * fy * fx, a.dtype)
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, nz)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, ny)
            done = 0
            if fx == 2 and y1 - y * fy == 2:
                done = nx // 2
                if z1 - z * fz == 1:
                    _mode_of_4(a[z * fz, y * fy], a[z * fz, y * fy + 1], out[z, y])
                elif z1 - z * fz == 2:
                    _mode_of_8(a[z * fz : z1, y * fy : y1], cell, out[z, y])
                else:
                    done = 0
            for x in range(done, out.shape[2]):
                x1 = min((x + 1) * fx, nx)
                n = 0
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            cell[n] = a[i, j, k]
                            n += 1
                out[z, y, x] = _most_frequent(cell, n)


@njit(cache=True, nogil=True)
def _mode_of_4(above, below, out):  # type: ignore[no-untyped-def]
    for x in range(above.size // 2):
        a, b, c, d = above[2 * x], above[2 * x + 1], below[2 * x], below[2 * x + 1]
        if (a == b) & (c == d):
            best = max(a, c)
        elif ((a == c) & (b == d)) | ((a == d) & (b == c)):
            best = max(a, b)
        elif (a == b) | (a == c) | (a == d):
            best = a
        elif (b == c) | (b == d):
            best = b
        elif c == d:
            best = c
        else:
            best = max(max(a, b), max(c, d))
        out[x] = best


@njit(cache=True, nogil=True)
def _mode_of_8(a, cell, out):  # type: ignore[no-untyped-def]
    p, q, r, s = a[0, 0], a[0, 1], a[1, 0], a[1, 1]
    for x in range(a.shape[2] // 2):
        i, j = 2 * x, 2 * x + 1
        first = p[i]
        upper = (p[j] == first) & (q[i] == first) & (q[j] == first)
        if upper & (r[i] == first) & (r[j] == first) & (s[i] == first) & (s[j] == first):
            out[x] = first
        else:
            cell[0], cell[1], cell[2], cell[3] = p[i], p[j], q[i], q[j]
            cell[4], cell[5], cell[6], cell[7] = r[i], r[j], s[i], s[j]
            out[x] = _most_frequent(cell, 8)


@njit(cache=True, nogil=True)
def _most_frequent(cell, n):  # type: ignore[no-untyped-def]
    """Return the mode; of equally frequent values the largest."""
    best, most = cell[0], 0
    for i in range(n):
        count = 0
        for j in range(n):
            count += cell[j] == cell[i]
        if count > most or (count == most and cell[i] > best):
            most = count
            best = cell[i]
    return best


def _largest_divisor(n: int, limit: int) -> int:
    return next(d for d in range(min(n, limit), 0, -1) if n % d == 0)
