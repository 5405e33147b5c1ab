"""Amplicons: which voxels hold one, and where the dyes of each lie.

As in `emit`, every number is a function of the voxel's place in the volume: counter (z, y, x, draw), one key for each purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box
from simexm.kernels.emission.points import AMPLICON, Emitters
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.random import Key, philox, unit_double, unit_float32word

AMPLICON_BYTES = 3 * 8 + 3 * 4 + 3 * 4 + 2
MOST_DYES = 1 << 12
"""Dyes of one amplicon at most: the number of a dye is part of the counter of its draws."""

_TRY_BITS = 8
_DYE_BITS = 12
_ROUNDING = 1e-15


class Amplicons(NamedTuple):
    """Amplicons of a tile; arrays of one length n, in ascending planes of voxels.

    Attributes
    ----------
    place
        Centre, nm of tissue from the corner of the specimen, float64, (n, 3).
    voxel
        The voxel that holds the centre, of the whole volume, int32, (n, 3).
    number
        Which one it is in its voxel, int32.
    cell
        Index of its cell in the block's `CellIndex`, int32.
    dyes
        How many dyes it carries, int32.
    region
        Number of the region that it was found in, uint8.
    own
        1 where its voxel belongs to the tile, uint8; 0 in the halo.
    """

    place: NDArray[np.float64]
    voxel: NDArray[np.int32]
    number: NDArray[np.int32]
    cell: NDArray[np.int32]
    dyes: NDArray[np.int32]
    region: NDArray[np.uint8]
    own: NDArray[np.uint8]

    @classmethod
    def empty(cls, n: int) -> Amplicons:
        """Uninitialised room for `n` of them."""
        return cls(
            np.empty((n, 3)), np.empty((n, 3), np.int32), np.empty(n, np.int32), np.empty(n, np.int32),
            np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.uint8),
        )  # fmt: skip

    def select(self, which: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Amplicons:
        """Some of them."""
        place, voxel, number, cell, dyes, region, own = self
        return Amplicons(place[which], voxel[which], number[which], cell[which], dyes[which], region[which], own[which])


def join(parts: Sequence[Amplicons]) -> Amplicons:
    """All of them, one part after the other."""
    columns: Any = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Amplicons(*columns)


class AmpliconKeys(NamedTuple):
    """Keys of a region's streams: how many amplicons a voxel holds, where and how bright each is, where its dyes are."""

    number: Key
    place: Key
    dye: Key


@njit(cache=True, nogil=True)
def _find(  # type: ignore[no-untyped-def]
    index,
    regions,
    carries,
    region,
    bits,
    mean,
    dyes,
    fixed,
    keys,
    origin,
    specimen,
    voxel_nm,
    lo,
    hi,
    own_lo,
    own_hi,
    out,
):
    """Write the amplicons of array box lo:hi to `out`; return how many there are (no more than fit are written)."""
    n = 0
    for z in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            for x in range(lo[2], hi[2]):
                if (regions[z, y, x] & bits) == 0 or carries[index[z, y, x]] == 0:
                    continue
                gz, gy, gx = origin[0] + z, origin[1] + y, origin[2] + x
                words = philox(gz, gy, gx, 0, keys.number[0], keys.number[1])
                u = unit_double(words[0], words[1])
                if u < 1.0 - mean - _ROUNDING:  # exp(-m) > 1 - m
                    continue
                here = poisson_quantile(u, mean)
                for p in range(here):
                    if n < out.number.size:
                        words = philox(gz, gy, gx, p, keys.place[0], keys.place[1])
                        out.place[n, 0] = (gz - specimen[0] + unit_float32word(words[0])) * voxel_nm[0]
                        out.place[n, 1] = (gy - specimen[1] + unit_float32word(words[1])) * voxel_nm[1]
                        out.place[n, 2] = (gx - specimen[2] + unit_float32word(words[2])) * voxel_nm[2]
                        out.voxel[n, 0] = gz
                        out.voxel[n, 1] = gy
                        out.voxel[n, 2] = gx
                        out.number[n] = p
                        out.cell[n] = index[z, y, x]
                        out.dyes[n] = dyes if fixed else poisson_quantile(unit_float32word(words[3]), float(dyes))
                        out.region[n] = region
                        inside = (
                            own_lo[0] <= z < own_hi[0] and own_lo[1] <= y < own_hi[1] and own_lo[2] <= x < own_hi[2]
                        )
                        out.own[n] = np.uint8(inside)
                    n += 1
    return n


