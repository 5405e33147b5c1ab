"""Laws of uneven expansion: it inverts, does not fold, deforms by the stated curve, and moves dyes and labels together."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from simexm.api import Simulation
from simexm.errors import SimexmWarning, SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, exact3, triple
from simexm.geometry.transform import Specimen, UniformExpansion
from simexm.kernels.deformation import lattice as kernel
from simexm.kernels.deformation import places
from simexm.kernels.deformation.splines import at
from simexm.planning.gpu import resolve_device
from simexm.planning.planner import make_plan
from simexm.run.in_memory import Simulated, simulate
from simexm.sources.arrays import ArrayVolume
from simexm.spec.simulation import Execution
from simexm.stages.expansion import distortion, field
from simexm.stages.expansion.deformation import Deformation
from simexm.stages.expansion.expansion import Expansion
from simexm.stages.expansion.field import Field, Scale, _recent
from simexm.stages.expansion.rounds import MOST_STEPS
from simexm.stages.truth.places import _chosen, _inverted, planes_of_voxels
from simexm.view.report import distortion as report
from tests import build

Array = NDArray[np.float64]
VOXEL_NM = 8.0
EXTENT_NM = (4000.0, 4000.0, 4000.0)
GENTLE = [{"rms_nm": 40, "correlation_um": 0.8}, {"rms_nm": [120, 60, 60], "correlation_um": 6}]


def uneven(seed: int = 1, corner_nm: tuple[float, float, float] = (0, 0, 0), **fields: Any) -> Deformation:
    """The transform of an expansion with these fields."""
    made = Expansion.model_validate({"displacement": GENTLE, **fields})
    transform = made.transform(Specimen(seed, exact3(corner_nm), exact3(EXTENT_NM)))
    assert isinstance(transform, Deformation)
    return transform


def moved(transform: Deformation, points: Array) -> Array:
    """Apply to points, (n, 3)."""
    return np.stack(transform.apply((points[:, 0], points[:, 1], points[:, 2])), axis=1)


def test_an_even_factor_is_exact_and_uniform() -> None:
    for same in ({}, {"anisotropy": [1, 1, 1]}, {"displacement": [{"rms_nm": 0, "correlation_um": 1}]}):
        assert isinstance(Expansion.model_validate(same).transform(), UniformExpansion)


@pytest.mark.parametrize("side", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_points_come_back(side: int) -> None:
    """Within a thousandth of a voxel, from the grid of an image."""
    transform = uneven(factor=4, anisotropy=[1.03, 1.0, 0.98], shear={"zy": 0.02, "xy": -0.03})
    z, y, x = np.meshgrid(*(np.linspace(2000, 14000, side),) * 3, indexing="ij")
    back = transform.apply(transform.invert((z, y, x)))
    for found, wanted in zip(back, (z, y, x), strict=True):
        assert np.abs(found - wanted).max() < 4 * 1e-3 * VOXEL_NM
    pushed = np.stack(transform.invert((z, y, x))) - np.stack((z, y, x)) / 4
    assert pushed.std(axis=(1, 2, 3)).min() > 30, "it does move them"


def test_the_strongest_displacement_does_not_fold() -> None:
    """Neither by the proof, nor where the Jacobian is sampled; and a lattice that folds is found."""
    scale = Scale((100.0, 100.0, 100.0), 1100.0)
    rms = 100 * (MOST_STEPS / scale.steps) ** 0.5
    strongest = Field.of([Scale((rms * 0.99,) * 3, scale.correlation_nm)], 5)
    assert len(strongest.steps) > MOST_STEPS - 2
    found = kernel.composed((-5, 3, 40), (16, 16, 16), strongest.spacing_nm, strongest.steps)
    assert kernel.never_folds(found, strongest.spacing_nm)
    points = np.random.default_rng(0).uniform(1, 13, (3, 50_000))
    first, step = np.zeros(3, int), 1e-4 * np.eye(3)[:, :, None]
    ends = [[at(points + sign * along, first, 1.0, found) for along in step] for sign in (1, -1)]
    slopes = (np.array(ends[0]) - ends[1]).swapaxes(0, 1) / 2e-4 / strongest.spacing_nm
    jacobian = np.linalg.det(np.eye(3) + slopes.transpose(2, 0, 1))
    assert 0 < jacobian.min() < 0.6
    assert slopes.std(axis=2).max() > 0.1
    assert not kernel.never_folds(4 * found[:6, :6, :6], strongest.spacing_nm)


@pytest.mark.parametrize("pixel_nm", [30, 90, 200])
def test_interpolated_truth_is_that_of_inversion(pixel_nm: float) -> None:
    """In each pixel of a box that begins and ends anywhere, and in any part of it."""
    ids = np.ones((16, 50, 50), np.uint64)
    data = build.spec(optics=build.confocal(pixel_size_nm=pixel_nm, plane_spacing_nm=400))
    data["stages"][2] = {"stage": "expansion", **SIMULATED}
    g = make_plan(Simulation.from_mapping(data), source=ArrayVolume(ids, CELL_NM)).geometry
    strides, error = _chosen(g)
    stride = strides[1]
    assert stride > 1
    whole = Box((1, 3, 2), triple(n - 1 for n in g.shape))
    found = np.stack(list(planes_of_voxels(g, whole)), axis=1)
    assert (found == g.voxels_at_centres(whole)).all()
    assert len(np.unique(found[2])) > 40
    # the bound of the error, by which pixels are inverted after all, holds
    z, y, x = (g.centres_nm(axis, whole, stride if axis else 1) for axis in range(3))
    places = _inverted(g.transform, z, y, x)
    middle = (places[:, :, 1:-2, 1:-2] + places[:, :, 1:-2, 2:-1]) * 9 - (
        places[:, :, 1:-2, :-3] + places[:, :, 1:-2, 3:]
    )
    halfway = _inverted(g.transform, z, y, (x[1:-2] + x[2:-1]) / 2)[:, :, 1:-2]
    off = np.abs(middle / 16 - halfway).max(axis=(0, 2, 3)) / CELL_NM
    assert (off < error).all()
    assert (off > error / 100).any()
    part = Box((3, 14, 5), (5, 40, 33)) if min(g.shape[1:]) > 40 else Box((3, 5, 2), (5, 20, 12))
    _recent.regions = {"forward": [], "inverse": []}
    same = found[(slice(None), *part.relative_to(whole.start).slices)]
    assert (np.stack(list(planes_of_voxels(g, part)), axis=1) == same).all()


def _geometry(pixel_nm: float) -> Geometry:
    """Grid of an image of unevenly expanded tissue."""
    data = build.spec(optics=build.confocal(pixel_size_nm=pixel_nm, plane_spacing_nm=400))
    data["stages"][2] = {"stage": "expansion", **SIMULATED}
    return make_plan(
        Simulation.from_mapping(data), source=ArrayVolume(np.ones((16, 50, 50), np.uint64), CELL_NM)
    ).geometry


def test_an_error_beyond_its_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes in which interpolation is worse than was assumed are inverted pixel by pixel."""
    g = _geometry(90)
    monkeypatch.setattr(field, "_OF_CUBICS", field._OF_CUBICS / 20)
    whole = Box.of_shape(g.shape)
    assert (np.stack(list(planes_of_voxels(g, whole)), axis=1) == g.voxels_at_centres(whole)).all()


