"""Laws of labels in time: at each time point a series is the volume that it would be alone, whatever holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from typer.testing import CliRunner

from simexm import Simulation, simulate
from simexm.cli.app import app
from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Box
from simexm.ingestion.ingest import ingest
from simexm.sources import describe
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.opening import open_stack
from simexm.sources.stack import TimeSeries
from tests.build import VOXEL_NM, layer, spec
from tests.sources.volumes import ids, whole

SHAPE = (6, 20, 24)
A = np.stack([np.roll(ids("uint16", SHAPE), 3 * t, axis=2) for t in range(3)])
SOMA = A > 40000
BOX = Box((1, 3, 0), (5, 20, 17))
SECONDS = 2.5


def _ome(path: Path, version: str, order: str, a: Any = A) -> Path:
    a = a.transpose(["tzyx".index(axis) for axis in order])
    size = {"t": SECONDS / 60, "z": 40, "y": 32, "x": 32}
    axes = [
        {"name": n, "type": "time", "unit": "minute"} if n == "t" else {"name": n, "type": "space", "unit": "nanometer"}
        for n in order
    ]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [size[n] for n in order]}]}]
    told: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": levels}]}
    attributes = {"ome": {"version": version, **told}} if version == "0.5" else told
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    group.create_array("0", data=a, chunks=tuple(1 if n == "t" else 8 for n in order))
    return path


def _plain(path: Path) -> Path:
    attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["z", "time", "y", "x"], "resolution": [40, 1, 32, 32]}
    zarr.create_array(path, data=A.swapaxes(0, 1), chunks=(3, 2, 9, 9), attributes=attributes)
    return path


def _imagej(path: Path) -> Path:
    told = {"axes": "TZYX", "unit": "um", "spacing": 0.04, "finterval": SECONDS}
    tifffile.imwrite(path, A, imagej=True, resolution=(1 / 0.032, 1 / 0.032), metadata=told)
    return path


def _ome_tiff(path: Path, order: str, **how: Any) -> Path:
    size = {f"PhysicalSize{a}": s for a, s in zip("ZYX", VOXEL_NM, strict=True)}
    units = {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"}
    a = A if order == "TZYX" else A.swapaxes(0, 1)
    told = {"axes": order, "TimeIncrement": 1000 * SECONDS, "TimeIncrementUnit": "ms", **size, **units}
    tifffile.imwrite(path, a, ome=True, photometric="minisblack", metadata=told, **how)
    return path


SERIES: dict[str, Callable[[Path], Path]] = {
    "OME-Zarr 0.4": lambda p: _ome(p / "a.zarr", "0.4", "tzyx"),
    "OME-Zarr 0.5": lambda p: _ome(p / "a.zarr", "0.5", "tzyx"),
    "OME-Zarr, time last": lambda p: _ome(p / "a.zarr", "0.5", "xzyt"),
    "plain Zarr": lambda p: _plain(p / "a.zarr"),
    "ImageJ": lambda p: _imagej(p / "a.tif"),
    "OME-TIFF": lambda p: _ome_tiff(p / "a.tif", "TZYX", compression="zlib", rowsperstrip=7),
    "OME-TIFF, time within z": lambda p: _ome_tiff(p / "a.tif", "ZTYX"),
    "OME-TIFF, time within z, compressed": lambda p: _ome_tiff(p / "a.tif", "ZTYX", compression="lzw"),
}


@pytest.mark.parametrize("make", SERIES.values(), ids=SERIES)
def test_each_time_point_is_read_as_it_was_written(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    stack = open_stack(str(path))
    assert isinstance(stack, TimeSeries)
    assert (stack.shape, stack.times) == (SHAPE, 3)
    assert stack.seconds_per_time == (None if path.name == "a.zarr" and not (path / "0").exists() else SECONDS)
    for time in range(3):
        one = stack.at(time)
        assert one.times == 1
        np.testing.assert_array_equal(whole(one), A[time])
        np.testing.assert_array_equal(one.read(BOX), A[time][BOX.slices])
    if path.suffix == ".zarr":
        source = open_source(path)
        assert (source.shape, source.times) == (SHAPE, 3)
        for time in (2, 0, 1):
            np.testing.assert_array_equal(source.read(BOX, time), A[time][BOX.slices])
            chosen = ZarrSource(path=str(path), time=time).open()
            assert (chosen.times, chosen.seconds_per_time) == (1, None)
            np.testing.assert_array_equal(chosen.read(BOX), A[time][BOX.slices])


def test_an_ingested_series_is_the_volumes_ingested_alone(tmp_path: Path) -> None:
    """And at one time point of it even the bytes of all shards are those of the volume that was alone."""
    path, roi = _imagej(tmp_path / "a.tif"), "1:,:19,2:"
    (tmp_path / "soma").mkdir()
    _ome(tmp_path / "soma" / "a.zarr", "0.5", "tzyx", SOMA.astype("u1"))
    soma = {"soma": tmp_path / "soma" / "a.zarr"}
    made = ingest(path, tmp_path / "series.zarr", VOXEL_NM, roi=roi, regions=soma)
    series = open_source(tmp_path / "series.zarr")
    assert (made.times, series.times, series.seconds_per_time) == (3, 3, SECONDS)
    array: Any = zarr.open_array(tmp_path / "series.zarr" / "0", mode="r")
    assert array.metadata.dimension_names == ("t", "z", "y", "x")
    assert (array.shards[0], array.chunks[0]) == (1, 1)
    for time in range(3):
        np.save(tmp_path / "one.npy", A[time])
        np.save(tmp_path / "mask.npy", SOMA[time])
        there, here = tmp_path / f"alone{time}.zarr", tmp_path / f"time{time}.zarr"
        ingest(tmp_path / "one.npy", there, VOXEL_NM, roi=roi, regions={"soma": tmp_path / "mask.npy"})
        ingest(path, here, VOXEL_NM, roi=roi, time=time, regions=soma)
        alone = open_source(there)
        for level, like in zip((series, *series.coarser), (alone, *alone.coarser), strict=True):
            assert level.shape == like.shape
            box = Box.of_shape(level.shape)
            np.testing.assert_array_equal(level.read(box, time), like.read(box))
        box = Box.of_shape(series.shape)
        np.testing.assert_array_equal(series.read_field("soma", box, time), alone.read_field("soma", box))
        marks = [zarr.open_group(p).attrs["simexm"] for p in (there, here)]
        assert marks[0] == marks[1]


def test_planes_in_time_are_volumes_of_one_plane(tmp_path: Path) -> None:
    planes = A[:, :1]
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=planes[:, 0], chunks=(2, 9, 9), attributes={"_ARRAY_DIMENSIONS": ["t", "y", "x"]})
    stored = ZarrSource(path=str(path), voxel_size_nm=VOXEL_NM).open()
    tifffile.imwrite(tmp_path / "a.tif", planes[:, 0], ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.warns(SimexmWarning, match="points in time"):
        ingest(tmp_path / "a.tif", tmp_path / "b.zarr", VOXEL_NM)
    for source in (stored, open_source(tmp_path / "b.zarr"), ArrayVolume(planes[:, 0], VOXEL_NM, axes="tyx")):
        assert (source.shape, source.times) == ((1, *SHAPE[1:]), 3)
        for time in range(3):
            np.testing.assert_array_equal(source.read(Box.of_shape(source.shape), time), planes[time])
    with pytest.raises(SourceError, match="no z axis"):
        open_source(path)


def test_a_lost_shard_of_any_time_point_is_seen(tmp_path: Path) -> None:
    ingest(_imagej(tmp_path / "a.tif"), tmp_path / "a.zarr")
    source = open_source(tmp_path / "a.zarr")
    before = source.state(Box.of_shape(SHAPE), ())
    (tmp_path / "a.zarr" / "0" / "c" / "2" / "0" / "0" / "0").unlink()
    assert open_source(tmp_path / "a.zarr").state(Box.of_shape(SHAPE), ()) != before
    assert (source.read(BOX, 1) == A[1][BOX.slices]).all()
    with pytest.raises(SourceError, match="damaged or gone"):
        source.read(BOX, 2)


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_a_run_at_a_time_point_is_that_of_the_volume_alone(tmp_path: Path) -> None:
    layers = [layer(), layer(name="soma", region="soma", density_per_um3=3000)]
    data = spec(*layers)
    path = tmp_path / "cells.zarr"
    regions = {"soma": "soma"}
    root = zarr.open_group(path, mode="w")
    for name, values in (("ids", A), ("soma", SOMA.astype("u1")), ("one", A[1]), ("one_soma", SOMA[1].astype("u1"))):
        names = "tzyx"[-values.ndim :]
        root.create_array(name, data=values, chunks=(4,) * values.ndim, dimension_names=list(names))

    def simulation(dataset: str, **source: Any) -> Simulation:
        given = {"path": str(path), "dataset": dataset, "voxel_size_nm": VOXEL_NM, **source}
        return Simulation.from_mapping({**data, "source": given})

    chosen = simulation("ids", time=1, regions=regions)
    alone = simulation("one", regions={"soma": "one_soma"})
    seen, expected = chosen.preview(), alone.preview()
    np.testing.assert_array_equal(seen.image, expected.image)
    np.testing.assert_array_equal(seen.labels, expected.labels)
    hashes = {simulation("ids", time=t, regions=regions).plan().hash for t in range(3)}
    assert len(hashes) == 3
    memory = Simulation.from_mapping({**data, "source": {"path": "-", "regions": {"soma": "-"}}})
    series = simulate(A, memory, voxel_size_nm=VOXEL_NM, regions={"soma": SOMA}, axes="tzyx", time=1)
    single = simulate(A[1], memory, voxel_size_nm=VOXEL_NM, regions={"soma": SOMA[1]})
    np.testing.assert_array_equal(series.image, single.image)
    still = simulate(A, memory, voxel_size_nm=VOXEL_NM, regions={"soma": SOMA[1]}, axes="tzyx", time=1)
    np.testing.assert_array_equal(still.image, single.image)
    with pytest.raises(SourceError, match=r"time=N \(0 to 2\)"):
        simulate(A, memory, voxel_size_nm=VOXEL_NM, regions={"soma": SOMA}, axes="tzyx")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({}, r"source: {path: ..., time: N} (0 to 2)"),
        ({"time": 3}, "no time point 3"),
        ({"time": -1}, "source.time"),
        ({"time": 1, "regions": {"soma": "two"}}, "2 time points"),
        ({"dataset": "one", "time": 1}, "one time point"),
    ],
    ids=["none chosen", "too late", "negative", "mask of other times", "no series"],
)
def test_plan_refuses_what_is_not_one_time_point(tmp_path: Path, source: dict[str, Any], told: str) -> None:
    root = zarr.open_group(tmp_path / "cells.zarr", mode="w")
    for name, values in (("ids", A), ("two", A[:2]), ("one", A[0])):
        root.create_array(name, data=values, chunks=(8,) * values.ndim, dimension_names=list("tzyx"[-values.ndim :]))
    given = {"path": str(tmp_path / "cells.zarr"), "dataset": "ids", "voxel_size_nm": list(VOXEL_NM), **source}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**spec(), "source": given}))
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "a.yaml")])
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--time", "3"), "counted from 0 to 2. Choose one: --time N"),
        (("--region", "soma={two}"), "2 time points"),
    ],
)
def test_ingest_refuses_time_points_that_are_not_there(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    two = _ome(tmp_path / "two.zarr", "0.5", "tzyx", A[:2])
    words = [word.format(two=two) for word in options]
    source = _imagej(tmp_path / "a.tif")
    done = CliRunner().invoke(app, ["ingest", str(source), "-o", str(tmp_path / "b.zarr"), *words, "-q"])
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "b.zarr").exists()


def test_what_there_is_of_time_is_told(tmp_path: Path) -> None:
    path = _imagej(tmp_path / "a.tif")
    for source in (path, ArrayVolume(A, VOXEL_NM, axes="tzyx", seconds_per_time=SECONDS)):
        about = describe(source)
        assert (about["times"], about["seconds_per_time"], about["shape_voxels"]) == (3, SECONDS, list(SHAPE))
    assert "3, 2.5 s apart" in CliRunner().invoke(app, ["info", str(path)]).output
