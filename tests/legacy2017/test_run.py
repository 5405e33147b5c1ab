"""Configuration files from the shell: the original's files at their paths, and a native spec with the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from simexm.cli import app
from simexm.result.result import Result

INI = """
[groundtruth]
image_path = cells.tif
offset = 1, 2, 3
bounds = 24, 40, 36
format = tiff
gt_cells = merged
isotropic = True
voxel_dim = 40, 32, 32
    [[regions]]
        [[[synapse]]]
        region_path = synapse.tif
[labeling]
global_density = 1.0
    [[second]]
    fluorophore = ATTO647N
    region = synapse
    labeling_density = 1.0
    protein_density = 1e-4
    [[first]]
    fluorophore = ATTO488
    region = membrane
    labeling_density = 0.6
    protein_density = 1e-5
[expansion]
factor = 4
[optics]
type = confocal
numerical_aperture = 1.15
refractory_index = 1.33
focal_plane_depth = 500
objective_back_aperture = 1.0
exposure_time = 0.1
objective_efficiency = 0.8
detector_efficiency = 0.6
objective_factor = 40.0
pixel_size = 6500
pinhole_radius = 50.0
baseline_noise = 3
    [[channels]]
        [[[green]]]
        laser_wavelength = 488
        laser_power = 50.0
        laser_percentage = 0.25
        laser_filter = 500, 600
        [[[red]]]
        laser_wavelength = 640
        laser_power = 50.0
        laser_percentage = 0.25
        laser_filter = 650, 720
[output]
name = try
path = results
format = tiff
sim_channels = splitted
gt_cells = merged
gt_region = membrane
"""

CELLS = np.zeros((26, 44, 41), np.uint32)
CELLS[2:24, 3:22, 4:38] = 70_000
CELLS[2:24, 22:41, 4:20] = 9
CELLS[2:24, 22:41, 20:38] = 300
SYNAPSE = np.zeros(CELLS.shape, np.uint8)
SYNAPSE[8:16, 18:26, 10:30] = 255


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("cells.tif", CELLS, compression="lzw")
    tifffile.imwrite("synapse.tif", SYNAPSE)
    Path("config.ini").write_text(INI)
    return tmp_path


def type_in(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def counts(path: str) -> NDArray[np.uint32]:
    found: NDArray[np.uint32] = np.asarray(Result.open(path).array()[:])
    return found


def test_a_file_runs_as_it_is_and_writes_what_the_original_wrote(folder: Path) -> None:
    type_in("run", "config.ini", "--seed", "5")
    image = counts("results/try.zarr")
    assert image.shape == (2, 8, 40, 36)
    for c in (0, 1):
        written = tifffile.imread(f"results/try/simulation/channel_{c}.tiff")
        assert written.dtype == np.uint8
        assert np.array_equal(written, np.rint(image[c] * 255 / image[c].max()))
    crop = CELLS[1:25, 2:42, 3:39][::3]
    truth = tifffile.imread("results/try/groundtruth/ATTO647N/all_cells.tiff")
    assert set(np.unique(truth)) <= {0, 9, 300, 70_000}
    assert ((truth == 0) | (truth == crop)).all()
    edge = (crop != 0) & (truth == 0)
    assert edge.any()  # inside cells: gt_region is the membrane
    labelled = np.asarray(Result.open("results/try.zarr").array(0, "labels/first")[:])
    green = tifffile.imread("results/try/groundtruth/ATTO488/all_cells.tiff")
    assert set(np.unique(green)) == set(np.unique(labelled))


def test_a_second_run_is_refused_and_the_ground_truth_is_ingested_once(folder: Path) -> None:
    type_in("run", "config.ini")
    first = counts("results/try.zarr")
    before = Path("results/try.groundtruth.zarr/zarr.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, ["run", "config.ini"])
    assert again.exit_code == 2 or again.exit_code == 1
    assert "--overwrite" in again.output
    type_in("run", "config.ini", "--overwrite", "--seed", "1")
    assert Path("results/try.groundtruth.zarr/zarr.json").stat().st_mtime_ns == before
    assert not np.array_equal(counts("results/try.zarr"), first)
    changed = CELLS.copy()
    changed[12:, 22:, :] = 0
    tifffile.imwrite("cells.tif", changed)
    type_in("run", "config.ini", "--overwrite")
    assert 300 not in np.asarray(Result.open("results/try.zarr").array(0, "labels/cells")[7])


@pytest.mark.parametrize("model", ["simexm2017", "physical"])
def test_a_converted_spec_gives_the_same_bytes(folder: Path, model: str) -> None:
    type_in("run", "config.ini", "--model", model, "--seed", "2", "--output", "one.zarr")
    assert "simexm run two.yaml" in type_in(
        "convert", "config.ini", "--output", "two.yaml", "--model", model, "--seed", "2"
    )
    type_in("run", "two.yaml", "--output", "two.zarr")
    one = counts("one.zarr")
    assert one.any()
    assert np.array_equal(one, counts("two.zarr"))


def test_a_spec_is_converted_where_the_ground_truth_is_not(folder: Path) -> None:
    Path("cells.tif").unlink()
    told = type_in("convert", "config.ini", "--output", "two.yaml")
    assert "simexm ingest cells.tif --output two.groundtruth.zarr" in " ".join(told.split())
    assert Path("two.yaml").is_file()


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        (
            {"format = tiff\nsim": "format = gif\nsim", "sim_channels = splitted": "sim_channels = merged"},
            ["simulation/channels_012.gif", "groundtruth/ATTO488/all_cells.tiff"],
        ),
        (
            {"format = tiff\nsim": "format = image sequence\nsim", "gt_cells = merged\ngt": "gt_cells = splitted\ngt"},
            ["simulation/channel_1/image_07.png", "groundtruth/ATTO647N/9/image_07.png"],
        ),
    ],
    ids=["gif", "image sequence"],
)
@pytest.mark.filterwarnings("ignore:the largest id")
def test_other_formats(folder: Path, changes: dict[str, str], files: list[str]) -> None:
    text = INI
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    cells = np.where(CELLS == 70_000, 70, CELLS).astype(np.uint32)
    tifffile.imwrite("cells.tif", cells)
    Path("config.ini").write_text(text)
    type_in("run", "config.ini")
    for name in files:
        assert (folder / "results" / "try" / name).is_file(), name
    if files[0].endswith(".gif"):
        with Image.open(folder / "results/try" / files[0]) as gif:
            assert getattr(gif, "n_frames", 1) == 8


def test_all_that_is_wrong_is_reported_before_anything_is_written(folder: Path) -> None:
    Path("config.ini").write_text(INI.replace("factor = 4", "factor = x").replace("ATTO488", "ATTO489"))
    result = CliRunner().invoke(app, ["run", "config.ini"])
    assert result.exit_code == 2
    assert "[expansion]" in result.output
    assert "[[first]]" in result.output
    assert not Path("results").exists()
    wrong = CliRunner().invoke(app, ["run", "config.ini", "--model", "other"])
    assert wrong.exit_code == 2
    assert "--model other" in wrong.output
