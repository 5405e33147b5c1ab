"""The levels of a multiscale volume: which there are, how each is stored, and how a level follows from the one above.

Everything here is a pure function of shapes and spacings, so the writer of a block and the writer of the coarse levels
agree without talking to each other. Level n is always made from level n - 1, cell by cell, cells beginning at multiples
of the factors; therefore any region that begins at a multiple of a level's factors can be downsampled on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from simexm.grid import Spacing, Triple

LONGEST_AXIS = 64
FEWEST_LEVELS = 3
SMALLEST_SHARD = 32

Downsample = Callable[[NDArray[np.generic], Triple], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid.

    Attributes
    ----------
    factors
        Elements of level 0 along z, y, x in one element of this level.
    shape
        Elements along z, y, x: level 0's shape over the factors, rounded up.
    spacing
        Size of one element, in the unit that level 0's was given in.
    """

    factors: Triple
    shape: Triple
    spacing: Spacing


@dataclass(frozen=True, slots=True)
class Storage:
    """How one level is cut up on disk.

    Attributes
    ----------
    shard, chunk
        Elements along z, y, x of a shard and of the chunks inside it.
    owned
        True where the block that writes one shard of level 0 also writes exactly one of this level; a level that is
        not owned is made from the stored one above it when all blocks are done.
    """

    shard: Triple
    chunk: Triple
    owned: bool


def plan_levels(shape: Triple, spacing: Spacing) -> tuple[Level, ...]:
    """Return the levels of a volume, full resolution first.

    Each level halves every axis that is longer than 1, except those whose elements are already at least twice as large
    as the finest such axis's: they wait until spacing is isotropic within 2. The last level has no axis longer than 64.
    There are at least three levels, fewer only where one element is left before that.

    Parameters
    ----------
    shape
        Elements along z, y, x of level 0.
    spacing
        Size of an element of level 0 along z, y, x.
    """
    if min(shape) < 1:
        raise ValueError(f"a volume of shape {shape} has no levels")
    levels = [Level((1, 1, 1), shape, spacing)]
    while max(levels[-1].shape) > LONGEST_AXIS or len(levels) < FEWEST_LEVELS:
        last = levels[-1]
        divisible = [s for s, n in zip(last.spacing, last.shape, strict=True) if n > 1]
        if not divisible:
            break
        step = _triple(
            2 if n > 1 and s < 2 * min(divisible) else 1 for s, n in zip(last.spacing, last.shape, strict=True)
        )
        factors = _triple(f * k for f, k in zip(last.factors, step, strict=True))
        z, y, x = (s * f for s, f in zip(spacing, factors, strict=True))
        levels.append(Level(factors, ceil_divide(shape, factors), (z, y, x)))
    return tuple(levels)