def test_a_voxel_beyond_a_face_may_stand_for_one_with_the_same_label() -> None:
    """Labels and regions, in a part of the volume, are those of inversion, pixel by pixel."""
    g = _geometry(90)
    whole, rng = Box.of_shape(g.shape), np.random.default_rng(0)
    index = rng.integers(0, 3, (4, 10, 10)).repeat(4, 0).repeat(5, 1).repeat(5, 2).astype(np.int32)
    bits = rng.integers(0, 2, (8, 25, 50)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
    first, last, corner = np.array((0, 7, 3)), np.array((16, 50, 41)), np.zeros(3, np.int64)
    exact, others = g.voxels_at_centres(whole).swapaxes(0, 1), 0
    around = places.Around(index, bits, first, last, corner)
    for wanted, found in zip(exact, planes_of_voxels(g, whole, around), strict=True):
        others += int((wanted != found).sum())
        for of in ("index", "bits"):
            seen = []
            for voxels in (wanted, found):
                out = np.full(voxels.shape[1:], -1, np.int32)
                places.gather_at(index if of == "index" else bits.astype(np.int32), first, last, corner, voxels, out)
                seen.append(out)
            assert (seen[0] == seen[1]).all()
    assert others > 0, "some pixels are not inverted"


def test_halving_cells_changes_no_spline() -> None:
    cell = np.random.default_rng(0).normal(size=(1, 4, 4, 4, 3))
    halves = kernel._halves(cell).reshape(2, 2, 2, 4, 4, 4, 3)
    for point in np.random.default_rng(1).uniform(size=(20, 3)):
        which = tuple((point >= 0.5).astype(int))
        inside = (2 * point - which)[:, None]
        fine = at(inside, np.full(3, -1), 1.0, np.ascontiguousarray(halves[which]))
        assert fine == pytest.approx(at(point[:, None], np.full(3, -1), 1.0, cell[0]), abs=1e-13)


def test_a_step_is_bounded_by_its_row_sum() -> None:
    """The bound of `ROW_SUM` by coefficients chosen against it."""
    rng, worst = np.random.default_rng(0), 0.0
    for point in np.concatenate([rng.uniform(size=(200, 3)), [[0.15, 0.85, 0.8]]]):
        weights = np.array([_weights_of(point, axis) for axis in range(3)])
        for signs in ((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)):
            worst = max(worst, np.abs(np.array(signs) @ weights).sum())
    assert 2.3 < worst < kernel.ROW_SUM


def _weights_of(point: Array, axis: int) -> Array:
    """Weight of each of 64 coefficients in the derivative along an axis, by finite differences of the spline."""
    step = np.zeros(3)
    step[axis] = 1e-5
    ends = np.clip(np.stack([point + step, point - step], axis=1), 0, 1 - 1e-12)
    one = [np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6 for t in ends]
    values = np.einsum("an,bn,cn->abcn", *one).reshape(64, 2)
    return np.asarray((values[:, 0] - values[:, 1]) / (ends[axis, 0] - ends[axis, 1]))


def test_a_place_is_displaced_alike_in_any_box_and_crop() -> None:
    whole, points = uneven(), np.random.default_rng(0).uniform(500, 3500, (3000, 3))
    found = moved(whole, points)
    again = uneven()
    for some in (slice(2000, 3000), slice(0, 7), slice(7, 2000)):
        assert (moved(again, points[some]) == found[some]).all()
    corner = np.array((1000.0, 500.0, 0.0))
    cut = uneven(corner_nm=(1000, 500, 0))
    assert np.abs(moved(cut, points - corner) + 4 * corner - found).max() < 1e-8
    assert np.abs(moved(uneven(seed=2), points) - found).max() > 100


def test_the_measured_curve_is_that_of_the_spec() -> None:
    """Mean over seeds of the error of length, after the best affine: as `plan` states it."""
    scales = Expansion.model_validate({"displacement": GENTLE}).scales
    lengths = (0.25, 0.5, 1.0, 2.0)
    wanted = distortion.expected(scales, EXTENT_NM, lengths)
    curves = []
    for seed in range(6):
        transform = uneven(seed, factor=1, anisotropy=[1.02, 1, 0.97])
        curves.append(distortion.measured(partial(moved, transform), EXTENT_NM, lengths, 1000))
    for name in ("mean_nm", "change_nm"):
        found = np.mean([getattr(c, name) for c in curves], axis=0)
        assert found == pytest.approx(getattr(wanted, name), rel=0.08)
    assert wanted.mean_nm / wanted.change_nm == pytest.approx(1.6, abs=0.1)


def test_the_report_draws_the_curve_beside_the_published_one() -> None:
    data = build.spec(optics=build.confocal())
    data["stages"][2] = {"stage": "expansion", **SIMULATED}
    source = ArrayVolume(np.ones((16, 50, 50), np.uint64), CELL_NM)
    drawn = report.distortion(make_plan(Simulation.from_mapping(data), source=source))
    assert drawn is not None
    assert "LICONN" in drawn
    assert "error, nm" in drawn
    data["stages"][2] = {"stage": "expansion", "anisotropy": [1.03, 1, 1]}
    assert report.distortion(make_plan(Simulation.from_mapping(data), source=source)) is None


def test_a_curve_is_fitted() -> None:
    """What is published of LICONN, within 15 %; and the curve of given scales, by others."""
    for points in (distortion.PUBLISHED["liconn"], ((1.0, 50.0), (10.0, 150.0))):
        scales = distortion.fitted(points)
        for length, error in points:
            apart = np.array([1e3 * length, 0, 0])
            variance = sum(2 * s.rms_nm[0] ** 2 * (1 - distortion.correlation(apart, s)) for s in scales)
            assert distortion.MEAN_OF_RMS * float(variance) ** 0.5 == pytest.approx(error, rel=0.15)
    assert Expansion(distortion="liconn").scales == distortion.fitted(distortion.PUBLISHED["liconn"])


# ---------------------------------------------------------------- simulated

SIMULATED = {
    "anisotropy": [1.03, 1.0, 0.97],
    "shear": {"zy": 0.02},
    "displacement": [{"rms_nm": 100, "correlation_um": 1}],
}
CELL_NM = (40.0, 32.0, 32.0)


def run(tile: Any = None, until: str | None = None, pixel_nm: float = 160, **fields: Any) -> Simulated:
    """Simulate 27 cells; planes are two pixels apart."""
    ids = np.zeros((36, 60, 60), np.uint64)
    for n, (z, y, x) in enumerate(np.ndindex(3, 3, 3)):
        ids[2 + 11 * z : 12 + 11 * z, 3 + 18 * y : 19 + 18 * y, 3 + 18 * x : 19 + 18 * x] = n + 1
    optics = build.confocal(pixel_size_nm=pixel_nm, plane_spacing_nm=2 * pixel_nm)
    data = build.spec(build.layer(region="cytosol", density_per_um3=100000), optics=optics, execution={"tile": tile})
    data["stages"][2] = {"stage": "expansion", **SIMULATED, **fields}
    data["stages"][-1] = {"stage": "truth", "regions": ["cytosol"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimexmWarning)
        return simulate(ids, Simulation.from_mapping(data), voxel_size_nm=CELL_NM, until=until)


def centroids(weights: NDArray[Any], cells: NDArray[Any]) -> Array:
    """Centre of each cell, pixels, of `weights` in the cell."""
    return np.array([np.average(np.argwhere(cells == n), axis=0, weights=weights[cells == n]) for n in range(1, 28)])


def tissue_volume(found: Simulated) -> Array:
    """Volume of tissue in each pixel: where tissue was stretched, there are fewer dyes."""
    g = found.plan.geometry
    centres = [(np.arange(n) + 0.5) * float(p) for n, p in zip(g.shape, g.pixel_nm, strict=True)]
    z, y, x = np.meshgrid(*centres, indexing="ij")
    slopes = np.array([np.gradient(axis) for axis in g.transform.invert((z, y, x))])
    return np.asarray(np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1))))


