"""A simulated image is fitted with the very response that made it, found in the result itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import zarr

from simexm.analysis.localisation.localise import Localise
from simexm.analysis.localisation.score import LocalisationScore
from simexm.api import Simulation
from simexm.ingestion.ingest import ingest
from tests.analysis.localisation.test_localise import scores
from tests.build import layer, spec


@pytest.mark.slow
def test_dyes_of_a_simulation_are_found_with_its_own_optics(tmp_path: Path) -> None:
    data: Any = np.ones((1, 400, 400), np.uint8)
    zarr.save_array(tmp_path / "l.zarr", data, zarr_format=3)
    ingest(tmp_path / "l.zarr", tmp_path / "labels.zarr", (50, 25, 25))
    green = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 200}
    widefield = {
        "stage": "widefield", "numerical_aperture": 1.2, "pixel_size_nm": 100, "plane_spacing_nm": 50,
        "axial_range_um": 1.0, "exposure_s": 0.2, "channels": [green],
    }  # fmt: skip
    dyes = layer(region="cytosol", density_per_um3=4.0)
    plain = spec(dyes, factor=1, optics=widefield, camera={"autofluorescence_e": 5.0}, keep=["emitters"])
    plain["source"] = {"path": str(tmp_path / "labels.zarr")}
    made = Simulation.from_mapping(plain).run(tmp_path / "made.zarr", quiet=True)
    emitters = made.emitters()
    truth = {name: emitters[name] for name in ("y_nm", "x_nm")}
    ones = {"time": np.zeros(emitters.num_rows, np.int64), "photons": emitters["photons_green"]}
    pq.write_table(pa.table({**truth, **ones}), tmp_path / "truth.parquet")
    found = Localise(model="psf").run(made, output=tmp_path / "found.zarr", quiet=True)
    score = scores(
        LocalisationScore(lateral_nm=30).run(found, tmp_path / "truth.parquet", output=tmp_path / "s.zarr", quiet=True)
    )
    assert score["pairs"] > 10
    assert score["rmse_lateral"] < 10
    assert score["photons"] == pytest.approx(1.0, rel=0.1)  # some dyes overlap
