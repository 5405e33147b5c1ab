"""Faults that were found in other programs for registration, each as a law that must hold here.

Ids above 2^24, tears beside skipped blocks, retries, and blocks that fold together are in the other files of this folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

import simexm
from simexm.analysis.registration.align import Align, Blocks
from simexm.analysis.registration.apply import Apply
from simexm.analysis.registration.coarse import Averaged, factors
from simexm.analysis.registration.sides import Opened, Side, frame_of
from simexm.analysis.registration.steps import Random
from simexm.analysis.registration.transform import Frame, Transform
from simexm.analysis.volume import Volume
from simexm.geometry.grid import Box
from simexm.kernels.registration import warp
from simexm.store.pyramid import downsample_mean

VOXEL_UM = (2.0, 0.5, 0.25)
SIDE = Side(voxel_um=VOXEL_UM)


def test_integers_are_rounded_and_never_wrap(tmp_path: Path) -> None:
    edge = np.zeros((8, 8, 24), np.uint16)
    edge[:, :, 12:] = 65535
    np.save(tmp_path / "edge.npy", edge)
    shift = np.column_stack([np.eye(3), [0.0, 0.0, 0.31 * VOXEL_UM[2]]])
    np.savetxt(tmp_path / "shift.txt", shift)
    np.save(tmp_path / "like.npy", edge)
    found = {}
    for how in ("linear", "cubic"):
        settings = Apply.model_validate(
            {"interpolation": how, "outside": "nearest", "volume": SIDE, "like": aligned(tmp_path)}
        )
        result = settings.run(
            tmp_path / "shift.txt", tmp_path / "edge.npy", output=tmp_path / f"{how}.zarr", quiet=True
        )
        found[how] = np.asarray(result.array()[0])
    assert found["linear"][4, 4, 11] == round(0.31 * 65535)  # truncated, it would be one less
    cubic = found["cubic"][4, 4].astype(int)
    assert cubic[:9].max() < 4000  # an overshoot that wrapped would be near 65535
    assert cubic[14:].min() > 61000
    assert (np.rint(np.array([100.9])) == warp.as_type(np.array([100.9]), np.dtype(np.uint8))).all()


def aligned(folder: Path) -> str:
    """A volume with the grid of the edge, as a result, whose metadata hold its voxel size."""
    path = folder / "grid.zarr"
    if not path.exists():
        noise = np.random.default_rng(0).random((8, 8, 24)).astype(np.float32)
        np.save(folder / "noise.npy", noise)
        settings = Align.model_validate({"steps": [{"step": "centre"}], "fixed": SIDE, "moving": SIDE})
        settings.run(folder / "noise.npy", folder / "noise.npy", output=path, quiet=True)
    return str(path)


def test_points_of_unequal_spacing_go_where_the_image_goes_and_stay_as_given(tmp_path: Path) -> None:
    """A bright voxel, and a point at its centre, moved by one affine map whose axes would show any exchange."""
    moving = np.zeros((12, 30, 40), np.float32)
    moving[7, 19, 23] = 1000
    np.save(tmp_path / "moving.npy", moving)
    grid = Frame(moving.shape, VOXEL_UM)
    shift = np.column_stack([np.eye(3), [2 * 2.0, -3 * 0.5, 5 * 0.25]])
    np.savetxt(tmp_path / "shift.txt", shift)
    noise = np.random.default_rng(0).random(moving.shape).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    Align.model_validate({"steps": [{"step": "centre"}], "fixed": SIDE, "moving": SIDE}).run(
        tmp_path / "noise.npy", tmp_path / "noise.npy", output=tmp_path / "grid.zarr", quiet=True
    )
    image = Apply.model_validate({"volume": SIDE, "like": str(tmp_path / "grid.zarr")}).run(
        tmp_path / "shift.txt", tmp_path / "moving.npy", output=tmp_path / "image.zarr", quiet=True
    )
    place = grid.first_um + np.array([7, 19, 23]) * np.asarray(VOXEL_UM)
    pq.write_table(pa.table({f"{a}_um": [v] for a, v in zip("zyx", place, strict=True)}), tmp_path / "point.parquet")
    before = (tmp_path / "point.parquet").read_bytes()
    points = Apply().run(
        tmp_path / "shift.txt", tmp_path / "point.parquet", output=tmp_path / "points.zarr", quiet=True
    )
    assert (tmp_path / "point.parquet").read_bytes() == before
    row = points.table("points").to_pylist()[0]
    top = np.unravel_index(int(np.asarray(image.array()[0]).argmax()), moving.shape)
    centre = grid.first_um + np.array(top) * np.asarray(VOXEL_UM)
    np.testing.assert_allclose([row["z_um"], row["y_um"], row["x_um"]], centre, atol=1e-9)
    given = np.array([[1.0], [2.0], [3.0]])
    kept = given.copy()
    Transform(shift)(given)
    assert np.array_equal(given, kept)


def test_random_search_gives_the_same_twice() -> None:
    random = np.random.default_rng(3)
    one, other = (random.random((12, 14, 16)).astype(np.float32) for _ in range(2))
    settings = Align(steps=(Random(trials=20, shift_um=2.0),))
    found = [simexm.align(one, other, settings, voxel_um=(1.0, 1.0, 1.0)).transform.affine for _ in range(2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], np.eye(3, 4))


def test_a_level_of_a_pyramid_lies_where_the_volume_lies(tmp_path: Path) -> None:
    path = aligned(tmp_path)
    fine, coarse = (frame_of(Volume(path, None, level)) for level in (0, 1))
    assert coarse.corner_um == pytest.approx(fine.corner_um)
    factors_of_level = np.round(np.asarray(coarse.voxel_um) / np.asarray(fine.voxel_um))
    assert factors_of_level.max() == 2
    covered = np.asarray(coarse.shape) * np.asarray(coarse.voxel_um)
    assert np.all(covered >= fine.extent_um - 1e-9)


def test_coarse_volumes_are_means_and_no_samples(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 33, 64)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    volume = Opened(SIDE.open(str(tmp_path / "values.npy")))
    assert factors(volume.frame, 20 * 33 * 32) == (1, 1, 2)  # the finest axis first
    averaged = Averaged(volume, 20 * 33 * 32)
    boxes = [Box((0, 0, a), (20, 33, min(64, a + 15))) for a in range(0, 64, 15)]  # no multiples of the factor
    whole = averaged.picture([averaged.average(box) for box in boxes])
    assert np.allclose(whole.values, np.asarray(downsample_mean(values, (1, 1, 2)), np.float32), rtol=1e-5)
    assert whole.frame.corner_um == volume.frame.corner_um
    assert whole.frame.voxel_um == (2.0, 0.5, 0.5)


def test_too_little_memory_names_what_would_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).random((9, 10, 11)))
    for blocks, words in ((None, "blocks: {}"), ({}, "voxels: 64")):
        plan = Align.model_validate({"fixed": SIDE, "moving": SIDE, "blocks": blocks}).plan(
            tmp_path / "noise.npy", tmp_path / "noise.npy"
        )
        assert words in plan.smaller(0)


def test_no_overlap_is_refused_instead_of_a_crash() -> None:
    with pytest.raises(ValueError, match="overlap"):
        Blocks(voxels=64, overlap=0)
