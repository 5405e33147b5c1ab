"""Scores of segmentations: hand-made cases, independent formulas, and the same in any blocks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.analysis.scores.segmentation import SegmentationScore, _Histogram
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.result.result import Result
from tests.analysis.test_objects import VOXEL, volume


def scored(segments: NDArray[Any], truth: NDArray[Any], folder: Path, **settings: Any) -> Result:
    """Score an array against another."""
    np.save(folder / "segments.npy", segments)
    np.save(folder / "truth.npy", truth)
    analysis = SegmentationScore(voxel_size_nm=VOXEL, **settings)
    return analysis.run(
        folder / "segments.npy", folder / "truth.npy", output=folder / "s.zarr", quiet=True, overwrite=True
    )


def values_of(result: Result) -> dict[str, float]:
    return {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}


def entropy(*ids: NDArray[Any]) -> float:
    """Entropy, in bits, of the joint distribution of some arrays."""
    counts = np.unique(np.stack([i.ravel() for i in ids]), axis=1, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def pairs_of_voxels(*ids: NDArray[Any]) -> int:
    counts = np.unique(np.stack([i.ravel() for i in ids]), axis=1, return_counts=True)[1]
    return sum(int(n) ** 2 for n in counts)


@pytest.mark.parametrize("zero_is", ["segment", "missing"])
def test_scores_are_those_of_entropies_and_pairs(tmp_path: Path, zero_is: str) -> None:
    segments, truth = volume(1, most=12, empty=0.2), volume(2, most=8)
    found = [scored(segments, truth, tmp_path, zero_is=zero_is, block_voxels=b) for b in (16, 64)]
    assert values_of(found[0]) == values_of(found[1])
    got = values_of(found[0])
    s, t = segments[truth > 0], truth[truth > 0]
    covered = s > 0
    vs, vt = (s, t) if zero_is == "segment" else (s[covered], t[covered])
    assert got["voi_split"] == pytest.approx(entropy(vs, vt) - entropy(vt), abs=1e-11)
    assert got["voi_merge"] == pytest.approx(entropy(vs, vt) - entropy(vs), abs=1e-11)
    precision, recall = ((pairs_of_voxels(s, t) - s.size) / (pairs_of_voxels(one) - s.size) for one in (s, t))
    assert got["rand_skimage"] == pytest.approx(1 - 2 * precision * recall / (precision + recall), abs=1e-12)
    both = pairs_of_voxels(s[covered], t[covered])
    precision, recall = both / pairs_of_voxels(s[covered]), both / pairs_of_voxels(t)
    assert got["rand_cremi"] == pytest.approx(1 - 2 * precision * recall / (precision + recall), abs=1e-12)
    assert got["cremi"] == pytest.approx(math.sqrt(got["voi"] * got["rand_cremi"]), rel=1e-12)
    assert got["covered"] == covered.mean()


def test_the_truth_is_right_whatever_its_names(tmp_path: Path) -> None:
    truth = volume(3, most=9)
    names = np.random.default_rng(0).permutation(100)[: truth.max() + 1].astype(np.uint64) + 1
    result = scored(np.where(truth > 0, names[truth], 0), truth, tmp_path)
    got = values_of(result)
    for name in ("voi_split", "voi_merge", "rand_skimage", "rand_cremi", "cremi"):
        assert got[name] == 0, name
    for name in ("precision", "recall", "f1"):
        assert got[f"{name} iou 0.5"] == got[f"{name} iou 0.75"] == 1
    cells = result.table("cells")
    assert cells["segment"].to_pylist() == [int(names[t]) for t in cells["id"].to_pylist()]
    assert set(cells["iou"].to_pylist()) == {1.0}


def test_the_truth_on_a_coarser_grid_says_what_can_be_reached(tmp_path: Path) -> None:
    """Segments on voxels twice as large; the same is computed by hand on the truth's own voxels."""
    truth = volume(3, most=9, grain=5, empty=0)[:20, :32, :34]
    sampled = truth[1::2, 1::2, 1::2]  # the voxels that hold the centres
    segments = np.where(sampled == 2, 1, sampled)
    for name, values, size in (("truth", truth, VOXEL), ("segments", segments, tuple(2 * v for v in VOXEL))):
        np.save(tmp_path / f"{name}.npy", values)
        words = [
            "ingest",
            str(tmp_path / f"{name}.npy"),
            "-o",
            str(tmp_path / f"{name}.zarr"),
            "--quiet",
            "--voxel-size",
        ]
        assert CliRunner().invoke(app, [*words, *map(str, size)]).exit_code == 0
    paths = tmp_path / "segments.zarr", tmp_path / "truth.zarr"
    found = [SegmentationScore(block_voxels=b).run(*paths, output=tmp_path / f"{b}.zarr", quiet=True) for b in (16, 64)]
    assert values_of(found[0]) == values_of(found[1])
    for subset, values in (("", segments), (" grid", sampled)):
        fine = values.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        expected = values_of(scored(fine, truth, tmp_path))
        got = values_of(found[0])
        for name in ("voi_split", "voi_merge", "rand_skimage", "rand_cremi", "covered"):
            assert got[f"{name}{subset}"] == expected[name], name
        assert got[f"f1 iou 0.5{subset}"] == expected["f1 iou 0.5"]
    assert 0 < got["voi grid"] < got["voi"]
    assert values_of(scored(truth, truth, tmp_path))["voi grid"] == 0


