"""What programs of the field recover from simulated movies. Each runs in an environment of its own, named by a variable:

SIMEXM_MINIAN, SIMEXM_PYCORRE and SIMEXM_OASIS are the Python of an environment with `minian==2.0.2 xarray<2026`,
`pycorre==0.1.1`, and `oasis-deconv==0.3.2`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simexm.analysis.scores.traces import TraceScore
from simexm.analysis.traces.truth import Movie
from simexm.export.export import export
from simexm.kernels.movies.footprints import masks
from simexm.kernels.movies.traces import best_lag, median, shift_rmse
from simexm.result.result import Result
from tests.analysis.traces.movies import film, spec

pytestmark = [
    pytest.mark.rival,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
]
HERE = Path(__file__).parent


def run(program: str, *arguments: Path) -> None:
    """Run a script with the Python of its program's environment."""
    variable = f"SIMEXM_{program.upper()}"
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with {program}")
    command = [python, str(HERE / f"run_{program}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module", params=[1, 2, 3])
def movie(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Thirty seconds of some 25 cells at 25 to 60 um."""
    path = tmp_path_factory.mktemp("recovery") / f"movie-{request.param}.zarr"
    return film(path, spec(request.param, side=128, seconds=30))


def test_motion(movie: Result, tmp_path: Path) -> None:
    """Real tissue moves in at the edges: a part of the field that follows a walk of whole pixels."""
    frames = np.asarray(movie.series()[:300, 0, 0]).astype(np.float32)
    walk = np.cumsum(np.random.default_rng(1).normal(0, 0.7, (len(frames), 2)), axis=0)
    path: NDArray[np.int64] = np.clip(np.rint(walk), -8, 8).astype(np.int64)
    moved = np.stack([f[16 + y : 112 + y, 16 + x : 112 + x] for f, (y, x) in zip(frames, path, strict=True)])
    np.save(tmp_path / "movie.npy", moved - gaussian_filter(moved, (0, 8, 8)))
    run("pycorre", tmp_path / "movie.npy", tmp_path / "shifts.npy")
    rmse, _ = shift_rmse(np.load(tmp_path / "shifts.npy").astype(np.float64), path.astype(np.float64))
    print(f"pycorre: shift RMSE {rmse:.3f} px")
    assert rmse < 0.25


def test_extraction(movie: Result, tmp_path: Path) -> None:
    (tiff,) = export(movie, tmp_path / "files", "tiff")
    run("minian", tiff, tmp_path / "minian")
    result = TraceScore().run(tmp_path / "minian", movie, output=tmp_path / "score.zarr", quiet=True)
    found = {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}
    print("minian:", {name: round(value, 3) for name, value in found.items()})
    assert found["recall iou"] >= 0.7
    assert found["mean iou"] >= 0.5
    assert found["precision iou"] >= 0.4


def test_spikes(movie: Result, tmp_path: Path) -> None:
    """Means over the pixels of each detectable cell, less those around them, deconvolved."""
    truth = Movie(str(movie.path))
    weights = truth.extraction.footprints[truth.snr() >= 3]
    true = truth.extraction.spikes
    assert true is not None
    pixels = masks(weights, 0.9)
    frames = np.asarray(movie.series()[:, 0, 0]).astype(np.float64)
    traces = (pixels @ frames.reshape(len(frames), -1).T) / pixels.sum(axis=1)[:, None]
    np.save(tmp_path / "traces.npy", traces - np.quantile(frames, 0.2, axis=(1, 2)))
    run("oasis", tmp_path / "traces.npy", tmp_path / "spikes.npy")
    lag, each = best_lag(np.load(tmp_path / "spikes.npy"), true[truth.snr() >= 3], 2)
    print(f"oasis: r {median(each):.3f} at lag {lag}")
    assert median(each) >= 0.6
