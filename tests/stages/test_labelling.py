"""Laws of labelling, on the whole pipeline up to its dyes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.run.in_memory import Simulated, simulate
from simexm.sources.phantom import Phantom
from simexm.stages.contract import Counted
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.stages.sample.labelling import Labelling
from simexm.stages.sample.layer import subdivide
from tests.build import VOXEL_NM, confocal, layer, simulation

# the short axial range that keeps these tests small is told of, as it should be
pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

Labels = NDArray[np.uint64]
VOXEL_UM3 = math.prod(VOXEL_NM) * 1e-9


def _cells(shape: tuple[int, int, int] = (26, 64, 60), seed: int = 0, many: int = 12) -> Labels:
    """Neuropil of sorts: nearest of some random points, two of every nine of them outside any cell; ids up to 2^64."""
    rng = np.random.default_rng(seed)
    points = rng.random((many, 3)) * shape
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    nearest = ((grid[..., None, :] - points) ** 2).sum(-1).argmin(-1)
    ids = rng.integers(1, 2**64, many, dtype=np.uint64)
    ids[::9] = ids[1::9][: ids[::9].size] = 0
    found: Labels = ids[nearest]
    return found


def _dyes(
    labels: Labels, *layers: dict[str, Any], voxel: tuple[float, float, float] = VOXEL_NM, **changes: Any
) -> Simulated:
    changes.setdefault("keep", ["emitters"])
    return simulate(labels, simulation(*layers, **changes), voxel_size_nm=voxel, until="labelling")


def _rows(result: Simulated, layer_name: str) -> NDArray[np.float64]:
    """Emitters of a layer, rows (z, y, x, dyes) rounded to 1e-5 nm, in an order of their own."""
    e = result.emitters
    if not e:
        return np.zeros((0, 4))
    here = e["layer"] == layer_name
    places = [e[f"{a}_nm"][here] for a in "zyx"]
    rows = np.round(np.stack([*places, e["dyes"][here]], axis=1), 5)
    return rows[np.lexsort(rows.T)]


THREE = (
    layer(cell_fraction=0.6, linker_nm=15),
    layer(name="inside", region="cytosol", density_per_um3=3000.0, retention=0.5, unspecific_per_um3=300),
    layer(name="late", dye="ATTO550", density_per_um2=400, linker_nm=20, stained="after_expansion"),
)
TWO_COLOURS = confocal(
    channels=[
        {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "laser_power_uW": 20},
        {"name": "red", "laser_wavelength_nm": 561, "band_nm": [570, 650], "laser_power_uW": 20},
    ]
)


@pytest.mark.parametrize(
    ("offset", "shape"), [((3, 5, 7), (17, 41, 33)), ((0, 11, 1), (26, 13, 59)), ((25, 63, 59), (1, 1, 1))]
)
def test_a_crop_draws_the_dyes_that_the_whole_volume_does_there(offset: Any, shape: Any) -> None:
    """The same dyes at the same places, in the coordinates of the ground truth; a dye belongs to its protein's voxel."""
    labels = _cells()
    whole = _dyes(labels, *THREE, optics=TWO_COLOURS)
    crop = _dyes(labels, *THREE, optics=TWO_COLOURS, crop={"offset": offset, "shape": shape})
    low = np.array(offset) * VOXEL_NM
    high = low + np.array(shape) * VOXEL_NM
    for each in THREE:
        found, expected = _rows(crop, each["name"]), _rows(whole, each["name"])
        reach = 4 * each.get("linker_nm", 0.0) + 1e-3
        near = ((expected[:, :3] >= low - reach) & (expected[:, :3] < high + reach)).all(axis=1)
        deep = ((expected[:, :3] >= low + reach) & (expected[:, :3] < high - reach)).all(axis=1)
        rows = {tuple(r) for r in found.tolist()}
        assert rows <= {tuple(r) for r in expected[near].tolist()}
        assert {tuple(r) for r in expected[deep].tolist()} <= rows
        assert rows or math.prod(shape) == 1
    # and exactly the same of each cell: counted over the voxels of the crop
    inside = labels[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    assert set(crop.cells["id"]) == set(np.unique(inside)) - {0}


def test_a_crop_emits_the_proteins_of_its_own_voxels_exactly() -> None:
    labels = _cells()
    several = [layer(name="inside", region="cytosol", density_per_um3=4000.0), layer(density_per_um2=900)]
    offset, shape = (3, 5, 7), (17, 41, 33)
    whole = _dyes(labels, *several)
    crop = _dyes(labels, *several, crop={"offset": offset, "shape": shape})
    for name in ("inside", "membrane"):
        rows = _rows(whole, name)
        voxel = np.floor(rows[:, :3] / VOXEL_NM)
        there = ((voxel >= offset) & (voxel < np.add(offset, shape))).all(axis=1)
        assert there.any()
        np.testing.assert_allclose(_rows(crop, name), rows[there], atol=2e-5, rtol=0)


@pytest.mark.parametrize("tile", [(3, 16, 16), (20, 7, 50)])
def test_tiles_share_out_the_dyes_once(tile: tuple[int, int, int]) -> None:
    labels = _cells()
    keep = ["emitters", "labelled"]
    one = _dyes(labels, *THREE, optics=TWO_COLOURS, keep=keep)
    cut = _dyes(labels, *THREE, optics=TWO_COLOURS, keep=keep, execution={"tile": tile})
    assert cut.plan.tile != one.plan.tile
    for each in THREE:
        assert (_rows(one, each["name"]) == _rows(cut, each["name"])).all()
    assert (one.image == cut.image).all()
    for column in one.cells:
        assert (one.cells[column] == cut.cells[column]).all()


def test_the_table_of_cells_adds_up() -> None:
    """Voxels as NumPy counts them; dyes as the emitters say; photons from the plan's light per dye."""
    labels = _cells()
    crop = (slice(3, 25), slice(1, 60), slice(5, 58))
    result = simulate(
        labels,
        simulation(*THREE, optics=TWO_COLOURS, keep=["emitters"], crop={"offset": (3, 1, 5), "shape": (22, 59, 53)}),
        voxel_size_nm=VOXEL_NM,
    )
    ids, voxels = np.unique(labels[crop], return_counts=True)
    assert (result.cells["id"] == ids[ids != 0]).all()
    assert (result.cells["voxels"] == voxels[ids != 0]).all()
    e = result.emitters
    optics = result.plan.imaging.formation
    light = {(p.channel, p.dye): p.in_focus for p in optics.pairs}
    photons = {c: np.zeros(len(result.cells["id"])) for c in ("green", "red")}
    for each in THREE:
        name = each["name"]
        for i, cell in enumerate(result.cells["id"]):
            mine = (e["layer"] == name) & (e["cell"] == cell)
            assert result.cells[f"dyes_{name}"][i] == e["dyes"][mine].sum()
            assert (name in result.cells["layers"][i].split(",")) == (e["dyes"][mine].sum() > 0)
            for c in photons:
                photons[c][i] += e["dyes"][mine].sum() * light.get((c, each["dye"]), 0)
                shown = e["dyes"][mine] * np.float64(light.get((c, each["dye"]), 0))
                np.testing.assert_allclose(e[f"photons_{c}"][mine], shown, rtol=1e-6)
    for c, expected in photons.items():
        np.testing.assert_allclose(result.cells[f"photons_{c}"], expected, rtol=1e-9)
    outside = e["cell"] == 0
    assert set(e["layer"][outside]) == {"inside"}
    tissue = 22 * 59 * 53 * VOXEL_UM3 * 300 * 0.5
    assert abs(e["dyes"][outside].sum() - tissue) < 4.5 * math.sqrt(tissue)


def test_unspecific_label_is_even_over_all_tissue() -> None:
    """Inside and outside cells alike, of labelled cells and others."""
    labels = _cells()
    result = _dyes(labels, layer(cell_fraction=0.01, density_per_um2=1e-3, unspecific_per_um3=5000))
    e = result.emitters
    assert (e["cell"] == 0).all()
    where = tuple(np.floor(e[f"{a}_nm"] / v).astype(int) for a, v in zip("zyx", VOXEL_NM, strict=True))
    seen = np.zeros(labels.shape)
    np.add.at(seen, where, e["dyes"])
    for part in (labels == 0, labels != 0, np.ones(labels.shape, bool)):
        expected = part.sum() * VOXEL_UM3 * 5000
        assert abs(seen[part].sum() - expected) < 4.5 * math.sqrt(expected)
    assert seen.var() / seen.mean() == pytest.approx(1, abs=5 * math.sqrt(2 / seen.size))


def test_a_cell_is_labelled_alike_everywhere_and_as_often_as_asked() -> None:
    names = [layer(name=f"n{i}", cell_fraction=f) for i, f in enumerate((0.05, 0.5, 0.5, 1.0))]
    stage = simulation(*names).labeller
    assert isinstance(stage, Labelling)
    ids = np.concatenate([np.arange(20_000, dtype=np.uint64), np.arange(1, 20_000, dtype=np.uint64) << np.uint64(40)])
    flags = [stage.labelled(each.name, ids, 3, Counted()) for each in stage.layers]
    for each, flag in zip(stage.layers, flags, strict=True):
        assert flag[0] == 0
        share, p = flag[1:].mean(), each.cell_fraction
        assert abs(share - p) <= 4.5 * math.sqrt(p * (1 - p) / (ids.size - 1))
        shuffled = np.random.default_rng(0).permutation(ids.size)
        assert (stage.labelled(each.name, ids[shuffled], 3, Counted()) == flag[shuffled]).all()
    together = (flags[1] & flags[2]).mean()
    assert abs(together - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / ids.size)
    assert (stage.labelled(stage.layers[1].name, ids, 4, Counted()) != flags[1]).mean() == pytest.approx(0.5, abs=0.02)
    half = len(ids) // 2
    neighbours = np.corrcoef(flags[1][1 : half - 1], flags[1][2:half])[0, 1]
    assert abs(neighbours) < 4.5 / math.sqrt(half)


def test_layers_are_drawn_independently() -> None:
    labels = np.ones((20, 30, 30), np.uint64)
    twins = [layer(name=n, region="cytosol", density_per_um3=50_000.0) for n in ("a", "b")]
    result = _dyes(labels, *twins)
    counts = []
    for name in ("a", "b"):
        rows = _rows(result, name)
        seen = np.zeros(labels.shape)
        np.add.at(seen, tuple(np.floor(rows[:, :3] / VOXEL_NM).astype(int).T), rows[:, 3])
        counts.append(seen.reshape(-1))
    first, second = counts
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / math.sqrt(labels.size)
    again = _dyes(labels, twins[1])
    assert (_rows(again, "b") == _rows(result, "b")).all()


def test_a_linker_is_shorter_by_the_factor_when_it_comes_after_expansion() -> None:
    """One dye a protein in a column of voxels that are thin along x: the spread beyond the column is the linker's."""
    labels = np.zeros((30, 40, 41), np.uint64)
    labels[:, :, 20] = 1
    voxel = (40.0, 32.0, 0.5)
    spread = {}
    for stained in ("before_expansion", "after_expansion"):
        each = layer(density_per_um3=8e6, region="membrane", linker_nm=12, stained=stained)
        result = _dyes(labels, each, voxel=voxel, optics=confocal(pixel_size_nm=40))
        x = np.repeat(result.emitters["x_nm"], result.emitters["dyes"]) - 10.25
        spread[stained] = x.std()
        sigma = 12 if stained == "before_expansion" else 3
        assert np.abs(x).max() <= 4 * sigma + 0.25 + 1e-9
        cut = math.sqrt(0.998932 * sigma**2 + 0.25 / 12)
        assert x.std() == pytest.approx(cut, rel=4.5 / math.sqrt(2 * x.size))
    assert spread["before_expansion"] > 3.9 * spread["after_expansion"]


def test_dense_label_has_the_mean_and_the_variance_of_sparse_label() -> None:
    """Drawn at once or one by one: the same number of dyes per voxel, per unit of density."""
    labels = np.ones((16, 24, 24), np.uint64)
    for density in (2e5, 2e7):
        each = layer(name="a", region="cytosol", density_per_um3=density)
        result = _dyes(labels, each)
        stage = result.plan.simulation.labeller
        assert isinstance(stage, Labelling)
        law = stage.layers[0].law(result.plan.context)
        assert law.clumped == (density > 1e6)
        rows = _rows(result, "a")
        seen = np.zeros(labels.shape)
        np.add.at(seen, tuple(np.floor(rows[:, :3] / VOXEL_NM).astype(int).T), rows[:, 3])
        proteins = density * VOXEL_UM3
        assert seen.mean() == pytest.approx(4 * proteins, abs=4.5 * math.sqrt(20 * proteins / seen.size))
        assert seen.var() / seen.mean() == pytest.approx(5, abs=25 * math.sqrt(2 / seen.size) * (1 + 0.1))


def test_parts_of_a_voxel_are_no_larger_than_the_simulation_grid_and_keep_few() -> None:
    context = _dyes(np.ones((4, 8, 8), np.uint64), voxel=(500.0, 300.0, 20.0)).plan.context
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, OpticsPlan)
    node = [float(n) / 4 for n in context.imaging.formation.node_nm]
    assert context.clump_cell_nm == tuple(node)
    parts, clumped = subdivide(context, 1e7, 1e7)
    assert clumped
    for p, v, n in zip(parts, (500, 300, 20), node, strict=True):
        assert v / p <= n * (1 + 1e-6) or p == 1
        assert p == 1 or v / (p - 1) > n
    for dyes, proteins in ((1e3, 1e3), (1.0, 1e9)):
        parts, clumped = subdivide(context, dyes, proteins)
        assert not clumped
        assert max(dyes, proteins) / math.prod(parts) <= 4096


def test_membrane_totals_per_surface_hardly_depend_on_the_voxel() -> None:
    """The same tissue in voxels of half the size: totals change by less than 10 %."""
    totals = []
    for n, (shape, size) in enumerate([((40, 60, 60), VOXEL_NM), ((80, 120, 120), (20.0, 16.0, 16.0))]):
        source = Phantom(shape=shape, voxel_size_nm=size, seed=5).open()
        labels = np.asarray(source.read(Box.of_shape(shape)))
        result = _dyes(labels.astype(np.uint64), layer(density_per_um2=400), voxel=size, keep=[])
        totals.append(float(result.cells["dyes_membrane"].sum()))
        assert totals[n] > 20_000
    assert totals[1] == pytest.approx(totals[0], rel=0.1)
