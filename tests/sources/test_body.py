"""Cells of a body lie in it, as many as its volume holds; pairs of rounds to align exist in two sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simexm import Simulation
from simexm.sources.body import Body
from simexm.sources.tissue import TissueSource

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
SIZE = (60.0, 120.0, 160.0)
BODY = Body(length_um=160, radius_um=25, bend_um=30)


def tissue(**more: Any) -> TissueSource:
    population = {"name": "nuclei", "density_per_mm3": 1e6, "radius_um": 1.0}
    return TissueSource.model_validate({"size_um": SIZE, "populations": [population], **more})


def test_cells_lie_in_the_body_and_fill_its_volume() -> None:
    found = tissue(body=BODY).cells().centres_um
    volume = (
        2 / 3 * math.pi * BODY.radius_um**2 * BODY.length_um
    )  # of an ellipsoid of revolution; a bend changes no section
    expected = 1e-3 * volume
    assert abs(len(found) - expected) < 5 * math.sqrt(expected)
    everywhere = tissue().cells().centres_um
    inside = BODY.holds(everywhere, SIZE)
    assert np.array_equal(found, everywhere[inside])


def test_the_axis_bends_by_as_much_as_it_says() -> None:
    along = np.linspace(0, SIZE[2], 2001)
    for aside, holds in ((0.99, True), (1.01, False)):
        y = SIZE[1] / 2 + BODY.bend_um + aside * BODY.radius_um * math.sqrt(1 - 1 / 3)
        places = np.stack([np.full_like(along, SIZE[0] / 2), np.full_like(along, y), along], axis=1)
        bent_most = np.argmin(np.abs(along - SIZE[2] / 2 * (1 + 1 / math.sqrt(3))))
        assert bool(BODY.holds(places, SIZE)[bent_most]) is holds


def test_a_tissue_without_a_body_keeps_its_identity() -> None:
    assert "body" not in tissue().open().identity
    assert tissue().open().identity != tissue(body=BODY).open().identity


@pytest.mark.parametrize("name", ["celegans", "mouse", "zebrafish"])
def test_small_and_large_pairs_differ_in_the_microscope_alone(name: str) -> None:
    small, large = (Simulation.load(PIPELINES / f"{name}{size}.yaml") for size in ("", "_large"))
    assert small.source == large.source
    stages = [{s.stage: s.model_dump() for s in one.stages if s.stage != "light_sheet"} for one in (small, large)]
    assert stages[0] == stages[1]
    (microscope,) = (s.model_dump() for s in large.stages if s.stage == "light_sheet")
    assert (microscope["plane_spacing_nm"], microscope["pixel_size_nm"]) == (400, 162.5)
