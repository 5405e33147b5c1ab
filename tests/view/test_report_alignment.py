"""`simexm report` on an alignment: a page that stands alone, whose pictures show what lies where."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from simexm.analysis.registration.align import Align
from simexm.analysis.registration.score import AlignmentScore
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.steps import Centre
from simexm.cli import app
from simexm.errors import OutputError
from simexm.result.result import Result
from simexm.view.report.alignment import Comparison, about
from simexm.view.report.page import write_report
from tests.analysis.registration.known import FRAME, vectors
from tests.view.test_report import Reader

itk = pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume aligned with itself, half as bright, by their middles: nothing moves. truth.nrrd moves all by (1, 0, -2) um."""
    at = tmp_path_factory.mktemp("report")
    values = np.random.default_rng(0).integers(0, 1000, FRAME.shape).astype(np.uint16)
    np.save(at / "fixed.npy", 2 * values)
    np.save(at / "moving.npy", values)
    np.save(at / "other.npy", values[::-1])
    shift = np.broadcast_to(np.reshape([1.0, 0.0, -2.0], (3, 1, 1, 1)), (3, *FRAME.shape))
    itk.WriteImage(vectors(itk, FRAME, shift), str(at / "truth.nrrd"))
    side = Side(voxel_um=FRAME.voxel_um)
    settings = Align(steps=(Centre(),), fixed=side, moving=side)
    settings.run(at / "fixed.npy", at / "moving.npy", output=at / "aligned.zarr", quiet=True)
    return at


def pixels(picture: Any) -> NDArray[np.uint8]:
    data = base64.b64decode(picture.href.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))[..., :3]


def test_volumes_that_agree_are_white_whatever_their_brightness(folder: Path) -> None:
    """Also in turn they are the fixed volume itself; another volume in the place of the moving one shows colour."""
    result = Result.open(folder / "aligned.zarr")
    page = about(result, Comparison(str(folder / "fixed.npy"), str(folder / "moving.npy")))
    names = [picture.name for picture in page["pictures"]]
    assert names == ["Before", "Aligned", "Fixed and aligned volume, in turn"]
    over, turns = pixels(page["pictures"][1]), pixels(page["pictures"][2])
    assert (over[..., 0] == over[..., 1]).all()
    assert (over[..., 1] == over[..., 2]).all()
    assert np.array_equal(over, turns)
    assert np.array_equal(pixels(page["pictures"][0]), over)
    assert over.max() == 255


def test_errors_are_shown_in_um(folder: Path) -> None:
    page = about(Result.open(folder / "aligned.zarr"), Comparison(truth=str(folder / "truth.nrrd")))
    assert [picture.name for picture in page["pictures"]] == ["Aligned"]  # no volume is named to lie below it
    assert len(page["errors"]) == 2
    figure, caption = page["errors"][0]
    # the error is 5 ** 0.5 um, and 16 arrows along 20 um leave 1.25 um for each
    assert caption.endswith("0.5 times as long")
    assert "distance from the true transform" in figure
    assert "2.0" in figure


def test_the_page_stands_alone(folder: Path) -> None:
    path = folder / "page.html"
    words = [
        f"--{name}={folder / file}"
        for name, file in (("fixed", "fixed.npy"), ("moving", "moving.npy"), ("truth", "truth.nrrd"))
    ]
    done = CliRunner().invoke(app, ["report", str(folder / "aligned.zarr"), "-o", str(path), *words])
    assert done.exit_code == 0, done.output
    read = Reader(path.read_text(encoding="utf-8"))
    assert not read.open
    assert len(read.ids) == len(set(read.ids))
    inside = {f"#{name}" for name in read.ids}
    assert all(r.startswith("data:image/png;base64,") or r in inside for r in read.references)
    text = "".join(read.text)
    assert Result.open(folder / "aligned.zarr").provenance["hash"] in text
    assert "10 × 12 × 16" in text


def test_what_does_not_belong_is_refused(folder: Path) -> None:
    result = Result.open(folder / "aligned.zarr")
    with pytest.raises(OutputError, match="not the fixed volume"):
        about(result, Comparison(fixed=str(folder / "other.npy")))
    score = AlignmentScore().run(result, folder / "truth.nrrd", output=folder / "score.zarr", quiet=True)
    with pytest.raises(OutputError, match="simulations, alignments and sweeps"):
        write_report(score, folder / "score.html")
