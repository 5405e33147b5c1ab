"""Objects of volumes: the same in any blocks, from any kind of volume, and with the properties of the whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from typer.testing import CliRunner

from simexm.analysis.objects.objects import Objects
from simexm.cli import app
from simexm.errors import OutputError, RunError, SpecError
from simexm.kernels.objects.components import Components, components
from simexm.kernels.objects.contacts import areas_um2, crofton_areas_um2, surface_crossings
from simexm.kernels.objects.runs import Runs
from simexm.kernels.objects.shapes import DEEPEST, depth
from simexm.result.result import Result
from tests.build import confocal, layer, simulation

VOXEL = (40.0, 32.0, 32.0)
SHAPE = (20, 33, 35)


def volume(seed: int, most: int = 5, grain: int = 3, empty: float = 0.1) -> NDArray[np.uint32]:
    """Random ids in grains that touch in all ways, with holes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, most, [-(-n // grain) for n in SHAPE])
    values = coarse.repeat(grain, 0).repeat(grain, 1).repeat(grain, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return np.where(rng.random(SHAPE) < empty, 0, values).astype(np.uint32)


def measured(values: NDArray[Any], folder: Path, name: str = "o", **settings: Any) -> Result:
    """Objects of an array."""
    np.save(folder / "values.npy", values)
    analysis = Objects(voxel_size_nm=VOXEL, **settings)
    return analysis.run(folder / "values.npy", output=folder / f"{name}.zarr", quiet=True, overwrite=True)


def image(result: Result) -> NDArray[np.uint64]:
    """Its label image."""
    return np.asarray(result.array(of="labels/components")[:], np.uint64)


def files(result: Result, what: str) -> dict[str, bytes]:
    """Content of the tables, or of the label image, by path."""
    root = Path(str(result.place.tables if what == "tables" else result.path / "labels"))
    skip = ".parts/"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and skip not in str(p)
    }


@pytest.mark.parametrize("connectivity", [6, pytest.param(18, marks=pytest.mark.slow), 26])
def test_blocks_of_any_size_give_the_components_of_the_whole(tmp_path: Path, connectivity: int) -> None:
    values = volume(connectivity)
    whole = components(values, connectivity)
    first = np.unique(whole, return_index=True)[1]
    expected = np.where(whole > 0, first[whole] + 1, 0)  # ids are one more than the smallest voxel index
    found = [measured(values, tmp_path, f"b{b}", connectivity=connectivity, block_voxels=b) for b in (16, 64)]
    for result in found:
        assert np.array_equal(image(result), expected)
        assert files(result, "tables") == files(found[0], "tables")
    assert found[0].table("objects").num_rows == whole.max()
    assert found[0].table("objects")["id"].to_pylist() == sorted(first[1:] + 1 if (whole == 0).any() else first + 1)


def test_properties_are_those_of_the_whole_object(tmp_path: Path) -> None:
    values = volume(1, empty=0.02, grain=6)
    result = measured(values, tmp_path, block_voxels=16, connectivity=6)
    labels = image(result)
    volume_um3 = math.prod(VOXEL) * 1e-9
    depths = depth(values)
    whole, ids = Components.of(values, 6), np.unique(labels[labels > 0])
    crossings = surface_crossings(Runs.of(values), (0, 0, 0), SHAPE, whole.runs, whole.of_run, len(whole))
    surface = dict(zip(ids.tolist(), areas_um2(crossings, crofton_areas_um2(VOXEL)), strict=True))
    rows = result.table("objects").to_pylist()
    assert len(rows) == ids.size > 15
    for row in rows:
        places = np.argwhere(labels == row["id"])
        centres = (places + 0.5) * VOXEL
        assert row["voxels"] == len(places)
        assert row["volume_um3"] == pytest.approx(len(places) * volume_um3, rel=1e-12)
        assert [row[n] for n in ("z0", "y0", "x0", "z1", "y1", "x1")] == [*places.min(axis=0), *places.max(axis=0)]
        assert [row[f"{a}_nm"] for a in "zyx"] == pytest.approx(centres.mean(axis=0).tolist(), rel=1e-12)
        point = tuple(int(row[f"point_{a}_nm"] // v) for a, v in zip("zyx", VOXEL, strict=True))
        assert labels[point] == row["id"]
        assert depths[point] == min(DEEPEST, depths[labels == row["id"]].max())
        assert row["surface_um2"] == surface[row["id"]]
        spread = np.cov(centres.T, bias=True) if len(places) > 1 else np.zeros((3, 3))
        lengths, axes = np.linalg.eigh(spread + np.diag(np.square(VOXEL) / 12))
        assert [row[f"axis{k}_nm"] for k in (3, 2, 1)] == pytest.approx(np.sqrt(lengths).tolist(), rel=1e-9)
        if lengths[2] > 1.01 * lengths[1]:
            assert abs(axes[:, 2] @ [row[f"axis1_{a}"] for a in "zyx"]) == pytest.approx(1, abs=1e-9)


def test_ids_may_be_objects_themselves(tmp_path: Path) -> None:
    values = volume(2)
    found = [measured(values, tmp_path, f"i{b}", by="ids", block_voxels=b) for b in (32, 64)]
    table = found[0].table("objects")
    ids, voxels = np.unique(values[values > 0], return_counts=True)
    assert table["id"].to_pylist() == ids.tolist()
    assert table["voxels"].to_pylist() == voxels.tolist()
    assert files(found[0], "tables") == files(found[1], "tables")
    assert found[0].label_names == []


def test_a_probability_is_thresholded_opened_and_closed_as_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), 2)
    values = ((smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.float32)
    settings: dict[str, Any] = {
        "content": "probability", "threshold": 0.55, "opening_nm": 40, "closing_nm": 33, "erosion_nm": 32,
    }  # fmt: skip
    found = [measured(values, tmp_path, f"p{b}", **settings, block_voxels=b) for b in (32, 64)]
    assert files(found[0], "tables") == files(found[1], "tables")
    assert np.array_equal(image(found[0]), image(found[1]))
    assert np.unique(image(found[0])).size > 3
    plain = measured(values, tmp_path, "plain", content="probability", threshold=0.55, block_voxels=64)
    assert np.array_equal(image(plain) > 0, values > np.float32(0.55))
    eight_bits = (values * 255).astype(np.uint8)
    scaled = measured(eight_bits, tmp_path, "bits", content="probability", threshold=0.5)
    assert np.array_equal(image(scaled) > 0, eight_bits > 127)


def test_small_and_large_objects_do_not_count(tmp_path: Path) -> None:
    values = volume(4, empty=0.3)
    every = measured(values, tmp_path, "every", connectivity=6, block_voxels=32)
    sizes = every.table("objects")
    voxel_um3 = math.prod(VOXEL) * 1e-9
    diagonal = np.sqrt(
        sum(
            ((sizes[f"{a}1"].to_numpy() - sizes[f"{a}0"].to_numpy() + 1) * v * 1e-3) ** 2
            for a, v in zip("zyx", VOXEL, strict=True)
        )
    )
    wanted = (sizes["voxels"].to_numpy() >= 10) & (sizes["voxels"].to_numpy() <= 2000) & (diagonal >= 0.2)
    limits = {"smallest_um3": 9.5 * voxel_um3, "largest_um3": 2000.5 * voxel_um3, "smallest_diagonal_um": 0.2}
    some = measured(values, tmp_path, "some", connectivity=6, block_voxels=32, **limits)
    assert 0 < wanted.sum() < wanted.size
    assert some.table("objects")["id"].to_pylist() == sizes["id"].to_numpy()[wanted].tolist()
    kept = np.isin(image(every), sizes["id"].to_numpy()[wanted])
    assert np.array_equal(image(some) > 0, kept)


def test_a_part_has_the_ids_of_the_volume(tmp_path: Path) -> None:
    values = volume(5)
    part = measured(values, tmp_path, roi="3:18,5:30,:", block_voxels=16, connectivity=6)
    inside = np.zeros_like(values)
    inside[3:18, 5:30] = values[3:18, 5:30]
    whole = measured(inside, tmp_path, "whole", connectivity=6)
    assert np.array_equal(image(part), whole.array(of="labels/components")[3:18, 5:30])
    for name in ("id", "voxels", "z0", "x_nm"):
        assert part.table("objects")[name].equals(whole.table("objects")[name])
    assert part.attributes["simexm"]["settings"]["roi"] == "3:18,5:30,:"


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path: Path) -> None:
    once = measured(volume(6), tmp_path, "once", block_voxels=16)
    settings = Objects(voxel_size_nm=VOXEL, block_voxels=16)
    workers = settings.run(tmp_path / "values.npy", output=tmp_path / "w.zarr", quiet=True, workers=2)
    assert files(once, "tables") == files(workers, "tables")
    assert files(once, "labels") == files(workers, "labels")


def test_a_resumed_run_changes_no_byte(tmp_path: Path) -> None:
    found = measured(volume(6), tmp_path, block_voxels=32)
    before = files(found, "tables") | files(found, "labels")
    root = json.loads((tmp_path / "o.zarr/zarr.json").read_text())
    root["attributes"]["simexm"]["status"] = "incomplete"
    (tmp_path / "o.zarr/zarr.json").write_text(json.dumps(root))
    for lost in ("o.run/tables/objects.parts/block-0000001.parquet", "o.zarr/labels/components/0/c/0/1/1"):
        (tmp_path / lost).unlink()
    settings = Objects(voxel_size_nm=VOXEL, block_voxels=32)
    again = settings.run(tmp_path / "values.npy", output=tmp_path / "o.zarr", quiet=True)
    assert files(again, "tables") | files(again, "labels") == before
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "o.zarr")]).exit_code == 0
    assert not (tmp_path / "o.run/passes").exists()


