"""Alignment in blocks: as good as in memory, without seams, the same for any workers and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.registration import Pair, nuclei_pair
from simexm.analysis.registration.align import Align, Blocks
from simexm.analysis.registration.patchwork import FITTED, Patchwork, one_more
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.steps import Deform, Features, Level
from simexm.analysis.registration.transform import StoredTransform
from simexm.geometry.grid import Box, Tiling, three
from simexm.kernels.registration import fields, lattice
from simexm.result.result import Result

pytest.importorskip("SimpleITK")
SIDE = Side(voxel_um=(1.0, 1.0, 1.0))
SHAPE = (32, 48, 72)
FILLED = 52
"""Planes along x in which there is something."""
DEFORM = Deform(levels=(Level(shrink=2, smooth=0.0, iterations=30),))
STEPS = (Features(most=400, half=4, trials=256, spacing_um=1.0), DEFORM)
BLOCKS = Blocks(voxels=32, overlap=12, coarse_voxels=1 << 14, steps=(Features(most=200, half=4), DEFORM))
"""Averaged twofold; six blocks, of which those at the far end are empty."""
IN_BLOCKS = {"steps": STEPS, "blocks": BLOCKS}


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A pair whose far end in x is empty in both volumes."""
    made = nuclei_pair(5, 72, rms=1.0, length=14.0)
    z, y, x = SHAPE
    fixed, moving = made.fixed[:z, :y, :x].copy(), made.moving[:z, :y, :x].copy()
    random = np.random.default_rng(0)
    for image in (fixed, moving):
        image[:, :, FILLED:] = 100 + random.normal(0, 40, image[:, :, FILLED:].shape)
    return Pair(fixed, moving, made.truth[:, :z, :y, :x])


