"""From expected photo-electrons to counts."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def digitise(electrons, noise, gain, offset, top, out):  # type: ignore[no-untyped-def]
    """out = round(gain * (electrons + noise) + offset), half up, within 0 and `top`; return the number of pixels cut at `top`."""
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
"""Bins of `quarter_octaves`, the last one for the largest counts of 32 bits."""
_QUARTERS = np.array([math.isqrt(math.isqrt(2**q)) for q in range(128)], np.uint64)  # the largest count in bin q + 1
_BIN_OF = np.concatenate([[0], np.searchsorted(_QUARTERS, np.arange(1, 1 << 16)) + 1]).astype(np.uint8)


def quarter_octaves(counts: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Histogram of counts of at most 32 bits in bins of a quarter of an octave, int64 (`BINS`,).

    Bin 0 holds 0, bin b >= 1 what is above 2^((b - 2) / 4) and at most 2^((b - 1) / 4).
    """
    out = np.zeros(BINS, np.int64)
    _count_quarters(counts.reshape(-1), _BIN_OF, _QUARTERS, out)
    return out


@numba.njit(cache=True, nogil=True)
def _count_quarters(counts, bin_of, quarters, out):  # type: ignore[no-untyped-def]
    for i in range(counts.size):
        value = np.uint64(counts[i])
        if value < np.uint64(bin_of.size):
            out[bin_of[value]] += 1
        else:
            out[np.searchsorted(quarters, value) + 1] += 1


@numba.njit(cache=True, nogil=True)
def cut(image, top, out):  # type: ignore[no-untyped-def]
    """out = the plane of whole numbers, at most `top`; return the number of pixels cut there."""
    clipped = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            clipped += image[y, x] > top
            out[y, x] = min(image[y, x], top)
    return clipped


def octave_quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Upper edge of the bin in which the histogram passes `share` of its pixels."""
    total = np.cumsum(histogram)
    bin_ = int(np.searchsorted(total, share * total[-1]))
    return 0.0 if bin_ == 0 else float(2 ** ((bin_ - 1) / 4))
