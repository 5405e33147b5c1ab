"""Synapses: the same in any blocks, as an independent computation finds them, and those of the phantom."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix, csgraph
from typer.testing import CliRunner

from simexm.analysis.scores.synapses import SynapseScore
from simexm.analysis.synapses.synapses import Synapses
from simexm.cli import app
from simexm.kernels.objects.clusters import clusters
from simexm.result.result import Result
from tests.analysis.test_objects import SHAPE, VOXEL, files, volume

EVERY: dict[str, Any] = {"smallest_um2": 0.0}


def found(folder: Path, arrays: dict[str, NDArray[Any]], name: str = "s", **settings: Any) -> Result:
    """Synapses of arrays: cells, junctions, and further ones by name."""
    for what, values in arrays.items():
        np.save(folder / f"{what}.npy", values)
    paths = [f"{folder}/{what}.npy" if n < 2 else f"{what}={folder}/{what}.npy" for n, what in enumerate(arrays)]
    analysis = Synapses(voxel_size_nm=VOXEL, **settings)
    return analysis.run(*paths, output=folder / f"{name}.zarr", quiet=True, overwrite=True)


def random_arrays(seed: int) -> dict[str, NDArray[Any]]:
    """Cells, junctions with ids, and all further volumes."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.random(SHAPE), 1.5) > 0.51
    arrays: dict[str, NDArray[Any]] = {
        "cells": volume(seed, most=7, grain=6),
        "junctions": np.where(blobs, rng.integers(1, 3, SHAPE), 0),
    }
    arrays["junctions"] = arrays["junctions"].astype(np.uint16)
    for name in ("vesicles", "symmetric", "asymmetric"):
        arrays[name] = (ndimage.gaussian_filter(rng.random(SHAPE), 2) > 0.5).astype(np.uint8)
    arrays["compartment"] = volume(seed + 1, most=4).astype(np.uint8)
    arrays["spine_heads"] = volume(seed + 2, most=9)
    return arrays


@pytest.mark.parametrize("join_nm", [0.0, pytest.param(150.0, marks=pytest.mark.slow), 700.0])
def test_blocks_of_any_size_and_any_workers_give_equal_bytes(tmp_path: Path, join_nm: float) -> None:
    arrays = random_arrays(3)
    one, other = (
        found(tmp_path, arrays, f"b{b}", block_voxels=b, join_nm=join_nm, side_nm=100, junction_on="either", **EVERY)
        for b in (16, 64)
    )
    assert one.table("synapses").num_rows > 20
    assert files(one, "tables") == files(other, "tables")


def by_hand(
    cells: NDArray[Any], junctions: NDArray[Any], reach_nm: float, join_nm: float
) -> dict[tuple[int, ...], list[int]]:
    """Faces of synapses by pair and junction, of cells without gap: brute force over all faces and all distances."""
    places = np.argwhere(np.ones(cells.shape, bool))
    rows: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for z, y, x in places.tolist():
        for step in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
            w, v, u = z + step[0], y + step[1], x + step[2]
            if any(p >= n for p, n in zip((w, v, u), cells.shape, strict=True)):
                continue
            a, b = int(cells[z, y, x]), int(cells[w, v, u])
            if a == b or 0 in (a, b):
                continue
            small, large = ((z, y, x), (w, v, u)) if a < b else ((w, v, u), (z, y, x))
            near = [nearest(cells, junctions, at, reach_nm) for at in (small, large)]
            if near[0] and near[1]:
                rows.setdefault((min(a, b), max(a, b), near[0]), []).append(small)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for key, voxels in rows.items():
        at = np.array(voxels) * VOXEL
        apart = np.sqrt(((at[:, None] - at[None]) ** 2).sum(axis=2))
        part = csgraph.connected_components(coo_matrix(apart <= max(join_nm, math.dist((0, 0, 0), VOXEL)) + 1e-6))[1]
        sizes[key] = sorted(np.bincount(part).tolist())
    return sizes


def nearest(cells: NDArray[Any], junctions: NDArray[Any], at: tuple[int, ...], reach_nm: float) -> int:
    """Nearest junction in the cell of a voxel, or in the space between cells."""
    steps = [o for o in itertools.product((-1, 0, 1), repeat=3) if np.linalg.norm(np.array(o) * VOXEL) <= reach_nm]
    for o in sorted(steps, key=lambda o: (round(float(np.linalg.norm(np.array(o) * VOXEL)), 6), o)):
        p = tuple(a + b for a, b in zip(at, o, strict=True))
        inside = all(0 <= q < n for q, n in zip(p, cells.shape, strict=True))
        if inside and junctions[p] and cells[p] in (0, cells[at]):
            return int(junctions[p])
    return 0


