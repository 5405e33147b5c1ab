"""Analyses that write images, label images and rows: on the run's own blocks, with levels, a journal and checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.grid import Grid
from simexm.analysis.objects.objects import Objects
from simexm.analysis.plan import AnalysisPlan
from simexm.analysis.same_inputs import SameInputs
from simexm.analysis.volume import Volume
from simexm.cli import app
from simexm.errors import OutputError, RunError, SpecError
from simexm.export.export import export
from simexm.geometry.grid import Box
from simexm.result.place import Place
from simexm.result.result import Result, elements
from simexm.stages.frames import FrameAxis
from simexm.stages.products import Product, image, labels
from simexm.store.claims import claim
from simexm.store.pyramid import downsample_labels, downsample_mean, step_factors
from simexm.view.scene import Scene
from simexm.view.window import Planes
from tests.build import confocal, layer, simulation

TIMES = (0.0, 2.0, 4.0)


class Soften(Analysis):
    """Average each pixel with the planes above and below, at three strengths one after the other, and mark bright pixels."""

    analysis: Literal["soften"] = "soften"
    shard: int = 16
    with_image: bool = True
    fault: str = ""

    def open(self, inputs: tuple[Result, ...]) -> SoftenBench:
        """Open the result."""
        return SoftenBench(self, inputs[0])


class SoftenBench(Bench):
    """The opened result."""

    def __init__(self, settings: Soften, result: Result) -> None:
        self.settings, self.array = settings, result.array()
        like = Grid.of(result)
        self.grid = Grid(like.shape, like.pixel_nm, like.origin_nm, FrameAxis("time", TIMES, "second"), settings.shard)
        bright = labels("bright", "uint8")
        soft = Product(
            "soft", "image", "czyx", "uint16", "counts", ("first",), varies=frozenset({"time"}),
        )  # fmt: skip
        rows = Product("places", "table", columns={"z": "int64", "what": "str"})
        raw = image("raw", ("first",), "uint16", "counts")
        self.products = (soft, bright, raw, rows) if settings.with_image else (bright, rows)
        self.inputs = {"result": str(result.provenance["hash"])}
        self.blocks, self.voxels = len(self.grid.blocks), self.array.size
        self.core_seconds, self.block_bytes = 1.0, 1 << 20
        if settings.fault == "blocks":
            self.blocks += 1

    def measure(self, number: int) -> dict[str, Any]:
        """Soften a block, reading one plane more on each side."""
        assert self.grid is not None
        box = self.grid.blocks[number]
        wide = box.grown((1, 0, 0)).intersect(Box.of_shape(self.grid.shape))
        found = softened(np.asarray(elements(self.array, (0, *wide.slices))))
        inner = found[(slice(None), *box.relative_to(wide.start).slices)]
        if self.settings.fault == "shape":
            inner = inner[:, :1]
        bright = (inner[0] > 5).astype(np.uint8)
        z = np.flatnonzero(bright.any(axis=(1, 2))) + box.start[0]
        made: dict[str, Any] = {"bright": bright, "places": {"z": z, "what": np.full(z.size, "bright", object)}}
        if self.settings.with_image:
            made |= {"soft": inner[:, None], "raw": np.asarray(elements(self.array, (slice(0, 1), *box.slices)))}
        return made

    def conclude(self, sums: Any) -> Conclusion:
        """Say that it was done."""
        return Conclusion({}, (Score("done", 1.0, "", "whether it was done"),))


def softened(data: NDArray[Any]) -> NDArray[np.uint16]:
    """(time, z, y, x): the mean of 1, 2 and 3 neighbouring planes, of those that are there."""
    padded = np.pad(data.astype(np.uint32), ((1, 1), (0, 0), (0, 0)))
    n = np.pad(np.ones(len(data), np.uint32), 1)[:, None, None]
    first = padded[1:-1]
    second, weights = first + padded[2:], n[1:-1] + n[2:]
    third, all_weights = second + padded[:-2], weights + n[:-2]
    return np.stack([first, second // weights, third // all_weights]).astype(np.uint16)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run."""
    small = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    return simulation(layer(), optics=confocal(axial_range_um=4.0), source=small).run(
        tmp_path_factory.mktemp("run") / "made.zarr", quiet=True
    )


