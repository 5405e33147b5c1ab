"""Localisation obeys its laws: errors as small as Fisher's bound, one table whatever the blocks, drift undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pytest
import tifffile
from numpy.typing import NDArray

from simexm.analysis.localisation.localise import Localise
from simexm.analysis.localisation.optics import Lens, gaussian_model, response_of_lens, table_model
from simexm.analysis.localisation.score import LocalisationScore
from simexm.errors import OutputError, SpecError
from simexm.kernels.localisation.fit import Model, fit
from simexm.result.result import Result
from tests.analysis.localisation.frames import (
    CAMERA,
    PIXEL_NM,
    Columns,
    counts,
    gaussian_images,
    lens_images,
    scattered,
    write_frames,
    write_truth,
)

SHAPE = (60, 64, 64)
LENS = Lens(numerical_aperture=1.2, emission_nm=670.0)
CYLINDER = Lens.model_validate({**LENS.model_dump(), "zernike": [{"n": 2, "m": 2, "nm": 70.0}]})


def scores(result: Result) -> dict[str, float]:
    return {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}


def judged(found: Result, truth: Path, output: Path, **settings: Any) -> dict[str, float]:
    return scores(LocalisationScore(**settings).run(found, truth, output=output, quiet=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A movie of Gaussian spots, its truth, and what was found."""
    place = tmp_path_factory.mktemp("localise")
    rng = np.random.default_rng(1)
    truth = scattered(rng, SHAPE[0], 5, SHAPE[1], 1000)
    write_truth(place / "truth.parquet", truth)
    write_frames(place / "movie.zarr", counts(rng, gaussian_images(truth, SHAPE, 1.3) + 10))
    Localise(camera=CAMERA, link_nm=60, block_frames=25).run(
        place / "movie.zarr", output=place / "found.zarr", quiet=True
    )
    return place


def test_what_is_found_is_where_it_was_within_the_bound(folder: Path, tmp_path: Path) -> None:
    found = judged(Result.open(folder / "found.zarr"), folder / "truth.parquet", tmp_path / "score.zarr")
    assert found["jaccard"] > 0.98
    for axis in "yx":
        assert 0.9 < found[f"sd_over_bound_{axis}"] < 1.1
        assert abs(found[f"bias_{axis}"]) < 4 * found[f"sd_{axis}"] / np.sqrt(found["pairs"])
    assert abs(found["photons"] - 1) < 0.01
    assert found["efficiency_lateral"] == pytest.approx(
        1 - np.hypot(1 - found["jaccard"], 0.01 * found["rmse_lateral"]), abs=1e-12
    )


def same(one: Any, other: Any) -> None:
    """Whether two tables hold the same numbers, NaN included."""
    assert one.schema == other.schema
    for name in one.column_names:
        np.testing.assert_array_equal(one[name].to_numpy(), other[name].to_numpy())


def test_blocks_change_no_byte(folder: Path, tmp_path: Path) -> None:
    again = Localise(camera=CAMERA, link_nm=60, block_frames=7).run(
        folder / "movie.zarr", output=tmp_path / "again.zarr", quiet=True
    )
    for name in ("localisations", "events"):
        same(again.table(name), Result.open(folder / "found.zarr").table(name))


def test_a_tiff_of_the_same_frames_gives_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    import zarr

    data = np.asarray(zarr.open_array(folder / "movie.zarr", path="0", mode="r"))[:, 0]
    tifffile.imwrite(tmp_path / "movie.tif", data)
    settings = Localise(camera=CAMERA, link_nm=60, pixel_size_nm=PIXEL_NM)
    found = settings.run(tmp_path / "movie.tif", output=tmp_path / "tiff.zarr", quiet=True).table("localisations")
    other = Result.open(folder / "found.zarr").table("localisations")
    same(found.drop_columns(["y_nm", "x_nm"]), other.drop_columns(["y_nm", "x_nm"]))
    np.testing.assert_allclose(found["x_nm"], other["x_nm"], atol=1e-6)


def fitted(
    model: Model, expected: NDArray[Any], data: NDArray[Any], truth: NDArray[Any], read_e: float, excess: float
) -> Any:
    """Errors and bounds at the truth of spots in squares of their own, (n, 5)."""
    n, side = len(data), data.shape[1]
    corners = np.zeros((n, 3), np.int64)
    corners[:, 0] = np.arange(n)
    start = np.zeros((n, 5))
    start[:, :2] = side / 2
    read = np.full((side, side), read_e**2, np.float32)
    found = fit(data.astype(np.float32), read, excess, corners, start, model)
    bound = fit(data.astype(np.float32), read, excess, corners, truth, model, 0)
    assert found.settled.mean() > 0.99
    return (found.theta - truth)[found.settled], np.sqrt(bound.variance.mean(axis=0)), found