def test_synapses_are_those_of_all_faces_and_all_distances(tmp_path: Path) -> None:
    arrays = {name: random_arrays(5)[name][:8, :20, :18] for name in ("cells", "junctions")}
    result = found(tmp_path, arrays, gap_nm=0, junction_reach_nm=40, join_nm=100, block_voxels=16, **EVERY)
    table = result.table("synapses")
    face = np.array([VOXEL[0] * VOXEL[1], VOXEL[0] * VOXEL[2], VOXEL[1] * VOXEL[2]]) * 1e-6
    expected = by_hand(arrays["cells"], arrays["junctions"], 40, 100)
    got: dict[tuple[int, ...], int] = {}
    for row in table.to_pylist():
        key = (row["first"], row["second"], row["junction"])
        got[key] = got.get(key, 0) + 1
    assert got == {key: len(sizes) for key, sizes in expected.items()}
    faces = sum(sum(sizes) for sizes in expected.values())
    area = table["area_um2"].to_numpy().sum()
    assert face.min() * faces <= area <= face.max() * faces


def test_clusters_are_chains_of_short_steps() -> None:
    rng = np.random.default_rng(0)
    voxels, groups = rng.integers(0, 60, (400, 3)), rng.integers(0, 3, 400)
    for limit in (70.0, 200.0, 400.0):
        part = clusters(groups, voxels, VOXEL, limit)
        at = voxels * VOXEL
        near = (np.sqrt(((at[:, None] - at[None]) ** 2).sum(axis=2)) <= limit) & (groups[:, None] == groups[None])
        expected = csgraph.connected_components(coo_matrix(near))[1]
        first = np.array([np.flatnonzero(expected == e)[0] for e in expected])
        assert np.array_equal(part, first)


def two_cells() -> dict[str, NDArray[Any]]:
    """Cells 9 (left) and 4 (right), two voxels (64 nm) apart, with two junctions ten voxels (400 nm) from each other."""
    cells, junctions = np.zeros((30, 12, 30), np.uint16), np.zeros((30, 12, 30), np.uint8)
    cells[:, 2:10, 2:14], cells[:, 2:10, 16:28] = 9, 4
    junctions[4:8, 4:8, 12:18], junctions[17:21, 4:8, 12:18] = 1, 1
    vesicles = np.zeros_like(junctions)
    vesicles[:12, :, 8:12] = 1
    return {"cells": cells, "junctions": junctions, "vesicles": vesicles}


def test_a_synapse_by_hand(tmp_path: Path) -> None:
    arrays = two_cells()
    apart = found(tmp_path, arrays, "apart", gap_nm=70, junction_reach_nm=0, join_nm=390).table("synapses").to_pylist()
    assert [(r["first"], r["second"], r["pre"], r["post"]) for r in apart] == [(4, 9, 9, 4), (4, 9, 0, 0)]
    one = apart[0]
    assert one["area_um2"] == pytest.approx(16 * 40 * 32 * 1e-6)
    assert one["share"] == pytest.approx(16 / (30 * 10))  # cells grow in y, too
    assert [one[f"{a}_nm"] for a in "zyx"] == pytest.approx([6 * 40, 6 * 32, 15 * 32])
    assert [one[f"normal_{a}"] for a in "zyx"] == [0, 0, 1]  # from the presynaptic 9, on the left
    assert [apart[1][f"normal_{a}"] for a in "zyx"] == [0, 0, -1]  # from the first, 4
    assert one["certainty"] == 1.0
    assert one["first_vesicles"] == 0 < one["second_vesicles"]
    together = found(tmp_path, arrays, "together", gap_nm=70, junction_reach_nm=0, join_nm=400)
    assert [r["voxels"] for r in together.table("synapses").to_pylist()] == [32]
    assert found(tmp_path, arrays, "wide", gap_nm=30).table("synapses").num_rows == 0
    assert found(tmp_path, arrays, "large", gap_nm=70, smallest_um2=1).table("synapses").num_rows == 0