@pytest.fixture(scope="module")
def soft(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """It, softened in several blocks."""
    return Soften().run(result, output=tmp_path_factory.mktemp("soft") / "soft.zarr", quiet=True)


def test_blocks_join_without_seams(result: Result, soft: Result) -> None:
    whole = softened(np.asarray(result.array()[0]))
    assert len(Grid.of(result, largest_shard=16).blocks) > 1
    assert np.array_equal(soft.series()[:, 0], whole)
    assert np.array_equal(soft.at(time=2).array()[0], whole[1])
    assert np.array_equal(soft.array(of="raw")[0], result.array()[0])
    assert np.array_equal(soft.array(of="labels/bright")[:], whole[0] > 5)
    assert soft.label_names == ["bright"]
    assert soft.largest() == [whole.max()]
    assert {*soft.table("places")["what"].to_pylist()} == {"bright"}
    blocks = Grid.of(result, largest_shard=16).blocks
    assert sorted(soft.table("places")["z"].to_pylist()) == sorted(
        z for box in blocks for z in range(box.start[0], box.stop[0]) if (whole[0][z][box.slices[1:]] > 5).any()
    )


@pytest.mark.parametrize(("of", "down"), [("", downsample_mean), ("labels/bright", downsample_labels)])
def test_each_level_follows_from_the_one_above(soft: Result, of: str, down: Any) -> None:
    grid = Grid.of(soft, of)
    assert soft.levels(of) == len(grid.levels) > 2
    for n in range(1, len(grid.levels)):
        above, below = (
            np.asarray(soft.series(level, of)[:]).reshape(-1, *grid.levels[level].shape) for level in (n - 1, n)
        )
        for upper, lower in zip(above, below, strict=True):
            assert np.array_equal(down(upper, step_factors(grid.levels[n - 1], grid.levels[n])), lower)


def test_an_image_lies_where_its_input_does(result: Result, soft: Result) -> None:
    for of in ("", "raw", "labels/bright"):
        there, here = Grid.of(soft, of), Grid.of(result)
        assert (there.shape, there.pixel_nm, there.origin_nm) == (here.shape, here.pixel_nm, here.origin_nm)


def test_blocks_of_any_size_give_the_same(result: Result, soft: Result, tmp_path: Path) -> None:
    other = Soften(shard=64).run(result, output=tmp_path / "other.zarr", quiet=True)
    for level in range(other.levels()):
        assert np.array_equal(other.series(level)[:], soft.series(level)[:])


def test_a_changed_shard_is_damage(soft: Result) -> None:
    assert CliRunner().invoke(app, ["verify", str(soft.path)]).exit_code == 0
    for path in (p for name in ("0/c", "1/c", "labels/bright/0/c") for p in (Path(str(soft.path)) / name).rglob("*")):
        if path.is_file():
            before = path.read_bytes()
            path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
            done = CliRunner().invoke(app, ["verify", str(soft.path)])
            path.write_bytes(before)
            assert done.exit_code == 1
            assert path.name in done.output


def test_lost_shards_are_made_again_by_a_resumed_run(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    found = Soften().run(result, output=out, quiet=True)
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    root = json.loads((out / "zarr.json").read_text())
    root["attributes"]["simexm"]["status"] = "incomplete"
    (out / "zarr.json").write_text(json.dumps(root))
    for name in ("0/c", "1/c", "labels/bright/0/c"):
        next(p for p in sorted((out / name).rglob("*")) if p.is_file()).unlink()
    Soften().run(result, output=out, quiet=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == files
    assert found.complete


def test_it_can_be_viewed_and_exported(soft: Result, tmp_path: Path) -> None:
    scene = Scene.of(soft)
    assert [p.group for p in scene.pictures] == ["", "raw", "labels/bright"]
    assert scene.lacking == []
    assert Planes.of(soft).rgb(3, 0).shape == (*soft.array().shape[2:], 3)
    written = export(soft.at(time=3), tmp_path, "tiff", labels="merged")
    assert [p.name for p in written] == ["first.tiff", "bright.tiff"]
    assert np.array_equal(tifffile.imread(written[0]), soft.series()[2, 0])
    assert CliRunner().invoke(app, ["report", str(soft.path)]).exit_code == 2
    told = CliRunner().invoke(app, ["info", str(soft.path)]).output
    assert "bright" in told
    assert "places" in told


def test_labels_alone_can_be_viewed(result: Result, tmp_path: Path) -> None:
    found = Soften(with_image=False).run(result, output=tmp_path / "labels.zarr", quiet=True)
    assert [p.group for p in Scene.of(found).pictures] == ["labels/bright"]
    with pytest.raises(OutputError, match="no main image"):
        found.array()


def test_what_a_package_gets_wrong_is_refused(result: Result, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="blocks, and its grid has"):
        Soften(fault="blocks").run(result, output=tmp_path / "blocks.zarr", quiet=True)
    with pytest.raises(RunError, match=r"uint16 of .* for 'soft'"):
        Soften(fault="shape").run(result, output=tmp_path / "shape.zarr", quiet=True)


def test_a_volume_that_changed_is_noticed_though_its_hash_is_the_same(tmp_path: Path) -> None:
    values = np.ones((40, 8, 8), np.uint8)
    path = tmp_path / "values.npy"
    np.save(path, values)
    plan = AnalysisPlan.of(Objects(voxel_size_nm=(10, 10, 10)), (Volume(str(path), None, 0, (10, 10, 10)),))
    where = Place.at(tmp_path / "out.zarr")
    claim(where.scratch)
    begun = SameInputs.begin(plan, where)
    begun.end()
    SameInputs.begin(plan, where)  # nothing changed: a resumed run goes on
    values[1] = 2  # a plane that the hash does not read
    np.save(path, values)
    again = AnalysisPlan.of(Objects(voxel_size_nm=(10, 10, 10)), (Volume(str(path), None, 0, (10, 10, 10)),))
    assert again.hash == plan.hash
    with pytest.raises(RunError, match=r"values\.npy was changed"):
        SameInputs.begin(again, where)
    with pytest.raises(RunError, match="--overwrite"):
        begun.end()
