"""Laws of the regions of the model of 2017."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.labels.cells import CellIndex
from simexm.legacy2017.kernels import regions as simexm2017_regions
from tests.legacy2017.build import blobs

MEMBRANE, CYTOSOL = 1, 2


def regions_of(labels: NDArray[np.uint64], in_slice: bool) -> NDArray[np.uint8]:
    cells = CellIndex()
    index = cells.add(labels)
    return simexm2017_regions.laplacian_regions(index, cells.ids, in_slice, MEMBRANE, CYTOSOL)


@pytest.mark.parametrize("scale", [1, 2**40 + 7, 0x9E3779B97F4A7C15], ids=["small ids", "beyond 32 bits", "64 bits"])
@pytest.mark.parametrize("in_slice", [False, True])
@pytest.mark.parametrize("shape", [(9, 14, 13), (1, 12, 12), (5, 2, 9), (3, 3, 3)])
def test_membrane_is_where_the_laplacian_is_not_zero(shape: tuple[int, int, int], in_slice: bool, scale: int) -> None:
    labels = blobs(shape, 6, 3, scale)
    weights = np.full((1 if in_slice else 3, 3, 3), -1, object)
    weights[tuple(n // 2 for n in weights.shape)] = weights.size - 1
    ids = labels.astype(object)
    laplacian = np.zeros(shape, object)
    margins = [n // 2 for n in weights.shape]
    inside = tuple(slice(m, n - m) for m, n in zip(margins, shape, strict=True))
    for offset in np.ndindex(weights.shape):
        moved = tuple(slice(o, n - 2 * m + o) for o, m, n in zip(offset, margins, shape, strict=True))
        laplacian[inside] += weights[offset] * ids[moved]
    expected = np.where(labels == 0, 0, np.where(laplacian % 2**64 != 0, MEMBRANE, CYTOSOL))
    np.testing.assert_array_equal(regions_of(labels, in_slice), expected)


def test_a_cell_between_its_numerical_neighbours_has_no_membrane() -> None:
    labels = np.zeros((5, 5, 9), np.uint64)
    labels[:, :, :4], labels[:, :, 4], labels[:, :, 5:] = 4, 5, 6
    assert (regions_of(labels, False)[2, 2, 4]) == CYTOSOL
    labels[:, :, 5:] = 7
    assert (regions_of(labels, False)[2, 2, 4]) == MEMBRANE


def test_region_voxels_are_counted_by_cell() -> None:
    labels = blobs((12, 15, 14), 6, 3)
    cells = CellIndex()
    index = cells.add(labels)
    regions = simexm2017_regions.laplacian_regions(index, cells.ids, False, MEMBRANE, CYTOSOL)
    counts = np.zeros(len(cells.ids), np.int64)
    array = Box.at((5, 6, 7), labels.shape)
    for start, stop in ((5, 9), (9, 17)):
        box = Box((start, 6, 7), (stop, 21, 21))
        simexm2017_regions.count_region(index, regions, array, box, CYTOSOL, counts)
    expected = [np.count_nonzero((labels == cell) & (regions == CYTOSOL)) for cell in cells.ids]
    np.testing.assert_array_equal(counts, expected)
