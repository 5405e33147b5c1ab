"""Scores and pictures of localisations: counted by hand, in closed form, and independent of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from PIL import Image
from scipy.special import erf

from simexm.analysis.localisation.pictures import Halves
from simexm.analysis.localisation.render import Render
from simexm.analysis.localisation.score import LocalisationScore
from simexm.errors import OutputError
from tests.analysis.localisation.test_localise import scores


def table(path: Path, rows: list[tuple[float, ...]], **more: Any) -> Path:
    """Rows of time, z, y, x, photons."""
    found = np.array(rows, float).reshape(-1, 5)
    columns = {"time": found[:, 0].astype(np.int64), "z_nm": found[:, 1], "y_nm": found[:, 2], "x_nm": found[:, 3]}
    pq.write_table(pa.table({**columns, "photons": found[:, 4].astype(np.float32), **more}), path)
    return path


def test_pairs_are_counted_as_by_hand(tmp_path: Path) -> None:
    truth = table(
        tmp_path / "truth.parquet",
        [
            (0, 0, 1000, 1000, 900),
            (0, 0, 1400, 1000, 900),
            (1, 0, 1000, 1000, 50),
            (2, 0, 1000, 1000, 900),
            (3, 0, 0, 0, 900),
        ],
    )
    found = table(
        tmp_path / "found.parquet",
        [
            (0, 0, 1200, 1000, 900),  # within 250 nm of both: only one is paired
            (0, 0, 1220, 1000, 900),
            (1, 0, 1010, 1000, 60),  # of one that is too dim to count: neither right nor wrong
            (2, 600, 1000, 1000, 900),  # too far along z
            (5, 0, 1000, 1000, 900),  # no such frame
        ],
    )
    got = scores(LocalisationScore(least_photons=100).run(found, truth, output=tmp_path / "s.zarr", quiet=True))
    assert (got["pairs"], got["jaccard"]) == (2, 2 / (2 + 2 + 2))
    assert (got["precision"], got["recall"]) == (2 / 4, 2 / 4)
    assert got["rmse_lateral"] == pytest.approx(np.sqrt((200**2 + 180**2) / 2))
    assert got["bias_y"] == pytest.approx((200 - 180) / 2)
    assert got["efficiency_axial"] == pytest.approx(1 - np.hypot(2 / 3, 0.005 * got["rmse_axial"]))
    flat = LocalisationScore(least_photons=100, axial=False).run(found, truth, output=tmp_path / "f.zarr", quiet=True)
    assert scores(flat)["pairs"] == 3
    assert scores(flat)["frc truth"] != 0  # NaN of so few


def test_the_truth_is_perfect_against_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [(t, *rng.uniform(0, 9000, 3), 500) for t in range(40) for _ in range(5)]
    path = table(tmp_path / "truth.parquet", rows)
    got = scores(LocalisationScore().run(path, path, output=tmp_path / "s.zarr", quiet=True))
    assert (got["jaccard"], got["rmse_lateral"], got["rmse_axial"], got["efficiency_lateral"]) == (1, 0, 0, 1)


@pytest.mark.parametrize("sigma_nm", [10.0, 20.0])
def test_ring_correlation_is_that_of_its_closed_form(sigma_nm: float) -> None:
    """Points that each half sees Q times on average, with errors: FRC = s / (1 + s), s = Q exp(-4 pi^2 sigma^2 q^2).

    Nieuwenhuizen et al. 2013: for points at random places and Poisson numbers in each half.
    """
    rng = np.random.default_rng(2)
    often, side = 10.0, 5000.0
    points = rng.uniform(0, side, (4000, 2))
    halves = Halves(np.zeros(2), np.full(2, side), 5.0, 2, 2)
    for half in range(2):
        places = np.repeat(points, rng.poisson(often, len(points)), axis=0)
        places = places + rng.normal(0, sigma_nm, places.shape)
        halves.add({"time": np.full(len(places), half), "y_nm": places[:, 0], "x_nm": places[:, 1]})
    # s / (1 + s) = 1/7 at s = 1/6
    expected = 2 * np.pi * sigma_nm / np.sqrt(np.log(6 * often))
    assert halves.resolution_nm() == pytest.approx(expected, rel=0.05)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    rows = [(t, rng.uniform(0, 400), *rng.uniform(200, 3800, 2), 500) for t in range(500)]
    sd = {f"{a}_precision_nm": rng.uniform(5, 20, 500) for a in "yx"}
    return table(tmp_path_factory.mktemp("render") / "points.parquet", rows, **sd)


def test_a_histogram_counts(points: Path, tmp_path: Path) -> None:
    field = (0.0, 4000.0, 0.0, 4000.0)
    made = Render(method="histogram", pixel_nm=20, plane_nm=100, field_nm=field).run(
        points, output=tmp_path / "r.zarr", quiet=True
    )
    given = pq.read_table(points)
    edges = [np.arange(5) * 100, np.arange(201) * 20, np.arange(201) * 20]
    wanted = np.histogramdd(np.stack([given[f"{a}_nm"].to_numpy() for a in "zyx"], axis=1), edges)[0]
    image = np.asarray(made.array())[0]
    np.testing.assert_array_equal(image[:4], wanted)
    assert made.pixel_um() == (0.1, 0.02, 0.02)


def test_a_picture_is_one_whatever_the_blocks_and_holds_all(points: Path, tmp_path: Path) -> None:
    field = (0.0, 4000.0, 0.0, 4000.0)
    made = [
        np.asarray(
            Render(block_pixels=n, field_nm=field).run(points, output=tmp_path / f"{n}.zarr", quiet=True).array()
        )
        for n in (64, 512)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert made[0].sum() == pytest.approx(500 * erf(4 / np.sqrt(2)) ** 2, rel=1e-3)


def test_a_png_has_its_size_and_its_colours(points: Path, tmp_path: Path) -> None:
    Render(field_nm=(0.0, 4000.0, 0.0, 3000.0)).png(tmp_path / "a.png", points)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (400, 300, 3)
    assert (picture.max(axis=2) > 0).any()
    assert len(np.unique(picture.reshape(-1, 3).argmax(axis=1))) == 3  # low, middle and high z


def test_what_cannot_be_shown_or_scored_is_refused(points: Path, tmp_path: Path) -> None:
    bare = table(tmp_path / "bare.parquet", [(0, np.nan, 5, 5, 100)])
    empty = table(tmp_path / "empty.parquet", [])
    for act, told in (
        (lambda: Render().plan(bare), "histogram"),
        (lambda: Render(method="histogram", plane_nm=10).plan(bare), "plane_nm"),
        (lambda: Render(method="histogram").plan(empty), "no localisation"),
        (lambda: Render(pixel_nm=0.1).png(tmp_path / "b.png", points), "8192"),
        (lambda: LocalisationScore().plan(points, empty), "no emitter"),
        (lambda: LocalisationScore(axial=True).plan(points, bare), "z_nm"),
    ):
        with pytest.raises(OutputError, match=told):
            act()