@pytest.fixture(scope="module")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair, and its alignment in blocks."""
    at = tmp_path_factory.mktemp("pair")
    save(at, "fixed", pair.fixed)
    save(at, "moving", pair.moving)
    aligned(at, "blocks", IN_BLOCKS)
    return at


def save(folder: Path, name: str, values: NDArray[Any]) -> None:
    np.save(folder / f"{name}.npy", np.clip(np.rint(values), 0, 65535).astype(np.uint16))


def aligned(folder: Path, name: str, settings: dict[str, Any], **how: Any) -> Result:
    chosen = Align.model_validate({"fixed": SIDE, "moving": SIDE, **settings})
    return chosen.run(folder / "fixed.npy", folder / "moving.npy", output=folder / f"{name}.zarr", quiet=True, **how)


def scores(result: Result) -> dict[tuple[str, str], float]:
    return {(s["score"], s["subset"]): s["value"] for s in result.scores().to_pylist()}


def files(result: Result) -> dict[str, bytes]:
    """All files of the volumes and tables, by path."""
    roots = [Path(str(place)) for place in (result.path, result.place.tables)]
    return {str(p.relative_to(r)): p.read_bytes() for r in roots for p in sorted(r.rglob("*")) if p.is_file()}


def bend(displacement: NDArray[Any]) -> list[float]:
    """Largest change of the step between neighbouring voxels, voxels, along each axis."""
    return [float(np.abs(np.diff(displacement, 2, axis=a)).max()) for a in (1, 2, 3)]


def rms(errors: NDArray[Any]) -> float:
    return float(np.sqrt((errors**2).mean()))


def inside(pair: Pair, found: Any) -> NDArray[Any]:
    """Distances from the truth where there is something in both volumes."""
    error = np.linalg.norm(found(pair.frame.centres()) - pair.truth, axis=0)
    z, y, x = pair.truth
    seen = (z > 0) & (z < SHAPE[0]) & (y > 0) & (y < SHAPE[1]) & (x > 0) & (x < FILLED)
    seen[:, :, FILLED:] = False
    return np.asarray(error[seen], np.float64)


def test_blocks_find_the_truth_without_seams_or_folds_and_list_the_empty_ones(pair: Pair, folder: Path) -> None:
    result = Result.open(folder / "blocks.zarr")
    found = StoredTransform(str(result.path)).whole
    before, after = inside(pair, lambda p: p), inside(pair, found)
    assert rms(after) < min(1.1, rms(before) / 3)
    assert found.displacement is not None
    for axis, border in ((2, 32), (3, 32), (3, 64)):  # the last one is beside empty blocks
        bends = np.abs(np.diff(found.displacement, 2, axis=axis))
        at = [border - 2, border - 1]
        assert bends.take(at, axis).max() < 0.05 + np.delete(bends, at, axis).max()
    listed = {(r["z"], r["y"], r["x"]): r["state"] for r in result.table("blocks").to_pylist()}
    assert {place for place, state in listed.items() if state != "fitted"} == {(0, 0, 64), (0, 32, 64)}
    values = scores(result)
    assert (values["blocks", "fitted"], values["blocks", "empty"], values["blocks", "faded"]) == (4, 2, 0)
    assert values["folds", ""] == found.folds() == 0
    assert values["smallest_jacobian", ""] == pytest.approx(found.smallest_jacobian())
    image = np.asarray(result.array()[0], np.float64)
    where = image > 0
    wanted = np.corrcoef(pair.fixed[where], image[where])[0, 1]
    assert values["correlation", ""] == pytest.approx(wanted, abs=2e-3)


@pytest.mark.slow
def test_blocks_are_as_good_as_memory(tmp_path: Path) -> None:
    made = nuclei_pair(7, 88, length=20.0)
    pair = Pair(made.fixed[:64], made.moving[:64], made.truth[:, :64])
    save(tmp_path, "fixed", pair.fixed)
    save(tmp_path, "moving", pair.moving)
    aligned(tmp_path, "whole", {})
    aligned(tmp_path, "blocks", {"blocks": {"voxels": 48, "overlap": 20, "coarse_voxels": 1 << 16}})
    errors = [rms(pair.errors(StoredTransform(str(tmp_path / f"{n}.zarr")).whole)) for n in ("whole", "blocks")]
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.slow
def test_workers_change_no_byte(folder: Path) -> None:
    wanted = files(Result.open(folder / "blocks.zarr"))
    assert files(aligned(folder, "four", IN_BLOCKS, workers=4)) == wanted
    assert files(aligned(folder, "one", IN_BLOCKS, workers=1)) == wanted


@pytest.mark.slow
def test_a_killed_alignment_goes_on_and_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    wanted = files(Result.open(folder / "blocks.zarr"))
    command = [sys.executable, "-m", "simexm.cli", "align", *(str(folder / f"{n}.npy") for n in ("fixed", "moving"))]
    chosen = Align.model_validate({"fixed": SIDE, "moving": SIDE, **IN_BLOCKS})
    (tmp_path / "s.json").write_text(chosen.model_dump_json())
    command += ["-o", str(tmp_path / "out.zarr"), "--settings", str(tmp_path / "s.json"), "--workers", "1", "--quiet"]
    parts = tmp_path / "out.run" / "passes" / "fits" / "parts"
    with subprocess.Popen(command, start_new_session=True) as process:
        limit = time.monotonic() + 300
        while process.poll() is None and len([*parts.glob("*.npz")]) < 2 and time.monotonic() < limit:
            time.sleep(0.02)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    kept = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.npz")}
    assert kept
    subprocess.run(command, check=True)
    assert files(Result.open(tmp_path / "out.zarr")) == wanted


def test_a_start_takes_the_place_of_the_coarse_alignment(pair: Pair, folder: Path, tmp_path: Path) -> None:
    settings = {"start": str(folder / "blocks.zarr"), "blocks": BLOCKS.model_copy(update={"least_covered": 0.9999})}
    result = aligned(folder, "again", settings)
    states = result.table("blocks")["state"].to_pylist()
    assert set(states) == {"outside", "empty"}
    for of in ("transforms/displacement", ""):  # without any fit the start stays as it was, to the bit
        stored = Result.open(folder / "blocks.zarr").array(of=of)[...]
        assert np.array_equal(result.array(of=of)[...], stored)


@pytest.mark.parametrize("whole", [(40, 64, 50), (70, 33, 35)])
def test_weights_of_all_blocks_sum_to_one(whole: tuple[int, int, int]) -> None:
    for voxels, overlap in ((16, 8), (32, 12)):
        for n in whole:
            first, end = lattice.nodes(0, n)
            total = sum(
                lattice.weight(first, end - first, a, min(a + voxels, n), n, overlap / 2) for a in range(0, n, voxels)
            )
            np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_lattice_gives_back_a_smooth_field_in_any_box() -> None:
    at = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (32, 34, 38)), indexing="ij"))
    field = np.stack([np.sin(at[0] / 5) * np.cos(at[2] / 6), at[1] / 9, np.cos(at.sum(axis=0) / 9)]).astype(np.float32)
    start = (7, 4, 11)
    values = lattice.coefficients(field, start)
    first = three(lattice.nodes(a, a + 1)[0] for a in start)
    stop = three(a + n for a, n in zip(start, field.shape[1:], strict=True))
    whole = lattice.spread(values, first, start, stop)
    assert np.abs(whole - field)[:, 12:-12, 12:-12, 12:-12].max() < 1e-3
    inner = (12, 9, 13)
    own = [lattice.nodes(a, b) for a, b in zip(inner, stop, strict=True)]
    cut = tuple(slice(a - f, b - f) for (a, b), f in zip(own, first, strict=True))
    part = lattice.spread(values[:, *cut], three(a for a, _ in own), inner, stop)
    assert np.array_equal(part, whole[:, 5:, 5:, 2:])


def patchwork(fits: dict[int, NDArray[Any]], missing: set[int]) -> tuple[Patchwork, Any]:
    """Blocks of 32 voxels with constant displacements."""
    work = Patchwork(Tiling(Box.of_shape((32, 64, 96)), (32, 32, 32)), 16)

    def fit(number: int) -> dict[str, NDArray[Any]]:
        if number in missing:
            return {"state": np.array(1), "shift": fits[number].astype(np.float32)}
        wide = (
            np.zeros((3, *work.wide(number).shape), np.float32) + fits[number].astype(np.float32)[:, None, None, None]
        )
        coefficients = lattice.coefficients(wide, work.wide(number).start)
        return {"state": np.array(FITTED), "shift": fits[number].astype(np.float32), "coefficients": coefficients}

    return work, fit


def joint(work: Patchwork, fit: Any, scale: Any = lambda _: 1.0) -> NDArray[np.float32]:
    """The displacement of the whole volume, block by block."""
    out = np.empty((3, *work.whole.shape), np.float32)
    for number, box in enumerate(work.tiling):
        out[:, *box.slices] = work.displacement(number, box, fit, scale)
    return out


def test_no_border_shows_and_none_beside_a_missing_block() -> None:
    random = np.random.default_rng(1)
    fits = {n: random.normal(0, 1.0, 3) for n in range(6)}
    work, fit = patchwork(fits, {4})
    found = joint(work, fit)
    assert max(bend(found)) < 0.05
    same, constant = patchwork({n: np.array([1.0, -2.0, 3.0]) for n in range(6)}, {2})
    np.testing.assert_allclose(
        joint(same, constant), np.array([1.0, -2, 3]).reshape(3, 1, 1, 1) + np.zeros((32, 64, 96)), rtol=1e-5
    )
    np.testing.assert_allclose(work.stand_in(4, fit), np.mean([fits[n] for n in (0, 1, 2, 3, 5)], axis=0), rtol=1e-5)


def test_blocks_that_fold_together_fade_until_none_does() -> None:
    fits = {n: np.array([0.0, 0.0, 20.0 if n % 3 == 0 else -20.0]) for n in range(6)}
    work, fit = patchwork(fits, set())

    def least(number: int, shares: NDArray[np.float32]) -> float:
        box = one_more(work.tiling[number], work.whole)
        found = work.displacement(number, box, fit, lambda each: float(shares[each]))
        return float(fields.smallest_jacobian(found, np.ones(3)).min())

    ones = np.ones(6, np.float32)
    before = {n: least(n, ones) for n in range(6)}
    assert min(before.values()) < 0
    shares = work.fade_folds(before, 0.05, least)
    assert all(least(n, shares) >= 0.05 for n in range(6))
    assert 0 < shares.max() < 1


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="half of a block"):
        Blocks(voxels=32, overlap=24)
    with pytest.raises(ValueError, match="nothing would be aligned"):
        Align(steps=())
    assert Align.model_validate({"start": "a.txt"}).steps == (Deform(),)