def gaussians(n: int, side: int, photons: float, background: float) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(2)
    places = side / 2 + rng.uniform(-0.5, 0.5, (n, 2))
    rows: Columns = {
        "time": np.arange(n),
        "y_nm": places[:, 0] * PIXEL_NM,
        "x_nm": places[:, 1] * PIXEL_NM,
        "photons": np.full(n, photons),
    }
    truth = np.column_stack([places, np.full(n, photons), np.full(n, background), np.full(n, 1.3)])
    return gaussian_images(rows, (n, side, side), 1.3) + background, truth


@pytest.mark.parametrize("camera", ["ideal", "scmos", "emccd"])
def test_five_thousand_gaussians_are_fitted_at_the_bound(camera: str) -> None:
    rng = np.random.default_rng(3)
    expected, truth = gaussians(5000, 11, 1000, 10)
    data = rng.poisson(expected).astype(np.float64)
    read_e, excess = 0.0, 1.0
    if camera == "scmos":
        read_e = 3.0
        data += rng.normal(0, read_e, data.shape)
    if camera == "emccd":
        excess = 2.0
        data = np.where(data > 0, rng.gamma(np.maximum(data, 1)), 0.0)
    errors, bound, _ = fitted(gaussian_model(1.3, 11, free=True), expected, data, truth, read_e, excess)
    np.testing.assert_allclose(errors[:, :4].std(axis=0), bound[:4], rtol=0.08)
    assert np.all(np.abs(errors[:, :2].mean(axis=0)) < 0.005)


def test_the_bound_is_that_of_rieger_and_stallinga() -> None:
    """sigma_a^2 / N (1 + 4 tau + sqrt(2 tau / (1 + 4 tau))), to the few per cent of its approximation."""
    for photons, background in ((4000.0, 20.0), (1000.0, 10.0)):
        expected, truth = gaussians(50, 21, photons, background)
        bound = fitted(gaussian_model(1.3, 21, free=True), expected, expected, truth, 0.0, 1.0)[1]
        wide = 1.3**2 + 1 / 12
        tau = 2 * np.pi * background * wide / photons
        assert bound[1] == pytest.approx(
            np.sqrt(wide / photons * (1 + 4 * tau + np.sqrt(2 * tau / (1 + 4 * tau)))), rel=0.05
        )


def lens_spots(lens: Lens, n: int, z_nm: float, photons: float) -> tuple[Columns, NDArray[Any]]:
    rng = np.random.default_rng(4)
    side = 25
    places = side / 2 + rng.uniform(-0.5, 0.5, (n, 2))
    rows: Columns = {
        "time": np.arange(n),
        "z_nm": rng.uniform(-z_nm, z_nm, n),
        "y_nm": places[:, 0] * PIXEL_NM,
        "x_nm": places[:, 1] * PIXEL_NM,
        "photons": np.full(n, photons),
    }
    return rows, lens_images(rows, (n, side, side), lens)