def test_a_density_of_one_side_needs_either(tmp_path: Path) -> None:
    arrays = two_cells()
    arrays["junctions"][:, :, :16] = 0
    arrays["postsynaptic"] = arrays.pop("junctions")
    arrays = {"cells": arrays["cells"], "junctions": arrays["postsynaptic"], "postsynaptic": arrays["postsynaptic"]}
    assert found(tmp_path, arrays, gap_nm=70).table("synapses").num_rows == 0
    rows = found(tmp_path, arrays, gap_nm=70, junction_on="either").table("synapses").to_pylist()
    assert [(r["pre"], r["post"]) for r in rows] == [(9, 4), (9, 4)]


def test_sign_and_sides_follow_the_masks_and_values_there(tmp_path: Path) -> None:
    arrays = two_cells()
    del arrays["vesicles"]
    for name, low in (("symmetric", True), ("asymmetric", False)):
        arrays[name] = np.zeros((30, 12, 30), np.uint8)
        arrays[name][slice(0, 12) if low else slice(12, 30)] = 1
    arrays["compartment"] = np.where(arrays["cells"] == 9, 7, 5).astype(np.uint8)
    arrays["spine_heads"] = np.where(arrays["cells"] == 4, np.uint64(2**60 + 1), np.uint64(0))
    rows = found(tmp_path, arrays, gap_nm=70).table("synapses").to_pylist()
    assert [r["sign"] for r in rows] == [-1, 1]
    assert {(r["first_compartment"], r["second_compartment"]) for r in rows} == {(5, 7)}
    assert {(r["first_spine_heads"], r["second_spine_heads"]) for r in rows} == {(2**60 + 1, 0)}


def test_truth_names_both_sides_of_a_junction(tmp_path: Path) -> None:
    arrays = two_cells()
    arrays["junctions"][12:] *= 2
    (tmp_path / "truth.csv").write_text("id,pre,post,sign\n1,4,9,-1\n2,9,77,1\n")
    for what in ("cells", "junctions"):
        np.save(tmp_path / f"{what}.npy", arrays[what])
    paths: list[str | Path] = [tmp_path / "cells.npy", tmp_path / "junctions.npy", f"truth={tmp_path}/truth.csv"]
    result = Synapses(voxel_size_nm=VOXEL, gap_nm=70).run(*paths, output=tmp_path / "t.zarr", quiet=True)
    rows = result.table("synapses").to_pylist()
    assert [(r["junction"], r["pre"], r["post"], r["sign"]) for r in rows] == [(1, 4, 9, -1), (2, 0, 0, 0)]


def test_what_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", volume(1))
    (tmp_path / "s.yaml").write_text("content: mask\n")
    (tmp_path / "bad.yaml").write_text("datasets: {cells: x}\n")
    (tmp_path / "t.csv").write_text("id,pre\n1,2\n")
    size = ["--voxel-size", "40", "32", "32", "-o", "o.zarr"]
    for words, message in (
        (["a.npy"], "CELLS and JUNCTIONS"),
        (["a.npy", "a.npy", "a.npy"], "type NAME=PATH"),
        (["a.npy", "a.npy", "vesicles=a.npy", "vesicles=a.npy"], "given twice"),
        (["a.npy", "a.npy", "truth=t.csv"], "no column 'post'"),
        (["a.npy", "a.npy", "--settings", "bad.yaml"], "datasets"),
    ):
        done = CliRunner().invoke(app, ["synapses", *words, *size])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
    (tmp_path / "t.csv").write_text("id,pre,post\n1,2,3\n")
    done = CliRunner().invoke(app, ["synapses", "a.npy", "a.npy", "truth=t.csv", "--settings", "s.yaml", *size])
    assert done.exit_code == 2
    assert "content: labels" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_synapses_of_the_phantom_are_those_of_its_list(tmp_path: Path) -> None:
    """From its mask of synapses alone, with directions from vesicles and densities."""
    tissue = tmp_path / "tissue.yaml"
    tissue.write_text("kind: phantom\nshape: [150, 200, 200]\nvoxel_size_nm: [40, 32, 32]\nseed: 2\n")
    datasets = {"junctions": "synapse", "vesicles": "vesicles", "postsynaptic": "synaptic_density"}
    inputs: list[str | Path] = [tissue, tissue, f"vesicles={tissue}", f"postsynaptic={tissue}"]
    result = Synapses(datasets=datasets).run(*inputs, output=tmp_path / "s.zarr", quiet=True)
    score = SynapseScore(within_um="0.5:5.5,0.5:5.9,0.5:5.9").run(
        result, tissue, output=tmp_path / "f.zarr", quiet=True
    )
    values = {(s["score"], s["subset"]): s["value"] for s in score.scores().to_pylist()}
    assert values["f1", "directed"] >= 0.98
