"""Contacts and overlaps of volumes: the same in any blocks, and as hand-made cases ask."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from typer.testing import CliRunner

from simexm.analysis.objects.contacts import Contacts
from simexm.analysis.objects.overlaps import Overlaps
from simexm.cli import app
from simexm.kernels.objects.contacts import CROSSINGS, areas_um2, contacts, crofton_areas_um2, face_areas_um2
from simexm.kernels.objects.grow import grown
from simexm.kernels.objects.runs import Runs
from simexm.result.result import Result
from tests.analysis.test_objects import SHAPE, VOXEL, files, volume

N = len(CROSSINGS)


def touching(values: NDArray[Any], folder: Path, name: str = "c", **settings: Any) -> Result:
    """Contacts of an array."""
    np.save(folder / "values.npy", values)
    analysis = Contacts(voxel_size_nm=VOXEL, **settings)
    return analysis.run(folder / "values.npy", output=folder / f"{name}.zarr", quiet=True, overwrite=True)


@pytest.mark.parametrize("gap_nm", [0.0, 100.0])
def test_blocks_of_any_size_give_the_contacts_of_the_whole(tmp_path: Path, gap_nm: float) -> None:
    values = volume(1, most=9, empty=0.4 if gap_nm else 0.1)
    found = [touching(values, tmp_path, f"b{b}", gap_nm=gap_nm, block_voxels=b) for b in (16, 64)]
    assert files(found[0], "tables") == files(found[1], "tables")
    pairs, counts = contacts(Runs.of(grown(values, gap_nm / 2, VOXEL)), (0, 0, 0), SHAPE, (0, 0, 0))
    table = found[0].table("contacts")
    assert np.array_equal(np.stack([table[n].to_numpy() for n in ("first", "second")], axis=1), pairs)
    assert np.array_equal(table["faces_um2"].to_numpy(), areas_um2(counts[:, :N], face_areas_um2(VOXEL)))
    assert np.array_equal(table["area_um2"].to_numpy(), areas_um2(counts[:, :N], crofton_areas_um2(VOXEL)))


def patches_by_scipy(values: NDArray[Any]) -> dict[tuple[int, int, int], int]:
    """Faces of each patch, by pair and number: voxels of the smaller id beside the larger, joined by 26 neighbours."""
    found: dict[tuple[int, int, int], int] = {}
    padded = np.pad(values.astype(np.int64), 1)
    inner = padded[1:-1, 1:-1, 1:-1]
    beside = [np.roll(padded, s, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for s in (-1, 1)]
    for a in np.unique(values[values > 0]).tolist():
        for b in np.unique(values[values > a]).tolist():
            faces = np.where(inner == a, sum((other == b).astype(int) for other in beside), 0)
            labelled, count = ndimage.label(faces > 0, np.ones((3, 3, 3)))
            for n in range(1, count + 1):
                number = int(np.flatnonzero(labelled == n)[0]) + 1
                found[a, b, number] = int(faces[labelled == n].sum())
    return found


def test_patches_are_the_connected_parts_of_a_contact_in_any_blocks(tmp_path: Path) -> None:
    values = volume(7, most=6, empty=0.1, grain=4)
    found = [touching(values, tmp_path, f"b{b}", patches=True, block_voxels=b) for b in (16, 64)]
    assert files(found[0], "tables") == files(found[1], "tables")
    table = found[0].table("patches")
    rows = zip(*(table[n].to_pylist() for n in ("first", "second", "patch", "faces")), strict=True)
    assert {(a, b, n): faces for a, b, n, faces in rows} == patches_by_scipy(values)
    together = table.group_by(["first", "second"]).aggregate([("faces", "sum")]).sort_by("first")
    every = found[0].table("contacts")
    assert together["faces_sum"].to_numpy().sum() == every["faces"].to_numpy().sum()


def test_two_patches_of_one_pair_have_places_and_normals_of_their_own(tmp_path: Path) -> None:
    values = np.zeros((8, 10, 20), np.uint16)
    values[2:6, 2:8, 2:18] = 5
    values[2:6, 2:8, 8:12] = 0
    values[3:5, 4:6, 5:15] = np.where(values[3:5, 4:6, 5:15] == 0, 3, values[3:5, 4:6, 5:15])  # a bridge of 3 between
    rows = touching(values, tmp_path, patches=True, block_voxels=16).table("patches").to_pylist()
    assert [(r["first"], r["second"], r["faces"]) for r in rows] == [(3, 5, 4), (3, 5, 4)]
    assert [r["x_nm"] for r in rows] == pytest.approx([8 * 32, 12 * 32])
    assert [r["normal_x"] for r in rows] == [-1, 1]
    assert [r["patch"] for r in rows] == [(3 * 10 + 4) * 20 + x + 1 for x in (8, 11)]


def test_a_flat_contact_lies_between_two_cells_and_faces_the_second(tmp_path: Path) -> None:
    values = np.zeros((10, 12, 14), np.uint16)
    values[2:8, 3:9, :6], values[2:8, 3:9, 6:] = 9, 4
    (row,) = touching(values, tmp_path, block_voxels=16).table("contacts").to_pylist()
    assert (row["first"], row["second"], row["faces"]) == (4, 9, 36)
    assert row["faces_um2"] == pytest.approx(36 * 40 * 32 * 1e-6, rel=1e-12)
    assert [row[f"{a}_nm"] for a in "zyx"] == pytest.approx([5 * 40, 6 * 32, 6 * 32], rel=1e-12)
    assert [row[f"normal_{a}"] for a in "zyx"] == [0, 0, -1]  # from 4, on the right, to 9


def test_a_gap_is_bridged_from_its_width_on_and_not_through_a_third_cell(tmp_path: Path) -> None:
    values = np.zeros((6, 6, 20), np.uint16)
    values[:, :, :8], values[:, :, 11:] = 1, 2  # three voxels apart, 96 nm
    for gap, rows in ((60.0, 0), (96.0, 1), (120.0, 1)):
        assert touching(values, tmp_path, gap_nm=gap).table("contacts").num_rows == rows, gap
    values[:, :, 9] = 3
    found = touching(values, tmp_path, gap_nm=120.0).table("contacts")
    assert [(r["first"], r["second"]) for r in found.to_pylist()] == [(1, 3), (2, 3)]


def test_small_contacts_do_not_count(tmp_path: Path) -> None:
    values = volume(2, most=9)
    area = touching(values, tmp_path, "every").table("contacts")["area_um2"].to_numpy()
    least = float(np.median(area))
    some = touching(values, tmp_path, "some", smallest_um2=least)
    assert np.array_equal(some.table("contacts")["area_um2"].to_numpy(), area[area >= least])
    scores = {s["score"]: s["value"] for s in some.scores().to_pylist()}
    assert scores["contacts"] == (area >= least).sum()
    assert scores["area"] == pytest.approx(math.fsum(area[area >= least]), rel=1e-12)


def test_faces_alone_are_the_same_faces(tmp_path: Path) -> None:
    values = volume(2, most=9)
    every = touching(values, tmp_path, "every").table("contacts")
    some = touching(values, tmp_path, "some", crofton=False, block_voxels=16).table("contacts")
    with_faces = every.filter(every["faces"].to_numpy() > 0)
    assert some.equals(with_faces.drop_columns(["area_um2"]))


def overlapping(one: NDArray[Any], other: NDArray[Any], folder: Path, **settings: Any) -> Result:
    np.save(folder / "one.npy", one)
    np.save(folder / "other.npy", other)
    analysis = Overlaps(voxel_size_nm=VOXEL, **settings)
    return analysis.run(folder / "one.npy", folder / "other.npy", output=folder / "p.zarr", quiet=True, overwrite=True)


def test_overlaps_add_up_over_blocks(tmp_path: Path) -> None:
    one, other = volume(3, most=20), volume(4, most=7)
    expected = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1, return_counts=True)
    for block in (16, 64):
        table = overlapping(one, other, tmp_path, block_voxels=block).table("overlaps")
        assert np.array_equal(np.stack([table[n].to_numpy() for n in ("first", "second")]), expected[0])
        assert table["voxels"].to_pylist() == expected[1].tolist()


def test_an_organelle_belongs_to_the_cell_with_most_of_it(tmp_path: Path) -> None:
    organelles = np.zeros((4, 4, 16), np.uint16)
    cells = np.zeros_like(organelles)
    cells[:, :, :8], cells[:, :, 8:] = 70, 60
    organelles[:, :, 5:10] = 1  # 3 of 5 in cell 70
    organelles[:, :, 12:14] = 2  # all in cell 60
    organelles[0, 0, 0] = 3  # a single voxel
    cells[3, :, 12:14] = 0  # a quarter of 2 is outside
    rows = overlapping(organelles, cells, tmp_path).table("owners").to_pylist()
    assert [(r["id"], r["owner"], r["shared"]) for r in rows] == [(1, 70, 48), (2, 60, 24), (3, 70, 1)]
    assert [r["share"] for r in rows] == [48 / 80, 24 / 32, 1.0]
    strict = overlapping(organelles, cells, tmp_path, smallest_share=0.7, smallest_voxels=2).table("owners").to_pylist()
    assert [(r["id"], r["owner"]) for r in strict] == [(1, 0), (2, 60)]


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", volume(5))
    np.save("b.npy", volume(6)[:, 1:])
    size = ["--voxel-size", "40", "32", "32"]
    done = CliRunner().invoke(app, ["contacts", "a.npy", *size, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["contacts"] == Result.open("a-contacts.zarr").table("contacts").num_rows
    done = CliRunner().invoke(app, ["overlaps", "a.npy", "b.npy", *size, "-o", "o.zarr"])
    assert done.exit_code == 0, done.output
    voxels = Result.open("o.zarr").table("overlaps")["voxels"].to_numpy().sum()
    assert voxels == SHAPE[0] * (SHAPE[1] - 1) * SHAPE[2]  # of the common part


def test_grids_that_do_not_agree_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", volume(5))
    for name, voxel in (("a", "40 32 32"), ("b", "40 32 33")):
        words = ["ingest", "a.npy", "-o", f"{name}.zarr", "--voxel-size", *voxel.split(), "--quiet"]
        assert CliRunner().invoke(app, words).exit_code == 0
    done = CliRunner().invoke(app, ["overlaps", "a.zarr", "b.zarr", "-o", "o.zarr"])
    assert done.exit_code == 2
    assert "40 x 32 x 32 and 40 x 32 x 33 nm" in done.stderr
