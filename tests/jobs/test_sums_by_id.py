"""Sums by cell: they do not depend on how parts are cut, on the number of shares, or on memory or disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm.jobs import sums_by_id
from simexm.jobs.sums_by_id import CellSums, StoredSums, add_up, merged, store, write_part

COLUMNS = ("a", "b")

ids = st.one_of(st.integers(1, 12), st.integers(2**63, 2**64 - 1))
rows = st.lists(st.tuples(ids, st.integers(0, 2**40), st.integers(0, 5)), max_size=12)


def _sums(values: list[tuple[int, int, int]]) -> CellSums:
    total: dict[int, list[int]] = {}
    for cell, a, b in values:
        total.setdefault(cell, [0, 0])
        total[cell][0] += a
        total[cell][1] += b
    order = sorted(total)
    columns = {name: np.array([total[c][i] for c in order], np.int64) for i, name in enumerate(COLUMNS)}
    return CellSums(np.array(order, np.uint64), columns)


def _same(a: CellSums, b: CellSums) -> bool:
    return np.array_equal(a.ids, b.ids) and all(np.array_equal(a.columns[n], b.columns[n]) for n in COLUMNS)


@given(st.lists(rows, min_size=1, max_size=4))
def test_parts_add_up_to_the_whole(parts: list[list[tuple[int, int, int]]]) -> None:
    whole = _sums([row for part in parts for row in part])
    assert _same(add_up([CellSums.none(COLUMNS), *map(_sums, parts)]), whole)


@pytest.mark.parametrize("share_rows", [2_000_000, 3], ids=["one share", "many shares"])
@settings(max_examples=15, deadline=None)
@given(parts=st.lists(rows, min_size=1, max_size=4))
def test_what_is_stored_is_looked_up(
    tmp_path_factory: pytest.TempPathFactory, share_rows: int, parts: list[list[tuple[int, int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums_by_id, "SHARE_ROWS", share_rows)
        files, count = [], 0
        for n, part in enumerate(parts):
            files.append(folder / f"{n}.parquet")
            sums = _sums(part)
            assert write_part(sums, files[-1], folder).nbytes == files[-1].stat().st_size
            count += sums.ids.size
        store(folder / "table", merged(files, count, COLUMNS, folder), COLUMNS, folder)
    whole = _sums([row for part in parts for row in part])
    stored = StoredSums(folder / "table")
    asked = np.concatenate([whole.ids, np.array([0, 13, 2**62], np.uint64)])[::-1]
    for table in (whole, stored):
        found = table.look_up(asked)
        assert all(np.array_equal(found[name][3:][::-1], whole.columns[name]) for name in COLUMNS)
        assert all(not found[name][:3].any() for name in COLUMNS)
    for name in COLUMNS:
        values = whole.columns[name]
        best = (0, 0)
        if values.size and values.max() > 0:
            best = int(whole.ids[values == values.max()].min()), int(values.max())
        assert whole.largest(name) == stored.largest(name) == best


def test_a_table_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    def torn() -> object:
        yield _sums([(1, 2, 3)])
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        store(tmp_path / "table", torn(), COLUMNS, tmp_path)  # type: ignore[arg-type]
    assert not sums_by_id.is_stored(tmp_path / "table")
    store(tmp_path / "table", [_sums([(1, 2, 3)])], COLUMNS, tmp_path)
    assert sums_by_id.is_stored(tmp_path / "table")
