"""From expected photo-electrons to counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.numbers.fields import normal_field, poisson_field, pulse_count_field
from simexm.kernels.numbers.gamma import pulse_sum, pulse_table
from simexm.random import Key


class DetectorLaw(NamedTuple):
    """How one channel's photo-electrons become counts; see `draw_counts`. The last three are random keys."""

    lit_e: float  # electrons per pixel added to the signal before the illumination profile is applied
    dark_e: float  # electrons per pixel added after it
    full_well_e: float  # most electrons that a pixel holds
    dead_share: float  # dead time of a pulse counter over the time of a pixel; 0 if pulses are not counted
    pulse_variance: float  # of a multiplied electron over its squared mean; 0 if electrons are not multiplied
    multiplication: float  # mean electrons from one
    register_e: float  # most multiplied electrons
    read_noise_e: float  # standard deviation, multiplied electrons
    gain: float  # counts per multiplied electron
    offset: float  # counts
    top: float  # largest count
    shot: Key
    multiply: Key
    read: Key


class PixelMaps(NamedTuple):
    """Properties of each pixel of a box, float32 (rows, columns); the last three replace those of the `DetectorLaw`."""

    dark_e: NDArray[np.float32]
    read_noise_e: NDArray[np.float32]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]


class Profile(NamedTuple):
    """Relative irradiance of a box of pixels as the product of a factor per row and one per column, float64."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]

    def product(self) -> NDArray[np.float64]:
        """Irradiance of each pixel, (rows, columns)."""
        return self.y[:, None] * self.x[None, :]


def draw_counts(
    expected: NDArray[np.float32],
    start: Triple,
    law: DetectorLaw,
    profile: Profile,
    maps: PixelMaps | None,
    out: NDArray[np.uint16],
) -> int:
    """Draw the counts of a box of pixels (z, y, x) from photo-electrons per pixel; return the number of saturated pixels.

    Electrons, or counted pulses, are Poisson with mean profile * (signal + lit_e) + dark_e, at most `full_well_e`; each is
    multiplied; read noise is added; count = round(gain * electrons + offset), half up, clipped to 0 ... `top`. `start` is
    the first pixel in the image.
    """
    saturated = 0
    z0, y0, x0 = start
    light = profile.product()
    given = maps if maps is not None else (0.0, law.read_noise_e, law.gain, law.offset)
    dark_e, *each = (np.broadcast_to(np.asarray(value, np.float64), light.shape) for value in given)
    table = pulse_table(law.pulse_variance) if law.pulse_variance > 0 else np.zeros((0, 0))
    quiet = np.broadcast_to(0.0, (1, *light.shape))
    for k in range(expected.shape[0]):
        signal = np.maximum(expected[k : k + 1].astype(np.float64), 0.0)
        rate = light * (signal + law.lit_e) + (law.dark_e + dark_e)
        place = z0 + k, y0, x0
        if law.dead_share > 0:
            electrons = pulse_count_field(rate, *place, law.shot, law.dead_share)
        else:
            electrons = poisson_field(rate, *place, law.shot)
        multiply = normal_field(rate.shape, *place, law.multiply) if law.pulse_variance > 0 else quiet
        noise = normal_field(rate.shape, *place, law.read) if each[0].any() else quiet
        saturated += _digitise(
            electrons[0], multiply[0], noise[0], *each, table, law.pulse_variance, law.multiplication,
            (law.full_well_e, law.register_e, law.top), out[k],
        )  # fmt: skip
    return saturated


@njit(cache=True, nogil=True, error_model="numpy")
def _digitise(  # type: ignore[no-untyped-def]
    counted, multiply, noise, read_noise_e, gain, offset, table, variance, multiplication, limits, out
):
    """Set `out` to the counts of a plane from electrons and normal numbers; return the number of saturated pixels."""
    full_well_e, register_e, top = limits
    saturated = 0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            electrons = float(counted[y, x])
            full = electrons > full_well_e
            electrons = min(electrons, full_well_e)
            if variance > 0.0:
                electrons = multiplication * pulse_sum(int(electrons), multiply[y, x], variance, table)
                full |= electrons > register_e
                electrons = min(electrons, register_e)
            electrons += read_noise_e[y, x] * noise[y, x]
            value = np.floor(gain[y, x] * electrons + offset[y, x] + 0.5)
            full |= value > top
            out[y, x] = max(0.0, min(value, top))
            saturated += full
    return saturated


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
