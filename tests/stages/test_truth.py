"""Laws of the truth: labels lie where the image's light does."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.run.in_memory import Simulated, simulate
from simexm.stages.contract import Counted
from simexm.store.omezarr import multiscales
from tests.build import confocal, layer, simulation

# the short axial range that keeps these tests small is told of, as it should be
pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

PIXELS = {
    "real": (162.5, 500, 4, (40, 32, 32)),
    "every centre on a border": (256, 320, 4, (40, 32, 32)),
    "1.5 and 3.125 voxels": (192, 500, 4, (40, 32, 32)),
    "pixels within voxels": (100, 130, 4.5, (40, 32, 32)),
    "not a binary fraction": (48.3, 101.1, 1.7, (33.3, 10.7, 10.7)),
}


def _by_hand(voxels: int, voxel: float, pixel: float, factor: float) -> list[int]:
    """Voxel shown by each pixel along an axis, by search: half-open voxels, exact numbers."""
    size = Fraction(str(voxel))
    pitch = Fraction(str(pixel)) / Fraction(str(factor))
    shown = []
    for p in range(max(1, int(voxels * size // pitch))):
        centre = (2 * p + 1) * pitch / 2
        inside = [i for i in range(voxels) if i * size <= centre < (i + 1) * size]
        shown.append(inside[0] if inside else voxels - 1)
    return shown


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("crop", [None, {"offset": [3, 1, 5], "shape": [14, 25, 17]}], ids=["whole", "crop"])
def test_each_pixel_shows_the_voxel_that_holds_its_centre(name: str, crop: dict[str, Any] | None) -> None:
    """Every voxel has an id of its own, so a label tells which voxel it came from; in one tile and in many."""
    pixel, plane, factor, voxel = PIXELS[name]
    shape = (19, 31, 26)
    labels = np.arange(1, 1 + 19 * 31 * 26, dtype=np.uint64).reshape(shape) + np.uint64(2**40)
    optics = confocal(pixel_size_nm=pixel, plane_spacing_nm=plane)
    more = {} if crop is None else {"crop": crop}
    offset, size = (crop["offset"], crop["shape"]) if crop else ([0, 0, 0], list(shape))
    index = [
        o + np.array(_by_hand(n, v, p, factor))
        for o, n, v, p in zip(offset, size, voxel, (plane, pixel, pixel), strict=True)
    ]
    each = layer(cell_fraction=0.5)
    for tile in (None, (2, 5, 3)):
        spec = simulation(each, optics=optics, factor=factor, execution={"tile": tile}, **more)
        found = simulate(labels, spec, voxel_size_nm=voxel, until="labelling")
        expected = labels[np.ix_(*index)]
        assert found.labels["cells"].dtype == np.uint64
        assert (found.labels["cells"] == expected).all()
        flags = spec.labeller.labelled(spec.labeller.named_layers[0].name, expected, spec.seed, Counted())
        assert (found.labels["membrane"] == np.where(flags, expected, 0)).all()
        assert found.image.shape[1:] == expected.shape


@pytest.mark.parametrize(("planes", "shown"), [(1, 0), (2, 1), (3, 1), (4, 1)])
def test_a_specimen_thinner_than_a_plane_spacing_has_one_plane(planes: int, shown: int) -> None:
    """Planes lie 125 nm apart, the first 62.5 nm deep: in the second voxel of 40 nm, or below the only one."""
    labels = np.broadcast_to(np.arange(1, planes + 1, dtype=np.uint8)[:, None, None], (planes, 20, 20))
    found = simulate(labels, simulation(), voxel_size_nm=(40, 32, 32), until="labelling")
    assert found.labels["cells"].shape == (1, 15, 15)
    assert (found.labels["cells"] == shown + 1).all()
    assert found.cells["voxels"].sum() == labels.size


def test_a_crop_shows_the_whole_image_where_pixels_coincide() -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (4, 6, 6)), np.ones((5, 8, 8), int)).astype(np.uint16)
    grid = {"optics": confocal(pixel_size_nm=256, plane_spacing_nm=320)}
    whole = simulate(labels, simulation(**grid), voxel_size_nm=(40, 32, 32), until="labelling")
    crop = {"offset": (6, 10, 4), "shape": (10, 22, 30)}
    part = simulate(labels, simulation(**grid, crop=crop), voxel_size_nm=(40, 32, 32), until="labelling")
    for name in ("cells", "membrane"):
        assert (part.labels[name] == whole.labels[name][3:8, 5:16, 2:17]).all()


def _centroid_um(weight: NDArray[Any], result: Simulated) -> NDArray[np.float64]:
    """Centre of mass in micrometres, through the scale and translation that are stored with the image."""
    level = result.plan.levels[:1]
    stored = multiscales("test", level, result.plan.geometry.image_origin_nm, channels=False, method="mean")
    scale, shift = stored[0]["datasets"][0]["coordinateTransformations"]
    w = weight.astype(np.float64)
    at = [
        (w.sum(axis=tuple(b for b in range(3) if b != a)) * np.arange(n)).sum() / w.sum() for a, n in enumerate(w.shape)
    ]
    return np.asarray(np.array(at) * scale["scale"] + shift["translation"])


@pytest.mark.parametrize("offset", [(0, 0, 0), (2, 6, 3)], ids=["whole", "crop"])
def test_image_labels_and_ground_truth_lie_on_each_other(offset: tuple[int, int, int]) -> None:
    """Centroids of a ball agree to a hundredth of a pixel.

    The ball's middle is chosen so that pixels and voxels are symmetric about it; off by half a voxel, a pixel or a border
    rule, the three would part by a quarter of a pixel or more.
    """
    voxel = np.array([40.0, 32.0, 40.625])
    inner = np.array([75, 325, 96])  # 24 planes of 125 nm, 256 and 96 pixels of 40.625 nm
    shape = inner + offset
    middle = (np.array(offset) + inner / 2) * voxel
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) * v for n, v in zip(shape, voxel, strict=True)), indexing="ij")
    ball = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < 700.0**2
    spec = simulation(
        layer(name="inside", region="cytosol", density_per_um3=2e6),
        keep=["expected", "emitters"],
        crop={"offset": offset, "shape": inner.tolist()},
    )
    result = simulate(ball.astype(np.uint8), spec, voxel_size_nm=(40, 32, 40.625))
    assert result.plan.shape == (24, 256, 96)
    pixel_um = np.array([0.125, 0.040625, 0.040625])
    truth = np.array([c.mean() for c in np.nonzero(ball)]) * voxel / 1000 + voxel / 2000
    np.testing.assert_allclose(truth, middle / 1000, atol=1e-9)
    e = result.emitters
    dyes = np.array([(e[f"{a}_nm"] * e["dyes"]).sum() / e["dyes"].sum() for a in "zyx"]) / 1000
    for found in (_centroid_um(result.labels["cells"], result), _centroid_um(result.kept["expected"][0], result), dyes):
        assert (np.abs(found - truth) < 0.01 * pixel_um).all()
