"""Regions of SimExm (2017), by a Laplacian of the ids, and the voxels of each cell in a region."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Box


def label_box(box: Box, crop: Box) -> Box:
    """Voxels whose ids decide the regions of `box`: it and its neighbours in the crop."""
    return box.grown((1, 1, 1)).intersect(crop)


# One function for each step of a plane, so that LLVM vectorises the loops over a row.
@njit(cache=True, nogil=True)
def _ids_of(index, ids, out):  # type: ignore[no-untyped-def]
    for y in range(index.shape[0]):
        for x in range(index.shape[1]):
            out[y, x] = ids[np.uint32(index[y, x])]


@njit(cache=True, nogil=True)
def _mark(index, ids, around, weight, mark, row, out):  # type: ignore[no-untyped-def]
    """Set `out` to `mark` inside the plane's edge where weight * id differs from the sum of `around` over 3 x 3, modulo 2^64."""
    ny, nx = ids.shape
    for y in range(1, ny - 1):
        for x in range(nx):
            row[x] = around[y - 1, x] + around[y, x] + around[y + 1, x]
        for x in range(1, nx - 1):
            differs = weight * ids[y, x] != row[x - 1] + row[x] + row[x + 1]
            out[y, x] = mark if differs and index[y, x] != 0 else out[y, x]


@njit(cache=True, nogil=True)
def _laplacian(index, ids, in_slice, membrane, cytosol, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = index.shape
    planes = np.zeros((3, ny, nx), np.uint64)
    around = np.zeros((ny, nx), np.uint64)
    row = np.zeros(nx, np.uint64)
    _ids_of(index[0], ids, planes[0])
    for z in range(nz):
        if z + 1 < nz:
            _ids_of(index[z + 1], ids, planes[(z + 1) % 3])
        before, here, after = planes[(z + 2) % 3], planes[z % 3], planes[(z + 1) % 3]
        for y in range(ny):
            for x in range(nx):
                out[z, y, x] = cytosol if index[z, y, x] != 0 else np.uint8(0)
        if in_slice:
            _mark(index[z], here, here, np.uint64(9), membrane, row, out[z])
        elif 0 < z < nz - 1:
            for y in range(ny):
                for x in range(nx):
                    around[y, x] = before[y, x] + here[y, x] + after[y, x]
            _mark(index[z], here, around, np.uint64(27), membrane, row, out[z])


def laplacian_regions(
    index: NDArray[np.int32], ids: NDArray[np.uint64], in_slice: bool, membrane: int, cytosol: int
) -> NDArray[np.uint8]:
    """Return region bits: `membrane` where the Laplacian of the ids is not zero, else `cytosol`; 0 where the id is 0.

    `index` are cell indices, z y x, 0 = no cell; `ids` the id by index, whose Laplacian is modulo 2^64. The neighbours
    are the 8 within the slice with `in_slice`, otherwise all 26. Voxels on the array's faces (with `in_slice` on its
    four sides only) are cytosol. This is the rule at the crop's border; elsewhere pass one more voxel (`label_box`).
    """
    out = np.empty(index.shape, np.uint8)
    _laplacian(index, ids, in_slice, np.uint8(membrane), np.uint8(cytosol), out)
    return out


@njit(cache=True, nogil=True)
def _count_region(index, regions, lo, hi, bits, out):  # type: ignore[no-untyped-def]
    for z in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            for x in range(lo[2], hi[2]):
                if regions[z, y, x] & bits:
                    out[index[z, y, x]] += 1


def count_region(
    index: NDArray[np.int32], regions: NDArray[np.integer[Any]], array: Box, box: Box, bits: int, out: NDArray[np.int64]
) -> None:
    """Add to `out`, by cell index, the voxels of `box` with any of the region `bits`: summed over the crop, n."""
    inner = box.relative_to(array.start)
    _count_region(index, regions, inner.start, inner.stop, regions.dtype.type(bits), out)
