"""The light of a miniscope: discs, shares and fall-off are those of closed forms, and frames are sums over cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.run.block import compute_box
from simexm.run.excerpt import excerpt
from simexm.run.passes import counted_in_memory
from simexm.stages.microscope.miniscope_plan import MiniscopePlan

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

GREEN = {"name": "green", "laser_wavelength_nm": 470, "band_nm": [500, 550], "irradiance_W_per_cm2": 0.5}


def spec(
    *cells: tuple[float, float, float], size: float = 200, scope: dict[str, Any] | None = None,
    activity: dict[str, Any] | None = None, population: dict[str, Any] | None = None, **root: Any,
) -> dict[str, Any]:  # fmt: skip
    """A miniscope on a tissue with cells at these places; small ones, unless `population` says otherwise."""
    placed = {"positions_um": cells} if cells else {"density_per_mm3": 20_000}
    lateral = 1000 if size <= 200 else 2000
    usual = {**placed, "radius_um": 1.2, "radius_cv": 0, "stretch": 0, **(population or {})}
    return {
        "source": {
            "kind": "tissue", "size_um": (160, size, size), "voxel_size_nm": (1000, lateral, lateral), "populations": [usual],
        },
        "stages": [
            {"stage": "activity", "dye": "ATTO488", "concentration_cv": 0, **(activity or {})},
            {
                "stage": "miniscope", "numerical_aperture": 0.3, "pixel_size_nm": 1000, "duration_s": 0.1, "focus_um": 80,
                "channels": [GREEN], "scattering_length_um": 1e6, **(scope or {}),
            },
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        **root,
    }  # fmt: skip


def expected(data: dict[str, Any]) -> tuple[NDArray[np.float64], MiniscopePlan]:
    """The noise-free image of the first frame, (y, x)."""
    plan = Simulation.from_mapping({**data, "keep": ["expected"]}).plan()
    source = plan.simulation.source.open()
    counted = counted_in_memory(plan, source)
    found = excerpt(plan, source, counted, plan.blocks.box)["expected"][0, 0]
    formation = plan.imaging.formation
    assert isinstance(formation, MiniscopePlan)
    return found.astype(np.float64), formation


def moments(image: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean row and column, and the standard deviation along an axis."""
    y, x = np.indices(image.shape) + 0.5
    total = image.sum()
    my, mx = (image * y).sum() / total, (image * x).sum() / total
    return my, mx, math.sqrt((image * ((y - my) ** 2 + (x - mx) ** 2)).sum() / total / 2)


@pytest.mark.parametrize("away", [20.0, 45.0, 70.0])
def test_defocus_is_the_disc_of_geometry(away: float) -> None:
    """Its radius is NA dz / n, so that the standard deviation along an axis is half of that; the light is even within."""
    image, plan = expected(spec((80.0 + away, 100.0, 100.0)))
    light = plan.light
    radius = 0.3 / 1.36 * away
    _, _, sigma = moments(image)
    # the cell's own size, and what blurs an image in focus, add to it
    own = light.diffraction_um**2 + 1.2**2 / 5 + 1 / 12
    assert 2 * math.sqrt(sigma**2 - own) == pytest.approx(radius, rel=0.05)
    y, x = np.indices(image.shape) + 0.5
    inside = np.hypot(y - 100, x - 100) < radius - 3
    if inside.sum() > 50:
        assert image[inside].std() < 0.12 * image[inside].mean()
        assert image[inside].mean() == pytest.approx(image.sum() / (math.pi * radius**2), rel=0.1)


def test_light_is_conserved_whatever_the_depth() -> None:
    """All of a cell's light, sharp and scattered, arrives in the image: only absorption and excitation take some."""
    for z in (80.0, 120.0):
        cell = z, 160.0, 160.0
        shape: dict[str, Any] = {"size": 320, "population": {"radius_um": 4}}
        image, _ = expected(spec(cell, scope={"scattering_length_um": 60.0}, **shape))
        clear, _ = expected(spec(cell, **shape))
        assert image.sum() == pytest.approx(clear.sum(), rel=0.01)


