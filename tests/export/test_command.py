"""`simexm export` on what a run really leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.result.result import Result
from tests.build import spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run on a little phantom."""
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    simulation = Simulation.from_mapping(spec() | {"source": phantom})
    return simulation.run(tmp_path_factory.mktemp("run") / "my.zarr", quiet=True)


def test_a_run_can_be_exported(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", str(result.path), "-o", "out", "--format", "ome-tiff", "--channels", "merged", "--level", "1"]
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert not Path("out").exists()
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert (dry.exit_code, dry.stdout) == (0, done.stdout)
    assert done.stdout == "out/merged.ome.tiff\n"
    assert done.stderr == ""
    with tifffile.TiffFile("out/merged.ome.tiff") as tif:
        np.testing.assert_array_equal(np.squeeze(tif.asarray()), np.squeeze(result.array(1)[...]))
        told = tifffile.xml2dict(str(tif.ome_metadata))["OME"]["Image"]["Pixels"]
    coarser = result.array(0).shape[-1] / result.array(1).shape[-1]
    assert told["PhysicalSizeX"] == pytest.approx(0.1625 / 4 * round(coarser))
    done = CliRunner().invoke(app, [*words, "--quiet"])
    assert done.exit_code == 2
    assert "exists and would be lost" in done.stderr
    done = CliRunner().invoke(app, [*words, "--quiet", "--overwrite", "--8bit"])
    assert (done.exit_code, done.output) == (0, "")
    assert tifffile.imread("out/merged.ome.tiff").max() == 255


def test_labels_of_a_run_can_be_exported(result: Result, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", str(result.path), "-o", str(tmp_path), "--format", "tiff", "--labels", "merged"]
    )
    assert done.exit_code == 0, done.output
    for name in ("cells", "membrane"):
        found = tifffile.imread(tmp_path / "labels" / f"{name}.tiff")
        np.testing.assert_array_equal(found, result.array(0, f"labels/{name}")[...])


def test_wrong_words_are_told(result: Result, tmp_path: Path) -> None:
    for words, hint in (
        (["--format", "bmp"], "ome-tiff"),
        ([], "--format"),
        (["--format", "png", "--level", "99"], "Type --level 0"),
    ):
        done = CliRunner().invoke(app, ["export", str(result.path), "-o", str(tmp_path / "out"), *words])
        assert done.exit_code == 2
        assert hint in done.stderr
    assert not (tmp_path / "out").exists()