def test_the_truth_of_a_result_is_measured(tmp_path: Path) -> None:
    small = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    made = simulation(layer(), optics=confocal(axial_range_um=4.0), source=small).run(
        tmp_path / "made.zarr", quiet=True
    )
    truth = np.asarray(made.array(of="labels/cells")[:])
    found = Objects(by="ids", dataset="labels/cells").run(made, output=tmp_path / "cells.zarr", quiet=True)
    ids, voxels = np.unique(truth[truth > 0], return_counts=True)
    assert found.table("objects")["id"].to_pylist() == ids.tolist()
    assert found.table("objects")["voxels"].to_pylist() == voxels.tolist()
    pixel = math.prod(made.pixel_um())
    assert found.table("objects")["volume_um3"].to_pylist() == pytest.approx((voxels * pixel).tolist(), rel=1e-9)
    coarse = Objects(by="ids", dataset="labels/cells", level=1).run(made, output=tmp_path / "coarse.zarr", quiet=True)
    assert (
        coarse.table("objects")["voxels"].to_numpy().sum() == (np.asarray(made.array(1, "labels/cells")[:]) > 0).sum()
    )


def type_in(*words: object) -> Any:
    return CliRunner().invoke(app, [str(w) for w in words])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("cells.tif", volume(7).astype(np.uint16))
    done = type_in("objects", "cells.tif", "--voxel-size", 40, 32, 32, "--roi", "0:18,:,:", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["objects"] == Result.open("cells-objects.zarr").table("objects").num_rows
    assert "a worker" in done.stderr  # the memory, before it starts
    dry = type_in("objects", "cells.tif", "--voxel-size", 40, 32, 32, "-o", "other.zarr", "--dry-run")
    assert json.loads(dry.stdout)["memory_per_worker_bytes"] > 0
    assert not Path("other.zarr").exists()
    assert type_in("new", "objects", "-o", "objects.yaml").exit_code == 0
    assert "smallest_um3" in Path("objects.yaml").read_text()
    assert type_in("info", "cells-objects.zarr").exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cells.tif"], "--voxel-size"),
        (["no.tif", "--voxel-size", 1, 1, 1], "does not exist"),
        (["cells.tif", "--voxel-size", 40, 32, 32, "--roi", "0:99,:,:"], "--roi"),
        (["cells.tif", "--voxel-size", 40, 32, 32, "--level", 2], "--level"),
        (["cells.tif", "cells.tif", "--voxel-size", 40, 32, 32], "not 2 inputs"),
        (["cells.tif", "--voxel-size", 40, 32, 32, "--settings", "bad.yaml"], "threshold"),
        (["cells.tif", "--voxel-size", 40, 32, 32, "--settings", "opened.yaml"], "masks"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("cells.tif", np.ones((5, 6, 7), np.uint16))
    Path("bad.yaml").write_text("content: probability\n")
    Path("opened.yaml").write_text("opening_nm: 30\n")
    done = type_in("objects", *words, "-o", "out.zarr")
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert not Path("out.zarr").exists()


def test_a_probability_out_of_range_is_refused(tmp_path: Path) -> None:
    values = np.full((4, 5, 6), 0.5, np.float32)
    values[2, 3, 4] = 1.5
    with pytest.raises(RunError, match=r"1\.5 at voxel \(2, 3, 4\)"):
        measured(values, tmp_path, content="probability", threshold=0.5)


def test_a_file_changed_meanwhile_is_another_input(tmp_path: Path) -> None:
    measured(volume(8), tmp_path)
    np.save(tmp_path / "values.npy", volume(9))
    with pytest.raises(OutputError, match="other"):
        Objects(voxel_size_nm=VOXEL).run(tmp_path / "values.npy", output=tmp_path / "o.zarr", quiet=True)
    with pytest.raises(SpecError, match="level"):
        Objects(voxel_size_nm=VOXEL, level=1).plan(tmp_path / "values.npy")
