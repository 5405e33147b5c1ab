"""Scores of synapses: by hand, beside a single assignment over everything, and the same for any cut of the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from scipy.optimize import linear_sum_assignment
from typer.testing import CliRunner

from simexm.analysis.scores.synapses import SynapseScore
from simexm.cli import app
from simexm.errors import OutputError
from simexm.result.result import Result
from tests.analysis.test_objects import files

Row = tuple[int, int, int, float, float, float]


def table(path: Path, rows: list[Row], group: int = 1000) -> Path:
    """Write (id, pre, post, z, y, x) as Parquet."""
    names = ("id", "pre", "post", "z_nm", "y_nm", "x_nm")
    columns = list(zip(*rows, strict=True))
    pq.write_table(pa.table(dict(zip(names, map(pa.array, columns), strict=True))), path, row_group_size=group)
    return path


def scored(found: Path, truth: Path, name: str = "s", **settings: Any) -> Result:
    return SynapseScore(**settings).run(found, truth, output=found.parent / f"{name}.zarr", quiet=True, overwrite=True)


def values_of(result: Result) -> dict[str, float]:
    return {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}


def test_matches_by_hand(tmp_path: Path) -> None:
    truth = table(
        tmp_path / "t.parquet", [(1, 5, 6, 0, 0, 0), (2, 5, 6, 0, 0, 300), (3, 7, 5, 0, 0, 0), (4, 8, 9, 0, 0, 0)]
    )
    # one near both of a pair, so that the nearest alone would leave the other unmatched; one reversed; one of other cells
    found = table(
        tmp_path / "f.parquet",
        [(10, 5, 6, 0, 0, 140), (11, 5, 6, 0, 0, -250), (12, 5, 7, 0, 0, 10), (13, 5, 8, 0, 0, 0)],
    )
    result = scored(found, truth)
    got = values_of(result)
    assert got["precision pairs"] == got["recall pairs"] == 3 / 4
    assert got["precision directed"] == got["recall directed"] == got["f1 directed"] == 2 / 4
    assert got["direction"] == pytest.approx(2 / 3)
    assert got["distance"] == pytest.approx((160 + 250 + 10) / 3)
    rows = {(r["found"], r["truth"]) for r in result.table("matches").to_pylist()}
    assert rows == {(10, 2), (11, 1), (12, 3), (13, 0), (0, 4)}
    assert values_of(scored(found, truth, largest_distance_nm=100))["recall pairs"] == 1 / 4


def test_only_synapses_inside_count_but_those_outside_may_match(tmp_path: Path) -> None:
    truth = table(tmp_path / "t.parquet", [(1, 5, 6, 0, 0, 90), (2, 5, 6, 0, 0, 5000)])
    found = table(tmp_path / "f.parquet", [(1, 5, 6, 0, 0, 110), (2, 1, 2, 0, 0, 6000)])
    got = values_of(scored(found, truth, within_um=":,:,0.1:4"))
    assert got["precision directed"] == 1
    assert got["recall directed"] == 0  # no true one lies inside
    with pytest.raises(ValueError, match="three ranges"):
        SynapseScore(within_um="1:0,:,:")


def random_rows(seed: int, number: int = 300) -> list[Row]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(1, 5, (number, 2))
    places = rng.random((number, 3)) * 3000
    return [
        (n + 1, int(a), int(b), float(z), float(y), float(x))
        for n, ((a, b), (z, y, x)) in enumerate(zip(cells, places, strict=True))
    ]


def test_clusters_give_the_assignment_of_the_whole(tmp_path: Path) -> None:
    """Most matches, then the least total distance: a single assignment over all synapses at once."""
    found, truth = random_rows(1), random_rows(2)
    result = scored(table(tmp_path / "f.parquet", found), table(tmp_path / "t.parquet", truth))
    f, t = np.array(found), np.array(truth)
    distance = np.sqrt(((f[:, None, 3:] - t[None, :, 3:]) ** 2).sum(axis=2))
    same = np.all(np.sort(f[:, None, 1:3], axis=2) == np.sort(t[None, :, 1:3], axis=2), axis=2) & (distance <= 400)
    cost = np.where(same, distance, 1e7)
    one, other = linear_sum_assignment(cost)
    real = same[one, other]
    got = values_of(result)
    assert got["precision pairs"] == real.sum() / len(f)
    assert got["distance"] == pytest.approx(distance[one, other][real].mean(), abs=1e-3)


def test_any_cut_of_the_tables_gives_equal_bytes(tmp_path: Path) -> None:
    made = []
    for group in (7, 100, 1000):
        found, truth = (table(tmp_path / f"{n}{group}.parquet", random_rows(n), group) for n in (1, 2))
        made.append(scored(found, truth, f"s{group}"))
    assert files(made[0], "tables") == files(made[1], "tables") == files(made[2], "tables")
    assert values_of(made[0]) == values_of(made[2])


def test_command_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = random_rows(1)
    table(Path("f.parquet"), rows)
    Path("t.csv").write_text(  # the names of CAVE
        "id,pre_pt_root_id,post_pt_root_id,ctr_pt_position_x,ctr_pt_position_y,ctr_pt_position_z\n"
        + "".join(f"{n},{a},{b},{x},{y},{z}\n" for n, a, b, z, y, x in rows)
    )
    done = CliRunner().invoke(app, ["score", "f.parquet", "t.csv", "--as", "synapses", "-o", "s.zarr"])
    assert done.exit_code == 0, done.output
    assert values_of(Result.open("s.zarr"))["f1 directed"] == 1
    Path("bad.csv").write_text("id,pre\n1,2\n")
    done = CliRunner().invoke(app, ["score", "f.parquet", "bad.csv", "--as", "synapses", "-o", "s2.zarr"])
    assert done.exit_code == 2
    assert "no column post" in " ".join(done.stderr.split())
    table(Path("twice.parquet"), [rows[0], rows[0]])
    with pytest.raises(OutputError, match="more than once"):
        scored(tmp_path / "twice.parquet", tmp_path / "f.parquet", "s3")
