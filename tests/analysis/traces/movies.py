"""A simulated movie whose table of footprints is computed from its noise-free frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import zarr

from simexm.api import Simulation
from simexm.result.result import Result


def spec(seed: int = 1, side: int = 48, seconds: float = 6.0, **population: Any) -> dict[str, Any]:
    """Cells near the focus of a miniscope, 20 frames a second."""
    cells = {"density_per_mm3": 16_000, "depth_um": [25, 60], "radius_um": 6, **population}
    width = 1.655 * side + 20
    green = {"name": "green", "laser_wavelength_nm": 470, "band_nm": [500, 550], "irradiance_W_per_cm2": 0.3}
    scope = {"numerical_aperture": 0.3, "pixel_size_nm": 1655, "field_pixels": [side, side], "duration_s": seconds}
    return {
        "name": "recovery",
        "seed": seed,
        "source": {"kind": "tissue", "seed": seed, "size_um": [90, width, width], "populations": [cells]},
        "dyes": {"GCaMP": {"like": "ATTO488", "extinction_per_M_per_cm": 60000, "quantum_yield": 0.6}},
        "stages": [
            {"stage": "activity", "dye": "GCaMP", "concentration_uM": 100, "rate_hz": 1, "rate_sigma": 0.5},
            {"stage": "miniscope", **scope, "frames_per_s": 20, "channels": [green]},
            {"stage": "camera", "preset": "Miniscope V4", "gain_counts_per_e": 0.5},
            {"stage": "truth"},
        ],
        "keep": ["expected"],
    }


def film(path: Path, settings: dict[str, Any]) -> Result:
    """Run a movie, and add its footprints."""
    Simulation.from_mapping(settings).run(path, quiet=True)
    return with_footprints(path)


def with_footprints(path: Path, shifts: Any = None) -> Result:
    """Add the tables of footprints, and of shifts (frame, 2) in um, to a finished movie.

    Frames without noise are sums of footprints times brightness, so that least squares give the footprints exactly.
    """
    result = Result.open(path)
    activity = zarr.open_group(path / "activity", mode="r")
    bright, ids = (np.asarray(activity[name]) for name in ("brightness", "id"))
    frames = np.asarray(result.series(0, "expected")[:, 0, 0]).astype(np.float64)
    known = np.concatenate([bright.T, np.ones((len(frames), 1))], axis=1).astype(np.float64)
    weights = np.linalg.lstsq(known, frames.reshape(len(frames), -1), rcond=None)[0][:-1]
    images = weights.reshape(len(ids), *frames.shape[1:])
    unit, y, x = np.nonzero(images > 0.01 * images.max(axis=(1, 2), keepdims=True).clip(1e-3))
    add_table(
        path,
        "footprints",
        {
            "unit": ids[unit].astype(np.int64),
            "y": y.astype(np.int32),
            "x": x.astype(np.int32),
            "weight": images[unit, y, x].astype(np.float32),
        },
    )
    if shifts is not None:
        zero = np.zeros(len(shifts))
        columns = {"time": np.arange(len(shifts)), "z_um": zero, "y_um": shifts[:, 0], "x_um": shifts[:, 1]}
        add_table(path, "shifts", {**columns, "rotation_rad": zero})
    return Result.open(path)


def add_table(path: Path, name: str, columns: dict[str, Any]) -> None:
    """Add a table to a finished result."""
    pq.write_table(pa.table(columns), path.with_suffix(".run") / "tables" / f"{name}.parquet")
    about = json.loads((path / "zarr.json").read_text())
    mark = about["attributes"]["simexm"]
    mark["tables"] = sorted({*mark["tables"], name})
    (path / "zarr.json").write_text(json.dumps(about))