@pytest.mark.slow
def test_dyes_and_labels_move_together() -> None:
    found = run(until="labelling", pixel_nm=120)
    even = run(until="labelling", pixel_nm=120, anisotropy=None, shear={}, displacement=[])
    counts, cells = found.image[0].astype(np.float64), found.labels["membrane_cytosol"]
    apart = centroids(counts, cells) - centroids(tissue_volume(found), cells)
    shifted = centroids(counts, cells) - centroids(even.image[0], even.labels["membrane_cytosol"])
    # the border of a single cell is sampled at pixels, those of all at different places of pixels
    assert np.abs(apart.mean(axis=0)).max() < 0.03
    assert np.sqrt((apart**2).mean(axis=0)).max() < 0.15
    assert np.sqrt((shifted**2).mean(axis=0)).max() > 0.5


@pytest.mark.slow
def test_tiles_and_halos_change_nothing() -> None:
    whole, tiles = run(until="confocal"), run([9, 40, 23], until="confocal")
    assert (whole.labels["cells"] == tiles.labels["cells"]).all()
    assert np.abs(whole.image - tiles.image).max() < 2e-6 * whole.image.max()


def test_uneven_expansion_needs_the_cpu() -> None:
    stage = Expansion.model_validate({"displacement": GENTLE})
    assert Expansion().cpu_only == ""
    with pytest.raises(SpecError, match="CPU"):
        resolve_device(Execution(require_gpu=True), [stage], True)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"displacement": [{"rms_nm": 400, "correlation_um": 1}]}, "fold"),
        ({"matrix": [[1, 0, 0], [0, 0, 1], [0, 1, 0]]}, "determinant"),
        ({"matrix": [[-0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]}, "stretches z"),
        ({"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}, "factor"),
        ({"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "shear": {"zy": 0.1}}, "leave one out"),
        ({"distortion": [[5, 10], [1, 20]]}, "ascending"),
        ({"distortion": "liconn", "displacement": GENTLE}, "leave one out"),
        ({"distortion": [[0.1, 60], [10, 80]]}, "fold"),
        ({"anisotropy": [0, 1, 1]}, "anisotropy"),
    ],
)
def test_what_would_mirror_or_fold_tissue_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Expansion.model_validate(fields)