@pytest.mark.parametrize(
    ("lens", "range_nm", "photons"),
    [(LENS, None, 1000.0), (CYLINDER, (-600.0, 600.0), 4000.0)],
    ids=["plane", "cylindrical"],
)
def test_the_table_of_a_response_is_the_response(
    lens: Lens, range_nm: tuple[float, float] | None, photons: float
) -> None:
    """Without noise the fit returns the place at which the diffraction integrals were taken."""
    n = 12
    rows, images = lens_spots(lens, n, 500.0 if range_nm else 0.0, photons)
    data = images[:, 5:20, 5:20] + 10
    response = response_of_lens(lens, PIXEL_NM, 15, range_nm)
    model = table_model(response, 15)
    last = response.plane(rows["z_nm"]) if range_nm else np.zeros(n)
    truth = np.column_stack(
        [rows["y_nm"] / PIXEL_NM - 5, rows["x_nm"] / PIXEL_NM - 5, np.full(n, photons), np.full(n, 10.0), last]
    )
    errors, bound, found = fitted(model, data, data, truth, 0.0, 1.0)
    assert np.all(np.abs(errors[:, :2]) < 0.001)
    assert np.all(np.abs(errors) < 0.02 * np.maximum(bound, 1e-9) + 1e-9)
    assert found.log_likelihood.min() > -0.01


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,200 emitters in focus of a lens, 13 a frame."""
    place = tmp_path_factory.mktemp("spots")
    rng = np.random.default_rng(5)
    shape = (400, 80, 80)
    truth = scattered(rng, shape[0], 13, shape[1], 1000)
    write_truth(place / "truth.parquet", truth)
    write_frames(place / "movie.zarr", counts(rng, lens_images(truth, shape, LENS) + 10))
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["psf", "gaussian"])
def test_five_thousand_spots_of_a_lens(kind: str, spots: Path, tmp_path: Path) -> None:
    """The fit with the response itself reaches the bound, within 10 %, without bias."""
    how: dict[str, Any] = {"model": "psf", "lens": LENS} if kind == "psf" else {}
    found = Localise(camera=CAMERA, **how).run(spots / "movie.zarr", output=tmp_path / "found.zarr", quiet=True)
    score = judged(found, spots / "truth.parquet", tmp_path / "score.zarr", least_photons=400)
    print({name: round(value, 4) for name, value in score.items()})
    assert score["jaccard"] >= 0.95
    for axis in "yx":
        assert abs(score[f"bias_{axis}"]) < 0.005 * PIXEL_NM
        if kind == "psf":
            assert 0.9 < score[f"sd_over_bound_{axis}"] < 1.1


def blinking(rng: np.random.Generator, drift: NDArray[Any]) -> Columns:
    """Points that are on in a few consecutive frames each, moved by the drift."""
    sites = rng.uniform(8, 40, (80, 2))
    rows = []
    for t in range(0, len(drift), 3):
        for k in rng.choice(len(sites), 5, replace=False):
            rows += [(t + n, k, *(sites[k] * PIXEL_NM + drift[t + n])) for n in range(2)]
    found = np.array(sorted(rows))
    return {
        "time": found[:, 0].astype(np.int64),
        "emitter": found[:, 1].astype(np.int64),
        "z_nm": np.zeros(len(found)),
        "y_nm": found[:, 2],
        "x_nm": found[:, 3],
        "photons": np.full(len(found), 5000, np.float32),
        "on_s": np.full(len(found), 0.02, np.float32),
    }


def test_drift_is_undone_and_events_are_linked(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    frames = 240
    drift_um = np.stack([np.linspace(0, 0.3, frames), 0.08 * np.sin(np.linspace(0, 4, frames))], axis=1)
    drift = 1000 * drift_um
    truth = blinking(rng, drift)
    write_frames(tmp_path / "movie.zarr", counts(rng, gaussian_images(truth, (frames, 48, 48), 1.3) + 5))
    pa.csv.write_csv(
        pa.table({"time": np.arange(frames), "y_um": drift_um[:, 0], "x_um": drift_um[:, 1]}),
        tmp_path / "drift.csv",
    )

    def run(name: str, **settings: Any) -> Result:
        one = Localise(camera=CAMERA, **settings)
        return one.run(tmp_path / "movie.zarr", output=tmp_path / f"{name}.zarr", quiet=True)

    plain, given = run("plain"), run("given", drift_table=str(tmp_path / "drift.csv"), link_nm=50)
    time = plain.table("localisations")["time"].to_numpy()
    for n, axis in enumerate("yx"):
        moved = (
            plain.table("localisations")[f"{axis}_nm"].to_numpy()
            - given.table("localisations")[f"{axis}_nm"].to_numpy()
        )
        np.testing.assert_array_equal(
            plain.table("localisations")[f"{axis}_nm"].to_numpy() - drift[time, n],
            given.table("localisations")[f"{axis}_nm"],
        )
        assert np.ptp(moved) > 70
    events = given.table("events")
    assert np.mean(events["frames"].to_numpy() == 2) > 0.9
    found = run("found", drift={"segments": 5}).table("shifts")
    for n, axis in enumerate("yx"):
        miss = 1000 * found[f"{axis}_um"].to_numpy() - (drift[:, n] - drift[:, n].mean())
        assert np.sqrt(np.mean(miss**2)) < 10


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "camera"),
        ({"camera": CAMERA, "model": "psf"}, "lens"),
        ({"camera": CAMERA, "side_pixels": 39, "sigma_nm": 700.0, "channel": "green"}, "no channel"),
        ({"camera": CAMERA, "drift_table": "nowhere.csv"}, "cannot be read"),
        ({"camera": CAMERA, "sigma_nm": 2000.0}, "side_pixels"),
    ],
)
def test_what_cannot_be_fitted_is_refused(folder: Path, tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((OutputError, SpecError), match=told):
        Localise(**settings).plan(folder / "movie.zarr", output=tmp_path / "none.zarr")


@pytest.mark.parametrize(
    "settings",
    [
        {"side_pixels": 10}, {"z_range_nm": (5.0, -5.0)}, {"fit_z": True}, {"lens": LENS},
        {"drift": {}, "drift_table": "a.csv"}, {"lens": {"numerical_aperture": 1.4, "emission_nm": 600}},
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Localise(**settings)
