"""From expected photo-electrons to counts."""

from __future__ import annotations

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


def quarter_octaves(counts: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Histogram of counts in bins of a quarter of an octave, int64 (129,): bin 0 holds 0, bin b >= 1 what is above
    2^((b - 2) / 4) and at most 2^((b - 1) / 4)."""
    seen = np.bincount(counts.reshape(-1), minlength=1) if counts.dtype.itemsize <= 2 else None
    if seen is None:
        values, number = np.unique(counts, return_counts=True)
    else:
        values = np.flatnonzero(seen)
        number = seen[values]
    bins = np.where(values > 0, np.ceil(np.log2(np.maximum(values, 1)) * 4 - 1e-9) + 1, 0).astype(np.int64)
    return np.bincount(bins, weights=number, minlength=129).astype(np.int64)


def octave_quantile(histogram: NDArray[np.int64], share: float) -> float:
    """Upper edge of the bin in which the histogram passes `share` of its pixels."""
    total = np.cumsum(histogram)
    bin_ = int(np.searchsorted(total, share * total[-1]))
    return 0.0 if bin_ == 0 else float(2 ** ((bin_ - 1) / 4))
