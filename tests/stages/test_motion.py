"""Motion: tissue that is moved shows as tissue that lies elsewhere, and what belongs to the microscope stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.geometry.grid import Box
from simexm.kernels.motion import paths
from simexm.run.excerpt import excerpt
from simexm.run.passes import counted_in_memory

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

GREEN = {"name": "green", "laser_wavelength_nm": 470, "band_nm": [500, 550], "irradiance_W_per_cm2": 0.5}
CELLS = ((60.0, 60.0, 60.0), (70.0, 80.0, 66.0), (60.0, 44.0, 80.0))
KEY = (7, 8)


def spec(
    motion: dict[str, Any] | None = None, at: tuple[tuple[float, ...], ...] = CELLS, seconds: float = 0.2, **scope: Any
) -> dict[str, Any]:
    """A few resting cells, and a field of 40 pixels in the middle of 120 um."""
    resting = {"concentration_cv": 0, "rate_hz": 1e-9, "rate_sigma": 0, "gate": None}
    film = {"duration_s": seconds, "focus_um": 60, "field_pixels": [40, 40], "channels": [GREEN], **scope}
    return {
        "source": {
            "kind": "tissue", "size_um": [100, 120, 120],
            "populations": [{"positions_um": at, "radius_um": 5, "radius_cv": 0, "stretch": 0}],
        },
        "stages": [
            {"stage": "activity", "dye": "ATTO488", **resting},
            *([{"stage": "motion", **motion}] if motion else []),
            {"stage": "miniscope", "numerical_aperture": 0.3, "pixel_size_nm": 1655, **film},
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        "keep": ["expected"],
    }  # fmt: skip


def frames(data: dict[str, Any], *which: int) -> list[NDArray[np.float64]]:
    """The noise-free image of some frames, (y, x)."""
    plan = Simulation.from_mapping(data).plan()
    source = plan.simulation.source.open()
    counted = counted_in_memory(plan, source)
    return [
        excerpt(plan, source, counted, plan.blocks.box, frame=plan.frames[n])["expected"][0, 0].astype(np.float64)
        for n in which
    ]


def path(folder: Path, **columns: list[float]) -> dict[str, Any]:
    """A motion along a path of one's own."""
    file = folder / "path.parquet"
    pq.write_table(pa.table({"y_um": [0.0] * 4, "x_um": [0.0] * 4, **columns}), file)
    return {"path": {"path": str(file)}}


@pytest.fixture(scope="module")
def rest() -> NDArray[np.float64]:
    """Tissue that does not move."""
    return frames(spec(), 0)[0]


def test_moved_tissue_is_tissue_elsewhere(tmp_path: Path, rest: NDArray[np.float64]) -> None:
    """Moved by two voxels, tissue shows as cells that were placed there; at rest, as without the stage."""
    still, moved = frames(spec(path(tmp_path, y_um=[0, 4, 4, 0], x_um=[0, -2, -2, 0])), 0, 1)
    (placed,) = frames(spec(at=tuple((z, y + 4, x - 2) for z, y, x in CELLS)), 0)
    assert np.abs(still - rest).max() < 0.008 * rest.max()
    assert np.abs(moved - placed).max() < 0.008 * rest.max()
    assert np.abs(moved - rest).max() > 0.3 * rest.max()


def test_a_turn_is_that_of_the_image(tmp_path: Path) -> None:
    quarter = np.pi / 2
    still, turned = frames(spec(path(tmp_path, rotation_rad=[0, quarter, 0, 0])), 0, 1)
    assert np.abs(turned - np.rot90(still, -1)).max() < 1e-6 * still.max()


def test_motion_along_the_axis_is_another_focus(tmp_path: Path) -> None:
    """Tissue that is 6 um farther away is as sharp as with the focus 6 um higher; between the steps, light is kept."""
    still, away, between = frames(spec(path(tmp_path, z_um=[0, 6, 6.5, 0])), 0, 1, 2)
    (focused,) = frames(spec(path(tmp_path), focus_um=54.0), 0)
    np.testing.assert_allclose(away, focused, rtol=1e-6)
    assert np.abs(still - away).max() > 0.05 * still.max()
    assert between.sum() == pytest.approx(still.sum(), rel=0.01)


def test_what_belongs_to_the_microscope_does_not_move(tmp_path: Path) -> None:
    """A frame with vignette and leakage is the frame without, times the one field, plus the other, wherever the tissue is."""
    moving = path(tmp_path, y_um=[0.0, 7, -9, 3], x_um=[0.0, -6, 5, 2])
    bare = frames(spec(moving), 0, 1, 2)
    seen = frames(spec(moving, vignette_edge=0.5, leakage_e=30.0), 0, 1, 2)
    y, x = np.indices(bare[0].shape) + 0.5 - 20
    vignette = 1 - 0.5 * np.minimum((y * y + x * x) / 800, 1)
    for one, other in zip(bare, seen, strict=True):
        np.testing.assert_allclose(other, one * vignette + 30, rtol=1e-6)
    lit = frames(spec(moving, illumination_edge=0.5), 1)[0]
    inside = bare[1] > 0.5 * bare[1].max()
    np.testing.assert_allclose((lit / bare[1])[inside], vignette[inside], atol=0.06)  # of the cell's centre


