"""All rounds of a result are aligned with the first; channels and options on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simexm.analysis.registration.align import Align
from simexm.analysis.registration.apply import Apply
from simexm.analysis.registration.score import AlignmentScore
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.transform import StoredTransform
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.result.result import Result
from tests import rounds_build

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.filterwarnings("ignore:axial_range_um:simexm.errors.SimexmWarning")
STEPS = [{"step": "centre"}, {"step": "deform", "levels": [{"shrink": 1, "smooth": 1.0, "iterations": 4}]}]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Three rounds of a stain, which do not move."""
    folder = tmp_path_factory.mktemp("rounds")
    source = {"kind": "phantom", "shape": [40, 48, 48], "voxel_size_nm": [40, 32, 32]}
    return rounds_build.simulation(source).run(folder / "made.zarr", quiet=True)


@pytest.fixture(scope="module")
def aligned(rounds: Result) -> Result:
    settings = Align.model_validate({"steps": STEPS, "channel": "stain"})
    return settings.run(rounds, output=Path(str(rounds.path)).with_name("aligned.zarr"), quiet=True)


def test_each_round_has_a_transform_an_image_and_scores(rounds: Result, aligned: Result, tmp_path: Path) -> None:
    assert [c["label"] for c in aligned.channels] == ["round_01", "round_02", "round_03"]
    stain = [c["label"] for c in rounds.channels].index("stain")
    assert np.array_equal(aligned.array()[0], rounds.at(round=1).array()[stain])
    assert aligned.pixel_um() == rounds.pixel_um()
    values = {(s["score"], s["subset"]): s["value"] for s in aligned.scores().to_pylist()}
    np.savetxt(tmp_path / "truth.txt", np.eye(3, 4))
    for name in ("round_02", "round_03"):
        found = StoredTransform(f"{aligned.path}/{name}")
        assert found.frame is not None
        points = found.frame.centres()
        assert np.abs(found.whole(points) - points).max() < max(rounds.pixel_um())
        assert values["folds", name] == 0
        assert values["correlation", name] >= values["correlation", f"{name} identity"] - 0.01
        scored = AlignmentScore().run(
            f"{aligned.path}/{name}", tmp_path / "truth.txt", output=tmp_path / f"{name}.zarr", quiet=True
        )
        rms = {(s["score"], s["subset"]): s["value"] for s in scored.scores().to_pylist()}["residual_rms", ""]
        assert rms < max(rounds.pixel_um())
    assert aligned.table("affine").num_rows == 6


def test_two_rounds_are_aligned_by_their_names(rounds: Result, aligned: Result, tmp_path: Path) -> None:
    settings = Align.model_validate({"steps": STEPS, "channel": "stain"})
    pair = [f"{rounds.path}/round_{n:02d}" for n in (1, 3)]
    found = StoredTransform(str(settings.run(*pair, output=tmp_path / "pair.zarr", quiet=True).path)).whole
    among = StoredTransform(f"{aligned.path}/round_03").whole
    assert found.displacement is not None
    assert among.displacement is not None
    assert np.array_equal(found.displacement, among.displacement)
    assert np.array_equal(found.affine, among.affine)
    for path, words in ((str(rounds.path), "name one"), (f"{rounds.path}/round_07", "rounds 1 to 3")):
        with pytest.raises(SpecError, match=words):
            settings.plan(path, pair[1])


def test_the_report_shows_a_round(rounds: Result, aligned: Result, tmp_path: Path) -> None:
    report = ["report", str(aligned.path), "-o", str(tmp_path / "page.html"), "--overwrite"]
    moving = ["--moving", f"{rounds.path}/round_03", "--truth", f"{rounds.path}/round_03"]
    done = CliRunner().invoke(app, [*report, *moving, "--round", "3"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    for words in ("Round 3 of 3", "Before", "Fixed and aligned volume, in turn", "distance from the true transform"):
        assert words in page
    for number, words in (("1", "rounds 2 to 3"), ("2", "not the round_02 volume")):
        refused = CliRunner().invoke(app, [*report, *moving, "--round", number])
        assert refused.exit_code != 0
        assert words in refused.output


def test_a_round_is_applied_by_its_name(rounds: Result, aligned: Result, tmp_path: Path) -> None:
    stain = [c["label"] for c in rounds.channels].index("stain")
    np.save(tmp_path / "three.npy", rounds.at(round=3).array()[stain])
    settings = Apply(volume=Side(voxel_um=rounds.pixel_um()))
    moved = settings.run(f"{aligned.path}/round_03", tmp_path / "three.npy", output=tmp_path / "moved.zarr", quiet=True)
    assert np.array_equal(moved.array()[0], aligned.array()[2])
    for path, words in ((aligned.path, "name one after"), (f"{aligned.path}/round_07", "name one after")):
        with pytest.raises(OutputError, match=words):
            StoredTransform(str(path))


def test_the_command_takes_a_start_a_channel_and_a_voxel_size(rounds: Result, aligned: Result, tmp_path: Path) -> None:
    def plan(*arguments: str) -> dict[str, object]:
        done = CliRunner().invoke(app, ["align", *arguments, "-o", str(tmp_path / "out.zarr"), "--dry-run"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.output))

    found = plan(str(rounds.path), "--channel", "stain", "--start", str(aligned.path))
    inputs = found["inputs"]
    assert isinstance(inputs, dict)
    assert set(inputs) == {"fixed", "round_02", "round_02 start", "round_03", "round_03 start"}
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((9, 10, 11)))
    pair = [str(tmp_path / f"{name}.npy") for name in ("one", "two")]
    refused = CliRunner().invoke(app, ["align", *pair, "--dry-run"])
    assert refused.exit_code == 2
    assert "--voxel-size" in refused.output
    (tmp_path / "shift.txt").write_text("1 0 0 2\n0 1 0 0\n0 0 1 0\n")
    found = plan(*pair, "--voxel-size", "500", "200", "200", "--start", str(tmp_path / "shift.txt"))
    settings = found["settings"]
    assert isinstance(settings, dict)
    assert [step["step"] for step in settings["steps"]] == ["deform"]


def test_bad_rounds_and_channels_are_refused(rounds: Result) -> None:
    with pytest.raises(SpecError, match="--channel with one of A, stain, C"):
        Align().plan(rounds)
    with pytest.raises(SpecError, match="no channel 'D'"):
        Align(channel="D").plan(rounds)
    with pytest.raises(OutputError, match="FIXED MOVING"):
        Align().plan(rounds, rounds, rounds)
