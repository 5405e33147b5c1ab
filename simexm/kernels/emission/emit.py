"""Draw proteins in voxels, dyes on proteins, and the position of each dye.

Every random number depends on the voxel's position in the volume: counter (z, y, x, draw), one key per purpose. So a
voxel has the same dyes in any block, tile or crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box
from simexm.kernels.emission.points import HIT, HITS, IDENTITY, EmissionLaw, Emitters, Factors, LayerKeys, place_hits
from simexm.kernels.labels.regions import as_bytes, surfaces_um2
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.random import philox, unit_double

CAPACITY = 1 << 18
"""Emitters in one chunk."""
_ROUNDING = 1e-15


def emitter_bytes(identified: bool) -> int:
    """Bytes of an emitter, with or without its identity."""
    return 3 * 8 + 2 * 4 + 1 + 4 * len(IDENTITY) * identified


# One function per step of a row, so that LLVM vectorises Philox (as in `draws`).
@njit(cache=True, nogil=True)
def _candidates(cells, bits, of_cell, wanted, lo, hi, columns):  # type: ignore[no-untyped-def]
    """Write the columns of the labelled voxels of a row; return their number."""
    if wanted == 0:
        for x in range(lo, hi):
            columns[x - lo] = x
        return hi - lo
    found = 0
    for x in range(lo, hi):
        columns[found] = x
        found += (bits[x] & wanted) != 0
    n = 0
    for i in range(found):
        x = columns[i]
        columns[n] = x
        n += of_cell[cells[x]] != 0.0
    return n


@njit(cache=True, nogil=True)
def uniforms(u, z, y, x0, columns, n, k0, k1):  # type: ignore[no-untyped-def]
    """Draw a number for each of `n` voxels of a row, such as that which decides its count of proteins."""
    for i in range(n):
        words = philox(z, y, x0 + columns[i], 0, k0, k1)
        u[i] = unit_double(words[0], words[1])


@njit(cache=True, nogil=True)
def _means(means, cells, factors, law, whole, shape, z, y, columns, n):  # type: ignore[no-untyped-def]
    """Write the mean number of proteins in `n` voxels of row (z, y) of the arrays, or that per um^2; `whole` if factors are 1."""
    for i in range(n):
        means[i] = 1.0
    if law.region_bits != 0:
        for i in range(n):
            means[i] = factors.cell[cells[columns[i]]]
    if factors.depth.size > 0:
        of_row = max(factors.depth[z], factors.depth[shape[0] + y])
        for i in range(n):
            means[i] *= max(of_row, factors.depth[shape[0] + shape[1] + columns[i]])
    if factors.grey.size > 0:
        for i in range(n):
            share = law.grey[0] + law.grey[1] * np.float64(factors.grey[z, y, columns[i]])
            means[i] *= min(1.0, max(law.grey[2], share))
    for i in range(n):
        means[i] *= whole


@njit(cache=True, nogil=True)
def _at_least(u, columns, first, stop, least, likely, places):  # type: ignore[no-untyped-def]
    """Write the columns of the voxels from `first` with u >= least, and their places, and move their u to the front.

    Return their number.
    """
    n = 0
    for i in range(first, stop):
        u[n], likely[n], places[n] = u[i], columns[i], i
        n += u[i] >= least
    return n


@njit(cache=True, nogil=True)
def _emit(  # type: ignore[no-untyped-def]
    index, regions, factors, weights, law, keys, origin, specimen, voxel_nm, inside, own, first, out, dyes_of_cell
):
    """Emit the sub-cells of the box `inside` of the arrays, from number `first`; boxes are (start, stop).

    Return (emitters written, number of the next sub-cell). Sub-cells are numbered by plane, row, part of the voxel,
    column; a row's columns without label come last.
    """
    (lo, hi), (own_lo, own_hi) = inside, own
    n = 0
    width = hi[2] - lo[2]
    parts = law.subcells[0] * law.subcells[1] * law.subcells[2]
    height = hi[1] - lo[1]
    rows = (hi[0] - lo[0]) * height
    columns = np.empty(width, np.int64)
    u, means, surfaces = np.empty(width), np.empty(width), np.empty(index.shape[2])
    likely, places = np.empty(width, np.int64), np.empty(width, np.int64)
    hits = np.empty(HITS, HIT)
    count = 0
    most = law.mean / parts * (weights.sum() if law.by_surface else 1.0)
    if law.region_bits != 0:
        most *= factors.cell.max()
    for row in range(first // (parts * width), rows):
        z, y = lo[0] + row // height, lo[1] + row % height
        gz, gy = origin[0] + z, origin[1] + y
        found = _candidates(index[z, y], regions[z, y], factors.cell, law.region_bits, lo[2], hi[2], columns)
        if found == 0:
            continue
        _means(means, index[z, y], factors, law, law.mean / parts, index.shape, z, y, columns, found)
        own_y = own_lo[0] <= z < own_hi[0] and own_lo[1] <= y < own_hi[1]
        for sub in range(parts):
            number = (row * parts + sub) * width
            if number + found <= first:
                continue
            # each sub-cell has its own stream: counter = voxel, key = the layer's key, modified by the sub-cell
            uniforms(u, gz, gy, origin[2], columns, found, keys.number[0], keys.number[1] ^ sub)
            # exp(-m) > 1 - m: no protein; saves the surface and the quantile's exponential
            some = _at_least(u, columns, max(0, first - number), found, 1.0 - most - _ROUNDING, likely, places)
            if law.by_surface:
                surfaces_um2(index, z, y, likely, some, weights, surfaces)
            for i in range(some):
                mean = means[places[i]]
                if law.by_surface:
                    mean *= surfaces[i]
                if u[i] < 1.0 - mean - _ROUNDING:
                    continue
                x = likely[i]
                proteins = poisson_quantile(u[i], mean)
                if proteins == 0:
                    continue
                hit = hits[count]
                hit.number = number + places[i]
                hit.z, hit.y, hit.x = gz, gy, origin[2] + x
                hit.sub, hit.proteins, hit.cell = sub, proteins, index[z, y, x]
                hit.own = own_y and own_lo[2] <= x < own_hi[2]
                count += 1
                if count == HITS:
                    n, stopped = place_hits(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell)
                    if stopped < count:
                        return n, hits[stopped].number
                    count = 0
    n, stopped = place_hits(hits, count, law, keys, specimen, voxel_nm, n, out, dyes_of_cell)
    if stopped < count:
        return n, hits[stopped].number
    return n, rows * parts * width


def refuse_crowded(room: int) -> NoReturn:
    """Raise ValueError: the emitters of one sub-cell do not fit into a chunk."""
    raise ValueError(f"a sub-cell of a voxel carries more than {room} dyes; the plan must divide it further")


def emit_layer(
    index: NDArray[np.int32],
    regions: NDArray[np.integer[Any]],
    factors: Factors,
    weights: NDArray[np.float64],
    law: EmissionLaw,
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
    """Yield the emitters of one layer's voxels, in chunks that reuse the buffers `room`: copy what you need before the next.

    `index` and `regions` are cell indices and region bits of `array`, z y x; `factors` multiply the law's mean; `weights`
    come from `regions.crofton_weights`. `array`, `specimen`, `inside` and `own` are the
    extent of the arrays, of the specimen, of what emits now and of what is counted, in voxels of the volume. Dyes of
    proteins in `own` are added to `dyes_of_cell`.
    """
    inside = inside.intersect(specimen).intersect(array).relative_to(array.start)
    mine = own.relative_to(array.start)
    total = 0 if inside.is_empty else inside.size * math.prod(law.subcells)
    if total:
        regions, bits = as_bytes(regions, law.region_bits)
        law = law._replace(region_bits=bits)
    first = 0
    while first < total:
        count, done = _emit(
            index, regions, factors, weights, law, keys, array.start, specimen.start, voxel_nm,
            (inside.start, inside.stop), (mine.start, mine.stop), first, room, dyes_of_cell,
        )  # fmt: skip
        if count:
            yield room.first(count)
        elif done == first:
            refuse_crowded(room.z.size)
        first = done
