"""The response of a calcium indicator: rise and decay of calcium, and the Hill curve of its fluorescence.

A spike raises calcium by h(t) = A (exp(-t / decay) - exp(-t / rise)), with the largest value 1. The brightness at a
concentration Ca, relative to the saturated indicator, is 1 / R + (1 - 1 / R) X^n / (1 + X^n), X = Ca / Kd, with the dynamic
range R (saturated over calcium-free) and the Hill coefficient n.

Results are rounded to nine digits after the comma (of s and nM), much more coarsely than mathematical libraries differ.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import NamedTuple

_STEPS = 48
_DIGITS = 9


class Hill(NamedTuple):
    """The Hill curve of an indicator."""

    kd_nM: float
    coefficient: float
    dynamic_range: float

    def brightness(self, calcium_nM: float) -> float:
        """Brightness relative to the saturated indicator."""
        x = exp(self.coefficient * log(calcium_nM / self.kd_nM))
        return 1 / self.dynamic_range + (1 - 1 / self.dynamic_range) * x / (1 + x)

    def calcium_nM(self, brightness: float) -> float:
        """Inverse of `brightness`."""
        bound = (brightness - 1 / self.dynamic_range) / (1 - 1 / self.dynamic_range)
        return self.kd_nM * exp(log(bound / (1 - bound)) / self.coefficient)


class Response(NamedTuple):
    """Calcium after one spike: time constants, s, and the concentration that it adds at its largest, nM."""

    rise_s: float
    decay_s: float
    spike_nM: float

    @property
    def peak_s(self) -> float:
        """Time from a spike to the largest calcium."""
        return _peak(self.rise_s, self.decay_s)

    @property
    def scale(self) -> float:
        """A of the module's docstring."""
        return 1 / _unscaled(self.peak_s, self.rise_s, self.decay_s)

    def at(self, t_s: float) -> float:
        """H of the module's docstring."""
        return self.scale * _unscaled(t_s, self.rise_s, self.decay_s)


def _peak(rise: float, decay: float) -> float:
    return rise * decay / (decay - rise) * log(decay / rise)


def _unscaled(t: float, rise: float, decay: float) -> float:
    return exp(-t / decay) - exp(-t / rise)


def _bisect(low: float, high: float, is_below: Callable[[float], bool]) -> float:
    """Return where `is_below` turns from true to false."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def fit(hill: Hill, rest_nM: float, spike: float, rise_s: float, half_decay_s: float, *, half_rise: bool) -> Response:
    """Find the response whose fluorescence after one spike has these figures.

    `spike` is its largest dF/F, `rise_s` the time to it or, with `half_rise`, to its half, and `half_decay_s` the time from
    the largest to its half. Raises ValueError if no response has them.
    """
    rest = hill.brightness(rest_nM)
    if rest * (1 + spike) >= 1:
        raise ValueError(
            f"dF/F of one spike {spike:g} is above the {1 / rest - 1:.3g} of the saturated indicator at rest; lower it, or raise "
            "dynamic_range"
        )
    spike_nM = hill.calcium_nM(rest * (1 + spike)) - rest_nM
    half = (hill.calcium_nM(rest * (1 + spike / 2)) - rest_nM) / spike_nM  # calcium at half of the largest fluorescence

    def with_rise(rise: float) -> Response:
        def decays_before(decay: float) -> bool:
            one = Response(rise, decay, spike_nM)
            return one.at(one.peak_s + half_decay_s) < half

        return Response(rise, _bisect(rise * 1.000001, rise + 4 * half_decay_s, decays_before), spike_nM)

    def rises_before(rise: float) -> bool:
        one = with_rise(rise)
        return one.at(rise_s) > half if half_rise else one.peak_s < rise_s

    found = with_rise(_bisect(rise_s * 1e-3, rise_s * 4, rises_before))
    one_peak = found.at(found.peak_s + half_decay_s)
    reached = found.at(rise_s) / half if half_rise else found.peak_s / rise_s
    if not (abs(one_peak / half - 1) < 0.01 and abs(reached - 1) < 0.01):
        raise ValueError(
            f"no response rises within {rise_s * 1e3:g} ms and decays to its half within {half_decay_s * 1e3:g} ms; raise "
            "half_decay_ms, or lower rise_ms"
        )
    return Response(*(round(value, _DIGITS) for value in found))
