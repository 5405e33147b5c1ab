"""Aligning and applying: laws on nuclei whose displacement is known, on voxels of different sizes, as jobs and in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
import tifffile
from numpy.typing import NDArray
from typer.testing import CliRunner

import simexm
from benchmarks.registration import Pair, nuclei_pair
from simexm.analysis.registration.align import Align
from simexm.analysis.registration.apply import Apply
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.steps import Centre, Deform, Features, Level, Linear, Random
from simexm.analysis.registration.transform import Frame, StoredTransform, Transform, affine_at
from simexm.cli import app
from simexm.errors import OutputError, RunError, SpecError
from simexm.result.result import Result

pytest.importorskip("SimpleITK")
VOXEL_UM = (1.0, 1.0, 1.0)
SIDE = Side(voxel_um=VOXEL_UM)
QUICK = Align(
    steps=(Features(most=600, half=5, trials=512), Deform(levels=(Level(shrink=2, smooth=0.0, iterations=15),)))
)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return nuclei_pair(0, 56, rms=1.0, length=12.0)


@pytest.fixture(scope="module")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair as TIFF files, its alignment in aligned.zarr."""
    at = tmp_path_factory.mktemp("pair")
    for name in ("fixed", "moving"):
        values = np.clip(np.rint(getattr(pair, name)), 0, 65535).astype(np.uint16)
        save(at / f"{name}.tif", values)
    QUICK.run(at / "fixed.tif", at / "moving.tif", output=at / "aligned.zarr", quiet=True)
    return at


def save(path: Path, values: NDArray[Any], voxel_um: tuple[float, float, float] = VOXEL_UM) -> None:
    z, y, x = voxel_um
    tifffile.imwrite(
        path, values, imagej=True, resolution=(1 / x, 1 / y), metadata={"spacing": z, "unit": "um", "axes": "ZYX"}
    )


def rms(errors: NDArray[Any]) -> float:
    return float(np.sqrt((errors**2).mean()))


def test_a_stored_alignment_finds_the_truth_without_folds(pair: Pair, folder: Path) -> None:
    result = Result.open(folder / "aligned.zarr")
    found = StoredTransform(str(result.path)).whole
    before, after = pair.errors(lambda p: p), pair.errors(found)
    assert rms(after) < rms(before) / 3
    scores = {(s["score"], s["subset"]): s["value"] for s in result.scores().to_pylist()}
    assert scores["folds", ""] == 0
    assert scores["smallest_jacobian", ""] == pytest.approx(found.smallest_jacobian())
    assert scores["correlation", ""] > 0.9 > scores["correlation", "identity"]
    assert result.array().shape == (1, *pair.fixed.shape)
    assert result.pixel_um() == VOXEL_UM


@pytest.mark.slow
def test_memory_and_job_agree_in_every_bit(folder: Path) -> None:
    fixed, moving = (tifffile.imread(folder / f"{name}.tif") for name in ("fixed", "moving"))
    found = simexm.align(fixed, moving, QUICK, voxel_um=VOXEL_UM)
    stored = Result.open(folder / "aligned.zarr")
    assert np.array_equal(stored.array()[0], found.image)
    assert found.transform.displacement is not None
    assert np.array_equal(stored.array(of="transforms/displacement")[...], found.transform.displacement)
    assert np.array_equal(StoredTransform(str(stored.path)).affine, found.transform.affine)


def test_axes_and_directions_hold_on_voxels_of_different_sizes(pair: Pair) -> None:
    """Every second plane of the moving image, and an anisotropic fixed one: an exchanged axis would miss by many um."""
    fixed, moving = pair.fixed[:, ::2], pair.moving[::2]
    settings = Align(steps=(Features(most=600, half=5, radii=(1.0,), spacing_um=1.5, model="affine"),))
    found = simexm.align(fixed, moving, settings, voxel_um=(1.0, 2.0, 1.0), moving_voxel_um=(2.0, 1.0, 1.0))
    # a voxel of a thinned image stands for the plane that was kept, half a fine voxel before its middle
    points = pair.frame.centres()[:, 4:-4:8, 4:-4:8, 4:-4:8]
    truth = pair.truth[:, 4:-4:8, 4:-4:8, 4:-4:8]
    offset_fixed, offset_moving = (np.array(v).reshape(3, 1, 1, 1) for v in ((0, 0.5, 0), (0.5, 0, 0)))
    error = np.linalg.norm(found.transform(points + offset_fixed) - offset_moving - truth, axis=0)
    assert rms(error) < 2.5
    assert rms(np.linalg.norm(points - truth, axis=0)) > 1.5 * rms(error)


