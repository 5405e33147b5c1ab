"""Proteins in voxels, dyes on proteins, and where each dye sits.

Every number is a function of the voxel's place in the volume: counter (z, y, x, draw), one key for each purpose. A voxel
gives the same dyes in any block, tile or crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numba
import numpy as np
from numpy.typing import NDArray

from simexm.grid import Box, Triple
from simexm.kernels.detmath import CUT_SIGMA, normal_quantile_cut
from simexm.kernels.draws import binomial_quantile, poisson_quantile
from simexm.kernels.regions import surface_um2
from simexm.random import Key, philox, unit_double, unit_float32word

POISSON, BINOMIAL = 0, 1
__all__ = [
    "BINOMIAL",
    "CAPACITY",
    "CUT_SIGMA",
    "EMITTER_BYTES",
    "POISSON",
    "Emitters",
    "Law",
    "LayerKeys",
    "emit_layer",
]
POINTS_OF_CLUMP = 8
"""Points that share the dyes of one sub-cell where sub-cells are drawn at once: a random one and its mirror images in the
sub-cell's middle planes, so that the sub-cell's centroid does not fluctuate more than that of its many dyes would."""

CAPACITY = 1 << 18
"""Emitters in one chunk."""

EMITTER_BYTES = 3 * 8 + 2 * 4 + 1


_MAX_DYES_BITS = 12
_LARGE = 4096
_ROUNDING = 1e-15


class Emitters(NamedTuple):
    """Dyes as points; arrays of one length n.

    Attributes
    ----------
    z, y, x
        Position, nm, float64, from the corner of the specimen (the crop).
    weight
        Dyes at the point, int32.
    cell
        Index of the cell in the block's `CellIndex`, int32.
    own
        1 where the protein's voxel belongs to the box whose emitters are counted, uint8; 0 in the halo.
    """

    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    weight: NDArray[np.int32]
    cell: NDArray[np.int32]
    own: NDArray[np.uint8]

    @classmethod
    def empty(cls, capacity: int) -> Emitters:
        """Uninitialised room for `capacity` emitters."""
        return cls(
            np.empty(capacity), np.empty(capacity), np.empty(capacity),
            np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty(capacity, np.uint8),
        )  # fmt: skip

    def first(self, count: int) -> Emitters:
        """Views of the first `count` emitters."""
        return self.select(slice(0, count))

    def select(self, which: slice | NDArray[np.bool_]) -> Emitters:
        """Some of the emitters."""
        return Emitters(
            self.z[which], self.y[which], self.x[which], self.weight[which], self.cell[which], self.own[which]
        )


class Law(NamedTuple):
    """What one layer puts into a voxel, as plain numbers.

    Attributes
    ----------
    mean
        Proteins in a voxel, or per um^2 of its surface when `by_surface`.
    by_surface
        Whether `mean` is multiplied by the voxel's surface.
    region_bits
        A voxel counts when its region bits and these have one in common; 0 = every voxel of the tissue.
    kind, dyes, kept
        POISSON: dyes per protein ~ Poisson(dyes * kept). BINOMIAL: ~ Binomial(dyes, kept).
    sigma
        Standard deviation of the linker along z, y, x, nm of tissue; (0, 0, 0) for none.
    subcells
        Parts along z, y, x into which a voxel is cut; by Poisson splitting each draws its own proteins.
    clumped
        Draw the dyes of a sub-cell at once and share them among a few points, instead of protein by protein.
    """

    mean: float
    by_surface: bool
    region_bits: int
    kind: int
    dyes: float
    kept: float
    sigma: tuple[float, float, float]
    subcells: Triple
    clumped: bool


class LayerKeys(NamedTuple):
    """Keys of a layer's streams: how many proteins, where and how bright each is, and each dye's linker."""

    number: Key
    place: Key
    linker: Key


@numba.njit(cache=True, nogil=True)
def _dyes_of(u, kind, dyes, kept, proteins):  # type: ignore[no-untyped-def]
    """Dyes that `proteins` proteins carry in all, by the quantile of their sum: exact where the sum has a name."""
    if kind == POISSON:
        return poisson_quantile(u, dyes * kept * proteins)
    n = np.int64(dyes) * proteins
    if kept >= 1.0:
        return n
    if n <= _LARGE:
        return binomial_quantile(u, n, kept)
    # a sub-cell with thousands of dyes: the normal limit, cut at 4 sigma, is within 1 / sqrt(n) of the binomial
    mean = n * kept
    draw = np.floor(mean + np.sqrt(mean * (1.0 - kept)) * normal_quantile_cut(u) + 0.5)
    return np.int64(min(max(draw, 0.0), n))


@numba.njit(cache=True, nogil=True)
def _place(out, n, base, words, size, sigma, linker, mirror, weight, cell, own):  # type: ignore[no-untyped-def]
    """Write one emitter at base + (uniform, from `words`) * size + linker, mirrored in the axes of the bits of `mirror`."""
    at = (unit_float32word(words[0]), unit_float32word(words[1]), unit_float32word(words[2]))
    far = ((mirror & 4) != 0, (mirror & 2) != 0, (mirror & 1) != 0)
    z = base[0] + (1.0 - at[0] if far[0] else at[0]) * size[0]
    y = base[1] + (1.0 - at[1] if far[1] else at[1]) * size[1]
    x = base[2] + (1.0 - at[2] if far[2] else at[2]) * size[2]
    if sigma[0] > 0.0 or sigma[1] > 0.0 or sigma[2] > 0.0:
        z += (-sigma[0] if far[0] else sigma[0]) * normal_quantile_cut(unit_float32word(linker[0]))
        y += (-sigma[1] if far[1] else sigma[1]) * normal_quantile_cut(unit_float32word(linker[1]))
        x += (-sigma[2] if far[2] else sigma[2]) * normal_quantile_cut(unit_float32word(linker[2]))
    out.z[n] = z
    out.y[n] = y
    out.x[n] = x
    out.weight[n] = weight
    out.cell[n] = cell
    out.own[n] = own


# One function for each step of a row, so that LLVM vectorises Philox (as in `draws`).
@numba.njit(cache=True, nogil=True)
def _candidates(cells, bits, labelled, wanted, lo, hi, columns):  # type: ignore[no-untyped-def]
    """Write the columns of a row that carry the label; return how many there are."""
    n = 0
    if wanted == 0:
        for x in range(lo, hi):
            columns[x - lo] = x
        return hi - lo
    for x in range(lo, hi):
        columns[n] = x
        n += (bits[x] & wanted) != 0 and labelled[cells[x]] != 0
    return n


@numba.njit(cache=True, nogil=True)
def _uniforms(u, z, y, x0, columns, n, k0, k1):  # type: ignore[no-untyped-def]
    """The number that decides how many proteins there are, for `n` voxels of a row."""
    for i in range(n):
        words = philox(z, y, x0 + columns[i], 0, k0, k1)
        u[i] = unit_double(words[0], words[1])


@numba.njit(cache=True, nogil=True)
def _emit(  # type: ignore[no-untyped-def]
    index,
    regions,
    labelled,
    weights,
    law,
    keys,
    origin,
    specimen,
    voxel_nm,
    lo,
    hi,
    own_lo,
    own_hi,
    first,
    out,
    dyes_of_cell,
):
    """Emit the sub-cells of array box lo:hi, from number `first` on.

    Returns (emitters written, number of the sub-cell to go on with). Numbers go by plane, row, part of the voxel, column; the
    columns of a row that carry no label count as its last.
    """
    n = 0
    capacity = out.z.size
    width = hi[2] - lo[2]
    parts = law.subcells[0] * law.subcells[1] * law.subcells[2]
    height = hi[1] - lo[1]
    rows = (hi[0] - lo[0]) * height
    size = (voxel_nm[0] / law.subcells[0], voxel_nm[1] / law.subcells[1], voxel_nm[2] / law.subcells[2])
    zero = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0))
    linked = law.sigma[0] > 0.0 or law.sigma[1] > 0.0 or law.sigma[2] > 0.0
    columns = np.empty(width, np.int64)
    u = np.empty(width)
    most = law.mean / parts * (weights.sum() if law.by_surface else 1.0)
    for row in range(first // (parts * width), rows):
        z, y = lo[0] + row // height, lo[1] + row % height
        gz, gy = origin[0] + z, origin[1] + y
        found = _candidates(index[z, y], regions[z, y], labelled, law.region_bits, lo[2], hi[2], columns)
        if found == 0:
            continue
        own_y = own_lo[0] <= z < own_hi[0] and own_lo[1] <= y < own_hi[1]
        for sub in range(parts):
            number = (row * parts + sub) * width
            if number + found <= first:
                continue
            # each sub-cell of a voxel has a stream of its own: counter = the voxel, key = the layer's, marked by the sub-cell
            _uniforms(u, gz, gy, origin[2], columns, found, keys.number[0], keys.number[1] ^ sub)
            for i in range(max(0, first - number), found):
                # exp(-m) > 1 - m: no protein, as the quantile would find, without its exponential
                if u[i] < 1.0 - most - _ROUNDING:
                    continue
                x = columns[i]
                mean = law.mean / parts
                if law.by_surface:
                    mean *= surface_um2(index, z, y, x, weights)
                    if u[i] < 1.0 - mean - _ROUNDING:
                        continue
                proteins = poisson_quantile(u[i], mean)
                if proteins == 0:
                    continue
                gx = origin[2] + x
                cell = index[z, y, x]
                own = np.uint8(own_y and own_lo[2] <= x < own_hi[2])
                base = (
                    (gz - specimen[0]) * voxel_nm[0] + sub // (law.subcells[1] * law.subcells[2]) * size[0],
                    (gy - specimen[1]) * voxel_nm[1] + sub // law.subcells[2] % law.subcells[1] * size[1],
                    (gx - specimen[2]) * voxel_nm[2] + sub % law.subcells[2] * size[2],
                )
                start = n
                here = np.int64(0)
                if law.clumped:
                    words = philox(gz, gy, gx, 0, keys.number[0], keys.number[1] ^ sub)
                    here = _dyes_of(unit_double(words[2], words[3]), law.kind, law.dyes, law.kept, proteins)
                    points = min(here, POINTS_OF_CLUMP)
                    if n + points > capacity:
                        return start, number + i
                    words = philox(gz, gy, gx, 0, keys.place[0], keys.place[1] ^ sub)
                    linker = philox(gz, gy, gx, 0, keys.linker[0], keys.linker[1] ^ sub) if linked else zero
                    for p in range(points):
                        share = here // points + (1 if p < here % points else 0)
                        mirror = p // 2 ^ (7 if p % 2 else 0)
                        _place(out, n, base, words, size, law.sigma, linker, mirror, share, cell, own)
                        n += 1
                else:
                    for p in range(proteins):
                        words = philox(gz, gy, gx, p, keys.place[0], keys.place[1] ^ sub)
                        dyes = _dyes_of(unit_float32word(words[3]), law.kind, law.dyes, law.kept, 1)
                        here += dyes
                        if n + dyes > capacity:
                            return start, number + i
                        if linked:
                            for d in range(dyes):
                                draw = (p << _MAX_DYES_BITS) | d
                                linker = philox(gz, gy, gx, draw, keys.linker[0], keys.linker[1] ^ sub)
                                _place(out, n, base, words, size, law.sigma, linker, 0, 1, cell, own)
                                n += 1
                        elif dyes > 0:
                            _place(out, n, base, words, size, law.sigma, zero, 0, dyes, cell, own)
                            n += 1
                if own:
                    dyes_of_cell[cell] += here
    return n, rows * parts * width


def refuse_crowded(room: int) -> NoReturn:
    """Refuse a sub-cell whose emitters do not fit into the room for one chunk.

    Raises
    ------
    ValueError
    """
    raise ValueError(f"one sub-cell of a voxel carries more than {room} dyes; the plan must cut it into smaller ones")


def emit_layer(
    index: NDArray[np.int32],
    regions: NDArray[np.uint8],
    labelled: NDArray[np.uint8],
    weights: NDArray[np.float64],
    law: Law,
    keys: LayerKeys,
    *,
    array: Box,
    specimen: Box,
    inside: Box,
    own: Box,
    voxel_nm: tuple[float, float, float],
    room: Emitters,
    dyes_of_cell: NDArray[np.int64],
) -> Iterator[Emitters]:
    """Yield the emitters of one layer's voxels, in chunks that fit into `room`.

    Parameters
    ----------
    index, regions
        Cell indices (int32) and region bits (uint8) of `array`, z y x.
    labelled
        uint8 by cell index: whether the layer labels this cell.
    weights
        Surface of a voxel for each differing neighbour, um^2, (3, 3, 3); see `regions.crofton_weights`.
    array, specimen, inside, own
        Boxes in voxels of the whole volume: what the arrays cover, what exists, what emits now, what is counted.
    room
        Buffer that each chunk reuses: take what you need before the next.
    dyes_of_cell
        int64 by cell index; the dyes of proteins in `own` are added to it.

    Yields
    ------
    Emitters
    """
    inside = inside.intersect(specimen).intersect(array).relative_to(array.start)
    mine = own.relative_to(array.start)
    total = 0 if inside.is_empty else inside.size * math.prod(law.subcells)
    first = 0
    while first < total:
        count, done = _emit(
            index, regions, labelled, weights, law, keys, array.start, specimen.start, voxel_nm,
            inside.start, inside.stop, mine.start, mine.stop, first, room, dyes_of_cell,
        )  # fmt: skip
        if count:
            yield room.first(count)
        elif done == first:
            refuse_crowded(room.z.size)
        first = done
