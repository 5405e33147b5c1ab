"""Scores of an alignment against a transform, points and labels, each beside an independent computation, in blocks of any size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from typer.testing import CliRunner

from simexm.analysis.registration.score import AlignmentScore
from simexm.analysis.registration.scores.against_labels import LabelsBench
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.transform import StoredTransform, affine_at
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.export.export import export
from simexm.result.result import Result
from tests.analysis.registration.known import AFFINE, FRAME, align_known, composite, displaced, places, truth, vectors
from tests.analysis.registration.rnr_exm_rules import Rules, robust_hausdorff

itk = pytest.importorskip("SimpleITK")
SIDE = Side(voxel_um=FRAME.voxel_um)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return align_known(itk, tmp_path_factory.mktemp("known"))


def values(result: Result) -> dict[tuple[str, str], float]:
    return {(s["score"], s["subset"]): s["value"] for s in result.scores().to_pylist()}


def scored(known: Result, against: Path, out: Path, **settings: Any) -> Result:
    return AlignmentScore.model_validate(settings).run(known, against, output=out, quiet=True)


def inside(points: NDArray[Any]) -> NDArray[np.bool_]:
    extent = FRAME.extent_um.reshape(3, 1, 1, 1)
    return np.asarray(((points >= 0) & (points <= extent)).all(axis=0))


def test_residuals_by_region_and_depth_stand_beside_what_could_be_reached(known: Result, tmp_path: Path) -> None:
    """The truth is the same field 1.3 times: all distances are known voxel by voxel, from closed forms."""
    points = FRAME.centres()
    field = 1.3 * displaced(points)
    itk.WriteImage(vectors(itk, FRAME, field), str(tmp_path / "truth.nrrd"))
    true = points + field
    mask = (points[2] > 4).astype(np.uint8)
    np.save(tmp_path / "mask.npy", mask)
    settings = {"regions": {"right": str(tmp_path / "mask.npy")}, "depth_um": [0, 8, 14], "nodes_um": 3.0}
    one, other = (
        values(scored(known, tmp_path / "truth.nrrd", tmp_path / f"{block}.zarr", block_voxels=block, **settings))
        for block in (16, 64)
    )
    assert one == other
    covered = inside(true)
    fit = np.linalg.lstsq(
        np.concatenate([points[:, covered], np.ones((1, covered.sum()))]).T, true[:, covered].T, rcond=None
    )[0].T
    ways = {"": truth(points), "identity": points, "best affine": affine_at(fit, points)}
    for way, place in ways.items():
        distance = np.linalg.norm(place - true, axis=0)
        depth = points[0]
        subsets = {"": covered, "right": covered & (mask > 0), "depth 0 to 8 um": covered & (depth < 8)}
        subsets["depth 8 to 14 um"] = covered & (depth >= 8) & (depth < 14)
        for subset, where in subsets.items():
            name = ", ".join(part for part in (way, subset) if part)
            wanted = np.sqrt((distance[where] ** 2).mean())
            assert one["residual_rms", name] == pytest.approx(wanted, abs=3e-3 if way != "best affine" else 2e-2)
    assert one["residual_rms", "best affine"] < one["residual_rms", "identity"]
    # a field that is linear along each axis is lost nowhere between nodes, but beyond the outer centres, where it stays constant
    assert one["residual_p50", "true at nodes"] == 0
    assert one["covered", ""] == covered.mean()


def test_the_truth_at_nodes_shows_what_nodes_lose(known: Result, tmp_path: Path) -> None:
    """A wave of 8 um along x, at nodes half a wave apart: the residual is that of linear interpolation, voxel by voxel."""
    points = FRAME.centres()
    wave = np.zeros_like(points)
    wave[1] = 0.4 * np.sin(2 * np.pi * points[2] / 8)
    itk.WriteImage(vectors(itk, FRAME, wave), str(tmp_path / "wave.nrrd"))
    found = values(scored(known, tmp_path / "wave.nrrd", tmp_path / "s.zarr", nodes_um=4.0))
    x = points[2]
    nodes = FRAME.first_um[2] + 4.0 * np.arange(4)
    at = np.interp(nodes, x[0, 0], wave[1, 0, 0])
    error = np.abs(np.interp(x, nodes, at) - wave[1])[inside(points + wave)]
    assert found["residual_rms", "true at nodes"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-3)


@pytest.mark.parametrize("name", ["points.csv", "points.parquet"])
def test_points_are_scored_one_by_one(known: Result, tmp_path: Path, name: str) -> None:
    fixed = places(FRAME, 300)
    random = np.random.default_rng(3)
    moving = truth(fixed) + random.normal(0, 0.3, fixed.shape)
    names = ("z_um", "y_um", "x_um", "moving_z_um", "moving_y_um", "moving_x_um")
    table = pa.table({**dict(zip(names, np.concatenate([fixed, moving]), strict=True)), "id": np.arange(300)})
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, tmp_path / name)
    else:
        pyarrow.parquet.write_table(table, tmp_path / name)
    np.save(tmp_path / "mask.npy", (FRAME.centres()[0] > 10).astype(np.uint8))
    result = scored(known, tmp_path / name, tmp_path / "s.zarr", regions={"deep": str(tmp_path / "mask.npy")})
    found = values(result)
    error = np.linalg.norm(truth(fixed) - moving, axis=0)
    np.testing.assert_allclose(result.table("points")["residual_um"].to_numpy(), error, atol=2e-3)
    assert found["residual_rms", ""] == pytest.approx(np.sqrt((error**2).mean()), abs=2e-3)
    assert found["residual_p95", ""] == pytest.approx(np.percentile(error, 95, method="inverted_cdf"), abs=2e-3)
    deep = np.floor(fixed[0] / 2) * 2 + 1 > 10
    assert found["residual_rms", "deep"] == pytest.approx(np.sqrt((error[deep] ** 2).mean()), abs=2e-3)
    apart = np.linalg.norm(fixed - moving, axis=0)
    assert found["residual_rms", "identity"] == pytest.approx(np.sqrt((apart**2).mean()), abs=1e-3)
    assert found["points", ""] == 300


@pytest.fixture(scope="module")
def cells(known: Result, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[Any], NDArray[Any]]:
    """Labels of the moving volume, with ids above 2^32, and of the fixed one: those moved by the truth, each a little changed."""
    folder = tmp_path_factory.mktemp("cells")
    z, y, x = np.indices(FRAME.shape)
    moving = (1 + z // 4 + 3 * (y // 4) + 9 * (x // 5)).astype(np.uint64) + (1 << 33)
    moving[(z % 4 == 0) | (x % 5 == 0)] = 0
    outer = np.ones(FRAME.shape, bool)
    outer[1:-1, 1:-1, 1:-1] = False
    moving[outer] = 0  # what lies less than half a voxel outside is 0 for the challenge
    at = truth(FRAME.centres()) / np.array(FRAME.voxel_um).reshape(3, 1, 1, 1)
    where = (at >= 0).all(axis=0) & (at < np.array(FRAME.shape).reshape(3, 1, 1, 1)).all(axis=0)
    fixed = np.where(
        where, moving[tuple(np.clip(a.astype(int), 0, n - 1) for a, n in zip(at, FRAME.shape, strict=True))], 0
    )
    fixed = np.roll(fixed, 1, axis=2)
    np.save(folder / "fixed.npy", fixed)
    np.save(folder / "moving.npy", moving)
    return folder, fixed, moving


def hausdorff(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """By distance transforms: largest and 95th percentile of both ways."""
    six = ndimage.generate_binary_structure(3, 1)
    borders = [m & ~ndimage.binary_erosion(m, six) for m in (one, other)]
    far = [ndimage.distance_transform_edt(~b, sampling=FRAME.voxel_um) for b in borders]
    ways = [far[1][borders[0]], far[0][borders[1]]]
    return max(w.max() for w in ways), max(np.percentile(w, 95, method="inverted_cdf") for w in ways)


def test_labels_are_scored_one_by_one_in_blocks_of_any_size(
    known: Result, cells: tuple[Path, NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    folder, fixed, moving = cells
    settings = {"moving_labels": str(folder / "moving.npy"), "fixed": SIDE, "moving": SIDE}
    results = [
        scored(known, folder / "fixed.npy", tmp_path / f"{block}.zarr", block_voxels=block, **settings)
        for block in (16, 64)
    ]
    assert results[0].table("labels").equals(results[1].table("labels"))
    assert values(results[0]) == values(results[1])
    at = StoredTransform(str(known.path)).whole(FRAME.centres()) / np.array(FRAME.voxel_um).reshape(3, 1, 1, 1)
    where = (at >= 0).all(axis=0) & (at < np.array(FRAME.shape).reshape(3, 1, 1, 1)).all(axis=0)
    found = np.where(
        where, moving[tuple(np.clip(a.astype(int), 0, n - 1) for a, n in zip(at, FRAME.shape, strict=True))], 0
    )
    table = results[0].table("labels").to_pylist()
    assert [row["id"] for row in table] == sorted({*np.unique(fixed)} & {*np.unique(moving)} - {0})
    for row in table:
        one, other, before = (v == row["id"] for v in (fixed, found, moving))
        assert row["dice"] == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
        assert row["dice_identity"] == pytest.approx(2 * (one & before).sum() / (one.sum() + before.sum()))
        if other.any():
            assert (row["hausdorff_um"], row["hausdorff95_um"]) == pytest.approx(hausdorff(one, other))
        else:
            assert row["hausdorff_um"] == pytest.approx(np.linalg.norm(FRAME.extent_um))
    dice = np.array([row["dice"] for row in table])
    scores = values(results[0])
    assert scores["dice", ""] == pytest.approx(dice.mean())
    assert scores["dice", ""] > scores["dice", "identity"]
    weakest = np.argsort([row["dice_identity"] for row in table], kind="stable")[: int(0.3 * len(table))]
    assert scores["dice_weakest", ""] == pytest.approx(dice[weakest].mean())


def test_the_submission_of_the_challenge_is_scored_by_its_own_rules(
    known: Result, cells: tuple[Path, NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    """A copy of the rules that knows nothing of simexm reads the file, and agrees with the scores of the alignment."""
    folder, fixed, moving = cells
    (path,) = export(known, tmp_path, "rnr-exm", pair="zebrafish/5")
    assert path.name == "zebrafish_test.h5"
    export(known, tmp_path, "rnr-exm", pair="zebrafish/6")
    with pytest.raises(OutputError, match="pair5"):
        export(known, tmp_path, "rnr-exm", pair="zebrafish/5")
    dense = [
        np.searchsorted(np.unique([0, *moving.ravel()]), v) for v in (fixed, moving)
    ]  # the challenge has small ids
    rules = Rules(path, "pair5", *dense)
    points = FRAME.centres()
    exact = truth(points) / np.array(FRAME.voxel_um).reshape(3, 1, 1, 1) - 0.5 - np.indices(FRAME.shape)
    assert np.abs(rules.field - np.moveaxis(exact, 0, -1)).max() <= 0.005 + 2e-3
    assert (rules.field == np.float32(np.round(rules.field, 2))).all()
    own = values(
        scored(
            known,
            folder / "fixed.npy",
            tmp_path / "s.zarr",
            moving_labels=str(folder / "moving.npy"),
            fixed=SIDE,
            moving=SIDE,
        )
    )
    # 2 decimals make few voxels others
    assert rules.dice() == pytest.approx(own["dice", ""], abs=0.03)
    assert rules.robust_dice() == pytest.approx(own["dice_weakest", ""], abs=0.05)
    assert rules.hd95() < Rules.of_field(np.zeros_like(rules.field), *dense).hd95()
    assert rules.sd_log_jacobian() == pytest.approx(log_jacobian_deviation(), abs=2e-3)
    assert Rules.of_field(rules.field, dense[1], dense[1]).hd95() > 0


def log_jacobian_deviation() -> float:
    """Standard deviation of log(J + 3), with the Jacobian of the truth in closed form, in voxels; voxels are alike in both."""
    z, y, x = FRAME.centres()[:, 2:-2, 2:-2, 2:-2]
    one, nothing = np.ones_like(z), np.zeros_like(z)
    rows = [
        [1.05 * one, -0.004 * x, -0.004 * y],
        [0.003 * y, 1 + 0.003 * z, 0.1 * one],
        [0.02 * one, -0.06 * one, one + nothing],
    ]
    bend = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    return float(np.log(np.linalg.det(AFFINE[:, :3] @ bend) + 3).std())


def test_a_pair_of_the_challenge_is_read_from_one_file(tmp_path: Path) -> None:
    import h5py  # type: ignore[import-untyped]

    from simexm.analysis.registration.align import Align
    from simexm.analysis.registration.apply import Apply
    from simexm.analysis.registration.steps import Centre

    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "mouse_pair4.h5", "w") as file:
        for name in ("fixed", "move"):
            file[name] = random.integers(0, 1000, FRAME.shape).astype(np.uint16)
    voxel = FRAME.voxel_um
    settings = Align(
        steps=(Centre(),),
        fixed=Side(dataset="fixed", voxel_um=voxel),
        moving=Side(dataset="move", voxel_um=voxel),
    )
    pair = tmp_path / "mouse_pair4.h5"
    done = settings.run(pair, pair, output=tmp_path / "a.zarr", quiet=True)
    moved = Apply(volume=Side(dataset="move", voxel_um=voxel)).run(done, pair, output=tmp_path / "b.zarr", quiet=True)
    with h5py.File(pair) as file:
        assert np.array_equal(moved.array()[0], file["move"][...])


def test_what_cannot_be_scored_is_refused_before_work(known: Result, tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", np.ones((4, 4, 4), np.uint8))
    np.save(tmp_path / "ones.npy", np.ones(FRAME.shape, np.uint8))
    np.save(tmp_path / "twos.npy", np.full(FRAME.shape, 2, np.uint8))
    (tmp_path / "bare.csv").write_text("z_um,y_um,x_um\n1,2,3\n")
    (tmp_path / "gap.csv").write_text("z_um,y_um,x_um,moving_z_um,moving_y_um,moving_x_um\n1,2,3,4,5,\n")
    other = composite(itk, FRAME)
    itk.WriteTransform(other, str(tmp_path / "truth.h5"))
    cases: list[tuple[type[Exception], str, dict[str, Any], str]] = [
        (SpecError, "same grid", {"regions": {"a": str(tmp_path / "small.npy")}}, "truth.h5"),
        (OutputError, "moving_z_um", {}, "bare.csv"),
        (OutputError, "row 1", {}, "gap.csv"),
        (
            SpecError,
            "different pairs",
            {"moving_labels": str(tmp_path / "ones.npy"), "fixed": SIDE, "moving": SIDE},
            "small.npy",
        ),
    ]
    for error, words, settings, name in cases:
        with pytest.raises(error, match=words):
            AlignmentScore.model_validate(settings).plan(known, tmp_path / name)
    with pytest.raises(ValueError, match="ascending"):
        AlignmentScore(depth_um=(3.0, 1.0))
    labels = {"moving_labels": str(tmp_path / "twos.npy"), "fixed": SIDE, "moving": SIDE}
    with pytest.raises(OutputError, match="no label in common"):
        scored(known, tmp_path / "ones.npy", tmp_path / "s.zarr", **labels)


def test_a_label_whose_borders_come_in_pieces_is_whole(known: Result, cells: tuple[Path, Any, Any]) -> None:
    settings = AlignmentScore(moving_labels=str(cells[0] / "moving.npy"), fixed=SIDE, moving=SIDE)
    bench = settings.plan(known, cells[0] / "fixed.npy").bench
    assert isinstance(bench, LabelsBench)
    ids, side, at = np.repeat([3, 5, 9], [4, 7, 1]), np.arange(12) % 3, np.arange(12)
    rows = {name: values.astype(np.uint64) for name, values in (("id", ids), ("side", side), ("at", at))}
    wanted = [(int(i), [p.tolist() for p in places]) for i, places in bench._labels([rows])]
    assert [len(places[0]) for _, places in wanted] == [2, 2, 0]
    for cut in range(1, 12):
        pieces = [{n: v[:cut] for n, v in rows.items()}, {n: v[cut:] for n, v in rows.items()}]
        assert [(int(i), [p.tolist() for p in places]) for i, places in bench._labels(pieces)] == wanted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.rival
def test_the_surface_distance_of_the_rules_is_that_of_the_package_that_the_challenge_used() -> None:
    """Needs surface-distance, which does not come with simexm."""
    package = pytest.importorskip("surface_distance")
    random = np.random.default_rng(0)
    for _ in range(20):
        one, other = (ndimage.gaussian_filter(random.standard_normal((12, 14, 16)), 2) > 0.02 for _ in range(2))
        theirs = package.compute_robust_hausdorff(package.compute_surface_distances(one, other, (1, 1, 1)), 95.0)
        assert robust_hausdorff(one, other) == pytest.approx(theirs)


def test_blocks_that_fit_are_named_where_memory_is_short(known: Result) -> None:
    plan = AlignmentScore(block_voxels=512).plan(known, known)
    limit = plan.memory.base + plan.memory.one_block // 3
    told = int(plan.smaller(limit).split("block_voxels to ")[1].split(",")[0])
    fits = [AlignmentScore(block_voxels=side).plan(known, known).memory.total <= limit for side in (told, 2 * told)]
    assert fits == [True, False]
    assert "run it where" in plan.smaller(plan.memory.base)


def test_the_memory_of_labels_does_not_grow_with_the_volume(known: Result, cells: tuple[Path, Any, Any]) -> None:
    folder, _, _ = cells
    settings = AlignmentScore(moving_labels=str(folder / "moving.npy"), fixed=SIDE, moving=SIDE, block_voxels=16)
    bench = settings.plan(known, folder / "fixed.npy").bench
    assert isinstance(bench, LabelsBench)
    assert bench.block_bytes < 500 * 18**3


def test_the_command_scores_points(known: Result, tmp_path: Path) -> None:
    export(known, tmp_path, "points")
    out = tmp_path / "score.zarr"
    command = ["score", str(known.path), str(tmp_path / "points.csv"), "--as", "alignment", "-o", str(out), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert values(Result.open(out))["residual_p99", ""] == 0.0
    assert "target registration error" in " ".join(done.output.split())
    assert math.isfinite(values(Result.open(out))["residual_rms", "identity"])
