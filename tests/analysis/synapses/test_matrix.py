"""The matrix: sums of synapses by pair, after merging, in any cut of the table, and in the forms of other programs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from scipy import sparse
from typer.testing import CliRunner

from simexm.analysis.synapses.matrix import Matrix
from simexm.cli import app
from simexm.errors import OutputError
from simexm.export.export import export
from simexm.export.tables import to_networkx
from simexm.result.result import Result
from tests.analysis.test_objects import files


def synapses(path: Path, group: int = 1000, number: int = 200) -> Path:
    """A table of random synapses, as `simexm synapses` writes it."""
    rng = np.random.default_rng(4)
    low = rng.integers(1, 6, number).astype(np.uint64)
    high = low + rng.integers(0, 3, number).astype(np.uint64)
    sense = rng.integers(-1, 2, number)
    columns = {
        "id": np.arange(1, number + 1, dtype=np.uint64),
        "pre": np.where(sense == 0, 0, np.where(sense > 0, low, high)).astype(np.uint64),
        "post": np.where(sense == 0, 0, np.where(sense > 0, high, low)).astype(np.uint64),
        "first": low,
        "second": high,
        "sign": rng.integers(-1, 2, number).astype(np.int8),
        "certainty": rng.random(number),
        **{f"{axis}_nm": rng.random(number) * 1e4 for axis in "zyx"},
        "voxels": rng.integers(1, 100, number),
        "area_um2": rng.integers(1, 100, number) * 1e-3,
        "first_cell_type": low % 3,
        "second_cell_type": high % 3,
        "first_spine_heads": low * 0,
        "second_spine_heads": high % 2,
    }
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def made(folder: Path, *more: str, name: str = "m", group: int = 1000, **settings: Any) -> Result:
    table = synapses(folder / "synapses.parquet", group)
    return Matrix(**settings).run(table, *more, output=folder / f"{name}.zarr", quiet=True, overwrite=True)


def test_pairs_and_cells_add_up_for_any_cut_of_the_table(tmp_path: Path) -> None:
    found = [made(tmp_path, name=f"m{group}", group=group, undirected="both") for group in (9, 1000)]
    # the bytes of its file are the identity of the table, so only these tables can be compared
    assert files(found[0], "tables") == files(found[1], "tables")
    result = made(tmp_path)
    table = pq.read_table(tmp_path / "synapses.parquet").to_pylist()
    expected: dict[tuple[int, int], list[float]] = {}
    for row in table:
        if row["pre"]:
            sums = expected.setdefault((row["pre"], row["post"]), [0, 0, 0])
            for n, more in enumerate((1, row["area_um2"], row["sign"] < 0)):
                sums[n] += more
    rows = result.table("matrix").to_pylist()
    assert {(r["pre"], r["post"]) for r in rows} == expected.keys()
    for row in rows:
        assert [row["synapses"], row["area_um2"], row["inhibitory"]] == pytest.approx(expected[row["pre"], row["post"]])
    cells = result.table("cells").to_pylist()
    assert sum(c["outgoing"] for c in cells) == sum(c["incoming"] for c in cells) == sum(r["synapses"] for r in rows)
    assert all(c["cell_type"] == c["id"] % 3 for c in cells)
    assert {s["score"]: s["value"] for s in result.scores().to_pylist()}["left_out"] == sum(not r["pre"] for r in table)


def test_undirected_synapses_count_in_both_directions_on_demand(tmp_path: Path) -> None:
    both = made(tmp_path, undirected="both", smallest_certainty=1.0).table("matrix").to_pylist()
    counts = {(r["pre"], r["post"]): r["synapses"] for r in both}
    assert all(counts[b, a] == n for (a, b), n in counts.items())
    assert not any(r["pre"] == r["post"] for r in made(tmp_path, self_synapses=False).table("matrix").to_pylist())


def test_fragments_are_merged_and_unknown_ones_refused(tmp_path: Path) -> None:
    merge = tmp_path / "merge.csv"
    merge.write_text("fragment,cell\n" + "".join(f"{n},{100 + n % 2}\n" for n in range(1, 8)))
    one, other = made(tmp_path, name="a"), made(tmp_path, f"merge={merge}", name="b")
    expected: dict[tuple[int, int], int] = {}
    for row in one.table("matrix").to_pylist():
        key = (100 + row["pre"] % 2, 100 + row["post"] % 2)
        expected[key] = expected.get(key, 0) + row["synapses"]
    assert {(r["pre"], r["post"]): r["synapses"] for r in other.table("matrix").to_pylist()} == expected
    merge.write_text("id,owner\n" + "".join(f"{n},1\n" for n in range(1, 7)))
    with pytest.raises(OutputError, match="id 7 of a synapse is not in"):
        made(tmp_path, f"merge={merge}", name="c")
    merge.write_text("fragment,cell\n1,2\n1,3\n")
    with pytest.raises(OutputError, match="gives fragment 1 to the cells 2 and 3"):
        made(tmp_path, f"merge={merge}", name="d")


def test_partners_are_told_by_side(tmp_path: Path) -> None:
    heads = tmp_path / "heads.csv"
    heads.write_text("id,volume_um3\n1,0.25\n")
    result = made(tmp_path, f"spine_heads={heads}")
    for row in result.table("synapses").to_pylist():
        assert row["pre_cell_type"] == row["pre_pt_root_id"] % 3
        assert row["post_cell_type"] == row["post_pt_root_id"] % 3
        sides = [row[f"{side}_spine"] for side in ("pre", "post")]
        second = "post" if row["pre_pt_root_id"] <= row["post_pt_root_id"] else "pre"
        assert row[f"{second}_spine"] == row[f"{second}_pt_root_id"] % 2
        assert [row[f"{side}_spine_head_um3"] for side in ("pre", "post")] == [0.25 * s for s in sides]
    heads.write_text("id,volume_um3\n3,0.25\n")
    with pytest.raises(OutputError, match="spine head 1 of a synapse"):
        made(tmp_path, f"spine_heads={heads}", name="x")


def test_other_programs_read_the_same_counts(tmp_path: Path) -> None:
    result = made(tmp_path)
    rows = result.table("matrix").to_pylist()
    ids = result.table("cells")["id"].to_numpy()
    for form, name in (("csv", "matrix.csv"), ("graphml", "matrix.graphml"), ("npz", "matrix.npz")):
        assert tmp_path / form / name in export(result, tmp_path / form, form)
    table = pyarrow.csv.read_csv(tmp_path / "csv" / "matrix.csv")
    assert table["synapses"].to_pylist() == [r["synapses"] for r in rows]
    counts = sparse.load_npz(tmp_path / "npz" / "matrix.npz")
    assert np.array_equal(np.load(tmp_path / "npz" / "cells.npy"), ids)
    dense = {(int(ids[a]), int(ids[b])): int(n) for a, b, n in zip(*sparse.find(counts), strict=True)}
    assert dense == {(r["pre"], r["post"]): r["synapses"] for r in rows}
    networkx = pytest.importorskip("networkx")
    graph = networkx.read_graphml(tmp_path / "graphml" / "matrix.graphml")
    assert {(int(a), int(b)): d["synapses"] for a, b, d in graph.edges(data=True)} == dense
    same = to_networkx(result)
    assert {(a, b): d["synapses"] for a, b, d in same.edges(data=True)} == dense
    assert all(int(node) % 3 == data["cell_type"] for node, data in graph.nodes(data=True))
    root = ET.parse(tmp_path / "graphml" / "matrix.graphml").getroot()
    assert root.tag == "{http://graphml.graphdrawing.org/xmlns}graphml"


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    synapses(Path("s.parquet"))
    done = CliRunner().invoke(app, ["matrix", "s.parquet", "-o", "m.zarr", "--json"])
    assert done.exit_code == 0, done.output
    assert '"synapses"' in done.stdout
    done = CliRunner().invoke(app, ["export", "m.zarr", "-o", "files", "--format", "graphml"])
    assert done.exit_code == 0, done.output
    assert Path("files/matrix.graphml").exists()
    done = CliRunner().invoke(app, ["matrix", "s.parquet", "x.csv", "-o", "n.zarr"])
    assert done.exit_code == 2
    assert "merge=PATH" in " ".join(done.stderr.split())
    done = CliRunner().invoke(app, ["export", "m.zarr", "-o", "files2", "--format", "tiff"])
    assert done.exit_code == 2
