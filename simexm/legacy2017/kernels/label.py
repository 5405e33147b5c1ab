"""The label of SimExm (2017): displaced voxels, their proteins and dyes.

Every number is a function of the voxel's position in the volume and of its layer's key: the counter (z, y, x, 0) decides the
proteins of the voxel (words 0 and 1) and whether it stays (word 2), (z, y, x, 1) where it moves. So any box has the dyes of the
complete crop, computed from the voxels within `reach` of it.

Two counts of each cell over the crop come first: n, the voxels in the layer's region (`regions.count_region`), and n', those that
stay inside the crop (n - `count_dropped`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box, Triple, three
from simexm.kernels.labels.regions import as_bytes
from simexm.kernels.numbers.detmath import CUT_SIGMA, exp_array, normal_quantile_cut
from simexm.kernels.numbers.fields import LARGEST_MEAN
from simexm.kernels.numbers.poisson_table import cumulative, tabled_quantile
from simexm.kernels.numbers.tails import log1p
from simexm.random import Key, philox, unit_double, unit_float32word

DISPLACEMENT_NM = 100.0
"""Standard deviation of a voxel's displacement along each axis."""
MOST_DYES = 2**31 - 1
"""Largest number of dyes in a voxel of the sum."""
_ROUNDING = 1e-15
_GUIDE_BITS = 12
_TABLED = 6  # proteins in a voxel
_EITHER = -(2**31)
_log1p = np.vectorize(log1p, otypes=[np.float64])


class Layer(NamedTuple):
    """The effect of one layer on a voxel; arrays are float64 by cell index."""

    bits: int
    """The layer's region: voxels with any of these region bits are in it."""
    stay: NDArray[np.float64]
    """Probability that a voxel of the cell stays (`stay_probability`)."""
    proteins: NDArray[np.float64]
    """Mean proteins in each voxel inside the crop (`proteins_per_voxel`); 0 for a cell without label."""
    dyes: float
    """Dyes on each protein; need not be whole, the sum of a voxel is rounded."""
    voxel_nm: tuple[float, float, float]
    key: Key


def reach(voxel_nm: tuple[float, float, float]) -> Triple:
    """Largest displacement along z, y, x, in voxels: the Gaussian is cut at 4 standard deviations."""
    return three(math.floor(CUT_SIGMA * DISPLACEMENT_NM / v + 0.5) for v in voxel_nm)


def _plain(layer: Layer) -> Layer:
    """The layer with plain floats: numba compiles for each mixture of types."""
    return layer._replace(dyes=float(layer.dyes), voxel_nm=three(map(float, layer.voxel_nm)))


def source_box(target: Box, crop: Box, voxel_nm: tuple[float, float, float]) -> Box:
    """Voxels of the crop whose proteins may be in `target`."""
    return target.grown(reach(voxel_nm)).intersect(crop)


def stay_probability(voxels: NDArray[np.int64], noise: float) -> NDArray[np.float64]:
    """Probability 1 - (1 - 1/n)^floor((1 - noise) n) that a voxel, of n, is drawn and stays; 1 if n is 0."""
    n = np.maximum(voxels, 2).astype(np.float64)
    draws = np.floor((1.0 - noise) * voxels)
    marked = 1.0 - exp_array(draws * _log1p(-1.0 / n))
    return np.where(voxels > 1, marked, np.where(voxels == 1, draws, 1.0))