def find_amplicons(
    index: NDArray[np.int32],
    regions: NDArray[np.integer[Any]],
    carries: NDArray[np.uint8],
    *,
    region: int,
    bits: int,
    mean: float,
    dyes: int,
    fixed: bool,
    keys: AmpliconKeys,
    array: Box,
    specimen: Box,
    inside: Box,
    own: Box,
    voxel_nm: tuple[float, float, float],
) -> Amplicons:
    """Amplicons of one region, in ascending planes, rows, columns.

    Parameters
    ----------
    index, regions
        Cell indices (int32) and region bits of `array`, z y x.
    carries
        uint8 by cell index: whether the cell carries a barcode.
    region, bits
        Number of the region among the stage's, and its bit.
    mean
        Amplicons in a voxel.
    dyes, fixed
        Dyes of an amplicon: their number, or the mean of a Poisson number.
    array, specimen, inside, own
        Boxes in voxels of the whole volume: what the arrays cover, what exists, what is looked at, what belongs to the tile.
    """
    here = inside.intersect(specimen).intersect(array).relative_to(array.start)
    mine = own.relative_to(array.start)
    room = 1024
    while True:
        out = Amplicons.empty(room)
        found = _find(
            index, regions, carries, region, bits, mean, dyes, fixed, keys, array.start, specimen.start, voxel_nm,
            here.start, here.stop, mine.start, mine.stop, out,
        )  # fmt: skip
        if found <= room:
            return out.select(slice(0, found))
        room = found


@njit(cache=True, nogil=True)
def _scatter(amplicons, keys, radius, first, out):  # type: ignore[no-untyped-def]
    """Write the dyes of amplicons from `first` on as long as they fit; return (dyes written, amplicon to go on with)."""
    n = 0
    for i in range(first, amplicons.number.size):
        if n + amplicons.dyes[i] > out.z.size:
            return n, i
        z, y, x = amplicons.voxel[i]
        key = keys[amplicons.region[i]]
        for d in range(amplicons.dyes[i]):
            draw = ((amplicons.number[i] << _DYE_BITS) | d) << _TRY_BITS
            # a point of the cube, again until it lies in the ball: exact, and without a function whose last bit may differ
            for _ in range(1 << _TRY_BITS):
                words = philox(z, y, x, draw, key[0], key[1])
                a = 2.0 * unit_float32word(words[0]) - 1.0
                b = 2.0 * unit_float32word(words[1]) - 1.0
                c = 2.0 * unit_float32word(words[2]) - 1.0
                if a * a + b * b + c * c <= 1.0:
                    break
                draw += 1
            out.z[n] = amplicons.place[i, 0] + radius * a
            out.y[n] = amplicons.place[i, 1] + radius * b
            out.x[n] = amplicons.place[i, 2] + radius * c
            out.weight[n] = 1
            out.cell[n] = amplicons.cell[i]
            out.own[n] = amplicons.own[i]
            if out.identity.shape[0] > 0:
                row = out.identity[n]
                row[0], row[1], row[2] = z, y, x
                row[3], row[4], row[5] = amplicons.region[i], (amplicons.number[i] << _DYE_BITS) | d, AMPLICON
            n += 1
    return n, amplicons.number.size


def scatter_dyes(amplicons: Amplicons, keys: NDArray[np.int64], radius_nm: float, room: Emitters) -> Iterator[Emitters]:
    """Yield the dyes of amplicons, spread evenly over balls, in chunks that fit into `room`.

    Parameters
    ----------
    amplicons
        Whose dyes.
    keys
        Key of the dyes' stream for each region, int64, (regions, 2).
    radius_nm
        Of the ball, nm of tissue.
    room
        Buffer that each chunk reuses; it holds at least `MOST_DYES`.
    """
    first = 0
    while first < amplicons.number.size:
        count, first = _scatter(amplicons, keys, radius_nm, first, room)
        if count:
            yield room.first(count)