@pytest.mark.slow
def test_linear_steps_improve_and_one_that_cannot_keeps_its_start(pair: Pair) -> None:
    level = (Level(shrink=2, smooth=1.0, iterations=12),)
    start = simexm.align(pair.fixed, pair.moving, Align(steps=(Centre(of="mass"),)), voxel_um=VOXEL_UM)
    for kind in ("rigid", "similarity", "affine"):
        settings = Align(steps=(Random(trials=10, shift_um=4, rotation_deg=3), Linear(step=kind, levels=level)))
        found = simexm.align(pair.fixed, pair.moving, settings, voxel_um=VOXEL_UM)
        values = [r.correlation for r in found.steps]
        assert values[2] > values[1] >= values[0]
        stretch = np.linalg.svd(found.transform.affine[:, :3])[1]
        if kind == "rigid":
            np.testing.assert_allclose(stretch, 1, atol=1e-6)
        if kind == "similarity":
            np.testing.assert_allclose(stretch, stretch[0], atol=1e-6)
    assert start.transform.displacement is None


@pytest.mark.slow
def test_a_mask_hides_what_does_not_belong(pair: Pair) -> None:
    fixed = pair.fixed.copy()
    fixed[:, :14] = np.roll(pair.moving, 23, 2)[:, :14]
    mask = np.ones(fixed.shape, bool)
    mask[:, :14] = False
    settings = Align(steps=(Features(most=600, half=5), *QUICK.steps[1:]))
    found = simexm.align(fixed, pair.moving, settings, voxel_um=VOXEL_UM, fixed_mask=mask)
    error = np.linalg.norm(found.transform(pair.frame.centres()) - pair.truth, axis=0)[8:-8, 20:-8, 8:-8]
    assert rms(error) < 0.8


def test_apply_gives_the_aligned_image_in_blocks_of_any_size(folder: Path) -> None:
    stored = Result.open(folder / "aligned.zarr").array()[...]
    for side in (32, 64):
        moved = Apply(block_voxels=side).run(
            folder / "aligned.zarr", folder / "moving.tif", output=folder / f"moved{side}.zarr", quiet=True
        )
        assert np.array_equal(moved.array()[...], stored)


def test_labels_keep_their_ids_and_lie_where_the_image_does(folder: Path) -> None:
    ids = np.arange(56**3, dtype=np.uint32).reshape(56, 56, 56) + 16777217
    save_ids = folder / "ids.npy"
    np.save(save_ids, ids)
    settings = Apply(content="labels", volume=SIDE, outside="nearest")
    found = settings.run(folder / "aligned.zarr", save_ids, output=folder / "ids.zarr", quiet=True)
    moved = found.array(of="labels/ids")[...]
    at = StoredTransform(str(folder / "aligned.zarr")).whole(Frame((56, 56, 56), VOXEL_UM).centres())
    where = tuple(np.clip(np.floor(at), 0, 55).astype(int))
    assert np.array_equal(moved, ids[where])


def test_points_go_and_come_back(folder: Path) -> None:
    random = np.random.default_rng(0)
    place = random.uniform(4, 52, (500, 3))
    columns = dict(zip(("z_um", "y_um", "x_um"), place.T, strict=True))
    pyarrow.csv.write_csv(pyarrow.table({**columns, "id": np.arange(500)}), folder / "points.csv")
    there = Apply(inverse=True).run(
        folder / "aligned.zarr", folder / "points.csv", output=folder / "there.zarr", quiet=True
    )
    table = there.table("points")
    moved = np.stack([table[name].to_numpy() for name in columns], axis=1)
    found = StoredTransform(str(folder / "aligned.zarr")).whole(place.T).T
    np.testing.assert_allclose(moved, found, atol=1e-9)
    pyarrow.parquet.write_table(table, folder / "there.parquet")
    back = Apply(tolerance_um=1e-4).run(
        folder / "aligned.zarr", folder / "there.parquet", output=folder / "back.zarr", quiet=True
    )
    again = np.stack([back.table("points")[name].to_numpy() for name in columns], axis=1)
    assert np.linalg.norm(again - place, axis=1).max() < 1e-3
    assert np.array_equal(back.table("points")["id"].to_numpy(), np.arange(500))


