"""Laws of densities that vary: from cell to cell, with depth, and with a grey value; alike in any block and crop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from scipy import stats

from simexm import Simulation
from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box, Triple
from simexm.kernels.numbers.detmath import CUT_SIGMA
from simexm.planning.memory import tile_memory
from simexm.planning.planner import make_plan
from simexm.random import derive_key
from simexm.result.recorded_labels import RecordedLabels
from simexm.run.block import compute_box
from simexm.run.in_memory import Simulated, simulate
from simexm.run.labels import TileLabels
from simexm.sources.arrays import ArrayVolume
from simexm.sources.fields import Field
from simexm.stages.contract import Counted
from simexm.stages.sample.density import Brightness, GreyDensity, Penetration
from tests import rounds_build
from tests.build import VOXEL_NM, layer, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
VOXEL_UM3 = math.prod(VOXEL_NM) * 1e-9
SHAPE: Triple = (30, 36, 40)
ONE_DYE = {"distribution": "fixed", "sites": 1}
CELLS = rounds_build.cells(SHAPE)
EM = np.random.default_rng(5).integers(0, 256, SHAPE).astype(np.uint8)
SOURCE = {"path": "memory", "fields": {"em": {"path": "-", "kind": "grey"}}}


def dyes(labels: NDArray[np.uint64], *layers: dict[str, Any], em: NDArray[Any] = EM, **changes: Any) -> Simulated:
    """Dyes and their places, without an image."""
    made = Simulation.from_mapping(spec(*layers, source=SOURCE, keep=["emitters"], **changes))
    fields = [(Field("em", "grey"), em)]
    return simulate(labels, made, voxel_size_nm=VOXEL_NM, fields=fields, until="labelling")


def by_voxel(found: Simulated) -> NDArray[np.float64]:
    """Dyes in each voxel of the volume, of layers without a linker."""
    e, total = found.emitters, np.zeros(SHAPE)
    at = tuple(np.floor(e[f"{axis}_nm"] / size).astype(int) for axis, size in zip("zyx", VOXEL_NM, strict=True))
    np.add.at(total, at, e["dyes"])
    return total


def rows(found: Simulated) -> NDArray[np.float64]:
    """Emitters as (z, y, x, dyes, cell), in an order of their own."""
    columns = np.stack([np.asarray(found.emitters[c], float) for c in ("z_nm", "y_nm", "x_nm", "dyes", "cell")], axis=1)
    return np.asarray(columns[np.lexsort(columns.T)])


# ------------------------------------------------------------------ from cell to cell


@pytest.mark.parametrize("variation", [0.3, 1.0, 2.0])
def test_lognormal_cells_have_its_moments(variation: float) -> None:
    """Mean 1; the logarithm is a normal truncated at 4 sigma, shifted so that the mean is 1."""
    n = 400_000
    factors = Brightness(distribution="lognormal", variation=variation).factors(
        np.arange(1, n + 1, dtype=np.uint64), derive_key(1, "a")
    )
    s = math.sqrt(math.log1p(variation**2))
    normal = stats.truncnorm(-CUT_SIGMA, CUT_SIGMA)
    mean, square = normal.expect(lambda g: np.exp(s * g)), normal.expect(lambda g: np.exp(2 * s * g))
    spread = math.sqrt(square / mean**2 - 1)
    assert factors.mean() == pytest.approx(1, abs=4.5 * spread / math.sqrt(n))
    logs = np.log(factors)
    assert logs.mean() == pytest.approx(-math.log(mean), abs=4.5 * s / math.sqrt(n))
    assert stats.kstest(logs[:20_000], lambda x: normal.cdf((x + math.log(mean)) / s)).pvalue > 1e-4
    largest = Brightness(distribution="lognormal", variation=variation).largest
    assert 0.9 * largest < factors.max() <= largest


def test_uniform_cells_have_its_moments() -> None:
    n, variation = 200_000, 0.4
    factors = Brightness(distribution="uniform", variation=variation).factors(
        np.arange(n, dtype=np.uint64) << np.uint64(40), derive_key(2, "a")
    )
    half = math.sqrt(3) * variation
    assert 1 - half < factors.min() < 1 - 0.999 * half
    assert stats.kstest(factors, stats.uniform(1 - half, 2 * half).cdf).pvalue > 1e-4


def test_cells_carry_dyes_in_proportion_to_their_brightness() -> None:
    bright: dict[str, Any] = {"distribution": "lognormal", "variation": 0.6}
    one = layer(name="a", region="cytosol", density_per_um3=3000.0, dyes_per_protein=ONE_DYE, brightness=bright)
    found = dyes(CELLS, one)
    ids = found.cells["id"]
    factors = Brightness(**bright).factors(ids, derive_key(0, "labelling", "a", "brightness"))
    plain = dyes(CELLS, {**one, "brightness": {"distribution": "fixed"}, "density_per_um3": 300_000.0})
    expected = plain.cells["dyes_a"] / 100 * factors
    assert expected.min() > 5
    score = (found.cells["dyes_a"] - expected) / np.sqrt(expected)
    assert (score**2).sum() < stats.chi2(score.size).isf(1e-4)
    assert ((plain.cells["dyes_a"] / 100 - expected) ** 2 / expected).sum() > stats.chi2(score.size).isf(1e-9)


# ------------------------------------------------------------------ with depth


@pytest.mark.parametrize(("faces", "axis"), [(("z_low",), 0), (("y_high",), 1), (("x_low", "x_high"), 2)])
def test_stains_fall_off_with_depth(faces: tuple[str, ...], axis: int) -> None:
    """exp(-depth / L), by a fit to the planes and by their chi-square."""
    length_um, density = 0.5, 3e4
    cell = np.ones(SHAPE, np.uint64)
    stain = layer(
        name="a", region="everywhere", density_per_um3=density, dyes_per_protein=ONE_DYE,
        penetration={"length_um": length_um, "faces": faces},
    )  # fmt: skip
    planes = by_voxel(dyes(cell, stain)).sum(axis=tuple({0, 1, 2} - {axis}))
    low = (np.arange(SHAPE[axis]) + 0.5) * VOXEL_NM[axis] / 1000
    high = SHAPE[axis] * VOXEL_NM[axis] / 1000 - low
    depth = {"low": low, "high": high, "both": np.minimum(low, high)}["both" if len(faces) == 2 else faces[0][2:]]
    whole = density * VOXEL_UM3 * math.prod(SHAPE) / SHAPE[axis]
    expected = whole * np.exp(-depth / length_um)
    assert ((planes - expected) ** 2 / expected).sum() < stats.chi2(planes.size).isf(1e-4)
    (slope, start), error = np.polyfit(depth, np.log(planes), 1, w=np.sqrt(planes), cov="unscaled")
    assert slope == pytest.approx(-1 / length_um, abs=4.5 * math.sqrt(error[0, 0]))
    assert start == pytest.approx(math.log(whole), abs=4.5 * math.sqrt(error[1, 1]))


def test_unspecific_dyes_thin_out_too() -> None:
    one = layer(density_per_um2=1e-6, unspecific_per_um3=3e4, penetration={"length_um": 0.2, "faces": ["z_low"]})
    planes = by_voxel(dyes(CELLS, one)).sum(axis=(1, 2))
    expected = 3e4 * VOXEL_UM3 * math.prod(SHAPE[1:]) * np.exp(-(np.arange(SHAPE[0]) + 0.5) * 0.04 / 0.2)
    assert ((planes - expected) ** 2 / expected).sum() < stats.chi2(planes.size).isf(1e-4)


# ------------------------------------------------------------------ with a grey value

GREY: dict[str, Any] = {
    "field": "em",
    "at_zero_per_um3": 9e4,
    "per_value_per_um3": -500.0,
    "least_per_um3": 4000.0,
    "most_per_um3": 7e4,
}


def grey_law(values: NDArray[Any]) -> NDArray[np.float64]:
    """Dyes per voxel of `GREY`."""
    return np.asarray(np.clip(9e4 - 500.0 * values.astype(float), 4000, 7e4) * VOXEL_UM3)


def pan(**changes: Any) -> dict[str, Any]:
    """A layer that takes its density from the grey field, in all tissue."""
    return layer(
        name="pan",
        region="everywhere",
        density_per_um2=None,
        density_from={**GREY, **changes.pop("grey", {})},
        **changes,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_density_is_linear_in_the_grey_value_and_cut(dtype: type) -> None:
    found = dyes(CELLS, pan(retention=0.8), em=EM.astype(dtype))
    seen, expected = by_voxel(found), 0.8 * grey_law(EM)
    for values in np.array_split(np.arange(256), 32):
        some = np.isin(EM, values)
        assert seen[some].sum() == pytest.approx(expected[some].sum(), abs=4.5 * math.sqrt(expected[some].sum()))
    outside = CELLS == 0
    assert seen[outside].sum() == pytest.approx(expected[outside].sum(), abs=4.5 * math.sqrt(expected[outside].sum()))
    assert seen[outside].sum() > 1000
    np.testing.assert_array_equal(found.cells["dyes_pan"], [seen[cell == CELLS].sum() for cell in found.cells["id"]])


def test_a_region_of_cells_cuts_the_grey_volume() -> None:
    seen = by_voxel(dyes(CELLS, pan(retention=0.5) | {"region": "cytosol"}))
    assert seen[CELLS != 0].sum() > 1000
    assert seen[CELLS == 0].sum() == 0


ALL = (
    pan(penetration={"length_um": 1.0, "faces": ["z_low", "x_high"]}),
    layer(name="a", brightness={"distribution": "lognormal", "variation": 1.5}, density_per_um2=2000.0, linker_nm=9),
    layer(name="b", dye="ATTO550", region="cytosol", density_per_um3=9000.0, cell_fraction=0.7,
          brightness={"distribution": "uniform", "variation": 0.5}, penetration={"length_um": 0.7}),
)  # fmt: skip


def test_tiles_and_crops_draw_the_same_dyes() -> None:
    whole = dyes(CELLS, *ALL)
    tiles = dyes(CELLS, *ALL, execution={"tile": (3, 5, 50)})
    assert tiles.plan.tile != whole.plan.tile
    np.testing.assert_array_equal(rows(tiles), rows(whole))
    offset, shape = (4, 6, 5), (20, 21, 22)
    crop = dyes(CELLS, *ALL[::2], crop={"offset": offset, "shape": shape})
    voxels = Box.at(offset, shape).slices
    np.testing.assert_array_equal(by_voxel(crop)[voxels], by_voxel(dyes(CELLS, *ALL[::2]))[voxels])
    assert by_voxel(crop).sum() == by_voxel(crop)[voxels].sum() > 1000


def test_grey_values_come_part_by_part() -> None:
    source = ArrayVolume(CELLS, VOXEL_NM, fields=[(Field("em", "grey"), EM)])
    box = Box.at((1, 2, 3), (27, 30, 34))
    parts = list(TileLabels(source, box, [], (7, 16, 12), lambda _: None, ["em"]).parts())
    assert len(parts) > 8
    stream = TileLabels(source, box, [], (7, 16, 12), lambda _: None, ["em"])
    for part in stream.parts():
        assert part.greys["em"].dtype == np.float32
        np.testing.assert_array_equal(part.greys["em"], EM[part.box.slices])


def test_a_stored_grey_volume_is_as_one_in_memory(tmp_path: Path) -> None:
    values = np.random.default_rng(6).normal(100, 60, SHAPE)
    zarr.create_array(tmp_path / "ids.zarr", data=CELLS, chunks=(16, 16, 16))
    zarr.create_array(tmp_path / "em.zarr", data=values.astype(">f8"), chunks=(8, 32, 16))
    source: dict[str, Any] = {"path": str(tmp_path / "ids.zarr"), "voxel_size_nm": VOXEL_NM}
    source["fields"] = {"em": {"path": str(tmp_path / "em.zarr"), "kind": "grey"}}
    made = Simulation.from_mapping(spec(*ALL, source=source, execution={"tile": (4, 12, 16)}))
    plan = made.plan(until="labelling")
    found = compute_box(plan, made.source.open(), Counted(), Box.of_shape(plan.shape))
    fields = [(Field("em", "grey"), values)]
    expected = simulate(CELLS, made, voxel_size_nm=VOXEL_NM, fields=fields, until="labelling")
    np.testing.assert_array_equal(found.arrays[""], expected.image)
    recorded = RecordedLabels.of(plan.to_mapping())
    assert recorded.fields["em"].kind == "grey"
    assert make_plan(made, until="labelling", source=recorded).hash == plan.hash
    other = made.to_mapping()
    other["stages"][1]["layers"][0]["density_from"]["least_per_um3"] = 10.0
    assert Simulation.from_mapping(other).plan(until="labelling").hash != plan.hash


def test_memory_counts_the_grey_values() -> None:
    usual: dict[str, Any] = {
        "voxels": (64, 64, 64), "part": (64, 64, 64), "id_bytes": 8, "masks": 0, "tile": (8, 8, 8), "tile_bytes": 4,
        "block": (8, 8, 8), "stored_bytes": [2], "labelling": 0, "imaging": 0, "kept": None,
    }  # fmt: skip
    assert tile_memory(**usual, greys=2).labels - tile_memory(**usual, greys=0).labels >= 2 * 4 * 64**3


# ------------------------------------------------------------------ what cannot be


def test_values_that_are_no_numbers_are_refused() -> None:
    broken = EM.astype(float)
    broken[3, 4, 5] = np.nan
    with pytest.raises(SourceError, match="'em' holds values that are no 32-bit numbers"):
        dyes(CELLS, pan(), em=broken)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (layer(brightness={"distribution": "lognormal"}), "needs a variation"),
        (layer(brightness={"variation": 0.3}), "fixed brightness has no variation"),
        (layer(brightness={"distribution": "uniform", "variation": 0.6}), "negative"),
        (layer(penetration={"length_um": 0}), "length_um"),
        (layer(penetration={"length_um": 1, "faces": ["top"]}), "z_low"),
        (pan(cell_fraction=0.5), "cells make no difference"),
        (pan(dyes_per_protein=ONE_DYE), "leave dyes_per_protein out"),
        (pan(density_per_um3=3.0), "exactly one of"),
        (pan(grey={"least_per_um3": 8e4}), "not below most_per_um3"),
        (pan(grey={"per_value_per_um3": 0.0}), "give density_per_um3"),
        (pan(grey={"field": "fluor"}), r"the field 'fluor', which the source does not have: its grey fields are 'em'"),
    ],
)
def test_impossible_densities_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        Simulation.from_mapping(spec(wrong, source=SOURCE))


def test_models_are_read_as_they_are_written() -> None:
    made = Simulation.from_mapping(spec(*ALL, source=SOURCE))
    assert Simulation.from_mapping(made.to_mapping()) == made
    first = made.labeller.layers[0]  # type: ignore[attr-defined]
    assert first.density_from == GreyDensity(**GREY)
    assert first.penetration == Penetration(length_um=1.0, faces=("z_low", "x_high"))
