"""Laws of the models of detectors: exact distributions, moments, maps of the frame, saturation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, special, stats
from scipy.interpolate import CubicSpline

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Tiling, exact3
from simexm.geometry.transform import IDENTITY
from simexm.kernels.numbers.gamma import pulse_table
from simexm.stages import Camera, Emccd, Photomultiplier, Scmos
from simexm.stages.contract import EXPECTED, RunContext, Tile
from simexm.stages.detector.sensor import Sensor
from simexm.stages.frames import Frame

Floats = NDArray[np.float64]
SENSORS: dict[str, Sensor] = {
    "camera": Camera(gain_counts_per_e=5, full_well_e=10_000),
    "scmos": Scmos(frame_pixels=(10, 20), gain_counts_per_e=5, gain_spread=0.05),
    "emccd": Emccd(gain_counts_per_e=0.5, offset_counts=500, register_well_e=1e6, clock_induced_e=0),
    "photomultiplier": Photomultiplier(gain_counts_per_e=100, offset_counts=400),
    "pulse counter": Photomultiplier(mode="photon_counting", dead_time_ns=40),
}
DWELL_S = 2e-6


def expose(sensor: Sensor, expected: Any, pixels: Box, seed: int = 1, frame: Frame | None = None) -> Tile:
    """Run the stage on the same photo-electrons per pixel everywhere, or on an array (channel, z, y, x)."""
    unit = exact3((1, 1, 1))
    geometry = Geometry(pixels.stop, Box.of_shape(pixels.stop), unit, unit, IDENTITY, unit)
    light = np.ascontiguousarray(np.broadcast_to(np.float32(expected), (1, *pixels.shape)))
    context = RunContext(seed, geometry, {}, {}, None, channels=("green",), pixel_time_s=DWELL_S)
    tile = Tile(context, pixels, values={EXPECTED.name: light})
    tile = replace(tile, frame=frame) if frame else tile
    sensor.run(tile.of(sensor))
    return tile


def counts(sensor: Sensor, expected: Any, pixels: Box, **more: Any) -> NDArray[np.uint16]:
    found: NDArray[np.uint16] = expose(sensor, expected, pixels, **more).values["image"][0]
    return found


# ---------------------------------------------------------------- exact distributions


def poisson(mean: float) -> tuple[NDArray[np.int64], Floats]:
    n = np.arange(int(mean + 12 * math.sqrt(mean) + 25))
    return n, stats.poisson.pmf(n, mean)


def with_noise(
    below: Callable[[Floats], Floats], none: float, largest: float, sigma: float
) -> Callable[[Floats], Floats]:
    """Distribution function of X + sigma * normal; `below`(x) = P(0 < X <= x), `none` = P(X = 0)."""
    step = sigma / 16
    edges = np.arange(0, largest, step)
    mass = np.diff(below(edges))
    wide = int(9 * sigma / step)
    share = ndimage.gaussian_filter1d(np.pad(mass, wide), sigma / step, truncate=8.5, mode="constant")
    spline = CubicSpline((np.arange(share.size + 1) - wide) * step, np.concatenate([[0.0], np.cumsum(share)]))
    return lambda x: none * special.ndtr(x / sigma) + spline(np.clip(x, spline.x[0], spline.x[-1]))


def pulses(mean: float, variance: float) -> tuple[Callable[[Floats], Floats], float, float]:
    """P(0 < X <= x) of a Poisson number of gamma-distributed pulses of mean 1, P(X = 0), and a bound."""
    n, share = poisson(mean)
    n, none, share = n[1:], float(share[0]), share[1:]

    def below(x: Floats) -> Floats:
        total = np.zeros(x.shape)
        for k, p in zip(n, share, strict=True):
            total += p * special.gammainc(k / variance, x / variance)
        return total

    return below, none, mean + 14 * math.sqrt((1 + variance) * mean) + 30 * variance


def distribution(name: str, sensor: Any, mean: float) -> Callable[[Any], Any]:
    """P(count < c + 1/2 before rounding) as a function of that edge, for pixels that expect `mean` electrons."""
    n, share = poisson(mean)
    if name == "camera":
        return lambda edge: sum(
            p * special.ndtr(((edge - sensor.offset_counts) / sensor.gain_counts_per_e - k) / sensor.read_noise_e)
            for k, p in zip(n, share, strict=True)
        )
    if name == "scmos":
        maps = [
            m.astype(np.float64).reshape(-1, 1) for m in sensor.pixel_maps(Box.of_shape((1, *sensor.frame_pixels)), 1)
        ]
        _, sigma, gain, offset = maps
        return lambda edge: sum(
            p * special.ndtr(((edge - offset) / gain - k) / sigma).mean(axis=0) for k, p in zip(n, share, strict=True)
        )
    if name == "pulse counter":
        dead = 40e-9 / DWELL_S

        def counted(edge: Floats) -> Floats:
            m = np.floor(edge)
            return np.asarray(special.pdtr(m, np.maximum(mean * (1 - m * dead), 0)))

        return counted
    em = getattr(sensor, "em_gain", 1.0)
    variance = 1.0 if name == "emccd" else sensor.excess_noise - 1
    function = with_noise(*pulses(mean, variance), sensor.read_noise_e / em)
    return lambda edge: function((edge - sensor.offset_counts) / sensor.gain_counts_per_e / em)


def distance(name: str, mean: float, pixels: Box) -> float:
    """Kolmogorov-Smirnov distance between the counts and their exact distribution."""
    sensor = SENSORS[name]
    seen = counts(sensor, mean, pixels)
    top = int(seen.max()) + 1
    empirical = np.cumsum(np.bincount(seen.reshape(-1), minlength=top + 1)) / seen.size
    assert seen.max() < 2**sensor.bits - 1
    return float(np.abs(empirical - distribution(name, sensor, mean)(np.arange(top + 1) + 0.5)).max())


MEANS = (0.5, 1.0, 5.0, 50.0)


@pytest.mark.parametrize("mean", [1.0, 50.0])
@pytest.mark.parametrize("name", SENSORS)
def test_counts_follow_the_exact_distribution(name: str, mean: float) -> None:
    """Beyond 2.23 / sqrt(n) one sample in ten thousand would lie."""
    pixels = Box.of_shape((1, 150, 200))
    assert distance(name, mean, pixels) < 2.23 / math.sqrt(pixels.size)


@pytest.mark.slow
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("name", SENSORS)
def test_ten_million_counts_follow_the_exact_distribution(name: str, mean: float) -> None:
    assert distance(name, mean, Box.of_shape((4, 2500, 1000))) < 1e-3


def test_a_gaussian_of_the_same_variance_would_be_found() -> None:
    """The distance of such an EMCCD at one electron is 0.064 (optics of expanded gels): the test above can fail."""
    cdf = distribution("emccd", SENSORS["emccd"], 1.0)
    edges = np.arange(0, 4000) + 0.5
    x = (edges - 500) / 0.5 / 300
    n, share = poisson(1.0)
    gaussian: Any = sum(p * special.ndtr((x - k) / math.sqrt(k + 0.15**2)) for k, p in zip(n, share, strict=True))
    assert np.abs(cdf(edges) - gaussian).max() > 0.05


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("mean", [3.0, 300.0])
@pytest.mark.parametrize("name", SENSORS)
def test_electrons_are_found_again_with_the_noise_that_is_told(name: str, mean: float) -> None:
    """`electrons` undoes gain, offset, maps and dead time on average, and `noise_e` is its standard deviation."""
    sensor, pixels = SENSORS[name], Box.of_shape((1, 300, 400))
    if name == "pulse counter":
        mean = min(mean, 15.0)
    if name == "scmos":  # a frame of so many pixels has the root mean square of read noise that is given
        sensor = sensor.model_copy(update={"frame_pixels": pixels.shape[1:]})
    tile = expose(sensor, mean, pixels)
    found = sensor.electrons(tile.values["image"][0], pixels, tile.context)
    noise = sensor.noise_e(mean, tile.context)
    curved = 0.04 * mean if "counter" in name else 0  # the inverse of the dead time's law is not linear in the counts
    assert found.mean() == pytest.approx(mean, abs=5 * noise / math.sqrt(pixels.size) + curved)
    assert found.std() == pytest.approx(noise, rel=0.06 if "counter" in name else 0.015)


def test_multiplied_noise_by_closed_form() -> None:
    """Variance gain^2 (2 g^2 mean + read^2) behind a register, gain^2 (F mean + read^2) of pulse heights; + 1/12."""
    pixels = Box.of_shape((1, 300, 500))
    emccd = Emccd(em_gain=50, gain_counts_per_e=0.4, clock_induced_e=0.5, dark_e=1.5)
    seen = counts(emccd, 20.0, pixels).astype(np.float64)
    variance = 0.4**2 * (2 * 50**2 * 22 + 45**2) + 1 / 12
    assert seen.mean() == pytest.approx(0.4 * 50 * 22 + 100, abs=4.5 * math.sqrt(variance / seen.size))
    assert seen.var() == pytest.approx(variance, rel=0.015)
    tube = Photomultiplier(excess_noise=1.5, read_noise_e=1)
    seen = counts(tube, 20.0, pixels).astype(np.float64)
    variance = 50**2 * (1.5 * 20 + 1) + 1 / 12
    assert seen.mean() == pytest.approx(50 * 20 + 100, abs=4.5 * math.sqrt(variance / seen.size))
    assert seen.var() == pytest.approx(variance, rel=0.015)


def test_nearly_equal_rates_differ_by_at_most_one_electron() -> None:
    """A share |difference| of the pixels differs, by one electron before amplification, whatever the detector."""
    rng, pixels = np.random.default_rng(1), Box.of_shape((1, 300, 300))
    rate = rng.gamma(0.5, 40, pixels.shape).astype(np.float32)
    other = rate * np.float32(1.0001)
    for sensor in (
        Emccd(read_noise_e=0, em_gain=1, gain_counts_per_e=30, register_well_e=1e9),
        Photomultiplier(mode="photon_counting", dead_time_ns=5),
        Scmos(gain_counts_per_e=1, read_noise_e=1, gain_spread=0),
    ):
        a, b = (counts(sensor, r, pixels).astype(int) for r in (rate, other))
        assert (a != b).mean() <= 2 * np.abs(other - rate).mean() + 1e-6
        if not isinstance(sensor, Emccd):
            assert np.abs(a - b).max() == 1


# ---------------------------------------------------------------- pixels of the frame


def test_maps_belong_to_the_pixel_of_the_frame() -> None:
    """They repeat over planes and frames, are the same in any tile, differ by seed, and have the spread that is given."""
    sensor = Scmos(frame_pixels=(300, 400), hot_pixel_share=0.01, hot_pixel_e=20, gain_spread=0.02)
    whole = sensor.pixel_maps(Box((0, 0, 0), (1, 600, 400)), 5)
    for box in (Box((7, 100, 30), (9, 260, 90)), Box((0, 280, 390), (1, 320, 400)), Box((0, 500, 0), (1, 600, 400))):
        for part, full in zip(sensor.pixel_maps(box, 5), whole, strict=True):
            np.testing.assert_array_equal(part, full[box.slices[1:]])
    for full in whole:
        np.testing.assert_array_equal(full[:300], full[300:])
    first = [m[:300].astype(np.float64) for m in whole]
    dark, noise, gain, offset = first
    assert np.sqrt((noise**2).mean()) == pytest.approx(1.6, rel=0.05)
    assert np.median(noise) == pytest.approx(1.0, rel=0.02)
    assert np.quantile(noise, 0.999) > 6
    assert gain.std() / gain.mean() == pytest.approx(0.02, rel=0.02)
    assert offset.std() == pytest.approx(2.2 * 0.3, rel=0.02)
    assert (dark > 0).mean() == pytest.approx(0.01, rel=0.1)
    assert dark[dark > 0].mean() == pytest.approx(20, rel=0.1)
    assert not np.array_equal(sensor.pixel_maps(Box((0, 0, 0), (1, 300, 400)), 6).gain, whole.gain[:300])
    assert max(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a in first for b in first if a is not b) < 0.02


def test_a_stack_shows_its_pixels_pattern() -> None:
    """The mean over many planes and frames tells offsets; a single plane does not."""
    sensor = Scmos(frame_pixels=(40, 50), offset_spread_e=3, read_noise_e=1, read_noise_median_e=None)
    pixels = Box.of_shape((200, 40, 50))
    offset = sensor.pixel_maps(pixels, 1).offset
    for frame in (None, Frame(round=2)):
        mean = counts(sensor, 0.0, pixels, frame=frame).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(mean, offset, atol=6 * 2.2 / math.sqrt(200))


@pytest.mark.parametrize("name", SENSORS)
def test_a_count_does_not_depend_on_the_tile(name: str) -> None:
    shape = (3, 50, 70)
    light = np.random.default_rng(2).gamma(1.0, 10.0, (1, *shape)).astype(np.float32)
    whole = counts(SENSORS[name], light, Box.of_shape(shape))
    for box in Tiling(Box.of_shape(shape), (2, 17, 64)):
        part = counts(SENSORS[name], light[(slice(None), *box.slices)], box)
        np.testing.assert_array_equal(part, whole[box.slices])


def test_tables_and_maps_have_the_same_bits_on_every_machine() -> None:
    """They decide counts, so they use exact operations only: these digests hold for any CPU and any library."""
    for variance, digest in ((1.0, "0ac99a52c1aebf8d"), (0.2, "d713242e354838d1")):
        assert hashlib.blake2b(pulse_table(variance).tobytes(), digest_size=8).hexdigest() == digest
    maps = Scmos(hot_pixel_share=0.1, hot_pixel_e=9).pixel_maps(Box.of_shape((1, 64, 64)), 5)
    assert hashlib.blake2b(b"".join(m.tobytes() for m in maps), digest_size=8).hexdigest() == "08f2d7c16db6222b"


# ---------------------------------------------------------------- saturation


@pytest.mark.parametrize(
    ("sensor", "largest"),
    [
        (Camera(full_well_e=1000, read_noise_e=0, gain_counts_per_e=2), 2100),
        (Emccd(full_well_e=1000, em_gain=10, read_noise_e=0, gain_counts_per_e=0.01, offset_counts=0), None),
        (Emccd(register_well_e=8000, em_gain=10, read_noise_e=0, gain_counts_per_e=1, offset_counts=7), 8007),
        (Photomultiplier(gain_counts_per_e=10, bits=12), 4095),
    ],
    ids=["full well", "full well before a register", "register", "bits"],
)
def test_saturated_pixels_are_counted(sensor: Sensor, largest: int | None) -> None:
    pixels = Box.of_shape((1, 100, 100))
    for light, share in ((sensor.saturation_e * 1.5, 1.0), (sensor.saturation_e * 0.5, 0.0)):
        tile = expose(sensor, light, pixels)
        assert tile.tally.images[0].clipped == share * pixels.size
        if share and largest is not None:
            assert (tile.values["image"] == largest).all()
