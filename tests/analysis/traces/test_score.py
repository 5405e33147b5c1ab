"""Scores of cells of a movie: the truth scores 1, what is missing, moved or noisy scores less by as much as it should."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from simexm.analysis.scores.traces import TraceScore
from simexm.analysis.traces.readers import read
from simexm.errors import OutputError
from simexm.result.result import Result
from tests.analysis.traces.movies import film, spec, with_footprints

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning", "ignore::UserWarning")
FRAMES = 80


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A movie of several cells that rests, with a table of shifts as if it had moved."""
    where = tmp_path_factory.mktemp("movie") / "movie.zarr"
    film(where, spec(side=64, seconds=FRAMES / 20))
    with_footprints(where, 1.655 * shifts())
    return where


def shifts() -> NDArray[np.float64]:
    """A walk, pixels."""
    return np.cumsum(np.random.default_rng(1).normal(0, 0.3, (FRAMES, 2)), axis=0)


@pytest.fixture(scope="module")
def truth(path: Path) -> dict[str, NDArray[Any]]:
    """Footprints (unit, y, x), brightness and spikes."""
    table = Result.open(path).table("footprints").to_pydict()
    ids = sorted(set(table["unit"]))
    images = np.zeros((len(ids), 64, 64))
    images[np.searchsorted(ids, table["unit"]), table["y"], table["x"]] = table["weight"]
    group = zarr.open_group(path / "activity", mode="r")
    assert np.asarray(group["id"]).tolist() == ids
    return {
        "footprints": images,
        **{n: np.asarray(group[s]).astype(float) for n, s in (("traces", "brightness"), ("spikes", "spikes"))},
    }


def scored(found: Path, path: Path, out: Path, **settings: Any) -> dict[str, float]:
    """All scores, by name and subset."""
    result = TraceScore(**settings).run(found, path, output=out, quiet=True)
    return {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}


