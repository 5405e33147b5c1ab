"""Files have the paths of the 2017 program and the content that it should have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from simexm.errors import OutputError, SimexmWarning
from simexm.legacy2017.files import Files2017, write_2017_files
from simexm.result.result import Result
from tests.export.conftest import IDS, cells, counts, make_result

CELLS = cells(IDS[:2])
FIRST, SECOND = (np.where(i == CELLS, i, np.uint64(0)) for i in IDS[:2])
LABELS = {"ATTO425": ("membrane", "synapse"), "ATTO488": ("synapse",)}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Four channels of 32-bit counts; `membrane` labels cell 7, `synapse` both cells."""
    found = {"cells": CELLS, "membrane": FIRST, "synapse": CELLS, "empty": CELLS * np.uint64(0)}
    return make_result(tmp_path / "a.zarr", counts(4, "uint32"), found)


def scaled() -> list[Any]:
    """Step 9: each channel by its own maximum."""
    return [np.rint(c * 255.0 / c.max()).astype(np.uint8) for c in counts(4)]


def names(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def write(
    result: Result, folder: Path, form: Any, channels: Any, truth: Any, labels: Any = LABELS, **how: Any
) -> list[Path]:
    """Write with these options."""
    return write_2017_files(result, folder, Files2017(form, channels, truth, labels), **how)


def test_tiff_split_and_merged_truth(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "path" / "name"
    written = write(result, out, "tiff", "splitted", "merged")
    truth = {f"groundtruth/{dye}/all_cells.tiff" for dye in LABELS}
    assert names(out) == {*(f"simulation/channel_{c}.tiff" for c in range(4)), *truth}
    assert {str(p.relative_to(out)) for p in written} == names(out)
    for c, channel in enumerate(scaled()):
        np.testing.assert_array_equal(tifffile.imread(out / f"simulation/channel_{c}.tiff"), channel)
    for name in truth:
        np.testing.assert_array_equal(tifffile.imread(out / name), CELLS)


def test_merged_channels_and_a_file_for_each_cell(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "out", "tiff", "merged", "splitted")
    assert names(tmp_path / "out") == {
        "simulation/channels_012.tiff", "simulation/channels_345.tiff",
        *(f"groundtruth/{dye}/{cell}.tiff" for dye in LABELS for cell in (7, 300)),
    }  # fmt: skip
    channels = scaled()
    for first, path in ((0, "channels_012"), (3, "channels_345")):
        found = tifffile.imread(tmp_path / "out" / "simulation" / f"{path}.tiff")
        for c in range(3):
            wanted = channels[first + c] if first + c < 4 else np.zeros_like(channels[0])
            np.testing.assert_array_equal(found[..., c], wanted)
    for cell, wanted in ((7, FIRST), (300, SECOND)):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"out/groundtruth/ATTO425/{cell}.tiff"), wanted)


@pytest.mark.parametrize("gt_cells", ["merged", "splitted"])
def test_image_sequences(result: Result, tmp_path: Path, gt_cells: str) -> None:
    """Also the ground truth, where the 2017 program crashed."""
    write(result, tmp_path / "out", "image sequence", "splitted", gt_cells)
    truth = ("all_cells",) if gt_cells == "merged" else ("7", "300")
    folders = [f"simulation/channel_{c}" for c in range(4)] + [f"groundtruth/{d}/{t}" for d in LABELS for t in truth]
    assert names(tmp_path / "out") == {f"{f}/image_{i:02d}.png" for f in folders for i in range(11)}
    for i in range(11):
        found = np.asarray(Image.open(tmp_path / f"out/simulation/channel_1/image_{i:02d}.png"))
        np.testing.assert_array_equal(found, scaled()[1][i])
        found = np.asarray(Image.open(tmp_path / f"out/groundtruth/ATTO425/{truth[-1]}/image_{i:02d}.png"))
        np.testing.assert_array_equal(found, CELLS[i] if gt_cells == "merged" else SECOND[i])


def test_gif_and_ids_that_it_cannot_hold(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "few", "gif", "merged", "merged", labels={"ATTO425": ("membrane",)})
    assert names(tmp_path / "few") == {
        "simulation/channels_012.gif", "simulation/channels_345.gif", "groundtruth/ATTO425/all_cells.gif",
    }  # fmt: skip
    with Image.open(tmp_path / "few/groundtruth/ATTO425/all_cells.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 11
        gif.seek(3)
        np.testing.assert_array_equal(np.asarray(gif.convert("L")), FIRST[3])
    with pytest.warns(SimexmWarning, match="largest id below ATTO488 is 300, which gif cannot store"):
        write(result, tmp_path / "many", "gif", "splitted", "merged", labels={"ATTO488": ("synapse",)})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "many/groundtruth/ATTO488/all_cells.tiff"), CELLS)


def test_an_empty_fluorophore_has_an_empty_truth(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "a", "tiff", "merged", "merged", labels={"ATTO425": ("empty",)})
    assert not tifffile.imread(tmp_path / "a/groundtruth/ATTO425/all_cells.tiff").any()
    with pytest.warns(SimexmWarning, match="labels/empty holds no cell"):
        write(result, tmp_path / "b", "tiff", "merged", "splitted", labels={"ATTO425": ("empty",)})


def test_nothing_is_lost_and_nothing_begun_that_cannot_be(result: Result, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no array labels/nowhere/0"):
        write(result, tmp_path / "out", "tiff", "merged", "merged", labels={"ATTO425": ("nowhere",)})
    assert not (tmp_path / "out").exists()
    write(result, tmp_path / "out", "tiff", "merged", "merged")
    with pytest.raises(OutputError, match="--overwrite"):
        write(result, tmp_path / "out", "tiff", "merged", "merged")
    write(result, tmp_path / "out", "tiff", "merged", "merged", overwrite=True)
