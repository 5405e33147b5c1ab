"""Analyses killed with SIGKILL in each of their passes and typed again: the bytes of an uninterrupted one."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from simexm.result.result import Result
from tests.analysis.synapses.test_synapses import random_arrays
from tests.analysis.test_objects import files
from tests.faults.faults import ROOT, wait_until


def _begun(driver: subprocess.Popen[bytes], run: Path, pattern: str) -> bool:
    return driver.poll() is not None or any(run.glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "inputs"), [("objects", ["cells"]), ("synapses", ["cells", "junctions"])])
def test_a_killed_analysis_resumes_to_equal_bytes(tmp_path: Path, verb: str, inputs: list[str]) -> None:
    arrays = random_arrays(3)
    for name in inputs:
        np.save(tmp_path / f"{name}.npy", np.tile(arrays[name], (1, 2, 2)))
    (tmp_path / "s.yaml").write_text("block_voxels: 16\n")
    paths = [str(tmp_path / f"{name}.npy") for name in inputs]
    words = [sys.executable, "-W", "ignore", "-m", "simexm.cli", verb, *paths, "--settings", str(tmp_path / "s.yaml")]
    words += ["--voxel-size", "40", "32", "32", "--quiet", "--output"]
    subprocess.run([*words, str(tmp_path / "whole.zarr")], cwd=ROOT, check=True, capture_output=True)
    run = tmp_path / "cut.run"
    killed = 0
    for begun in ("passes/parts/parts/*.npz", "passes/pairs/parts/*.npz", "tables/*.parts/*"):
        driver = subprocess.Popen([*words, str(tmp_path / "cut.zarr")], cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(partial(_begun, driver, run, begun), seconds=300)
        driver.send_signal(signal.SIGKILL)
        killed += driver.wait(timeout=60) == -signal.SIGKILL
    assert killed == 3
    subprocess.run([*words, str(tmp_path / "cut.zarr")], cwd=ROOT, check=True, capture_output=True)
    one, other = (Result.open(tmp_path / f"{name}.zarr") for name in ("whole", "cut"))
    assert files(one, "tables") == files(other, "tables")
    if verb == "objects":
        assert files(one, "labels") == files(other, "labels")
