"""Draw amplicons in voxels, and the positions of their dyes.

As in `emit`, every random number depends on the voxel's position in the volume: counter (z, y, x, draw), one key per
purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box
from simexm.kernels.emission.points import AMPLICON, Emitters
from simexm.kernels.labels.regions import as_bytes
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.random import Key, philox, unit_double, unit_float32word

AMPLICON_BYTES = 3 * 8 + 3 * 4 + 3 * 4 + 2
MOST_DYES = 1 << 12
"""Most dyes of an amplicon: the index of a dye is part of the counter of its draws."""

_TRY_BITS = 8
_DYE_BITS = 12
_ROUNDING = 1e-15


class Amplicons(NamedTuple):
    """Amplicons of a tile, n of them, in ascending planes of voxels."""

    place: NDArray[np.float64]  # (n, 3), centre, nm of tissue from the corner of the specimen
    voxel: NDArray[np.int32]  # (n, 3), voxel of the volume that holds the centre
    number: NDArray[np.int32]  # index within the voxel
    cell: NDArray[np.int32]  # index in the block's `CellIndex`
    dyes: NDArray[np.int32]  # number of dyes
    region: NDArray[np.uint8]  # index of the region
    own: NDArray[np.uint8]  # 1 if the voxel belongs to the tile; 0 in the halo

    @classmethod
    def empty(cls, n: int) -> Amplicons:
        """Uninitialised buffers of `n` amplicons."""
        return cls(
            np.empty((n, 3)), np.empty((n, 3), np.int32), np.empty(n, np.int32), np.empty(n, np.int32),
            np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.uint8),
        )  # fmt: skip

    def select(self, which: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Amplicons:
        """Some of the amplicons."""
        place, voxel, number, cell, dyes, region, own = self
        return Amplicons(place[which], voxel[which], number[which], cell[which], dyes[which], region[which], own[which])


def join(parts: Sequence[Amplicons]) -> Amplicons:
    """Concatenate amplicons."""
    columns: Any = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Amplicons(*columns)


class AmpliconKeys(NamedTuple):
    """Keys of a region's random streams: number of amplicons, their place and dyes, and the places of dyes."""

    number: Key
    place: Key
    dye: Key


@njit(cache=True, nogil=True)
def _find(  # type: ignore[no-untyped-def]
    index, regions, carries, region, bits, mean, dyes, fixed, keys, origin, specimen, voxel_nm, inside, own, out
):
    """Write the amplicons of the box `inside` (start, stop) of the arrays that fit into `out`; return the number found."""
    (lo, hi), (own_lo, own_hi) = inside, own
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
                        own_zy = own_lo[0] <= z < own_hi[0] and own_lo[1] <= y < own_hi[1]
                        out.own[n] = np.uint8(own_zy and own_lo[2] <= x < own_hi[2])
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
    """Find the amplicons of one region, ordered by plane, row, column.

    `index` and `regions` are cell indices and region bits of `array`, z y x; `carries` says by cell index whether a
    cell has a barcode. `mean` is that of amplicons in a voxel, `dyes` the number of dyes (or, unless `fixed`, their
    Poisson mean). `array`, `specimen`, `inside` and `own` are the extent of the arrays, of the specimen, of the search
    and of the tile, in voxels of the volume.
    """
    here = inside.intersect(specimen).intersect(array).relative_to(array.start)
    mine = own.relative_to(array.start)
    regions, bits = as_bytes(regions, bits)
    room = 1024
    while True:
        out = Amplicons.empty(room)
        found = _find(
            index, regions, carries, region, bits, mean, dyes, fixed, keys, array.start, specimen.start, voxel_nm,
            (here.start, here.stop), (mine.start, mine.stop), out,
        )  # fmt: skip
        if found <= room:
            return out.select(slice(0, found))
        room = found


@njit(cache=True, nogil=True)
def _scatter(amplicons, keys, radius, first, out):  # type: ignore[no-untyped-def]
    """Write the dyes of amplicons from `first`, as many as fit; return (dyes written, next amplicon)."""
    n = 0
    for i in range(first, amplicons.number.size):
        if n + amplicons.dyes[i] > out.z.size:
            return n, i
        z, y, x = amplicons.voxel[i]
        key = keys[amplicons.region[i]]
        for d in range(amplicons.dyes[i]):
            draw = ((amplicons.number[i] << _DYE_BITS) | d) << _TRY_BITS
            # rejection from the cube: exact, and without functions whose last bit depends on the machine
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
    """Yield the dyes of amplicons, spread evenly over balls, in chunks that reuse `room` (at least `MOST_DYES`).

    `keys` are those of the dyes' streams by region, int64, (regions, 2).
    """
    first = 0
    while first < amplicons.number.size:
        count, first = _scatter(amplicons, keys, radius_nm, first, room)
        if count:
            yield room.first(count)