def plan_storage(levels: tuple[Level, ...], shard: Triple, chunk: Triple) -> tuple[Storage, ...]:
    """Return how each level is stored, given level 0's shard and the largest chunk that is wanted.

    A level's shard is level 0's divided by the level's factors, as long as they divide it and its longest axis is not
    below 32. The levels left over hold little, and each of their shards is a single chunk, so that making one reads
    no more than eight chunks of the level above.
    """
    storage: list[Storage] = []
    for level in levels:
        divides = all(n % f == 0 for n, f in zip(shard, level.factors, strict=True))
        own = _triple(n // f for n, f in zip(shard, level.factors, strict=True))
        before = all(s.owned for s in storage)
        if before and divides and (level.factors == (1, 1, 1) or max(own) >= SMALLEST_SHARD):
            fitted = _triple(_largest_divisor(n, c) for n, c in zip(own, chunk, strict=True))
            storage.append(Storage(own, fitted, True))
        else:
            fitted = _triple(min(c, _power_of_two(n)) for c, n in zip(chunk, level.shape, strict=True))
            storage.append(Storage(fitted, fitted, False))
    return tuple(storage)


def ceil_divide(shape: Triple, factors: Triple) -> Triple:
    """Divide a shape by factors, rounding up."""
    return _triple(-(-n // f) for n, f in zip(shape, factors, strict=True))


def step_factors(upper: Level, lower: Level) -> Triple:
    """Elements of `upper` along z, y, x in one element of `lower`, the next level."""
    return _triple(b // a for a, b in zip(upper.factors, lower.factors, strict=True))


def pyramid(
    data: NDArray[np.generic], levels: tuple[Level, ...], downsample: Downsample
) -> tuple[NDArray[np.generic], ...]:
    """Return a region of level 0 and what follows from it on each further level.

    Parameters
    ----------
    data
        (z, y, x) region of the first of `levels` that begins at a multiple of every level's factors and ends so, or at
        the volume's end.
    levels
        The levels wanted, the first being that of `data`.
    downsample
        `downsample_mean` or `downsample_labels`.
    """
    made = [data]
    for upper, lower in itertools.pairwise(levels):
        made.append(downsample(made[-1], step_factors(upper, lower)))
    return tuple(made)


def downsample_mean(a: NDArray[np.generic], factors: Triple) -> NDArray[np.generic]:
    """Average the elements of each cell, those that are there at the far edge, keeping the data type.

    Integers are summed exactly and rounded to nearest, halves to even; floats are summed in float64 in z, y, x order.
    So the result is the same on every machine and in every partition into aligned regions.

    Parameters
    ----------
    a
        (z, y, x) array of unsigned integers of at most 32 bits, or of floats.
    factors
        Elements of a cell along z, y, x.

    Raises
    ------
    TypeError
        For any other data type.
    """
    out = np.empty(ceil_divide(_shape(a), factors), a.dtype)
    if a.dtype.kind == "u" and a.dtype.itemsize <= 4:
        _mean_integers(np.ascontiguousarray(a), *factors, out)
    elif a.dtype.kind == "f":
        _mean_floats(np.ascontiguousarray(a), *factors, out)
    else:
        raise TypeError(f"no mean of {a.dtype}: images are unsigned integers of up to 32 bits or floats")
    return out


def downsample_labels(a: NDArray[np.generic], factors: Triple) -> NDArray[np.generic]:
    """Take the most frequent id of each cell, of equally frequent ones the largest.

    The mode keeps a label where it is (picking a fixed corner would shift it by half a pixel against the averaged
    image), never invents an id, and needs nothing from outside the cell. Ties go to the largest id so that a thin
    process, not the background 0 beside it, survives.

    Parameters
    ----------
    a
        (z, y, x) array of integers.
    factors
        Elements of a cell along z, y, x; small, since each cell costs their product squared at worst.
    """
    out = np.empty(ceil_divide(_shape(a), factors), a.dtype)
    _mode(np.ascontiguousarray(a), *factors, out)
    return out


@numba.njit(cache=True, nogil=True)
def _mean_integers(a, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = a.shape
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, nz)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, ny)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, nx)
                total = np.int64(0)
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            total += np.int64(a[i, j, k])
                n = (z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx)
                quotient = total // n
                twice = 2 * (total - quotient * n)
                if twice > n or (twice == n and quotient % 2 == 1):
                    quotient += 1
                out[z, y, x] = quotient


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _mode(a, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = a.shape
    cell = np.empty(fz * fy * fx, a.dtype)
    for z in range(out.shape[0]):
        z1 = min((z + 1) * fz, nz)
        for y in range(out.shape[1]):
            y1 = min((y + 1) * fy, ny)
            for x in range(out.shape[2]):
                x1 = min((x + 1) * fx, nx)
                first = a[z * fz, y * fy, x * fx]
                uniform = True
                n = 0
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            value = a[i, j, k]
                            cell[n] = value
                            n += 1
                            uniform &= value == first
                best = first
                if not uniform:
                    most = 0
                    for i in range(n):
                        count = 0
                        for j in range(n):
                            count += cell[j] == cell[i]
                        if count > most or (count == most and cell[i] > best):
                            most = count
                            best = cell[i]
                out[z, y, x] = best


def _largest_divisor(n: int, limit: int) -> int:
    return next(d for d in range(min(n, limit), 0, -1) if n % d == 0)


def _power_of_two(n: int) -> int:
    """Round up to a power of two."""
    return 1 << (n - 1).bit_length()


def _shape(a: NDArray[np.generic]) -> Triple:
    z, y, x = a.shape
    return z, y, x


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
