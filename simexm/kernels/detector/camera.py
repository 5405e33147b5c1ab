"""From expected photo-electrons to counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.numbers.fields import normal_field, poisson_field
from simexm.random import Key


class Detector(NamedTuple):
    """Parameters of one channel: counts = gain * electrons + offset, clipped at `top`; the last three are random keys."""

    lit_e: float  # electrons per pixel added to the signal before the illumination profile is applied
    dark_e: float  # electrons per pixel added after it
    read_noise_e: float  # standard deviation
    excess_noise: float  # variance of the multiplied signal over that of the electrons
    gain: float
    offset: float
    top: float
    shot: Key
    read: Key
    excess: Key


class Profile(NamedTuple):
    """Relative irradiance of a box of pixels as the product of a factor per row and one per column, float64."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]

    def product(self) -> NDArray[np.float64]:
        """Irradiance of each pixel, (rows, columns)."""
        return self.y[:, None] * self.x[None, :]


def draw_counts(
    expected: NDArray[np.float32], start: Triple, detector: Detector, profile: Profile, out: NDArray[np.uint16]
) -> int:
    """Draw the counts of a box of pixels (z, y, x) from photo-electrons per pixel; return the number of clipped pixels.

    `start` is the first pixel in the image.
    """
    d, clipped = detector, 0
    z0, y0, x0 = start
    light = profile.product()
    for k in range(expected.shape[0]):
        signal = np.maximum(expected[k : k + 1].astype(np.float64), 0.0)
        rate = light * (signal + d.lit_e) + d.dark_e
        electrons = poisson_field(rate, z0 + k, y0, x0, d.shot)
        noise = np.zeros(rate.shape)
        if d.read_noise_e > 0:
            noise += d.read_noise_e * normal_field(rate.shape, z0 + k, y0, x0, d.read)
        if d.excess_noise > 1:
            surplus = np.sqrt((d.excess_noise - 1) * electrons)
            noise += surplus * normal_field(rate.shape, z0 + k, y0, x0, d.excess)
        clipped += digitise(electrons, noise, d.gain, d.offset, d.top, out[k : k + 1])
    return clipped


@njit(cache=True, nogil=True)
def digitise(electrons, noise, gain, offset, top, out):  # type: ignore[no-untyped-def]
    """Set `out` to round(gain * (electrons + noise) + offset), half up, clipped to 0 ... `top`; return the pixels above."""
    clipped = 0
    flat_e, flat_n, flat_o = electrons.reshape(-1), noise.reshape(-1), out.reshape(-1)
    for i in range(flat_e.size):
        value = np.floor(gain * (flat_e[i] + flat_n[i]) + offset + 0.5)
        if value > top:
            value = top
            clipped += 1
        flat_o[i] = max(0.0, value)
    return clipped


BINS = 130
"""Bins of `quarter_octaves`; the last one holds the largest counts of 32 bits."""
_QUARTERS = np.array([math.isqrt(math.isqrt(2**q)) for q in range(128)], np.uint64)  # largest count in bin q + 1
BIN_OF = np.concatenate([[0], np.searchsorted(_QUARTERS, np.arange(1, 1 << 16)) + 1]).astype(np.uint8)
"""Bin of each count below 2^16."""


def quarter_octaves(counts: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Histogram of counts of at most 32 bits in quarter-octave bins, int64 (`BINS`,).

    Bin 0 is the count 0; bin b >= 1 is above 2^((b - 2) / 4) and at most 2^((b - 1) / 4).
    """
    out = np.zeros(BINS, np.int64)
    _count_quarters(counts.reshape(-1), BIN_OF, _QUARTERS, out)
    return out


@njit(cache=True, nogil=True)
def _count_quarters(counts, bin_of, quarters, out):  # type: ignore[no-untyped-def]
    for i in range(counts.size):
        value = np.uint64(counts[i])
        if value < np.uint64(bin_of.size):
            out[bin_of[value]] += 1
        else:
            out[np.searchsorted(quarters, value) + 1] += 1


@njit(cache=True, nogil=True)
def cut(image, top, out):  # type: ignore[no-untyped-def]
    """Set `out` to the plane of integers clipped at `top`; return the number of clipped pixels."""
    clipped = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            clipped += image[y, x] > top
            out[y, x] = min(image[y, x], top)
    return clipped


def octave_quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Upper edge of the bin that contains the quantile `share` of the pixels."""
    total = np.cumsum(histogram)
    bin_ = int(np.searchsorted(total, share * total[-1]))
    return 0.0 if bin_ == 0 else float(2 ** ((bin_ - 1) / 4))
