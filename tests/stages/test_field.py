"""Chromatic shift and curved focus are moves of dyes: images are those of moved dyes, and nothing else changes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from simexm.errors import SpecError
from simexm.run.in_memory import simulate
from simexm.stages.microscope.optics import Optics
from tests.build import VOXEL_NM, layer, simulation
from tests.stages.field_build import context_of, image, plan_of, scattered
from tests.stages.optics_build import Array, microscope

PITCH = np.array([400.0, 200.0, 200.0])
SHAPE = (6, 24, 22)
OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("widefield", "two_photon", "spinning_disk")]
EXACT = 3e-6
"""Of the maximum: float32 on grids that begin elsewhere."""


def seen(kind: str, chromatic: dict[str, Any] | None = None, **more: Any) -> Optics:
    """A microscope whose channel is shifted."""
    plain = microscope(kind, pixel=200.0, plane=400.0, na=1.0, axial_range_um=1.0, **more)
    channels = [{**c.model_dump(exclude_none=True), "chromatic": chromatic} for c in plain.all_channels]
    given = {**plain.model_dump(exclude_none=True), "channels": channels}
    return type(plain).model_validate(given)


def inside(shape: tuple[int, int, int], seed: int, n: int = 40) -> Array:
    """Dyes so far from the borders that none is moved out of the specimen."""
    places = scattered(shape, PITCH, n, seed)
    margin = np.array([1.2, 4.0, 4.0]) * PITCH
    return np.clip(places, margin, np.array(shape) * PITCH - margin)


@pytest.mark.parametrize("kind", ["confocal", *OTHERS])
def test_a_shift_of_a_plane_and_some_pixels_shows_the_same_image_there(kind: str) -> None:
    """Focus one plane deeper, image 2 pixels down and 1 to the left: plane k shows what plane k + 1 showed."""
    points = inside(SHAPE, 1)
    plain, _ = image(seen(kind), SHAPE, points)
    shifted, plan = image(seen(kind, {"axial_nm": 400, "lateral_nm": [400, -200]}), SHAPE, points)
    same = plain[:, 1:, 3:-5, 5:-3], shifted[:, :-1, 5:-3, 4:-4]
    assert np.abs(same[0] - same[1]).max() < EXACT * plain.max()
    assert same[0].max() > 0.5 * plain.max()
    assert not plan.signed


@pytest.mark.parametrize("kind", ["confocal", "light_sheet", *OTHERS])
def test_an_image_is_that_of_dyes_moved_by_the_law_of_their_frame(kind: str) -> None:
    """Two frames of 13 x 24 pixels and what is left of others: each sees all dyes by its own axis."""
    thick: dict[str, Any] = {"sheet_waist_um": 500} if kind == "light_sheet" else {}
    radius_mm, chromatic = 0.02, {"axial_nm": 150, "lateral_nm": [70, -130], "magnification": 1.04}
    bent = seen(
        kind,
        chromatic,
        field_curvature_radius_mm=radius_mm,
        **thick,
    )
    frame, points = (13, 24), inside(SHAPE, 2)
    found, plan = image(bent, SHAPE, points, frame)
    flat = seen(kind, **thick)
    expected = np.empty_like(found)
    for rows, number in ((slice(0, 13), 0), (slice(13, 24), 1)):
        axis = np.array([(13 * number + 6.5) * 200, 12 * 200])
        away = points[:, 1:] - axis
        z = points[:, 0] - 150 - (away**2).sum(1) / (2 * radius_mm * 1e6)
        moved = np.column_stack([z, axis + away * 1.04 + np.array([70, -130])])
        # the grid of the flat image begins at the moved dyes' first plane of voxels
        up = np.array([2 * PITCH[0], 0, 0])
        taller, _ = image(flat, (SHAPE[0] + 4, *SHAPE[1:]), moved + up, (99, 99))
        expected[:, :, rows] = taller[:, 2:-2, rows]
    assert np.abs(found - expected).max() < (1e-3 if kind == "light_sheet" else EXACT) * expected.max()
    assert plan.field is not None
    assert plan.field.seamed


@pytest.mark.parametrize(
    ("kind", "tile"), [("confocal", (2, 9, 22)), pytest.param("light_sheet", (6, 5, 7), marks=pytest.mark.slow)]
)
def test_tiles_do_not_matter_to_moved_dyes(kind: str, tile: tuple[int, int, int]) -> None:
    bent = seen(kind, {"axial_nm": -300, "magnification": 0.97}, field_curvature_radius_mm=-0.02)
    points = scattered(SHAPE, PITCH, 300, 3)
    whole, plan = image(bent, SHAPE, points, (13, 15))
    tiled, _ = image(bent, SHAPE, points, (13, 15), tile)
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()
    assert len(plan.parts(_box(SHAPE))) == 4


def test_channels_show_one_dye_in_their_own_places() -> None:
    """Two channels that see the same dye: each is the image of that channel alone."""
    one = seen("confocal", {"axial_nm": 200, "lateral_nm": [300, 0]})
    given = one.model_dump(exclude_none=True)
    other = {**given["channels"][0], "name": "other", "chromatic": {"magnification": 1.02}}
    both = type(one).model_validate({**given, "channels": [given["channels"][0], other]})
    alone = type(one).model_validate({**given, "channels": [other]})
    points = inside(SHAPE, 4)
    found, plan = image(both, SHAPE, points)
    assert [look.pairs for look in plan.looks()] == [(0,), (1,)]
    assert plan.layers() == ("ATTO488 in green", "ATTO488 in other")
    for n, optics in enumerate((one, alone)):
        expected, _ = image(optics, SHAPE, points)
        assert np.abs(found[n] - expected[0]).max() < EXACT * expected.max()


def test_the_halo_holds_every_dye_that_is_shown_in_a_tile_and_is_no_larger_than_the_shifts() -> None:
    """A box of the image needs dyes from no further than the largest shift, and from as far as that."""
    bent = seen(
        "confocal", {"axial_nm": 150, "lateral_nm": [70, -130], "magnification": 1.04}, field_curvature_radius_mm=0.02
    )
    flat = seen("confocal")
    context, plain = context_of(bent, SHAPE, (13, 24)), context_of(flat, SHAPE, (13, 24))
    field = plan_of(context).field
    assert field is not None
    wanted = context.geometry.pixels_nm(_box((2, 8, 9)))
    near, usual = (o.needs(wanted, c)["expanded"] for o, c in ((bent, context), (flat, plain)))
    rng = np.random.default_rng(5)
    ends = np.array([[float(v) for v in (a, b)] for a, b in zip(near.start, near.stop, strict=True)])
    points = ends[:, 0] + (rng.random((20_000, 3)) * 1.6 - 0.3) * (ends[:, 1] - ends[:, 0])
    moved = np.column_stack(field.moved(field.shifts[0], (6.5 * 200, 12 * 200), tuple(points.T)))
    shown = ((moved >= [float(v) for v in usual.start]) & (moved < [float(v) for v in usual.stop])).all(1)
    held = ((points >= ends[:, 0]) & (points < ends[:, 1])).all(1)
    assert shown.any()
    assert held[shown].all()
    low, high = field.axial_nm(plan_of(context).halo_nm)
    assert float(near.stop[0] - near.start[0]) <= float(usual.stop[0] - usual.start[0]) + high - low + 2


def test_attenuation_is_that_of_the_dyes_true_depth() -> None:
    """Focus a plane deeper: plane k shows dyes of plane k + 1, dimmed by what lies above them, at the laser power of k."""
    tissue = {"excitation_per_mm": 60.0, "emission_per_mm": 40.0}
    points = inside(SHAPE, 6)
    plain, _ = image(seen("confocal", tissue=tissue), SHAPE, points)
    shifted, _ = image(seen("confocal", {"axial_nm": 400}, tissue=tissue), SHAPE, points)
    clear, _ = image(seen("confocal"), SHAPE, points)
    assert np.abs(plain[:, 1:] - shifted[:, :-1]).max() < EXACT * plain.max()
    assert np.abs(plain - clear).max() > 0.02 * clear.max()


@pytest.mark.slow
@pytest.mark.parametrize("haze", [False, True])
def test_the_pipeline_reads_enough_for_any_tile_and_the_truth_stays(haze: bool) -> None:
    """From labels to counts, in tiles and frames: one image, and the label images of a run without the field's optics."""
    lamp = {"laser_wavelength_nm": 488, "irradiance_W_per_cm2": 5.0}
    shift = {"axial_nm": -600, "lateral_nm": [500, 300], "magnification": 1.03}
    optics: dict[str, Any] = {
        "stage": "widefield", "numerical_aperture": 1.0, "pixel_size_nm": 260, "plane_spacing_nm": 500,
        "axial_range_um": 6 if haze else 1.5, "haze": haze,
        "channels": [
            {"name": "green", "band_nm": [500, 530], **lamp},
            {"name": "red", "band_nm": [540, 620], "chromatic": shift, **lamp},
        ],
    }  # fmt: skip
    rng = np.random.default_rng(1)
    labels = rng.integers(1, 9, (80 if haze else 30, 12, 10), np.uint64).repeat(4, 1).repeat(4, 2)

    def run(tile: tuple[int, int, int] | None, **more: Any) -> Any:
        made = simulation(
            layer(density_per_um2=100),
            optics={**optics, **more},
            camera={"frame_pixels": [13, 15]},
            keep=["expected"],
            seed=3,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return simulate(labels, made.with_tile(tile), voxel_size_nm=VOXEL_NM)

    bent = {"field_curvature_radius_mm": 0.06}
    plain = [{**channel, "chromatic": None} for channel in optics["channels"]]
    whole, tiled, flat = run(None, **bent), run((3, 9, 11), **bent), run(None, channels=plain)
    assert tiled.plan.tile == (3, 9, 11)
    a, b = (r.kept["expected"].astype(float) for r in (whole, tiled))
    assert np.abs(a - b).max() < 2e-6 * a.max()
    assert np.abs(a - flat.kept["expected"]).max() > 0.05 * a.max()
    for name, truth in whole.labels.items():
        assert np.array_equal(truth, flat.labels[name])
    field = whole.plan.to_mapping()["optics"]["field"]
    assert field["chromatic"]["red"]["axial_nm"] == -600


@pytest.mark.parametrize(
    ("chromatic", "more", "word"),
    [
        ({"axial_nm": 2500}, {}, "axial_nm 2500"),
        ({"lateral_nm": [0, 5000]}, {}, "along x"),
        (None, {"field_curvature_radius_mm": 0.004}, "bowl"),
    ],
)
def test_a_shift_larger_than_the_specimen_is_refused(chromatic: Any, more: dict[str, float], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        context_of(seen("confocal", chromatic, **more), SHAPE)


def test_a_point_is_no_field() -> None:
    with pytest.raises(ValueError, match="flat"):
        seen("confocal", field_curvature_radius_mm=0)
    with pytest.raises(ValueError, match="magnification"):
        seen("confocal", {"magnification": 2.0})


def _box(shape: tuple[int, int, int]) -> Any:
    from simexm.geometry.grid import Box

    return Box.of_shape(shape)