def test_the_worst_splits_and_merges_make_up_the_variation_of_information(tmp_path: Path) -> None:
    segments, truth = volume(1, most=12, empty=0.2), volume(2, most=8)
    result = scored(segments, truth, tmp_path)
    got = values_of(result)
    for name, score, one, other in (
        ("splits", "voi_split", "cell", "segment"),
        ("merges", "voi_merge", "segment", "cell"),
    ):
        rows = result.table(name).to_pylist()
        bits = [r["bits"] for r in rows]
        assert bits == sorted(bits, reverse=True)
        if name == "splits":
            assert math.fsum(bits) == pytest.approx(got[score], abs=1e-12)
        ids = (truth, segments) if one == "cell" else (segments, truth)
        for r in rows:
            inside = ids[1][(ids[0] == r[one]) & (truth > 0)]
            values, counts = np.unique(inside, return_counts=True)
            assert (r["voxels"], r[f"{other}s"]) == (inside.size, values.size)
            assert counts[values == r[f"largest_{other}"]] == r["largest_voxels"] == counts.max()
    few = scored(segments, truth, tmp_path, worst=2)
    assert few.table("splits").to_pylist() == result.table("splits").to_pylist()[:2]


def test_a_split_and_a_merge_by_hand(tmp_path: Path) -> None:
    """Four cells of 64 voxels. One is halved, and two are merged; the last is right."""
    truth = np.repeat(np.arange(1, 5, dtype=np.uint16), 4).reshape(1, 1, 16) * np.ones((4, 4, 1), np.uint16)
    segments = truth.copy()
    segments[:, :, :2] = 9
    segments[truth == 3] = 2
    got = values_of(scored(segments, truth, tmp_path))
    assert got["voi_split"] == pytest.approx(1 / 4)  # one bit in a quarter of the voxels
    assert got["voi_merge"] == pytest.approx(1 / 2)
    # pairs: 2 * 32^2 + 3 * 64^2; truth: 4 * 64^2; segments: 2 * 32^2 + 128^2 + 64^2
    assert got["rand_skimage"] == pytest.approx(1 - 2 * (14336 - 256) / (16384 + 22528 - 512), rel=1e-12)
    # of four segments only the last matches more than half: halves have exactly half
    assert got["precision iou 0.5"] == got["recall iou 0.5"] == got["f1 iou 0.5"] == 1 / 4


def test_sums_beyond_64_bits_are_exact() -> None:
    sizes = _Histogram()
    sizes.add(np.array([3 * 10**9, 4 * 10**9, 3 * 10**9]))
    sizes.add(np.array([0, 4 * 10**9]))
    assert sizes.squares == 2 * 9 * 10**18 + 2 * 16 * 10**18 > 2**63
    assert sizes.total == 14 * 10**9


def test_order_of_adding_changes_no_bit() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(1, 10**6, 5000)
    one, other = _Histogram(), _Histogram()
    one.add(numbers)
    for some in np.array_split(rng.permutation(numbers), 7):
        other.add(some)
    assert one.n_log_n == other.n_log_n


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("found.npy", volume(1))
    np.save("truth.npy", volume(2))
    words = ["score", "found.npy", "truth.npy", "--voxel-size", "40", "32", "32"]
    done = CliRunner().invoke(app, [*words, "--as", "segmentation", "--json"])
    assert done.exit_code == 0, done.output
    rows = Result.open("found-score.zarr").scores().to_pylist()
    assert json.loads(done.stdout)["voi"] == next(r["value"] for r in rows if r["score"] == "voi")
    assert {r["kind"] for r in rows} == {"segmentation"}
    assert all(r["definition"] and json.loads(r["inputs"]).keys() == {"segmentation", "truth"} for r in rows)
    assert CliRunner().invoke(app, [*words, "--as", "poem"]).exit_code == 2


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    segments = volume(1)
    with pytest.raises(OutputError, match="at least two"):
        scored(segments, np.full_like(segments, 7), tmp_path)
    with pytest.raises(OutputError, match=r"below 0\.5"):
        scored(segments, segments, tmp_path, iou=[0.3])
    np.save(tmp_path / "segments.npy", segments)
    with pytest.raises(SpecError, match="voxel"):
        SegmentationScore().plan(tmp_path / "segments.npy", tmp_path / "segments.npy")
