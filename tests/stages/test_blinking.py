"""Switching dyes in frames: the same optics as for dyes that last, truth beside each frame, and no bit that depends on cuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.geometry.grid import Box
from simexm.kernels.devices.device import device
from simexm.kernels.emission.points import Emitters
from simexm.kernels.switching import chain
from simexm.planning.plan import Plan
from simexm.run.block import BlockResult, compute_frames
from simexm.run.passes import counted_in_memory
from simexm.stages.contract import Chunk, EmitterStream
from simexm.stages.microscope.flashes import add_flashes
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_image import expected_image
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.stages.sample import blinking
from simexm.stages.sample.switching import Switching

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

RED = {"name": "red", "laser_wavelength_nm": 640, "band_nm": [650, 750], "irradiance_W_per_cm2": 2000}
RATES = {"rates_per_s": {"on": {"dark": 20}, "dark": {"on": 0.5}}, "start": "equilibrium"}


def spec(
    switching: dict[str, Any] | None = None, scope: dict[str, Any] | None = None, drift: dict[str, Any] | None = None,
    frames: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A membrane of dyes that switch, 16 x 16 pixels."""
    layer = {"name": "membrane", "dye": "A", "density_per_um2": 20, "dyes_per_protein": {"mean": 1.5}}
    movie = {"frames": 24, "frames_per_s": 50, "dyes": {"A": switching or RATES}, **(frames or {})}
    return {
        "source": {"kind": "phantom", "shape": [24, 64, 64], "voxel_size_nm": [25, 25, 25]},
        "dyes": {"A": {"like": "Cy5", "extinction_per_M_per_cm": 270_000, "quantum_yield": 0.33}},
        "stages": [
            {"stage": "regions"},
            {"stage": "labelling", "layers": [layer]},
            {"stage": "expansion", "factor": 1},
            {"stage": "blinking", **movie},
            *([{"stage": "drift", **drift}] if drift else []),
            {
                "stage": "widefield", "numerical_aperture": 1.2, "pixel_size_nm": 100, "focus_um": 0.3, "axial_range_um": 0.5,
                "haze": False, "exposure_s": 0.02, "channels": [RED], **(scope or {}),
            },
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        "keep": ["expected"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the movie."""
    return Simulation.from_mapping(spec()).plan()


def film(plan: Plan, frames: slice = slice(None)) -> list[BlockResult]:
    """Some frames of a movie."""
    source = plan.simulation.source.open()
    return list(
        compute_frames(plan, source, counted_in_memory(plan, source), plan.blocks[0], None, plan.frames[frames])
    )


@pytest.fixture(scope="module")
def movie(plan: Plan) -> list[BlockResult]:
    """All frames."""
    return film(plan)


def points(n: int) -> Emitters:
    """Dyes at random places of the specimen, and around it."""
    rng = np.random.default_rng(1)
    z, y, x = rng.uniform(50, 550, n), rng.uniform(200, 1400, n), rng.uniform(200, 1400, n)
    ones = np.ones(n, np.int32)
    return Emitters(z, y, x, ones, ones, np.ones(n, np.uint8))


def stream(emitters: Emitters, **more: Any) -> EmitterStream:
    """A stream of these dyes."""

    def chunks(dye: str) -> Iterator[Chunk]:
        yield Chunk("membrane", emitters, -np.inf)

    return EmitterStream({"membrane": "A"}, 1000.0, chunks, **more)


@pytest.mark.parametrize(
    "lens", [{}, {"zernike": [{"n": 2, "m": 2, "nm": 80}]}], ids=["round lens", "cylindrical lens"]
)
def test_a_flash_is_the_image_of_a_dye_that_lasts(lens: dict[str, Any]) -> None:
    """Far from the ends of the axial range, where the transforms' nodes along z run out."""
    mine = Simulation.from_mapping(spec(scope={"axial_range_um": 1.5, **lens})).plan()
    optics, formation, context = mine.simulation.microscope, mine.imaging.formation, mine.context
    assert isinstance(optics, Optics)
    assert isinstance(formation, OpticsPlan)
    emitters, tile = points(6), Box.of_shape(mine.shape)
    lasting = expected_image(optics, formation, stream(emitters), context.dyes, tile, device("cpu"))
    flashed = np.zeros_like(lasting)
    full = emitters._replace(weight=emitters.weight * chain.FULL)
    add_flashes(optics, formation, stream(full, flashing={"A": 1 / chain.FULL}), context, tile, flashed)
    assert np.abs(flashed - lasting).max() < 4e-3 * lasting.max()
    part = Box((0, 3, 5), (1, 11, 16))
    piece = np.zeros((1, 1, 8, 11), np.float32)
    add_flashes(optics, formation, stream(full, flashing={"A": 1 / chain.FULL}), context, part, piece)
    np.testing.assert_array_equal(piece, flashed[:, :, 3:11, 5:16])


def test_the_table_holds_the_light_of_each_frame(plan: Plan, movie: list[BlockResult]) -> None:
    rows = movie[-1].rows["localisations"]
    assert not any("localisations" in result.rows for result in movie[:-1])
    electrons = plan.imaging.formation.pairs[0].in_focus
    np.testing.assert_allclose(rows["photons"], rows["on_s"] / 0.02 * electrons, rtol=1e-5)
    assert set(rows["time"]) <= set(range(24))
    assert np.unique(np.stack([rows["time"], rows["emitter"]]), axis=1).shape[1] == rows["time"].size
    held = np.array([result.arrays["expected"].sum() for result in movie])
    light = np.bincount(rows["time"], rows["photons"], 24)
    assert np.corrcoef(held, light)[0, 1] > 0.9
    assert (held < light).all(), "some light falls beside the image"


def test_a_dye_keeps_its_place_and_number(movie: list[BlockResult]) -> None:
    rows = movie[-1].rows["localisations"]
    order = np.argsort(rows["emitter"], kind="stable")
    same = np.diff(rows["emitter"][order]) == 0
    assert same.sum() > 20
    for axis in "zyx":
        assert (np.diff(rows[f"{axis}_nm"][order])[same] == 0).all()


def test_cuts_in_time_change_no_byte(plan: Plan, movie: list[BlockResult]) -> None:
    blinking._states.clear()
    late = film(plan, slice(17, 24))
    for one, other in zip(late, movie[17:], strict=True):
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
    rows, all_rows = late[-1].rows["localisations"], movie[-1].rows["localisations"]
    for name, column in rows.items():
        np.testing.assert_array_equal(column, all_rows[name][all_rows["time"] >= 17])


def test_known_drift_is_undone_exactly(movie: list[BlockResult]) -> None:
    drift = {"linear_nm_per_s": [10, 200, 0], "walk_nm": [0, 20, 20], "given": [[0, 0, 0, 0], [0.4, 0, 0, 80]]}
    moving = film(Simulation.from_mapping(spec(drift=drift)).plan())
    shifts, rows = moving[-1].rows["shifts"], moving[-1].rows["localisations"]
    np.testing.assert_array_equal(shifts["time"], np.arange(24))
    assert all(shifts[f"{axis}_um"][0] == 0 for axis in "zyx")
    assert np.abs(shifts["y_um"]).max() > 0.05
    still = {(int(t), int(e)): n for n, (t, e) in enumerate(zip(*_keys(movie[-1].rows["localisations"]), strict=True))}
    pairs = [
        (n, still[key]) for n, key in enumerate(zip(*(k.tolist() for k in _keys(rows)), strict=True)) if key in still
    ]
    assert len(pairs) > 50
    mine, theirs = np.array(pairs).T
    for axis in "zyx":
        back = rows[f"{axis}_nm"][mine] - 1000 * shifts[f"{axis}_um"][rows["time"][mine]]
        np.testing.assert_allclose(back, movie[-1].rows["localisations"][f"{axis}_nm"][theirs], atol=1e-6)


def _keys(rows: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return rows["time"], rows["emitter"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "longer exposure than a frame": ({"scope": {"exposure_s": 0.03}}, "does not fit into a frame"),
    "always on": (
        {"switching": {"rates_per_s": {"on": {"dark": 0.01}, "dark": {"on": 5}}}}, "dyes in every frame",
    ),
    "a dye that no layer carries": ({"frames": {"dyes": {"B": RATES}}}, "no layer carries"),
    "several planes": ({"scope": {"focus_um": None, "plane_spacing_nm": 100}}, "filmed in one"),
    "no state on": ({"switching": {"rates_per_s": {"bright": {"dark": 1}}}}, "no state is named on"),
    "two ways": ({"switching": {"preset": "Alexa 647", **RATES}}, "exactly one"),
    "activation of what knows none": ({"switching": {"preset": "ATTO 655", "activation_W_per_cm2": 1}}, "brings back"),
    "no drift": ({"drift": {"walk_nm": [0, 0, 0]}}, "moves nothing"),
    "far drift": ({"drift": {"linear_nm_per_s": [0, 1e6, 0]}}, "would leave the image"),
    "one frame": ({"frames": {"frames": 1}}, "a picture, not a movie"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(given: dict[str, Any], words: str) -> None:
    data = spec(**given)
    for stage in data["stages"]:
        for key in [k for k, v in stage.items() if v is None]:
            del stage[key]
    with pytest.raises(SpecError, match=words):
        Simulation.from_mapping(data).plan()


def test_other_microscopes_refuse() -> None:
    data = spec()
    scope = next(s for s in data["stages"] if s["stage"] == "widefield")
    del scope["focus_um"]
    scope |= {"stage": "light_sheet", "sheet_waist_um": 2, "plane_spacing_nm": 600}
    with pytest.raises(SpecError, match="widefield microscope only"):
        Simulation.from_mapping(data).plan()


def test_a_plan_tells_what_is_unchecked() -> None:
    data = spec(switching={"preset": "ATTO 655"})
    made = Simulation.from_mapping(data).plan()
    stage = next(s for s in made.stages if s.tag == "blinking")
    told = dict(stage.described(made.context))
    assert "ATTO 655, unchecked" in told
    assert "in a frame" in told["blinking: A"]


def test_binding_follows_the_concentration() -> None:
    shares = []
    for nM in (1, 10):
        binding = {"concentration_nM": nM, "k_on_per_M_per_s": 1e6, "bright_s": 0.5}
        one = Switching.model_validate({"binding": binding})
        rates = one.rates(0.0)
        shares.append(one.begins(rates)[0])
        assert shares[-1] == pytest.approx(0.5 / (0.5 + 1 / (1e6 * nM * 1e-9)), rel=1e-6)
    assert shares[1] > 9 * shares[0]


def test_more_light_switches_off_faster(plan: Plan) -> None:
    stage = next(s for s in plan.stages if s.tag == "blinking")
    assert isinstance(stage, blinking.Blinking)
    rate = plan.context.excitations_per_s["A"]
    bright = replace(plan.context, excitations_per_s={"A": 10 * rate})
    alexa = stage.model_copy(update={"dyes": {"A": Switching(preset="Alexa 647")}})
    assert alexa.law("A", bright).leaves[0] == pytest.approx(10 * alexa.law("A", plan.context).leaves[0])
