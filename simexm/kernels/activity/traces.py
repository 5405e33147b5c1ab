"""Spikes, calcium and brightness of cells, frame after frame, from the states before.

A draw is a function of (key, cell id, frame). The states of a cell are its gate and its two exponentials of calcium.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers.detmath import exp, log
from simexm.kernels.numbers.draws import binomial_quantile, poisson_quantile
from simexm.random import Key, philox, unit_double

Array = NDArray[np.float64]


class Law(NamedTuple):
    """What decides the activity of all cells; plain numbers, for compiled code."""

    frame_s: float
    opens: float  # chance that a quiet cell becomes active from one frame to the next
    closes: float  # chance that an active one becomes quiet
    quiet: float  # rate while quiet, relative to that while active
    shared: float  # share of the spikes that come from the input shared by the cells of a group
    burst_share: float
    burst_spikes: int
    rise_s: float
    decay_s: float
    scale_nM: float  # calcium of a spike, of each of the two exponentials
    rest_nM: float
    kd_nM: float
    hill: float
    dark: float  # brightness without calcium, relative to the saturated indicator


class States(NamedTuple):
    """State of each cell at the beginning of a frame."""

    active: NDArray[np.uint8]
    decaying: Array
    rising: Array


@njit(cache=True, nogil=True)
def _uniform(cell, frame, draw, k0, k1):  # type: ignore[no-untyped-def]
    a, b, _, _ = philox(frame, np.int64(cell & np.uint64(0xFFFFFFFF)), np.int64(cell >> np.uint64(32)), draw, k0, k1)
    return unit_double(a, b)


@njit(cache=True, nogil=True, error_model="numpy")
def brightness_at(calcium, kd, hill, dark):  # type: ignore[no-untyped-def]
    """Brightness relative to the saturated indicator; see `indicator`."""
    x = exp(hill * log(calcium / kd))
    return dark + (1.0 - dark) * (x / (1.0 + x))


@njit(cache=True, nogil=True, error_model="numpy")
def _drawn(cell, frame, mean, common, law, key):  # type: ignore[no-untyped-def]
    """Spikes of a cell in a frame of this mean number; `common` is the uniform number of its group."""
    events_mean = mean / (1.0 + law.burst_share * (law.burst_spikes - 1))
    events = 0
    if law.shared < 1.0:
        events += poisson_quantile(_uniform(cell, frame, 0, key[0], key[1]), events_mean * (1.0 - law.shared))
    if law.shared > 0.0:
        events += poisson_quantile(common, events_mean * law.shared)
    if events and law.burst_share > 0.0 and law.burst_spikes > 1:
        u = _uniform(cell, frame, 1, key[0], key[1])
        events += (law.burst_spikes - 1) * binomial_quantile(u, events, law.burst_share)
    return events


@njit(cache=True, nogil=True, error_model="numpy")
def _run(ids, first, means, groups, given, draws, law, keys, active, decaying, rising, spikes, calcium, brightness):  # type: ignore[no-untyped-def]
    t = law.frame_s
    kept_d, kept_r = exp(-t / law.decay_s), exp(-t / law.rise_s)
    for i in range(ids.size):
        cell = ids[i]
        d, r, on = decaying[i], rising[i], active[i]
        for n in range(spikes.shape[1]):
            frame = first + n
            if draws:
                u = _uniform(cell, frame, 2, keys[0], keys[1])
                on = np.uint8(u >= law.closes) if on else np.uint8(u < law.opens)
                common = 0.5
                if law.shared > 0.0:
                    common = _uniform(np.uint64(groups[i]), frame, 3, keys[0], keys[1])
                count = _drawn(cell, frame, means[i] * (1.0 if on else law.quiet), common, law, keys)
            else:
                count = given[i, n]
            # the mean over the frame of what decays from before, then of each new spike from its time on
            sum_d, sum_r = d * law.decay_s * (1.0 - kept_d), r * law.rise_s * (1.0 - kept_r)
            d, r = d * kept_d, r * kept_r
            for k in range(count):
                left = t * _uniform(cell, frame, 4 + k, keys[0], keys[1])
                e_d, e_r = exp(-left / law.decay_s), exp(-left / law.rise_s)
                sum_d += law.decay_s * (1.0 - e_d)
                sum_r += law.rise_s * (1.0 - e_r)
                d += e_d
                r += e_r
            mean = law.rest_nM + law.scale_nM * max(sum_d - sum_r, 0.0) / t
            spikes[i, n] = min(count, 65535)
            calcium[i, n] = mean
            brightness[i, n] = brightness_at(mean, law.kd_nM, law.hill, law.dark)
        decaying[i], rising[i], active[i] = d, r, on


def run(
    ids: NDArray[np.uint64],
    first: int,
    frames: int,
    means: Array,
    groups: NDArray[np.int64],
    law: Law,
    key: Key,
    states: States,
    given: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the frames from `first` on, (cells, frames) by column, and move the states to their end.

    `means` are spikes a frame of each active cell, `groups` the group of cells with which it shares input. With `given`,
    (cells, frames), these are the spikes, and none are drawn. A frame's calcium and brightness are those of its mean calcium.
    """
    found: dict[str, NDArray[Any]] = {
        "spikes": np.zeros((ids.size, frames), np.uint16),
        "calcium": np.zeros((ids.size, frames), np.float32),
        "brightness": np.zeros((ids.size, frames), np.float32),
    }
    played = np.zeros((1, 1), np.int64) if given is None else given
    _run(ids, first, means, groups, played, given is None, law, key, *states, *found.values())
    return found