def proteins_per_voxel(
    left: NDArray[np.int64], density_per_nm3: float, voxel_nm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Mean proteins in each of a cell's n' voxels, int(density * n' * volume) / n'; 0 if n' is 0.

    Poisson(L) proteins spread uniformly over n' voxels are independent Poisson(L / n') in each.
    """
    volume = math.prod(voxel_nm)
    means: NDArray[np.float64] = np.floor(density_per_nm3 * left * volume) / np.maximum(left, 1)
    return means


@njit(cache=True, nogil=True)
def _steps_exactly(w, voxel_nm):  # type: ignore[no-untyped-def]
    """Displacement along an axis by a random word, in voxels."""
    return np.int64(np.rint(DISPLACEMENT_NM * normal_quantile_cut(unit_float32word(w)) / voxel_nm))


@njit(cache=True, nogil=True)
def _fill_steps(voxel_nm, out):  # type: ignore[no-untyped-def]
    rest = np.uint32(32 - _GUIDE_BITS)
    for axis in range(3):
        for i in range(out.shape[1]):
            low = np.uint32(i) << rest
            high = low | ((np.uint32(1) << rest) - np.uint32(1))
            steps = _steps_exactly(low, voxel_nm[axis])
            out[axis, i] = steps if steps == _steps_exactly(high, voxel_nm[axis]) else _EITHER


@lru_cache(maxsize=8)
def _guide(voxel_nm: tuple[float, float, float]) -> NDArray[np.int32]:
    """Steps along each axis by the first bits of the random word, (3, 2^bits); `_EITHER` if the other bits decide."""
    out = np.empty((3, 1 << _GUIDE_BITS), np.int32)
    _fill_steps(voxel_nm, out)
    out.flags.writeable = False
    return out


@njit(cache=True, nogil=True)
def _steps(w, guide, voxel_nm):  # type: ignore[no-untyped-def]
    steps = guide[w >> np.uint32(32 - _GUIDE_BITS)]
    return _steps_exactly(w, voxel_nm) if steps == _EITHER else np.int64(steps)


@njit(cache=True, nogil=True)
def _move(z, y, x, k0, k1, guide, voxel_nm):  # type: ignore[no-untyped-def]
    """Position of a displaced voxel."""
    words = philox(z, y, x, 1, k0, k1)
    return (
        z + _steps(words[0], guide[0], voxel_nm[0]),
        y + _steps(words[1], guide[1], voxel_nm[1]),
        x + _steps(words[2], guide[2], voxel_nm[2]),
    )


# One function without branches for each step of a row, so that LLVM vectorises Philox (as in `draws`).
@njit(cache=True, nogil=True)
def _candidates(cells, regions, bits, proteins, lo, hi, columns):  # type: ignore[no-untyped-def]
    """Write the columns of a row that may have proteins; return their number."""
    n = 0
    for x in range(lo, hi):
        columns[n] = x
        n += ((regions[x] & bits) != 0) & (proteins[np.uint32(cells[x])] > 0.0)
    return n


@njit(cache=True, nogil=True)
def _uniforms(z, y, x0, columns, n, k0, k1, number, stays):  # type: ignore[no-untyped-def]
    """The numbers that decide the proteins, and whether the voxel stays, for n voxels of a row."""
    for i in range(n):
        words = philox(z, y, x0 + columns[i], 0, k0, k1)
        number[i] = unit_double(words[0], words[1])
        stays[i] = unit_float32word(words[2])


@njit(cache=True, nogil=True)
def _carriers(cells, proteins, columns, n, number, stays):  # type: ignore[no-untyped-def]
    """Keep those of n voxels that may have a protein: exp(-m) > 1 - m, so below 1 - m the quantile is 0."""
    kept = 0
    for i in range(n):
        columns[kept] = columns[i]
        number[kept] = number[i]
        stays[kept] = stays[i]
        kept += number[i] >= 1.0 - proteins[np.uint32(cells[columns[i]])] - _ROUNDING
    return kept


@njit(cache=True, nogil=True)
def _count_dropped(index, regions, origin, lo, hi, crop_lo, crop_hi, inner_lo, inner_hi, layer, guide, out):  # type: ignore[no-untyped-def]
    """Count the voxels that leave the crop; none does from inner_lo:inner_hi."""
    k0, k1 = layer.key
    for z in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            inside = inner_lo[0] <= z < inner_hi[0] and inner_lo[1] <= y < inner_hi[1]
            for x in range(lo[2], hi[2]):
                if inside and inner_lo[2] <= x < inner_hi[2]:
                    continue
                cell = index[z, y, x]
                if not regions[z, y, x] & regions.dtype.type(layer.bits):
                    continue
                gz, gy, gx = origin[0] + z, origin[1] + y, origin[2] + x
                words = philox(gz, gy, gx, 0, k0, k1)
                if unit_float32word(words[2]) < layer.stay[cell]:
                    continue
                tz, ty, tx = _move(gz, gy, gx, k0, k1, guide, layer.voxel_nm)
                if not (
                    crop_lo[0] <= tz < crop_hi[0] and crop_lo[1] <= ty < crop_hi[1] and crop_lo[2] <= tx < crop_hi[2]
                ):
                    out[cell] += 1


def count_dropped(
    index: NDArray[np.int32],
    regions: NDArray[np.integer[Any]],
    array: Box,
    box: Box,
    crop: Box,
    layer: Layer,
    out: NDArray[np.int64],
) -> None:
    """Add to `out`, by cell index, the voxels of `box` that leave the crop: summed over the crop, n - n'.

    `layer.proteins` is not used, as it depends on this count. A box without voxels within `reach` of the crop's border
    adds nothing.
    """
    inner = crop.grown(three(-r for r in reach(layer.voxel_nm))).relative_to(array.start)
    mine = box.relative_to(array.start)
    regions, bits = as_bytes(regions, layer.bits)
    layer = _plain(layer._replace(bits=bits))
    boxes = (mine.start, mine.stop, crop.start, crop.stop, inner.start, inner.stop)
    _count_dropped(index, regions, array.start, *boxes, layer, _guide(layer.voxel_nm), out)


@njit(cache=True, nogil=True)
def _add_dyes(  # type: ignore[no-untyped-def]
    index, regions, origin, lo, hi, crop_lo, crop_hi, target_lo, own_lo, own_hi, layer, guide, table, out, of_cell
):
    """Add the dyes of a box; return the largest number of dyes in a voxel of `out`, before clipping."""
    k0, k1 = layer.key
    bits = regions.dtype.type(layer.bits)
    nz, ny, nx = out.shape
    columns = np.empty(hi[2] - lo[2], np.int64)
    number = np.empty(hi[2] - lo[2])
    stays = np.empty(hi[2] - lo[2])
    largest = np.int64(0)
    for z in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            found = _candidates(index[z, y], regions[z, y], bits, layer.proteins, lo[2], hi[2], columns)
            gz, gy = origin[0] + z, origin[1] + y
            _uniforms(gz, gy, origin[2], columns, found, k0, k1, number, stays)
            found = _carriers(index[z, y], layer.proteins, columns, found, number, stays)
            own_row = own_lo[0] <= z < own_hi[0] and own_lo[1] <= y < own_hi[1]
            for i in range(found):
                x = columns[i]
                cell = index[z, y, x]
                mean = layer.proteins[cell]
                tz, ty, tx = gz, gy, origin[2] + x
                if not stays[i] < layer.stay[cell]:
                    tz, ty, tx = _move(tz, ty, tx, k0, k1, guide, layer.voxel_nm)
                    if not (
                        crop_lo[0] <= tz < crop_hi[0]
                        and crop_lo[1] <= ty < crop_hi[1]
                        and crop_lo[2] <= tx < crop_hi[2]
                    ):
                        continue
                own = own_row and own_lo[2] <= x < own_hi[2]
                tz, ty, tx = tz - target_lo[0], ty - target_lo[1], tx - target_lo[2]
                wanted = 0 <= tz < nz and 0 <= ty < ny and 0 <= tx < nx
                if not (own or wanted):
                    continue
                count = np.int64(np.rint(tabled_quantile(number[i], mean, table[cell]) * layer.dyes))
                if own:
                    of_cell[cell] += count
                if not wanted:
                    continue
                dyes = out[tz, ty, tx] + count
                largest = max(largest, dyes)
                out[tz, ty, tx] = min(dyes, MOST_DYES)
    return largest


def add_dyes(
    index: NDArray[np.int32],
    regions: NDArray[np.integer[Any]],
    array: Box,
    crop: Box,
    target: Box,
    layer: Layer,
    out: NDArray[np.int32],
    own: Box,
    of_cell: NDArray[np.int64],
) -> None:
    """Add one layer's dyes to the voxels of a box.

    `index` and `regions` are cell indices (int32) and region bits of `array`, z y x, which contains the `source_box` of
    `target`; all boxes are in voxels of the volume. `out`, int32, shape of `target`, is added to: layers of one
    fluorophore share it. The dyes of the voxels `own`, wherever they move inside the crop, are added to `of_cell`,
    int64, by cell index.

    Raises ValueError if a voxel has more than `MOST_DYES` dyes, or more than `LARGEST_MEAN` proteins on average.
    """
    if layer.proteins.size and layer.proteins.max() > LARGEST_MEAN:
        raise ValueError(f"{layer.proteins.max():.3g} proteins in a voxel; at most {LARGEST_MEAN:.0f} can be drawn")
    source = source_box(target, crop, layer.voxel_nm)
    if not array.contains(source):
        raise ValueError(f"the dyes of {target} need the voxels of {source}, but the array has only {array}")
    mine = source.relative_to(array.start)
    counted = own.intersect(source).relative_to(array.start)
    regions, bits = as_bytes(regions, layer.bits)
    layer = _plain(layer._replace(bits=bits))
    boxes = (mine.start, mine.stop, crop.start, crop.stop, target.start, counted.start, counted.stop)
    tables = (_guide(layer.voxel_nm), cumulative(layer.proteins, _TABLED))
    largest = _add_dyes(index, regions, array.start, *boxes, layer, *tables, out, of_cell)
    if largest > MOST_DYES:
        raise ValueError(f"{largest} dyes in one voxel; at most {MOST_DYES} fit")
