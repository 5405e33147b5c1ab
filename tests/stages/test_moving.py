"""Laws of expansion that is not uniform, by a stage from outside: dyes, image and truth move together, in any tiles."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simexm.api import Simulation
from simexm.geometry.grid import Box, Tiling
from simexm.run.in_memory import Simulated, simulate
from tests import build
from tests.geometry import warp

# the short axial range that keeps these tests small is told of, as it should be
pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

VOXEL_NM = (40.0, 32.0, 32.0)
SHAPE = (24, 40, 40)
LABELS = np.arange(1, 1 + 24 * 40 * 40, dtype=np.uint64).reshape(SHAPE)


@pytest.fixture
def run(site: Callable[..., None]) -> Callable[..., Simulated]:
    """Simulate with the stage in the place of expansion; `tile`, and `until` which stage."""
    site("warp", inspect.getsource(warp), "Warped", "warped")

    def simulated(tile: Any = None, until: str | None = None, **changes: Any) -> Simulated:
        optics = build.confocal(pixel_size_nm=192, plane_spacing_nm=300)
        linked = build.layer(linker_nm=8)
        data = build.spec(linked, optics=optics, execution={"tile": tile}, keep=["emitters"], **changes)
        data["stages"] = [{"stage": "warped"} if s["stage"] == "expansion" else s for s in data["stages"]]
        return simulate(LABELS, Simulation.from_mapping(data), voxel_size_nm=VOXEL_NM, until=until)

    return simulated


TILE = [5, 13, 11]


def test_truth_is_the_voxel_from_which_a_pixels_centre_came(run: Callable[..., Simulated]) -> None:
    """Every voxel has an id of its own; outside the specimen there is nothing."""
    whole, tiles = run(until="labelling"), run(TILE, until="labelling")
    geometry = whole.plan.geometry
    centre = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in geometry.shape), indexing="ij"))
    expanded = [axis * float(p) for axis, p in zip(centre, geometry.pixel_nm, strict=True)]
    tissue = geometry.transform.invert((expanded[0], expanded[1], expanded[2]))
    voxel = [np.floor(axis / size).astype(int) for axis, size in zip(tissue, VOXEL_NM, strict=True)]
    inside = np.all([(v >= 0) & (v < n) for v, n in zip(voxel, SHAPE, strict=True)], axis=0)
    assert 0.5 < inside.mean() < 0.95, "the tissue was moved, in part out of the image"
    expected = np.zeros(geometry.shape, np.uint64)
    expected[inside] = LABELS[tuple(v[inside] for v in voxel)]
    for found in (whole, tiles):
        assert (found.labels["cells"] == expected).all()


def test_dyes_are_counted_where_they_come_to_lie(run: Callable[..., Simulated]) -> None:
    whole, tiles = run(until="labelling"), run(TILE, until="labelling")
    g, dyes = whole.plan.geometry, whole.emitters
    moved = g.transform.apply((dyes["z_nm"], dyes["y_nm"], dyes["x_nm"]))
    pixel = np.floor(np.stack(moved).T / [float(p) for p in g.pixel_nm]).astype(int)
    counted = np.zeros(g.shape, np.int64)
    inside = np.all((pixel >= 0) & (pixel < g.shape), axis=1)
    np.add.at(counted, tuple(pixel[inside].T), dyes["dyes"][inside])
    assert counted.sum() > 10_000
    for found in (whole, tiles):
        assert (found.image[0] == counted).all()


def test_images_do_not_depend_on_tiles(run: Callable[..., Simulated]) -> None:
    """And tiles read no more than their boxes say: what they image lies in the tissue that is read for them."""
    whole, tiles = run(until="confocal"), run(TILE, until="confocal")
    top = whole.image.max()
    assert np.abs(whole.image - tiles.image).max() < 2e-6 * top
    assert whole.image[0].std() > 0.05 * top


def test_boxes_of_tiles_hold_what_their_pixels_show(run: Callable[..., Simulated]) -> None:
    plan = run(TILE, until="confocal").plan
    g = plan.geometry
    for tile in Tiling(Box.of_shape(plan.shape), plan.tile):
        voxels = g.voxels_at_centres(tile)
        read = g.voxels(plan.boxes(tile)["labels"])
        for at, low, high, n in zip(voxels, read.start, read.stop, SHAPE, strict=True):
            assert (np.clip(at, 0, n - 1) >= low).all()
            assert (np.clip(at, 0, n - 1) < high).all()