def test_shares_of_sharp_and_scattered_light_follow_the_depth() -> None:
    """exp(-z / l) is sharp; the halo's width is that of small turns: its variance (1 - g) z^3 / (3 l)."""
    z, length = 120.0, 60.0
    more: dict[str, Any] = {"size": 320, "population": {"radius_um": 4}}
    both, plan = expected(spec((z, 160.0, 160.0), scope={"scattering_length_um": length, "focus_um": z}, **more))
    clear, _ = expected(spec((z, 160.0, 160.0), scope={"focus_um": z}, **more))
    sharp = math.exp(-z / length)
    halo = both - sharp * clear
    assert halo.sum() / both.sum() == pytest.approx(1 - sharp, rel=0.01)
    _, _, sigma = moments(np.maximum(halo, 0))
    assert sigma == pytest.approx(math.sqrt(0.12 * z**3 / (3 * length)), rel=0.03)
    assert halo.max() < 0.02 * clear.max()
    assert 0 <= plan.light.ballistic(np.array(150.0)) < 0.1


def test_attenuation_and_collection_follow_depth_and_aperture() -> None:
    near, plan = expected(spec((40.0, 100.0, 100.0)))
    far, _ = expected(spec((120.0, 100.0, 100.0)))
    assert far.sum() / near.sum() == pytest.approx(math.exp(-80 * (1 / 600 + 1 / 1000)), rel=1e-3)
    wide, _ = expected(spec((40.0, 100.0, 100.0), scope={"numerical_aperture": 0.45}))

    def cap(na: float) -> float:
        return (1 - math.cos(math.asin(na / 1.36))) / 2

    assert wide.sum() / near.sum() == pytest.approx(cap(0.45) / cap(0.3), rel=2e-3)
    bright, _ = expected(spec((40.0, 100.0, 100.0), scope={"channels": [{**GREEN, "irradiance_W_per_cm2": 1.0}]}))
    assert bright.sum() / near.sum() == pytest.approx(2, rel=1e-3)
    assert plan.electrons[0] > 0


def test_field_falls_off_and_leaks() -> None:
    """Illumination and vignette are parabolas that reach their edges in the corners; leakage is added to all pixels."""
    corner, middle = (80.0, 6.0, 6.0), (80.0, 100.0, 100.0)
    fall = {"illumination_edge": 0.7, "vignette_edge": 0.5, "leakage_e": 3.0}
    flat, lit = expected(spec(corner, middle))[0], expected(spec(corner, middle, scope=fall))[0]
    relative = (lit - 3.0)[:20, :20].sum() / flat[:20, :20].sum()
    share = (94 / 100) ** 2
    assert relative == pytest.approx((1 - 0.3 * share) * (1 - 0.5 * share), rel=0.02)
    assert (lit - 3.0)[80:120, 80:120].sum() == pytest.approx(flat[80:120, 80:120].sum(), rel=0.01)
    assert lit[50, 150] == pytest.approx(3.0, abs=1e-3)


def test_a_curved_focus_is_shallower_off_the_axis() -> None:
    """A cell on the surface of best focus is as sharp in a corner as on the axis."""
    r = math.hypot(80, 80)
    sag = 300 - math.sqrt(300**2 - r**2)
    curved = {"field_curvature_um": 300.0}
    image, _ = expected(spec((80.0 - sag, 20.0, 20.0), scope=curved))
    centre, _ = expected(spec((80.0, 100.0, 100.0), scope=curved))
    assert moments(image)[2] == pytest.approx(moments(centre)[2], rel=0.1)
    flat, _ = expected(spec((80.0 - sag, 20.0, 20.0)))
    assert moments(flat)[2] > 1.5 * moments(image)[2]


def test_focus_auto_is_where_most_cells_are() -> None:
    cells = [(100.0, 20.0 + 15 * n, 100.0) for n in range(8)] + [(40.0, 20.0 + 15 * n, 60.0) for n in range(3)]
    plan = Simulation.from_mapping(spec(*cells, scope={"focus_um": "auto"})).plan()
    described = plan.to_mapping()["optics"]
    assert described["focus_um"] == pytest.approx(100, abs=1)
    assert described["depth_of_field_um"] == pytest.approx(1.36 * 0.52 / 0.09, rel=0.05)
    assert plan.geometry.image_origin_nm[0] + plan.geometry.pixel_nm[0] / 2 == described["focus_um"] * 1000
    phantom = spec(scope={"focus_um": "auto"}) | {"source": {"kind": "phantom", "shape": [40, 64, 64]}}
    with pytest.raises(SpecError, match="only a source of kind tissue tells"):
        Simulation.from_mapping(phantom).plan()


