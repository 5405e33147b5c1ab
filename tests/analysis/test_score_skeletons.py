"""Scores along skeletons: cases worked by hand, an independent count, and the truth itself."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.analysis.skeletons import score as score_module
from simexm.analysis.skeletons.score import SkeletonScore
from simexm.cli import app
from simexm.errors import OutputError
from simexm.result.result import Result
from tests.analysis.test_objects import VOXEL, volume
from tests.analysis.test_skeletons import skeletons

STEP = VOXEL[2]


def lines() -> NDArray[np.uint16]:
    """Two straight cells of 21 voxels, so of 20 edges."""
    values = np.zeros((3, 8, 21), np.uint16)
    values[1, 1], values[1, 5] = 1, 2
    return values


def scored(segments: NDArray[Any], truth: Any, folder: Path, **settings: Any) -> Result:
    np.save(folder / "segments.npy", segments)
    analysis = SkeletonScore(**{"voxel_size_nm": VOXEL, **settings})
    return analysis.run(folder / "segments.npy", truth, output=folder / "s.zarr", quiet=True, overwrite=True)


def values_of(result: Result) -> dict[str, float]:
    return {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return skeletons(lines(), tmp_path_factory.mktemp("lines"))


def test_a_split_and_a_gap_by_hand(straight: Result, tmp_path: Path) -> None:
    """One cell is cut into runs of 7 and 12 edges; of the other 5 edges have no segment, and 15 lie in one."""
    segments = lines()
    segments[1, 1, :8], segments[1, 1, 8:] = 5, 6
    segments[1, 5, :5], segments[1, 5, 5:] = 0, 7
    got = values_of(scored(segments, straight, tmp_path))
    assert got["erl"] == pytest.approx((7**2 + 12**2 + 15**2) / 40 * STEP / 1000, rel=1e-12)
    assert got["erl_possible"] == pytest.approx(20 * STEP / 1000, rel=1e-12)
    assert got["nerl"] == pytest.approx((7**2 + 12**2 + 15**2) / (2 * 20**2), rel=1e-12)
    shares = {"right": 34 / 40, "split": 1 / 40, "omitted": 5 / 40, "merged": 0.0}
    assert {name: got[name] for name in shares} == pytest.approx(shares)
    assert got["splits_per_mm"] == pytest.approx(1e6 / (40 * STEP))
    as_segment = values_of(scored(segments, straight, tmp_path, zero_is="segment"))
    assert as_segment["erl"] == pytest.approx((7**2 + 12**2 + 4**2 + 15**2) / 40 * STEP / 1000)
    assert as_segment["omitted"] == 0


def test_a_merge_by_hand(straight: Result, tmp_path: Path) -> None:
    """The last four vertices of one cell lie in the segment of the other: 3.5 edges of 32 nm."""
    segments = lines()
    segments[1, 5, 17:] = 1
    got = values_of(scored(segments, straight, tmp_path))
    assert got["erl"] == pytest.approx(16**2 / 40 * STEP / 1000)
    assert (got["merged"], got["split"]) == pytest.approx((23 / 40, 1 / 40))
    assert got["merges_per_mm"] == pytest.approx(1e6 / (40 * STEP))
    tolerant = values_of(scored(segments, straight, tmp_path, merge_tolerance_nm=3.5 * STEP))
    assert tolerant["erl"] == pytest.approx((20**2 + 16**2 + 3**2) / 40 * STEP / 1000)
    assert tolerant["merges_per_mm"] == 0
    strict = values_of(scored(segments, straight, tmp_path, merge_tolerance_nm=3.5 * STEP - 0.1))
    assert strict["erl"] == got["erl"]


def test_no_segment_may_hold_what_the_mask_names(straight: Result, tmp_path: Path) -> None:
    segments, mask = lines(), np.zeros((3, 8, 21), np.uint8)
    segments[2, 1], mask[2, 1, 3:6] = 1, 1
    np.save(tmp_path / "mask.npy", mask)
    settings: dict[str, Any] = {"no_merge": str(tmp_path / "mask.npy"), "block_voxels": 16}
    got = values_of(scored(segments, straight, tmp_path, **settings))
    assert (got["nerl"], got["merged"]) == pytest.approx((0.5, 0.5))
    voxel = np.prod(VOXEL) * 1e-9
    assert values_of(scored(segments, straight, tmp_path, **settings, no_merge_um3=3.01 * voxel))["nerl"] == 1


def expected_run_length(segments: NDArray[Any], vertices: list[dict[str, Any]]) -> tuple[float, float]:
    """Expected run length, um, and what was possible: an independent count with dictionaries."""
    node = {(v["id"], v["vertex"]): int(segments[v["z"], v["y"], v["x"]]) for v in vertices}
    owners = defaultdict(set)
    for (cell, _), segment in node.items():
        owners[segment].add(cell)
    run: dict[tuple[int, int], float] = defaultdict(float)
    cable: dict[int, float] = defaultdict(float)
    for v in vertices:
        if v["parent"] >= 0:
            one, other = node[v["id"], v["vertex"]], node[v["id"], v["parent"]]
            cable[v["id"]] += v["length_nm"] / 1000
            if one == other != 0 and len(owners[one]) == 1:
                run[v["id"], one] += v["length_nm"] / 1000
    total = sum(cable.values())
    return sum(n * n for n in run.values()) / total, sum(n * n for n in cable.values()) / total


def test_run_lengths_are_those_of_an_independent_count_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = volume(2, most=40, grain=7, empty=0.01)
    segments = np.where(truth % 5 == 1, truth // 5 + 100, truth)  # merges
    segments[:, 17:] += (segments[:, 17:] % 3 == 0).astype(np.uint32) * 200  # splits
    segments[:, :, 5] = 0
    cells = skeletons(truth, tmp_path, block_voxels=32)
    erl, possible = expected_run_length(segments, cells.table("vertices").to_pylist())
    got = scored(segments, cells, tmp_path)
    assert values_of(got)["erl"] == pytest.approx(erl, rel=1e-9)
    assert values_of(got)["erl_possible"] == pytest.approx(possible, rel=1e-9)
    assert 0 < erl < 0.9 * possible
    assert sum(values_of(got)[n] for n in ("right", "split", "omitted", "merged")) == pytest.approx(1)
    monkeypatch.setattr(score_module, "_ROWS", 37)
    pieces = scored(segments, cells, tmp_path, block_voxels=17)
    assert pieces.scores()["value"].to_pylist() == got.scores()["value"].to_pylist()
    assert pieces.table("cells").equals(got.table("cells"))


@pytest.mark.parametrize("finer", [1, 2, 3])
def test_the_truth_scores_1_on_its_grid_and_finer_ones(tmp_path: Path, finer: int) -> None:
    """On finer grids the points must lie at the centres of voxels."""
    truth = volume(4, most=30, grain=5)
    segments = truth.repeat(finer, 0).repeat(finer, 1).repeat(finer, 2)
    size = [v / finer for v in (36.0, 33.0, 30.0)]
    cells = skeletons(truth, tmp_path, voxel_size_nm=(36.0, 33.0, 30.0))
    got = values_of(scored(segments, cells, tmp_path, voxel_size_nm=size))
    assert got["nerl"] == got["right"] == got["inside"] == 1
    ranges = [value for name, value in got.items() if name.startswith("right radius")]
    assert ranges
    assert set(ranges) == {1.0}


def test_a_part_of_the_skeletons_is_scored_where_the_segmentation_ends(straight: Result, tmp_path: Path) -> None:
    got = values_of(scored(lines()[:, :, :11], straight, tmp_path))
    assert (got["nerl"], got["inside"]) == pytest.approx((1, 0.5))
    part = values_of(scored(lines(), straight, tmp_path, roi=":,0:3,:"))
    assert (part["nerl"], part["inside"]) == pytest.approx((1, 0.5))
    with pytest.raises(OutputError, match="positions"):
        scored(lines(), straight, tmp_path, roi=":,6:8,:")


def test_command(straight: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("found.npy", lines())
    words = ["score", "found.npy", str(straight.path), "--as", "skeletons", "--voxel-size", "40", "32", "32"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["nerl"] == 1
    bad = CliRunner().invoke(
        app, ["score", "found.npy", "found-score.zarr", "--as", "skeletons", "--voxel-size", "1", "1", "1"]
    )
    assert bad.exit_code == 2
    assert "simexm skeletons" in bad.stderr
