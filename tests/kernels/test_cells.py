"""Laws of the numbering of cells."""

from __future__ import annotations

import numpy as np
import pytest

from simexm.kernels.labels.cells import CellIndex

TRICKY = np.array([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1, 0x61C8864680B583EB], np.uint64)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_ids_come_back_exactly(dtype: type[np.unsignedinteger]) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, np.iinfo(dtype).max, (7, 30, 40), dtype=dtype, endpoint=True)
    labels[2] = 0
    cells = CellIndex()
    index = cells.add(labels)
    assert index.shape == labels.shape
    assert index.dtype == np.int32
    assert (cells.ids[index] == labels).all()
    assert cells.ids[0] == 0
    assert len(np.unique(cells.ids)) == len(cells.ids)
    assert ((index == 0) == (labels == 0)).all()


def test_an_index_grows_without_renumbering() -> None:
    """Tens of thousands of ids, added in parts, in runs and scattered, with the ids of 64 bits that a hash might mix up."""
    rng = np.random.default_rng(4)
    many = np.concatenate(
        [TRICKY, rng.integers(0, 2**64, 40_000, dtype=np.uint64), np.arange(20_000, dtype=np.uint64) << 40]
    )
    cells = CellIndex()
    first = cells.add(TRICKY)
    parts = [cells.add(part) for part in np.array_split(many, 7)]
    assert (cells.ids[np.concatenate(parts)] == many).all()
    assert (cells.add(TRICKY) == first).all()
    assert len(cells.ids) == len(np.unique(np.append(many, np.uint64(0))))
    assert cells.add(np.zeros((0, 3, 3), np.uint64)).shape == (0, 3, 3)
