"""From an image of membranes to segments: the same in any blocks, and better than the supervoxels that they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from simexm.analysis.scores.segmentation import SegmentationScore
from simexm.analysis.segmentation.agglomerate import Agglomerate
from simexm.analysis.segmentation.segment import Segment
from simexm.errors import OutputError, RunError, SpecError
from simexm.geometry.grid import Box
from simexm.kernels.objects.watershed import drained
from simexm.result.result import Result

VOXEL = (40.0, 32.0, 32.0)
SHAPE = (24, 40, 44)
SETTINGS: dict[str, Any] = {"voxel_size_nm": VOXEL, "deepest_nm": 150, "local_nm": 150}


def tissue() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Cells around random points, and counts of light from where they meet."""
    rng = np.random.default_rng(0)
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    cells = np.asarray(cKDTree(rng.random((25, 3)) * SHAPE).query(places)[1] + 1)
    meets = np.zeros(SHAPE)
    for axis in range(3):
        meets += np.diff(cells, axis=axis, append=cells.take([-1], axis)) != 0
    light = rng.poisson(40 * ndimage.gaussian_filter(meets, 0.8) + 1)
    return cells.astype(np.uint16), light.astype(np.uint16)


def image(result: Result, name: str) -> NDArray[np.uint64]:
    """A label image of a result."""
    return np.asarray(result.array(of=f"labels/{name}")[:], np.uint64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells, their image, supervoxels and segments."""
    place = tmp_path_factory.mktemp("segmentation")
    cells, light = tissue()
    np.save(place / "cells.npy", cells)
    np.save(place / "image.npy", light)
    Segment(**SETTINGS).run(place / "image.npy", output=place / "supervoxels.zarr", quiet=True)
    Agglomerate().run(place / "supervoxels.zarr", output=place / "segments.zarr", quiet=True)
    return place


def test_each_basin_holds_one_summit_and_a_way_up_to_it() -> None:
    heights = ndimage.gaussian_filter(np.random.default_rng(2).random((9, 10, 11)), 1).astype(np.float32)
    basins, exits = drained(heights, Box.of_shape((9, 10, 11)), VOXEL)
    assert not len(exits)
    summits = heights == ndimage.maximum_filter(heights, 3)
    assert basins.min() == 1
    assert basins.max() == summits.sum()
    assert np.array_equal(np.sort(basins[summits]), np.arange(1, summits.sum() + 1))
    for number in range(1, int(basins.max()) + 1):
        assert ndimage.label(basins == number, np.ones((3, 3, 3)))[1] == 1


def test_a_plain_drains_without_end_or_circle() -> None:
    basins, exits = drained(np.zeros((4, 5, 6), np.float32), Box.of_shape((4, 5, 6)), VOXEL)
    assert not len(exits)
    assert (basins == 1).all()


def test_blocks_of_any_size_give_the_same_supervoxels_and_segments(folder: Path) -> None:
    cut = Segment(**SETTINGS, block_voxels=16).run(folder / "image.npy", output=folder / "cut.zarr", quiet=True)
    whole = Result.open(folder / "supervoxels.zarr")
    assert np.array_equal(image(cut, "supervoxels"), image(whole, "supervoxels"))
    assert np.array_equal(cut.array()[:], whole.array()[:])
    assert cut.table("sizes") == whole.table("sizes")
    ids, first, voxels = np.unique(image(whole, "supervoxels"), return_index=True, return_counts=True)
    assert np.array_equal(ids, first + 1)  # ids are one more than the smallest voxel index
    assert whole.table("sizes")["voxels"].to_pylist() == voxels.tolist()
    merged = Agglomerate(block_voxels=16).run(cut.path, output=folder / "cut-segments.zarr", quiet=True)
    expected = Result.open(folder / "segments.zarr")
    assert np.array_equal(image(merged, "segments"), image(expected, "segments"))
    for name in ("merges", "edges"):
        assert merged.table(name) == expected.table(name)


def test_the_table_of_merges_is_what_the_image_shows(folder: Path) -> None:
    supervoxels = image(Result.open(folder / "supervoxels.zarr"), "supervoxels")
    result = Result.open(folder / "segments.zarr")
    segments, merges = image(result, "segments"), result.table("merges")
    pairs = np.unique(np.stack([supervoxels.ravel(), segments.ravel()], axis=1), axis=0)
    assert np.array_equal(pairs[:, 0], merges["fragment"].to_numpy())
    assert np.array_equal(pairs[:, 1], merges["cell"].to_numpy())
    for cell in np.unique(pairs[:, 1]):
        assert pairs[pairs[:, 1] == cell, 0].min() == cell
    assert np.unique(segments).size < np.unique(supervoxels).size


def test_merging_brings_supervoxels_nearer_to_the_truth(folder: Path) -> None:
    found = {}
    for name, of in (("supervoxels", "labels/supervoxels"), ("segments", "labels/segments")):
        score = SegmentationScore(dataset=of, voxel_size_nm=VOXEL)
        result = score.run(
            folder / f"{name}.zarr", folder / "cells.npy", output=folder / f"score-{name}.zarr", quiet=True
        )
        found[name] = {row["score"]: row["value"] for row in result.scores().to_pylist() if not row["subset"]}
    assert found["segments"]["voi"] < found["supervoxels"]["voi"]
    assert found["segments"]["rand_skimage"] < found["supervoxels"]["rand_skimage"]


def test_edges_may_come_from_a_table(folder: Path, tmp_path: Path) -> None:
    edges = Result.open(folder / "segments.zarr").table("edges")
    affinity = pa.table(
        {**{n: edges[n] for n in ("first", "second", "area_um2")}, "affinity": 1 - edges["mean"].to_numpy()}
    )
    pq.write_table(affinity, tmp_path / "edges.parquet")
    supervoxels = Agglomerate(dataset="labels/supervoxels")
    result = supervoxels.run(
        folder / "supervoxels.zarr",
        f"edges={tmp_path / 'edges.parquet'}",
        output=tmp_path / "m.zarr",
        quiet=True,
    )
    expected = Result.open(folder / "segments.zarr")
    assert result.table("merges") == expected.table("merges")
    pq.write_table(pa.table({"first": [1], "second": [999_999], "mean": [0.1]}), tmp_path / "other.parquet")
    with pytest.raises((OutputError, RunError), match="999999"):
        supervoxels.run(
            folder / "supervoxels.zarr",
            f"edges={tmp_path / 'other.parquet'}",
            output=tmp_path / "o.zarr",
            quiet=True,
        )


def test_inputs_that_cannot_be_meant_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="boundaries=PATH"):
        Agglomerate(voxel_size_nm=VOXEL).plan(folder / "cells.npy")
    pq.write_table(pa.table({"first": [1], "second": [2]}), tmp_path / "bare.parquet")
    with pytest.raises(OutputError, match="affinity"):
        Agglomerate().plan(folder / "supervoxels.zarr", f"edges={tmp_path / 'bare.parquet'}")
    np.save(tmp_path / "small.npy", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(OutputError, match="same grid"):
        Agglomerate().plan(folder / "supervoxels.zarr", f"boundaries={tmp_path / 'small.npy'}")
    with pytest.raises(SpecError, match="channel"):
        Segment(voxel_size_nm=VOXEL, channel="green").plan(folder / "image.npy")