def test_the_truth_scores_one(path: Path, truth: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    """The movie itself, and each format that holds the same."""
    found = scored(path, path, tmp_path / "out.zarr", depth_um=[0, 45, 90], detectable_snr=1)
    units = len(truth["footprints"])
    assert units >= 4
    assert (found["found"], found["planted"], found["used"]) == (units, units, units)
    for name in ("iou", "cosine", "jaccard"):
        assert [found[f"{s} {name}"] for s in ("recall", "precision", "mean")] == pytest.approx([1, 1, 1])
    ones = ("trace_pearson", "spike_pearson", "spike_precision", "spike_recall", "recall_of_planted 0-45 um")
    assert [found[name] for name in ones] == pytest.approx([1] * len(ones))
    zeros = ("offset_y", "offset_x", "spike_lag", "shift_rmse")
    assert [found[name] for name in zeros] == pytest.approx([0] * len(zeros), abs=1e-6)
    result = Result.open(tmp_path / "out.zarr")
    assert result.table("matches").num_rows == result.table("units").num_rows == units


def test_what_is_wrong_costs_what_it_should(path: Path, truth: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    """Two units missing, one invented, all moved by whole pixels, late by a frame, and turned shifts with noise."""
    keep = slice(2, None)
    images = np.roll(truth["footprints"][keep], (2, -1), (1, 2))
    images = np.concatenate([images, np.eye(64)[None]])
    late = np.roll(truth["spikes"][keep], 1, axis=1)
    late[:, 0] = 0
    traces = np.concatenate([5 - 2 * truth["traces"][keep], np.zeros((1, FRAMES))])
    noise = np.tile([[0.2], [-0.2]], (FRAMES // 2, 2))
    field = np.random.default_rng(1).random((64, 64))
    np.save(tmp_path / "vignette.npy", field)
    np.savez(
        tmp_path / "found.npz",
        footprints=images,
        traces=traces,
        spikes=np.concatenate([late, traces[-1:]]),
        shifts=noise - shifts(),
        field_vignette=1 - field,
    )
    settings = {"detectable_snr": 0, "fields": {"vignette": str(tmp_path / "vignette.npy")}}
    found = scored(tmp_path / "found.npz", path, tmp_path / "out.zarr", **settings)
    units = len(truth["footprints"])
    assert found["recall iou"] == pytest.approx((units - 2) / units)
    assert found["precision iou"] == pytest.approx((units - 2) / (units - 1))
    assert (found["offset_y"], found["offset_x"], found["spike_lag"]) == (-2, 1, 1)
    assert found["trace_pearson"] == pytest.approx(-1)
    assert [found["shift_rmse"], found["shift_sign"]] == pytest.approx([0.2, -1])
    assert found["field_pearson vignette"] == pytest.approx(-1)
    assert scored(tmp_path / "found.npz", path, tmp_path / "still.zarr", offset_px=[0, 0], fields={})["mean iou"] < 0.9


def test_every_format_gives_what_was_written(truth: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    images, traces, spikes = truth["footprints"][:, :, :60], truth["traces"], truth["spikes"]
    for write in (write_minian, write_minian_netcdf, write_suite2p, write_caiman, write_nwb):
        found = read(write(tmp_path, images, traces, spikes))
        assert found.shape == (64, 60), write
        np.testing.assert_allclose(
            found.footprints.toarray().reshape(images.shape), images, rtol=1e-6, err_msg=str(write)
        )
        assert found.traces is not None
        assert found.spikes is not None
        np.testing.assert_allclose(found.traces, traces, err_msg=str(write))
        np.testing.assert_allclose(found.spikes, spikes, err_msg=str(write))


def write_minian(folder: Path, images: Any, traces: Any, spikes: Any) -> Path:
    """As xarray stores it in Zarr 2; the temporal arrays in another order of units."""
    units = np.arange(10, 10 + len(images))
    content: dict[str, Any] = {"A": (images, ("unit_id", "height", "width"), units)}
    content |= {n: (v[::-1], ("unit_id", "frame"), units[::-1]) for n, v in (("C", traces), ("S", spikes))}
    for name, (values, axes, ids) in content.items():
        group = zarr.open_group(folder / "minian" / f"{name}.zarr", mode="w", zarr_format=2)
        group.create_array(name, data=values).attrs["_ARRAY_DIMENSIONS"] = list(axes)
        group.create_array("unit_id", data=ids).attrs["_ARRAY_DIMENSIONS"] = ["unit_id"]
    return folder / "minian"


def write_minian_netcdf(folder: Path, images: Any, traces: Any, spikes: Any) -> Path:
    """As xarray stores it in netCDF-4."""
    with h5py.File(folder / "minian.nc", "w") as file:
        for axis, size in {"unit_id": len(images), "frame": FRAMES, "height": 64, "width": 60}.items():
            file[axis] = np.arange(size)
            file[axis].make_scale(axis)
        for name, values, axes in (
            ("A", images, ("unit_id", "height", "width")),
            ("C", traces, ("unit_id", "frame")),
            ("S", spikes, ("unit_id", "frame")),
        ):
            file[name] = values
            for n, axis in enumerate(axes):
                file[name].dims[n].attach_scale(file[axis])
    return folder / "minian.nc"


def write_suite2p(folder: Path, images: Any, traces: Any, spikes: Any) -> Path:
    """A plane's folder, with one region that is no cell."""
    plane = folder / "plane0"
    plane.mkdir()
    stat = []
    for image in (*images, np.eye(64, 60)):
        y, x = np.nonzero(image)
        stat.append({"ypix": y.astype(np.int32), "xpix": x.astype(np.int32), "lam": image[y, x]})
    np.save(plane / "stat.npy", np.array(stat, dtype=object))
    np.save(
        plane / "ops.npy",
        np.array({"Ly": 64, "Lx": 60, "neucoeff": 0.7, "diameter": np.float32(6), "save_path": "x"}, dtype=object),
    )
    more = np.ones((1, FRAMES))
    for name, values in (("F", traces + 0.7), ("Fneu", 0 * traces + 1), ("spks", spikes)):
        np.save(plane / f"{name}.npy", np.concatenate([values, more]))
    np.save(plane / "iscell.npy", np.array([[1.0, 0.9]] * len(images) + [[0.0, 0.1]]))
    return plane


def write_caiman(folder: Path, images: Any, traces: Any, spikes: Any) -> Path:
    """Estimates with one that was not accepted; pixels run along columns."""
    from scipy import sparse

    flat = np.concatenate([images, np.ones((1, 64, 60))]).transpose(0, 2, 1).reshape(len(images) + 1, -1).T
    matrix = sparse.csc_array(flat)
    more = np.ones((1, FRAMES))
    with h5py.File(folder / "caiman.hdf5", "w") as file:
        estimates = file.create_group("estimates")
        for name in ("data", "indices", "indptr"):
            estimates[f"A/{name}"] = getattr(matrix, name)
        estimates["A/shape"] = matrix.shape
        estimates["dims"] = (64, 60)
        estimates["C"], estimates["S"] = np.concatenate([traces, more]), np.concatenate([spikes, more])
        estimates["idx_components"] = np.arange(len(images))
    return folder / "caiman.hdf5"


def write_nwb(folder: Path, images: Any, traces: Any, spikes: Any) -> Path:
    """By pynwb, which defines the format."""
    pynwb = pytest.importorskip("pynwb")
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel  # type: ignore[import-untyped]

    file = pynwb.NWBFile("movie", "movie", datetime(2026, 1, 1, tzinfo=UTC))
    light = OpticalChannel(name="green", description="-", emission_lambda=525.0)
    about = {"description": "-", "excitation_lambda": 470.0, "indicator": "GCaMP6f", "location": "CA1"}
    plane = file.create_imaging_plane(
        name="plane", optical_channel=light, device=file.create_device("scope"), imaging_rate=20.0, **about
    )
    segmentation = ImageSegmentation()
    module = file.create_processing_module("ophys", "-")
    module.add(segmentation)
    regions = segmentation.create_plane_segmentation(description="-", imaging_plane=plane, name="cells")
    for image in images:
        regions.add_roi(image_mask=image.T)
    container = Fluorescence()
    module.add(container)
    rows = regions.create_roi_table_region("all", region=list(range(len(images))))
    for name, values in (("RoiResponseSeries", traces), ("Deconvolved", spikes)):
        container.create_roi_response_series(name=name, data=values.T, rois=rows, unit="n.a.", rate=20.0)
    with pynwb.NWBHDF5IO(folder / "movie.nwb", "w") as io:
        io.write(file)
    return folder / "movie.nwb"


def test_nothing_pickled_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    np.save(tmp_path / "stat.npy", np.array([{"ypix": Evil()}], dtype=object))
    with pytest.raises(OutputError, match="is not read"):
        read(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_what_cannot_be_compared_is_refused(path: Path, truth: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    np.save(tmp_path / "cropped.npy", truth["footprints"][:, 1:])
    np.savez(tmp_path / "short.npz", footprints=truth["footprints"], traces=truth["traces"][:, 1:])
    (tmp_path / "notes.txt").write_text("cells")
    np.save(tmp_path / "found.npy", truth["footprints"])
    refusals = {
        "cropped.npy": "63 x 64 pixels",
        "short.npz": f"{FRAMES - 1} frames",
        "notes.txt": "no known format",
        "none.npz": "does not exist",
    }
    for name, message in refusals.items():
        with pytest.raises(OutputError, match=message):
            TraceScore().plan(tmp_path / name, path)
    with pytest.raises(OutputError, match="field_flat"):
        TraceScore(fields={"flat": "flat.npy"}).plan(tmp_path / "found.npy", path)
