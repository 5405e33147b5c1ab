"""Truth of a movie: footprints are shares of light where cells are seen, and who is seen is an ideal observer's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.result.result import Result
from simexm.run.block import compute_box
from simexm.run.passes import counted_in_memory
from tests.stages.test_motion import frames, path, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

INSIDE = ((60.0, 60.0, 60.0), (60.0, 72.0, 54.0))
EDGE, OUT = (60.0, 30.0, 60.0), (60.0, 8.0, 8.0)
SHIFT = {"y_um": [3.0] * 4, "x_um": [-2.0] * 4, "z_um": [1.5] * 4, "rotation_rad": [0.2] * 4}


def movie(motion: dict[str, Any] | None = None, **scope: Any) -> dict[str, Any]:
    """Cells that spike: two inside the field, one at its edge, one outside."""
    data = spec(motion, (*INSIDE, EDGE, OUT), scattering_length_um=1e4, **scope)
    data["stages"][0] |= {"rate_hz": 10, "rate_sigma": 0.01}
    return data


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Simulation.from_mapping(movie()).run(tmp_path_factory.mktemp("still") / "a.zarr", quiet=True)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("moved")
    return Simulation.from_mapping(movie(path(folder, **SHIFT))).run(folder / "a.zarr", quiet=True)


def of(result: Result, name: str, unit: int) -> NDArray[np.float64]:
    """A footprint as an image, (y, x)."""
    table, image = result.table(name), np.zeros((40, 40))
    mine = table["unit"].to_numpy() == unit
    image[table["y"].to_numpy()[mine], table["x"].to_numpy()[mine]] = table["weight"].to_numpy()[mine]
    return image


def centre(image: NDArray[np.float64]) -> NDArray[np.float64]:
    y, x = np.indices(image.shape) + 0.5
    return np.array([(image * y).sum(), (image * x).sum()], np.float64) / float(image.sum())


def test_footprints_are_shares_of_light(still: Result, moved: Result) -> None:
    """All light of a cell inside falls on its pixels, about its centre, wherever tissue lies."""
    for result in (still, moved):
        units = result.table("units")
        assert units["unit"].to_pylist() == [1, 2, 3]  # the cell outside is no unit
        for unit in (1, 2):
            place = [units[name][unit - 1].as_py() for name in ("y_pixels", "x_pixels")]
            for name in ("footprints", "footprints_planted"):
                found = of(result, name, unit)
                assert found.sum() == pytest.approx(1, abs=0.01)
                np.testing.assert_allclose(centre(found), place, atol=0.03)
    at_edge = still.table("units")["share"][2].as_py()
    assert of(still, "footprints", 3).sum() == pytest.approx(at_edge, abs=1e-3)
    assert 0.1 < at_edge < 0.95
    assert still.table("footprints").schema.field("weight").type == "float"
    assert [f.name for f in still.table("footprints").schema] == ["unit", "y", "x", "weight"]


def test_the_middle_frame_is_the_sum_of_footprints(moved: Result) -> None:
    """Of evenly lit cells of one brightness: footprints times one amount are the frame, but for the little scattered light."""
    data = movie(path(Path(moved.path).parent, **SHIFT))
    data["stages"][0] |= {"rate_hz": 1e-9}
    (frame,) = frames(data, 2)
    total = np.sum([of(moved, "footprints", unit) for unit in (1, 2, 3)], axis=0)
    scale = (frame * total).sum() / (total * total).sum()
    assert np.abs(frame - scale * total).max() < 0.02 * frame.max()


def test_units_do_not_depend_on_tiles(still: Result) -> None:
    plan = Simulation.from_mapping(movie()).with_tile((1, 16, 24)).plan()
    source = plan.simulation.source.open()
    block = compute_box(plan, source, counted_in_memory(plan, source), plan.blocks.box)
    whole = still.table("units")
    kept = block.sums["units"]
    np.testing.assert_allclose(kept.columns["share"][:3] / 2**40, whole["share"].to_numpy(), atol=1e-4)
    rows = block.rows["footprints"]
    assert rows["weight"][rows["unit"] == 1].sum() == pytest.approx(1, abs=0.01)


def test_brighter_and_sharper_cells_are_easier_to_see(still: Result) -> None:
    """Signal over noise is that of the closed form for a bright frame, and falls out of focus."""
    snr = still.table("units")["snr"].to_numpy()
    assert still.table("units")["in_focus"].to_pylist()[:2] == [1, 1]
    far = Simulation.from_mapping(movie(focus_um=0)).plan()
    source = far.simulation.source.open()
    counted = counted_in_memory(far, source)
    block = compute_box(far, source, counted, far.blocks.box)
    blurred = far.stages[1].table(
        next(t.product for t in far.tables if t.product.name == "units"),
        {"unit": block.sums["units"].ids, **block.sums["units"].columns}, far.context, counted,
    )  # fmt: skip
    assert (blurred["snr"][:2] < snr[:2]).all()
    assert blurred["in_focus"][:2].tolist() == [0, 0]
    assert set(still.detectable_subset(0.0)) == {1, 2, 3}
    assert still.detectable_subset(1e9).size == 0
    assert set(still.detectable_subset()) == set(np.flatnonzero(snr >= 3) + 1)