def test_tiles_show_one_tissue(tmp_path: Path) -> None:
    """A part of a turned, shifted, defocused frame is what it is in the whole."""
    moving = path(tmp_path, y_um=[6.0] * 4, x_um=[-5.0] * 4, z_um=[2.3] * 4, rotation_rad=[0.1] * 4)
    plan = Simulation.from_mapping(spec(moving)).plan()
    source = plan.simulation.source.open()
    counted = counted_in_memory(plan, source)
    whole = excerpt(plan, source, counted, plan.blocks.box)["expected"][0, 0]
    part = excerpt(plan, source, counted, Box((0, 7, 11), (1, 29, 30)))["expected"][0, 0]
    assert np.abs(part - whole[7:29, 11:30]).max() < 2e-6 * whole.max()


def test_a_longer_path_begins_with_the_shorter_one() -> None:
    everything = {
        "walk": {"um_per_sqrt_s": 1}, "drift": {"um": 2}, "jumps": {"per_s": 1, "um": 3}, "oscillation": {"um": 1},
        "stride": {"um": 1}, "turning": {"deg": 0.5}, "z": {"um": 2}, "focus_drift_um_per_s": 0.1,
    }  # fmt: skip
    short, long = (Simulation.from_mapping(spec(everything, seconds=s)).plan().context for s in (1.0, 3.0))
    assert short.motion
    assert long.motion
    for name in ("z_um", "y_um", "x_um", "rotation_rad"):
        one, other = (getattr(c.motion.moved(c), name) for c in (short, long) if c.motion)
        np.testing.assert_array_equal(one, other[: one.size])
        assert np.ptp(one) > 0


def test_paths_have_their_spread_and_memory() -> None:
    n = 40_000
    ou = paths.relaxing(n, 3.0, 10.0, KEY)
    assert ou.std() == pytest.approx(3.0, rel=0.05)
    assert np.corrcoef(ou[10:], ou[:-10])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)
    steps = np.diff(paths.walk(n, 0.5, KEY))
    assert steps.std() == pytest.approx(0.5, rel=0.02)
    turn, damping = 0.7, 0.2
    ring = paths.ringing(n, 2.0, turn, damping, (KEY, (1, 2)))
    assert ring.std() == pytest.approx(2.0, rel=0.05)
    down = np.sqrt(1 - damping**2)
    for lag in (1, 3, 6):  # the autocorrelation of a damped oscillator, in closed form
        t = turn * lag
        wanted = np.exp(-damping * t) * (np.cos(down * t) + damping / down * np.sin(down * t))
        assert np.corrcoef(ring[lag:], ring[:-lag])[0, 1] == pytest.approx(wanted, abs=0.03)
    jumps = np.stack([paths.jumping(n // 2, 0.01, 1.0, 50.0, ((k, 8), (k, 9))) for k in range(40)])
    assert jumps.var() == pytest.approx(0.01 / (1 - np.exp(-2 / 50)), rel=0.15)


def test_the_table_of_shifts_is_the_path(tmp_path: Path) -> None:
    motion = {"drift": {"um": 2}, "z": {"um": 1}}
    result = Simulation.from_mapping(spec(motion, seconds=0.5)).run(tmp_path / "moved.zarr", quiet=True)
    table, context = result.table("shifts"), result.plan().context
    assert context.motion
    found = context.motion.moved(context)
    assert table.column_names == ["time", "z_um", "y_um", "x_um", "rotation_rad"]
    assert table["time"].to_pylist() == list(range(10))
    for name in table.column_names[1:]:
        np.testing.assert_array_equal(table[name].to_numpy(), getattr(found, name))


@pytest.mark.parametrize(
    ("motion", "field"),
    [
        ({"walk": {"um_per_sqrt_s": 200}}, "size_um"),
        ({"drift": {"um": 5}, "margin_um": 1}, "margin_um"),
    ],
)
def test_a_margin_too_small_is_refused(motion: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError, match=field):
        Simulation.from_mapping(spec(motion, seconds=1.0)).plan()


def test_a_path_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"motion\.path.*4 rows.*10 frames"):
        Simulation.from_mapping(spec(path(tmp_path), seconds=0.5)).plan()
    (tmp_path / "no.csv").write_text("y_um\n1\n")
    with pytest.raises(SpecError, match="x_um"):
        Simulation.from_mapping(spec({"path": {"path": str(tmp_path / "no.csv")}})).plan()
    with pytest.raises(SpecError, match="motion"):
        Simulation.from_mapping(spec({})).replace(stages=[*spec()["stages"], {"stage": "motion"}])


def test_a_frame_rate_that_the_sensor_cannot_give_is_refused() -> None:
    fast = spec(frames_per_s=150)
    Simulation.from_mapping(fast)
    fast["stages"][2] = {"stage": "camera", "preset": "Miniscope V4"}
    with pytest.raises(SpecError, match=r"120.*frames_per_s"):
        Simulation.from_mapping(fast)
