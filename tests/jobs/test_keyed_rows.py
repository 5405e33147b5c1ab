"""Tables by several ids, merged from the parts of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray

from simexm.jobs.keyed_rows import Keyed, MergedRows

TABLE = Keyed(("a", "b"), {"n": "sum", "low": "min", "high": "max"})


def rows(seed: int, count: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    a = rng.choice(np.array([0, 1, 2, 2**63 + 5], np.uint64), count)  # one key may have most of the rows
    return {
        "a": a,
        "b": rng.integers(0, 40, count).astype(np.uint64),
        **{name: rng.integers(-50, 50, count) for name in ("n", "low", "high")},
    }


@pytest.mark.parametrize("in_memory", [10_000, 40, 7])
def test_the_merge_is_that_of_all_rows_whatever_fits_into_memory(tmp_path: Path, in_memory: int) -> None:
    parts = [rows(n, 5 * n) for n in range(12)]
    for n, part in enumerate(parts):
        pq.write_table(TABLE.arrow(part), tmp_path / f"{n}.parquet")
    expected: dict[tuple[int, int], list[int]] = {}
    for part in parts:
        for a, b, n, low, high in zip(*(part[name].tolist() for name in TABLE.names), strict=True):
            had = expected.setdefault((a, b), [0, low, high])
            expected[a, b] = [had[0] + n, min(had[1], low), max(had[2], high)]
    (tmp_path / "scratch").mkdir()
    merged = MergedRows(TABLE, lambda: (tmp_path / f"{n}.parquet" for n in range(12)), tmp_path / "scratch", in_memory)
    for _ in range(2):  # as often as wanted
        pieces = list(merged)
        assert all(piece["a"].size <= 3 * in_memory for piece in pieces)
        found = [list(map(int, row)) for piece in pieces for row in zip(*(piece[n] for n in TABLE.names), strict=True)]
        assert found == [[*key, *expected[key]] for key in sorted(expected)]
        assert (len(pieces) > 1) == (in_memory < 100)
    assert not list((tmp_path / "scratch").iterdir())