def test_transforms_are_composed_in_one_interpolation(folder: Path) -> None:
    shift = np.column_stack([np.eye(3), [2.0, -1.0, 3.0]])
    np.savetxt(folder / "shift.txt", shift)
    found = Apply().run(
        folder / "aligned.zarr", folder / "shift.txt", folder / "moving.tif", output=folder / "two.zarr", quiet=True
    )
    transform = StoredTransform(str(folder / "aligned.zarr")).whole
    frame = transform.frame
    assert frame is not None
    from simexm.kernels.registration import warp

    at = frame.voxels(affine_at(shift, transform(frame.centres())))
    moving = tifffile.imread(folder / "moving.tif")
    wanted = np.where(warp.inside(moving.shape, at), warp.image_at(moving, at, 1), 0)
    assert np.abs(np.asarray(found.array()[0], np.float64) - wanted).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (({"step": "deform"}, {"step": "affine"}), "move it before"),
        (({"step": "centre"}, {"step": "features"}), "begins from nothing"),
    ],
)
def test_steps_in_an_impossible_order_are_refused(steps: tuple[dict[str, str], ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Align.model_validate({"steps": steps})


def test_bad_input_is_refused_before_work(folder: Path) -> None:
    one, two = str(folder / "fixed.tif"), str(folder / "moving.tif")
    np.save(folder / "bare.npy", tifffile.imread(one))
    np.save(folder / "small.npy", np.ones((8, 8, 8), np.uint8))
    np.save(folder / "less.npy", tifffile.imread(one)[:, :40])
    np.savetxt(folder / "mirror.txt", np.diag([1.0, 1, -1, 1])[:3])
    np.savetxt(folder / "far.txt", np.column_stack([np.eye(3), [1e4, 0, 0]]))
    start = {"steps": [{"step": "affine"}]}
    cases: list[tuple[type[Exception], str, Align, list[str]]] = [
        (SpecError, "voxel_um", Align(), [one, str(folder / "bare.npy")]),
        (OutputError, "two volumes", Align(), [one]),
        (SpecError, "shape", Align(fixed=Side(mask=str(folder / "small.npy"))), [one, two]),
        (SpecError, "mirrors", Align.model_validate({**start, "start": str(folder / "mirror.txt")}), [one, two]),
        (SpecError, "at least 8", Align(moving=SIDE), [one, plane(folder)]),
    ]
    for error, words, settings, inputs in cases:
        with pytest.raises(error, match=words):
            settings.plan(*inputs)
    with pytest.raises(SpecError, match="empty"):
        Apply(like=one).plan(folder / "far.txt", two)
    with pytest.raises(SpecError, match="like"):
        Apply().plan(folder / "far.txt", two)
    moved = Apply().run(folder / "aligned.zarr", two, output=folder / "moved.zarr", quiet=True)
    with pytest.raises(OutputError, match="not a transform"):
        Apply().plan(moved, two)
    apart = Align.model_validate({"steps": [{"step": "affine"}], "start": str(folder / "far.txt")})
    with pytest.raises(SpecError, match="affine would have nothing to compare; correct the start"):
        apart.plan(one, two)
    image = tifffile.imread(one)
    away = Transform(np.column_stack([np.eye(3), [0, 0, -1e3]]))
    with pytest.raises(SpecError, match="correct the start"):
        simexm.align(image, image, apart, voxel_um=VOXEL_UM, start=away)
    small = Align(steps=(Centre(),), moving=SIDE)
    other = small.run(two, folder / "less.npy", output=folder / "other.zarr", quiet=True)
    with pytest.raises(SpecError, match="order from fixed to moving"):
        Apply().plan(other, folder / "aligned.zarr", two)
    with pytest.raises(SpecError, match="another pair"):
        Align(steps=(Deform(),), start=str(folder / "aligned.zarr"), fixed=Side(voxel_um=(2, 2, 2))).plan(one, two)


def plane(folder: Path) -> str:
    np.save(folder / "plane.npy", np.ones((2, 56, 56), np.uint16))
    return str(folder / "plane.npy")


def test_a_step_that_finds_too_little_says_so() -> None:
    random = np.random.default_rng(0)
    one, other = (random.standard_normal((24, 24, 24)) for _ in range(2))
    with pytest.raises(RunError, match="least_matches"):
        simexm.align(one, other, voxel_um=VOXEL_UM)


@pytest.mark.slow
def test_the_command_prints_scores(folder: Path) -> None:
    settings = folder / "quick.yaml"
    settings.write_text("steps:\n- {step: features, model: affine, most: 600, half: 5}\n")
    out = folder / "quick.zarr"
    command = [
        "align",
        str(folder / "fixed.tif"),
        str(folder / "moving.tif"),
        "-o",
        str(out),
        "--settings",
        str(settings),
    ]
    done = CliRunner().invoke(app, [*command, "--quiet"])
    assert done.exit_code == 0, done.output
    assert "correlation coefficient" in done.output
    assert Result.open(out).tables == ["affine", "steps"]
