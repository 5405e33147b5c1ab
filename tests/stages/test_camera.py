"""Laws of the detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Tiling, exact3
from simexm.geometry.transform import IDENTITY
from simexm.kernels.detector.camera import octave_quantile, quarter_octaves
from simexm.stages import Camera
from simexm.stages.contract import EXPECTED, RunContext, Tile
from simexm.stages.detector.sensor import Illumination, Sensor

# the short axial range that keeps these tests small is told of, as it should be
pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

SHAPE = (4, 300, 320)
Counts = NDArray[np.uint16]


def _expose(camera: Sensor, expected: NDArray[np.float32], pixels: Box | None = None, seed: int = 1) -> Tile:
    """Run the stage on (channel, z, y, x) photo-electrons of a tile; `values` hold the image, `tally.images` what was counted."""
    nz, ny, nx = expected.shape[1:]
    box = pixels or Box.of_shape((nz, ny, nx))
    unit = exact3((1, 1, 1))
    names = ("green", "red", "blue")[: len(expected)]
    geometry = Geometry(SHAPE, Box.of_shape(SHAPE), unit, unit, IDENTITY, unit)
    tile = Tile(RunContext(seed, geometry, {}, {}, None, channels=names), box, values={EXPECTED.name: expected})
    camera.run(tile.of(camera))
    return tile


def _flat(camera: Sensor, electrons: float, **more: Any) -> Counts:
    image: Counts = _expose(camera, np.full((1, *SHAPE), electrons, np.float32), **more).values["image"]
    return image


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.2])
@pytest.mark.parametrize("read", [1.5, 6.0])
@pytest.mark.parametrize("mean", [40.0, 900.0])
def test_flat_field(gain: float, read: float, mean: float) -> None:
    """Variance / (gain^2 mean) = 1 + (read^2 + 1 / (12 gain^2)) / mean, mean counting signal and background."""
    camera = Camera(gain_counts_per_e=gain, read_noise_e=read, offset_counts=200, stray_light_e=3, dark_e=2)
    counts = _flat(camera, mean - 5).astype(np.float64)
    n = counts.size
    variance = gain**2 * (mean + read**2) + 1 / 12
    assert counts.mean() == pytest.approx(gain * mean + 200, abs=4.5 * math.sqrt(variance / n))
    law = 1 + (read**2 + 1 / (12 * gain**2)) / mean
    assert counts.var() / (gain**2 * mean) == pytest.approx(law, rel=4.5 * math.sqrt((2 + 1 / mean) / n))


def test_without_read_noise_counts_are_poisson() -> None:
    counts = _flat(Camera(read_noise_e=0, offset_counts=7), 3.0).reshape(-1).astype(int) - 7
    seen = np.bincount(counts, minlength=13)
    wanted = stats.poisson(3).pmf(np.arange(12)) * counts.size
    wanted = np.append(wanted, counts.size - wanted.sum())
    assert stats.chisquare(np.append(seen[:12], seen[12:].sum()), wanted).pvalue > 1e-4


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_counts_end_at_the_highest_that_the_bits_hold_and_are_told(bits: int) -> None:
    top = 2**bits - 1
    exposed = _expose(Camera(bits=bits, read_noise_e=3, offset_counts=10), np.full((1, *SHAPE), top - 10.0, np.float32))
    image, (told,) = exposed.values["image"], exposed.tally.images
    unlimited = _expose(Camera(bits=16, read_noise_e=3, offset_counts=10), np.full((1, *SHAPE), top - 10.0, np.float32))
    assert image.max() == top
    assert told.histogram.sum() == image.size
    if bits < 16:
        assert (image == np.minimum(unlimited.values["image"], top)).all()
        assert told.clipped == (unlimited.values["image"] > top).sum()
    assert 0.3 * image.size < told.clipped <= (image == top).sum()


def test_counts_do_not_go_below_zero() -> None:
    image = _flat(Camera(read_noise_e=20, offset_counts=0), 0.0)
    assert (image == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert image.max() < 200


def test_light_falls_off_for_signal_and_tissue_but_not_for_stray_light_and_dark_current() -> None:
    fall = Illumination(edge=0.5)
    y, x = ((np.arange(n) + 0.5) / n * 2 - 1 for n in SHAPE[1:])
    profile = 0.5 ** (y[:, None] ** 2) * 0.5 ** (x[None, :] ** 2)
    np.testing.assert_allclose(fall.profile(slice(0, 300), slice(0, 320), (300, 320)).product(), profile, rtol=1e-12)
    quiet: Any = {"read_noise_e": 0, "offset_counts": 0, "illumination": fall, "frame_pixels": (300, 320)}
    lit = _flat(Camera(**quiet, autofluorescence_e=300), 700.0).mean(axis=(0, 1))
    dark = _flat(Camera(**quiet, stray_light_e=400, dark_e=600), 0.0).mean(axis=(0, 1))
    pull = (lit - 1000 * profile) / np.sqrt(1000 * profile / SHAPE[0])
    assert pull.std() == pytest.approx(1, abs=0.02)
    assert np.abs(pull).max() < 6
    assert (np.abs(dark - 1000) / math.sqrt(1000 / SHAPE[0])).max() < 6


def test_the_frame_belongs_to_the_camera() -> None:
    """Larger images are tiled with frames from their corner on, however they are computed."""
    fall, size = Illumination(edge=0.3), (50, 80)
    frame = fall.profile(slice(0, 50), slice(0, 80), size).product()
    assert (fall.profile(slice(150, 190), slice(100, 300), size).product() == np.tile(frame, (1, 4))[:40, 20:220]).all()


def test_a_pixels_count_does_not_depend_on_its_tile_or_its_neighbours() -> None:
    shape = (4, 60, 70)
    rng = np.random.default_rng(0)
    expected = rng.gamma(1.0, 30.0, (2, *shape)).astype(np.float32)
    camera = Camera(autofluorescence_e=2, dark_e=1, illumination=Illumination(edge=0.5), frame_pixels=(33, 41))
    whole = _expose(camera, expected).values["image"]
    for box in Tiling(Box.of_shape(shape), (3, 17, 64)):
        tile = _expose(camera, expected[(slice(None), *box.slices)], box).values["image"]
        assert (tile == whole[(slice(None), *box.slices)]).all()
    other = expected.copy()
    other[:, 1, 30, 30] *= 7
    changed = _expose(camera, other).values["image"] != whole
    assert not changed[:, [0, 2, 3]].any()
    assert changed.sum() <= 2


def test_channels_seeds_and_neighbours_are_independent() -> None:
    camera = Camera(read_noise_e=2)
    image = _expose(camera, np.full((2, *SHAPE), 50, np.float32)).values["image"].astype(np.float64)
    limit = 4.5 / math.sqrt(image[0].size)
    others = [image[1], _flat(camera, 50.0, seed=2)[0], *(np.roll(image[0], 1, axis=a) for a in range(3))]
    for other in others:
        assert abs(np.corrcoef(image[0].reshape(-1), other.reshape(-1))[0, 1]) < limit


def test_an_expected_image_a_little_below_zero_gives_no_light() -> None:
    counts = _flat(Camera(read_noise_e=0, offset_counts=5), -1e-4)
    assert (counts == 5).all()


def test_bins_of_the_histogram() -> None:
    counts = np.arange(65536, dtype=np.uint16)
    histogram = quarter_octaves(counts)
    assert histogram.sum() == counts.size
    assert histogram[0] == 1
    upper = 2.0 ** ((np.arange(1, 70) - 1) / 4)
    assert (np.cumsum(histogram)[1:70] - 1 == np.minimum(np.floor(upper + 1e-6), 65535)).all()
    for share in (0.01, 0.5, 0.999):
        edge = octave_quantile(histogram, share)
        assert edge / 2**0.25 <= np.quantile(counts, share) * 1.0001
        assert edge >= np.quantile(counts, share) * 0.9999
    assert octave_quantile(quarter_octaves(np.zeros(9, np.uint16)), 0.999) == 0


def test_bins_of_large_counts() -> None:
    edges = [math.isqrt(math.isqrt(2**q)) for q in range(128)]
    for b, largest in enumerate(edges[12:], 13):
        histogram = quarter_octaves(np.array([largest, largest + 1], np.uint32))
        assert (histogram[b], histogram[b + 1], histogram.sum()) == (1, 1, 2), largest