def test_another_tile_gives_the_same_image() -> None:
    """Within 2e-6 of the maximum."""
    data = spec(size=120, scope={"scattering_length_um": 60.0, "vignette_edge": 0.6}, population={"radius_um": 5})
    whole, _ = expected({**data, "execution": {"tile": (1, 120, 120), "min_blocks": 1}})
    tiles, _ = expected({**data, "execution": {"tile": (1, 24, 40)}})
    assert np.abs(whole - tiles).max() < 2e-6 * whole.max()
    assert whole.max() > 0


def test_a_frame_is_the_footprints_times_the_brightness() -> None:
    """Footprints from frames of single cells, weighted by the stored brightness, give the frame of all."""
    places = [(60.0, 40.0, 40.0), (90.0, 60.0, 75.0), (120.0, 80.0, 30.0)]
    more: dict[str, Any] = {
        "size": 110,
        "scope": {"scattering_length_um": 60.0, "duration_s": 1.0},
        "activity": {"rate_hz": 20},
    }
    plan = Simulation.from_mapping({**spec(*places, **more), "keep": ["expected"]}).plan()
    source = plan.simulation.source.open()
    counted = counted_in_memory(plan, source)
    series = counted.series["activity"]
    brightness = series.read("brightness", 0, 20)
    assert brightness.std(axis=1).min() > 0
    frames = [
        excerpt(plan, source, counted, plan.blocks.box, f)["expected"][0, 0] for f in (plan.frames[0], plan.frames[19])
    ]
    total = np.zeros(frames[0].shape)
    for n, place in enumerate(places):
        one, _ = expected(spec(place, size=110, scope={"scattering_length_um": 60.0}))
        alone = Simulation.from_mapping(spec(place, size=110, scope={"scattering_length_um": 60.0})).plan()
        first = counted_in_memory(alone, alone.simulation.source.open()).series["activity"].read("brightness", 0, 1)
        total += one / first[0, 0] * brightness[n, 19]
    np.testing.assert_allclose(frames[1], total, rtol=1e-4, atol=1e-4 * total.max())


def test_tissue_around_the_field_sends_its_light_into_it() -> None:
    """A field in the middle of larger tissue is the middle of the whole image."""
    data = spec(size=120, scope={"scattering_length_um": 60.0}, population={"radius_um": 5})
    whole, _ = expected(data)
    data["stages"][1]["field_pixels"] = (64, 40)  # 28 and 40 pixels inside, which nodes of light divide
    part, _ = expected(data)
    np.testing.assert_allclose(part, whole[28:92, 40:80], rtol=1e-5, atol=2e-6 * whole.max())


def test_counts_differ_between_frames_and_labels_do_not() -> None:
    plan = Simulation.from_mapping(spec((80.0, 20.0, 20.0), size=40)).plan()
    source = plan.simulation.source.open()
    first = compute_box(plan, source, counted_in_memory(plan, source), plan.blocks.box)
    assert first.arrays["labels/cells"].max() == 1
    assert plan.acquisition.length("time") == 2
    assert [o.axes for o in plan.outputs] == ["tczyx", "zyx", "zyx"]


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ({"exposure_s": 0.1}, "longer than a frame of 0.05 s"),
        ({"numerical_aperture": 1.3, "refractive_index": 1.2}, "not below the refractive_index"),
        ({"duration_s": 0.01}, "holds no frame"),
        ({"focus_um": 300}, "outside the tissue"),
        ({"field_pixels": (300, 20)}, "larger than the tissue"),
        ({"channels": [{**GREEN, "band_nm": [700, 750]}]}, "no channel of the miniscope excites ATTO488"),
    ],
)
def test_what_cannot_be_imaged_is_refused(scope: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        Simulation.from_mapping(spec((80.0, 100.0, 100.0), scope=scope)).plan()
