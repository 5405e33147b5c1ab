"""Tissue: cells have the density, the distance and the size asked for, and no box changes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Tiling
from simexm.kernels.populations import place
from simexm.sources.tissue import TissueSource

VOXEL = (2000.0, 2000.0, 2000.0)


def tissue(
    *populations: dict[str, Any], size: tuple[float, float, float] = (100, 200, 200), **more: Any
) -> TissueSource:
    return TissueSource.model_validate({"size_um": size, "populations": populations, **more})


@pytest.mark.parametrize(("density", "distance"), [(45_000, 10.0), (120_000, 10.0), (8_000, 0.0)])
def test_density_and_distance_are_those_asked_for(density: float, distance: float) -> None:
    """Up to the borders of a thin range of depths, too."""
    one = tissue({"density_per_mm3": density, "min_distance_um": distance, "depth_um": (40, 60)}, size=(100, 500, 500))
    centres = one.cells().centres_um
    expected = density * 1e-9 * 20 * 500 * 500
    assert len(centres) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert ((centres >= (40, 0, 0)) & (centres < (60, 500, 500))).all()
    assert not cKDTree(centres).query_pairs(distance * 0.999999)
    edge = (np.abs(centres[:, 0] - 50) > 9).mean()
    assert edge == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / expected)), "as many at the borders as inside"


def test_a_larger_tissue_holds_the_same_cells() -> None:
    """Places are a function of the seed and of space."""
    p = {"density_per_mm3": 30_000}
    small, large = tissue(p).cells().centres_um, tissue(p, size=(130, 320, 270)).cells().centres_um
    inside = (large < (100, 200, 200)).all(axis=1)
    assert {tuple(v) for v in large[inside].tolist()} == {tuple(v) for v in small.tolist()}
    assert not {tuple(v) for v in tissue(p, seed=2).cells().centres_um.tolist()} & {tuple(v) for v in small.tolist()}


def test_boxes_hold_what_the_volume_holds() -> None:
    one = tissue(
        {"density_per_mm3": 20_000}, {"name": "big", "density_per_mm3": 3_000, "radius_um": 7, "dendrites": {}}
    )
    volume = one.open()
    whole = volume.read(Box.of_shape(volume.shape))
    for box in Tiling(Box.of_shape(volume.shape), (17, 40, 33)):
        np.testing.assert_array_equal(volume.read(box), whole[box.slices])
    assert len(np.unique(whole)) - 1 == len(one.cells().centres_um)


def test_somata_have_their_volume_and_dendrites_leave_them() -> None:
    fine = {"size_um": (40.0, 40.0, 40.0), "voxel_size_nm": (500, 500, 500)}
    centre = {"positions_um": [(20, 20, 20)], "radius_um": 6, "radius_cv": 0}
    soma = TissueSource.model_validate({**fine, "populations": [centre]}).open()
    ids = soma.read(Box.of_shape(soma.shape))
    assert (ids > 0).sum() * 0.125 == pytest.approx(place.ball_um3(6), rel=0.02)
    grown = {**centre, "dendrites": {"stems": [3, 3], "length_um": 18, "radius_um": 1.5, "orders": 2}}
    cell = TissueSource.model_validate({**fine, "populations": [grown]})
    pieces = cell.cells().pieces
    assert len(pieces) == 3 * (1 + 2)
    thick, thin = pieces[0, 7], pieces[1, 6]
    assert 2 * thin**3 == pytest.approx(thick**3), "Murray's law"
    volume = cell.open()
    far = np.argwhere(volume.read(Box.of_shape(volume.shape)) > 0) * 0.5 - 20
    assert 15 < np.sqrt((far**2).sum(axis=1)).max() < 21


def test_cells_do_not_depend_on_the_voxels() -> None:
    coarse, fine = tissue({"density_per_mm3": 9_000}), tissue({"density_per_mm3": 9_000}, voxel_size_nm=(500, 500, 500))
    np.testing.assert_array_equal(coarse.cells().centres_um, fine.cells().centres_um)


@pytest.mark.parametrize(
    ("population", "told"),
    [
        ({"density_per_mm3": 300_000}, "does not fit: with 10 um between centres there is room for fewer than 238,732"),
        ({}, "needs either density_per_mm3 or positions_um"),
        ({"density_per_mm3": 1000, "depth_um": (90, 120)}, "reaches outside the tissue"),
        ({"density_per_mm3": 1000, "depth_um": (90, 20)}, "is empty"),
        ({"positions_um": [(50, 20, 500)]}, "lies outside the tissue"),
    ],
)
def test_a_population_that_does_not_fit_is_refused(population: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tissue(population)


def test_cells_that_overlap_are_refused_or_make_room() -> None:
    with pytest.raises(SourceError, match="lies within 10 um of another"):
        tissue({"positions_um": [(50, 20, 20), (50, 25, 20)]}).cells()
    with pytest.raises(SourceError, match="overlaps one of an earlier population"):
        tissue({"positions_um": [(50, 20, 20)]}, {"name": "b", "positions_um": [(50, 27, 20)]}).cells()
    both = tissue({"density_per_mm3": 40_000}, {"name": "b", "density_per_mm3": 40_000}).cells()
    first, second = (both.centres_um[both.population == n] for n in (0, 1))
    assert np.min(cKDTree(first).query(second)[0]) >= 10
    with pytest.raises(SourceError, match="holds no cell"):
        tissue({"density_per_mm3": 0.001}).cells()
