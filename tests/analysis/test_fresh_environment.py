"""A package from outside, installed in a fresh environment, adds products, an axis of time and an analysis; all by command."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import simexm
from simexm.result.result import Result
from tests.stages.test_installed import OVER_TIME, over_time

PACKAGE = Path(simexm.__file__).parent
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "outside"
version = "3.1"

[project.entry-points."simexm.stages"]
sway = "outside:Drift"
census = "outside:Census"

[project.entry-points."simexm.analyses"]
threshold = "outside:Threshold"

[tool.hatch.build.targets.wheel]
include = ["outside.py"]
"""
THRESHOLD = '''
from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.grid import Grid
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.result.result import elements


class Threshold(Analysis):
    """Mark the pixels of the first channel that are brighter than a limit, at each point in time.

    Attributes
    ----------
    limit
        Counts above which a pixel is marked.
    """

    analysis: Literal["threshold"] = "threshold"
    limit: int = 10

    def open(self, inputs):
        return Thresholded(self.limit, *inputs)


class Thresholded(Bench):
    def __init__(self, limit, result):
        self.limit, self.array = limit, result.series()
        self.grid = Grid.of(result, largest_shard=16)
        self.inputs = {"result": result.provenance["hash"]}
        self.blocks, self.voxels = len(self.grid.blocks), self.array.size
        self.core_seconds, self.block_bytes = 1e-7 * self.array.size, 1 << 20
        self.columns = {"pixels": ("pixels",)}
        varies = frozenset({"time"})
        self.products = (
            Product("bright", "labels", "zyx", "uint8", varies=varies),
            Product("excess", "image", "czyx", "uint16", "counts", ("excess",), varies=varies),
            Product("peaks", "table", columns={"time": "int64", "most": "int64"}),
        )

    def measure(self, number):
        data = np.asarray(elements(self.array, (slice(None), 0, *self.grid.blocks[number].slices)))
        bright = data > self.limit
        times = np.arange(len(data))
        return {
            "bright": bright.astype(np.uint8),
            "excess": np.where(bright, data - self.limit, 0).astype(np.uint16)[:, None],
            "peaks": {"time": times, "most": data.max(axis=(1, 2, 3))},
            "pixels": CellSums(times.astype(np.uint64), {"pixels": bright.sum(axis=(1, 2, 3))}),
        }

    def conclude(self, sums):
        found = add_up([CellSums.none(["pixels"]), *sums["pixels"]])
        return Conclusion({}, (Score("bright", float(found.columns["pixels"].sum()), "pixels", "bright pixels"),))
'''


def digest() -> str:
    """Of all source files of simexm."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(str(path).encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.slow
def test_a_package_from_outside_needs_no_change_of_simexm(tmp_path: Path) -> None:
    before = digest()
    project, environment = tmp_path / "project", tmp_path / "environment"
    project.mkdir()
    (project / "outside.py").write_text(OVER_TIME + THRESHOLD)
    (project / "pyproject.toml").write_text(PROJECT)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "simexm.pth").write_text("\n".join([str(PACKAGE.parent), *(p for p in sys.path if "site-packages" in p)]))
    python = environment / "bin" / "python"
    quiet = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *quiet, project], check=True)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(over_time()))
    (tmp_path / "settings.yaml").write_text("limit: 12\n")

    def command(*words: str) -> str:
        done = subprocess.run(
            [python, "-m", "simexm.cli", *words], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("run", "spec.yaml", "-o", "made.zarr", "--quiet")
    assert "Counts above which a pixel is marked" in command("threshold", "--help")
    assert "# Counts above which" in command("new", "threshold")
    told: dict[str, Any] = json.loads(
        command(
            "threshold", "made.zarr", "-o", "out.zarr", "--settings", "settings.yaml", "--json", "--workers", "2", "-q"
        )
    )
    for name in ("made.zarr", "out.zarr"):
        assert "all as they were written" in command("verify", name)
    made, out = Result.open(tmp_path / "made.zarr"), Result.open(tmp_path / "out.zarr")
    assert made.acquisition.length("time") == out.acquisition.length("time") == 3
    assert "census" in made.tables
    assert made.series(0, "labels/hours").shape[0] == 3
    data = np.asarray(made.series())[:, 0]
    assert np.array_equal(out.series(0, "labels/bright")[:], data > 12)
    assert np.array_equal(np.asarray(out.series())[:, 0], np.where(data > 12, data - 12, 0))
    assert max(out.table("peaks")["most"].to_pylist()) == data.max()
    assert told == {"bright": float((data > 12).sum())}
    assert digest() == before
