"""Skeletons of volumes: one tree for each connected part, the same for any workers, nearly the same in any blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.analysis.skeletons.by_id import by_id
from simexm.analysis.skeletons.skeletons import Skeletons
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.kernels.objects.components import components
from simexm.result.result import Result
from tests.analysis.test_objects import VOXEL, files, volume


def skeletons(values: NDArray[Any], folder: Path, name: str = "k", **settings: Any) -> Result:
    """Skeletons of an array."""
    np.save(folder / "values.npy", values)
    analysis = Skeletons(**{"voxel_size_nm": VOXEL, "constant_nm": 100, **settings})
    return analysis.run(folder / "values.npy", output=folder / f"{name}.zarr", quiet=True, overwrite=True)


def arms(shape: tuple[int, int, int] = (32, 60, 60)) -> NDArray[np.uint16]:
    """Two straight tubes that cross blocks, one along a diagonal, and a ring."""
    z, y, x = np.indices(shape).astype(float)
    out = np.zeros(shape, np.uint16)
    out[(z - 5) ** 2 + (y - 10) ** 2 <= 16] = 3
    out[(z - 15) ** 2 + (y - x) ** 2 / 2 <= 16] = 7000
    out[(np.hypot(y - 30, x - 30) - 22) ** 2 + (z - 25) ** 2 <= 10] = 9
    return out


def test_each_connected_part_has_one_tree_inside_it(tmp_path: Path) -> None:
    values = volume(1, empty=0.2)
    found = skeletons(values, tmp_path, block_voxels=16)
    parts = components(values, 26)
    vertices = found.table("vertices")
    at = np.stack([vertices[a].to_numpy() for a in "zyx"], axis=1)
    assert np.array_equal(values[tuple(at.T)], vertices["id"].to_numpy())
    assert [vertices[f"{a}_nm"][5].as_py() for a in "zyx"] == ((at[5] + 0.5) * VOXEL).tolist()
    ids, parent, number = (vertices[n].to_numpy() for n in ("id", "parent", "vertex"))
    begin = np.arange(len(ids)) - number
    joined = parent >= 0
    assert (parent < number).all()
    assert np.abs(at[joined] - at[(begin + parent)[joined]]).max() == 1
    # a tree for each part: as many roots as parts, and each part has one
    assert sorted(parts[tuple(at[~joined].T)].tolist()) == list(range(1, int(parts.max()) + 1))
    table = found.table("skeletons")
    assert table["id"].to_pylist() == np.unique(values[values > 0]).tolist()
    assert table["vertices"].to_pylist() == np.unique(ids, return_counts=True)[1].tolist()
    assert table["cable_um"].to_numpy().sum() == pytest.approx(vertices["length_nm"].to_numpy().sum() / 1000)
    assert table["trees"].to_numpy().sum() == parts.max()
    radius = vertices["radius_nm"].to_numpy()
    assert (radius >= min(VOXEL)).all()


def test_blocks_change_lengths_by_little_and_radii_not_at_all(tmp_path: Path) -> None:
    """Where no border runs along an object, each that it crosses adds no more than its reach, 1.5 radii and 100 nm."""
    values = arms()
    whole = skeletons(values, tmp_path, "whole", block_voxels=64)
    cut = skeletons(values, tmp_path, "cut", block_voxels=32)
    crossings = {3: 1, 9: 4, 7000: 2}
    rows = zip(whole.table("skeletons").to_pylist(), cut.table("skeletons").to_pylist(), strict=True)
    for one, other in rows:
        assert one["id"] in crossings
        assert (
            abs(one["cable_um"] - other["cable_um"])
            <= crossings[one["id"]] * (1.5 * one["largest_radius_nm"] + 100) / 1000
        )
        assert one["trees"] == other["trees"] == 1
    radii = [
        {tuple(v[a] for a in "zyx"): v["radius_nm"] for v in r.table("vertices").to_pylist()} for r in (whole, cut)
    ]
    common = radii[0].keys() & radii[1].keys()
    assert len(common) > 0.5 * len(radii[0])
    assert all(radii[0][at] == radii[1][at] for at in common)


def test_a_resumed_run_changes_no_byte(tmp_path: Path) -> None:
    found = skeletons(arms(), tmp_path, block_voxels=32)
    before = files(found, "tables")
    root = json.loads((tmp_path / "k.zarr/zarr.json").read_text())
    root["attributes"]["simexm"]["status"] = "incomplete"
    (tmp_path / "k.zarr/zarr.json").write_text(json.dumps(root))
    (tmp_path / "k.run/tables/vertices.parts/block-0000001.parquet").unlink()
    settings = Skeletons(voxel_size_nm=VOXEL, constant_nm=100, block_voxels=32)
    again = settings.run(tmp_path / "values.npy", output=tmp_path / "k.zarr", quiet=True)
    assert files(again, "tables") == before


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path: Path) -> None:
    once = skeletons(arms(), tmp_path, "once", block_voxels=32)
    settings = Skeletons(voxel_size_nm=VOXEL, constant_nm=100, block_voxels=32)
    workers = settings.run(tmp_path / "values.npy", output=tmp_path / "w.zarr", quiet=True, workers=2)
    assert files(once, "tables") == files(workers, "tables")


def test_small_parts_get_no_tree(tmp_path: Path) -> None:
    values = np.zeros((20, 30, 40), np.uint8)
    values[2:5, 2:5, 2:38] = 1  # 324 voxels, in several blocks
    values[10:13, 2:5, 2:5] = 1  # 27
    values[10:13, 20:23, 30:33] = 2
    least = 100 * 40 * 32 * 32 * 1e-9
    found = skeletons(values, tmp_path, block_voxels=16, smallest_um3=least).table("skeletons")
    assert found["id"].to_pylist() == [1]
    assert found["trees"].to_pylist() == [1]


def test_tables_go_together_whatever_their_pieces() -> None:
    rng = np.random.default_rng(0)
    ids = [np.sort(rng.integers(0, 40, n)).astype(np.uint64) for n in (300, 25, 90)]

    def pieces(column: NDArray[Any], size: int) -> list[dict[str, NDArray[Any]]]:
        starts = range(0, column.size, size)
        return [{"id": column[a : a + size], "row": np.arange(a, min(a + size, column.size))} for a in starts]

    for sizes in ((300, 25, 90), (7, 3, 50), (100, 1, 2)):
        parts = list(by_id(*(pieces(c, s) for c, s in zip(ids, sizes, strict=True))))
        for n, column in enumerate(ids):
            assert np.concatenate([p[n]["id"] for p in parts]).tolist() == column.tolist()
            assert np.concatenate([p[n]["row"] for p in parts]).tolist() == list(range(column.size))
        seen: set[int] = set()
        for part in parts:
            here = {int(i) for table in part for i in table["id"]}
            assert not here & seen
            seen |= here


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cells.npy", arms()[:, :20])
    words = ["skeletons", "cells.npy", "--voxel-size", "40", "32", "32"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = Result.open("cells-skeletons.zarr")
    assert json.loads(done.stdout)["cable"] == pytest.approx(found.table("skeletons")["cable_um"].to_numpy().sum())
    assert "a worker" in done.stderr
    assert CliRunner().invoke(app, [*words, "cells.npy"]).exit_code == 2
    assert CliRunner().invoke(app, ["new", "skeletons", "-o", "s.yaml"]).exit_code == 0
    assert "constant_nm" in Path("s.yaml").read_text()


def test_skeletons_are_exported(tmp_path: Path) -> None:
    found = skeletons(arms()[:20, :, :30], tmp_path, block_voxels=32)
    for form in ("swc", "precomputed"):
        words = ["export", str(found.path), "-o", str(tmp_path / form), "--format", form, "--quiet"]
        assert CliRunner().invoke(app, [*words, "--dry-run"]).exit_code == 0
        assert not (tmp_path / form).exists()
        assert CliRunner().invoke(app, words).exit_code == 0
        assert CliRunner().invoke(app, words).exit_code == 2
        assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
    rows = [v for v in found.table("vertices").to_pylist() if v["id"] == 3]
    lines = np.loadtxt(tmp_path / "swc" / "3.swc")
    assert lines[:, 0].tolist() == list(range(1, len(rows) + 1))
    assert (lines[:, 6] < lines[:, 0]).all()
    assert lines[:, 2:6] == pytest.approx(
        np.array([[v[n] / 1000 for n in ("x_nm", "y_nm", "z_nm", "radius_nm")] for v in rows]), rel=1e-5
    )
    data = (tmp_path / "precomputed" / "3").read_bytes()
    vertices, edges = np.frombuffer(data, "<u4", 2)
    assert (vertices, edges) == (len(rows), len(rows) - 1)
    places = np.frombuffer(data, "<f4", 3 * vertices, 8).reshape(-1, 3)
    pairs = np.frombuffer(data, "<u4", 2 * edges, 8 + 12 * vertices).reshape(-1, 2)
    assert np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1).sum() / 1000 == pytest.approx(
        found.table("skeletons")["cable_um"][0].as_py(), rel=1e-5
    )
    assert np.frombuffer(data, "<f4", vertices, 8 + 12 * vertices + 8 * edges)[0] == np.float32(rows[0]["radius_nm"])
    assert json.loads((tmp_path / "precomputed" / "info").read_text())["@type"] == "neuroglancer_skeletons"


def test_masks_are_sampled_along_skeletons(tmp_path: Path) -> None:
    """Of an axon of 199 edges half has a sheath around it; single voxels do not count, and a body has no vote."""
    shape = (9, 11, 200)
    z, y, x = np.indices(shape)
    values = ((z - 4) ** 2 + (y - 5) ** 2 <= 4).astype(np.uint8)
    values[(z - 4) ** 2 + (y - 5) ** 2 + (x - 180) ** 2 <= 16] = 1
    sheath = ((values == 0) & (x < 100)).astype(np.uint8) * 3
    sheath[:, :, 50] = 0
    sheath[:, :, 150] = 3
    np.save(tmp_path / "values.npy", values)
    np.save(tmp_path / "sheath.npy", sheath)
    settings: dict[str, Any] = {"sampled": ["myelin"], "window_nm": 130, "along_um": 0.8, "body_radius_nm": 100}
    analysis = Skeletons(voxel_size_nm=(32, 32, 32), block_voxels=64, **settings)
    inputs = tmp_path / "values.npy", tmp_path / "sheath.npy"
    found = analysis.run(*inputs, output=tmp_path / "m.zarr", quiet=True)
    rows = found.table("vertices").to_pylist()
    middle = [v for v in rows if 15 < v["x"] < 185 and abs(v["x"] - 100) > 2]
    assert {v["myelin_along"] for v in middle if v["x"] < 100} == {3}
    assert {v["myelin_along"] for v in middle if v["x"] > 100 and v["radius_nm"] < 100} == {0}
    assert sum(v["radius_nm"] >= 100 for v in rows) >= 3
    assert all(v["myelin_along"] == v["myelin"] for v in rows if v["radius_nm"] >= 100)
    table = found.table("skeletons").to_pylist()[0]
    assert table["myelin_along_um"] == pytest.approx(100 * 0.032, rel=0.1)
    with pytest.raises(OutputError, match="volume of myelin"):
        analysis.plan(inputs[0])
    with pytest.raises(OutputError, match="name of its own"):
        analysis.model_copy(update={"sampled": ("parent",)}).plan(*inputs)
    np.save(tmp_path / "small.npy", sheath[:5])
    with pytest.raises(SpecError, match="does not cover"):
        analysis.plan(inputs[0], tmp_path / "small.npy")
