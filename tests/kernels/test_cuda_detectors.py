"""Detectors on the GPU: the text of its primitives gives the very counts of the CPU's kernels."""

from __future__ import annotations

import numpy as np
import pytest

from simexm.kernels.detector import camera
from simexm.kernels.detector.camera import DetectorLaw, PixelMaps, Profile
from simexm.kernels.devices.array_device import ArrayDevice
from simexm.kernels.devices.array_planes import Backend
from simexm.kernels.devices.cpu_device import CPU
from simexm.kernels.emission import emit
from simexm.kernels.numbers import detmath, gamma
from simexm.random import derive_key
from tests.kernels.test_draws import apply, uniforms
from tests.kernels.test_gamma import pulse_sums

N = 200_000


@pytest.fixture
def gpu(backend: Backend) -> ArrayDevice:
    """The device under test."""
    return ArrayDevice(backend)


PLAIN = DetectorLaw(
    0.4, 0.2, np.inf, 0.0, 0.0, 1.0, np.inf, 1.5, 2.0, 100.0, 65535.0,
    *(derive_key(1, "c", p) for p in ("shot", "multiply", "read")),
)  # fmt: skip
EMCCD = PLAIN._replace(
    pulse_variance=1.0, multiplication=300.0, gain=0.1, read_noise_e=45.0, full_well_e=9e4, register_e=4e5
)
DETECTORS = {
    "plain": PLAIN,
    "quiet": PLAIN._replace(read_noise_e=0.0, lit_e=0.0, dark_e=0.0),
    "shallow wells": PLAIN._replace(full_well_e=500.0, gain=37.5),
    "eight bits": PLAIN._replace(gain=1.0, top=255.0),
    "multiplied": EMCCD,
    "pulse heights": PLAIN._replace(pulse_variance=0.2, gain=20.0, read_noise_e=0.1),
    "nearly equal pulses": PLAIN._replace(pulse_variance=0.001),
    "counted pulses": PLAIN._replace(dead_share=0.013, read_noise_e=0.0, gain=1.0, offset=0.0),
    "maps": PLAIN,
}


@pytest.mark.parametrize("name", DETECTORS)
def test_counts_are_the_same(gpu: ArrayDevice, name: str) -> None:
    rng, law = np.random.default_rng(8), DETECTORS[name]
    shape = (5, 61, 53)
    expected = (10 ** rng.uniform(-4, 5, shape)).astype(np.float32)
    expected[0] = rng.normal(0, 1e-3, shape[1:])
    profile = Profile(rng.uniform(0.3, 1, shape[1]), rng.uniform(0.3, 1, shape[2]))
    maps = None
    if name == "maps":
        maps = PixelMaps(*(rng.uniform(0, 3, shape[1:]).astype(np.float32) for _ in PixelMaps._fields))
        maps.read_noise_e[:30] = 0
    drawn = []
    for device in (gpu, CPU):
        out = device.zeros(shape, np.uint16)
        saturated, histogram = device.draw_counts(device.put(expected), (7, 2**31 + 5, 9), law, profile, maps, out)
        drawn.append((device.to_host(out), saturated, histogram))
    for ours, theirs in zip(*drawn, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert drawn[1][0].std() > 10
    assert drawn[0][2].sum() == expected.size
    assert (drawn[1][1] > 0) == (name not in ("counted pulses",))


@pytest.mark.parametrize("variance", [1.0, 0.2, 2.9])
def test_sums_of_pulses_are_the_same(gpu: ArrayDevice, variance: float) -> None:
    """From one pulse to far beyond the table, and over all normal numbers."""
    rng, table = np.random.default_rng(9), gamma.pulse_table(variance)
    n = rng.integers(0, 4 * table.shape[0], N)
    w = apply(detmath.normal_quantile, uniforms(rng, N))
    found = gpu.put(np.zeros(N))
    gpu.launch("pulse_sums", N, gpu.put(n), gpu.put(w), variance, gpu.put(table), table.shape[0], N, found)
    np.testing.assert_array_equal(gpu.to_host(found), pulse_sums(n, w, variance, table))


@pytest.mark.parametrize("wrong", [np.nan, 3e9])
def test_what_cannot_be_drawn_is_told(gpu: ArrayDevice, wrong: float) -> None:
    expected = np.ones((1, 4, 4), np.float32)
    expected[0, 2, 2] = wrong
    for device in (gpu, CPU):
        with pytest.raises(ValueError, match=r"a Poisson field|more electrons"):
            device.draw_counts(
                device.put(expected),
                (0, 0, 0),
                PLAIN,
                Profile(np.ones(4), np.ones(4)),
                None,
                device.zeros((1, 4, 4), np.uint16),
            )


def test_bins_hold_every_count_of_16_bits() -> None:
    assert camera.BIN_OF.size == 1 << 16
    assert CPU.capacity == emit.CAPACITY
