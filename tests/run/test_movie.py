"""Movies: bytes do not depend on how time is cut, what is lost is computed again, and the truth is that of the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import zarr
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.planning import blocks
from simexm.result.result import Result
from simexm.run.excerpt import excerpt
from simexm.run.passes import counted_in_memory
from simexm.run.repair import repair
from simexm.run.verify import Verification
from simexm.view.window import Planes, Viewer

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")


def spec(seconds: float = 2.0, **activity: Any) -> dict[str, Any]:
    """A small movie, 20 frames a second."""
    cells = {"density_per_mm3": 60_000, "depth_um": [30, 70]}
    green = {"name": "green", "laser_wavelength_nm": 470, "band_nm": [500, 550], "irradiance_W_per_cm2": 1.0}
    scope = {"numerical_aperture": 0.3, "pixel_size_nm": 2000, "duration_s": seconds, "channels": [green]}
    return {
        "source": {"kind": "tissue", "size_um": [80, 90, 90], "populations": [cells]},
        "stages": [
            {"stage": "activity", "dye": "ATTO488", "rate_hz": 5, "correlation": 0.2, **activity},
            {"stage": "miniscope", **scope},
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        "keep": ["expected"],
    }


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a result, by its path."""
    found = {}
    for file in sorted(path.rglob("zarr.json")):
        node = zarr.open(file.parent, mode="r")
        if isinstance(node, zarr.Array):
            found[str(file.parent.relative_to(path))] = np.asarray(node[...])
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished movie, each block with all of its frames."""
    path = tmp_path_factory.mktemp("movie") / "whole.zarr"
    Simulation.from_mapping(spec()).run(path, quiet=True)
    return path


def test_time_is_cut_anywhere(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 frames, the last one shorter, store what blocks of all frames do, byte by byte."""
    monkeypatch.setattr(blocks, "MOST_FRAMES", 16)
    plan = Simulation.from_mapping(spec()).plan()
    assert (plan.spans, plan.volumes.span, plan.count) == (3, 16, 3 * len(plan.blocks))
    Simulation.from_mapping(spec()).run(tmp_path / "cut.zarr", quiet=True)
    one, other = arrays(whole), arrays(tmp_path / "cut.zarr")
    assert one.keys() == other.keys()
    for path, values in one.items():
        np.testing.assert_array_equal(values, other[path], err_msg=path)
    result = Result.open(tmp_path / "cut.zarr")
    assert (result.series().shards or ())[:1] == (16,)
    assert result.cells().equals(Result.open(whole).cells())
    assert not list(Verification(result.place))


def test_a_longer_movie_begins_with_the_shorter_one(whole: Path, tmp_path: Path) -> None:
    Simulation.from_mapping(spec(1.0)).run(tmp_path / "short.zarr", quiet=True)
    for path, values in arrays(tmp_path / "short.zarr").items():
        other = arrays(whole)[path]
        part = other[:20] if path[0] in "0123e" else other[:, :20] if values.ndim == 2 else other
        np.testing.assert_array_equal(values, part, err_msg=path)


def test_any_frame_can_be_computed_alone(whole: Path) -> None:
    plan = Simulation.from_mapping(spec()).plan()
    source = plan.simulation.source.open()
    found = excerpt(plan, source, counted_in_memory(plan, source), plan.blocks.box, plan.frames[33])
    result = Result.open(whole)
    np.testing.assert_array_equal(found[""], result.series()[33])
    np.testing.assert_array_equal(found["expected"], result.series(0, "expected")[33])


def test_what_is_lost_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of the movie, of its labels and of the series: found, and repaired to the same bytes."""
    monkeypatch.setattr(blocks, "MOST_FRAMES", 16)
    path = tmp_path / "lost.zarr"
    Simulation.from_mapping(spec()).run(path, quiet=True)
    files = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    shards = [p for p in files if p.parts[0] == "0" and p.name != "zarr.json"]
    lost = [shards[0], shards[-1], Path("activity/brightness/c/0/0"), Path("activity/calcium/zarr.json")]
    for name in lost:
        (path / name).unlink()
    assert len(list(Verification(Result.open(path).place))) == len(lost)
    repair(path, lambda damage: None, quiet=True)
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


def test_truth_is_that_of_the_frames(whole: Path) -> None:
    """Light follows the brightness, brightness the calcium, and calcium the spikes."""
    result, series = Result.open(whole), zarr.open_group(whole / "activity", mode="r")
    spikes, calcium, bright, ids = (np.asarray(series[n]) for n in ("spikes", "calcium", "brightness", "id"))
    assert ids.tolist() == result.cells()["id"].to_pylist()
    assert spikes.shape == calcium.shape == bright.shape == (len(ids), 40)
    assert spikes.sum() > 10
    rises = np.diff(calcium, axis=1)[:, 1:] > 0
    recent = spikes[:, 2:] + spikes[:, 1:-1] + spikes[:, :-2] > 0  # calcium rises for 62 ms
    assert rises.any()
    assert not (rises & ~recent).any(), "calcium rises after a spike, and else falls"
    order = np.argsort(calcium.ravel(), kind="stable")
    assert np.diff(bright.ravel()[order]).min() > -1e-7, "brightness is a function of calcium alone"
    light = np.asarray(result.series(0, "expected")).reshape(40, -1).sum(axis=1)
    weights = np.linalg.lstsq(bright.T.astype(float), light, rcond=None)[0]
    np.testing.assert_allclose(bright.T @ weights, light, rtol=1e-4)
    about = result.provenance
    assert about["indicator"]["preset"] == "GCaMP6f"
    assert about["cells"] == len(ids)
    assert [a.name for a in result.acquisition.axes] == ["time"]


def test_the_window_shows_its_frames(whole: Path) -> None:
    """The slider moves through time, from the first frame on."""
    from matplotlib.figure import Figure

    result = Result.open(whole)
    planes = Planes.of(result)
    assert planes.shape == (40, 45, 45)
    low, high = result.windows[0]
    wanted = np.clip((np.asarray(result.series()[17, 0, 0]) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(planes.rgb(17, 1)[..., 0], wanted)
    assert Viewer(planes, Figure()).plane == 0
    assert planes.place(17) == "0.85 second"


def test_given_spikes_are_played(tmp_path: Path) -> None:
    """Each spike in its frame; cells that are not named stay silent, and a changed file changes the hash."""
    file = tmp_path / "spikes.parquet"
    pq.write_table(pa.table({"cell": [3, 3, 5, 9999], "time_s": [0.26, 0.27, 1.0, 0.1]}), file)
    data = spec(spikes={"path": str(file)})
    plan = Simulation.from_mapping(data).plan()
    series = counted_in_memory(plan, plan.simulation.source.open()).series["activity"]
    found = series.read("spikes", 0, 40)
    assert np.argwhere(found).tolist() == [[2, 5], [4, 20]]
    assert found[2, 5] == 2
    assert series.read("calcium", 0, 40)[[0, 1]].max() == 50
    pq.write_table(pa.table({"cell": [3], "time_s": [0.26]}), file)
    assert Simulation.from_mapping(data).plan().hash != plan.hash
    pq.write_table(pa.table({"cell": [3]}), file)
    with pytest.raises(SpecError, match="has no column time_s"):
        Simulation.from_mapping(data).plan()
    with pytest.raises(SpecError, match="cannot be read"):
        Simulation.from_mapping(spec(spikes={"path": str(tmp_path / "none.parquet")})).plan()
