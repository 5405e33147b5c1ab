"""Scores of a transform against the true one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.registration import nuclei_pair
from simexm.analysis.registration.align import Align
from simexm.analysis.registration.score import AlignmentScore
from simexm.analysis.registration.scores.residuals import residual_scores
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.steps import Features
from simexm.analysis.registration.transform import StoredTransform, affine_at
from simexm.errors import OutputError
from simexm.result.result import Result

pytest.importorskip("SimpleITK")


def values(result: Result) -> dict[tuple[str, str], float]:
    return {(s["score"], s["subset"]): s["value"] for s in result.scores().to_pylist()}


def test_residuals_are_those_counted_at_once_in_blocks_of_any_size(tmp_path: Path) -> None:
    pair = nuclei_pair(2, 40, rms=0.5, length=12.0)
    for name in ("fixed", "moving"):
        np.save(tmp_path / f"{name}.npy", getattr(pair, name))
    side = Side(voxel_um=(1.0, 1.0, 1.0))
    steps = (Features(most=400, half=5, trials=512),)
    Align(steps=steps, fixed=side, moving=side).run(
        tmp_path / "fixed.npy", tmp_path / "moving.npy", output=tmp_path / "found.zarr", quiet=True
    )
    truth = np.column_stack([np.diag([1.02, 0.99, 1.0]), [1.0, -2.0, 0.5]])
    np.savetxt(tmp_path / "truth.txt", truth)
    found = StoredTransform(str(tmp_path / "found.zarr")).whole
    points = pair.frame.centres()
    true = affine_at(truth, points)
    covered = np.all((true >= 0) & (true <= 40), axis=0)
    scored = []
    for block in (16, 64):
        result = AlignmentScore(block_voxels=block).run(
            tmp_path / "found.zarr", tmp_path / "truth.txt", output=tmp_path / f"{block}.zarr", quiet=True
        )
        scored.append(values(result))
    assert scored[0] == scored[1]
    own = AlignmentScore().run(
        tmp_path / "found.zarr", tmp_path / "found.zarr", output=tmp_path / "own.zarr", quiet=True
    )
    assert values(own)["residual_rms", ""] == values(own)["residual_p99", ""] == 0.0
    assert scored[0]["covered", ""] == covered.mean()
    for subset, place in (("", found(points)), ("identity", points)):
        error = np.linalg.norm(place - true, axis=0)[covered]
        assert scored[0]["residual_rms", subset] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-3)
        for p in (50, 95, 99):
            wanted = np.percentile(error, p, method="inverted_cdf")
            assert scored[0][f"residual_p{p}", subset] == pytest.approx(wanted, abs=5.001e-4)
    assert scored[0]["folds", ""] == found.folds() == 0
    assert scored[0]["smallest_jacobian", ""] == pytest.approx(found.smallest_jacobian(), abs=1e-6)
    assert scored[0]["residual_rms", "best affine"] == 0.0
    with pytest.raises(OutputError, match="has a grid"):
        AlignmentScore().plan(tmp_path / "truth.txt", tmp_path / "truth.txt")


def test_a_transform_is_its_own_truth() -> None:
    scores = {s.score: s.value for s in residual_scores(np.array([0.0, 1.0]), np.array([99, 1]), "", "")}
    assert scores["residual_p50"] == scores["residual_p95"] == 0.0
    assert scores["residual_rms"] == pytest.approx(0.1, rel=1e-3)
    assert residual_scores(np.zeros(0), np.zeros(0, np.int64), "", "") == []
