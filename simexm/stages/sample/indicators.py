"""Calcium indicators, by the published response of their fluorescence to one spike.

`unchecked` names the figures that were not compared with the paper itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class IndicatorFigures:
    """One indicator: figures by key of `Indicator`, the paper, and the figures not checked against it."""

    figures: Mapping[str, float | bool]
    source: str
    unchecked: tuple[str, ...] = ()


_GCAMP6 = "Chen et al., Nature 499, 295 (2013), in layer 2/3 of mouse visual cortex; the rise is the middle of the range given"
_JGCAMP8 = "Zhang et al., Nature 615, 884 (2023), in cultured neurons"
_REST = ("spike_dff", "half_decay_ms", "kd_nM", "hill", "dynamic_range")
_ALL = ("rise_ms", *_REST)

INDICATORS: Mapping[str, IndicatorFigures] = {
    "GCaMP6f": IndicatorFigures(
        {"rise_ms": 62.5, "half_decay_ms": 142, "spike_dff": 0.19, "kd_nM": 375, "hill": 2.27, "dynamic_range": 51.8},
        _GCAMP6,
        _REST,
    ),
    "GCaMP6m": IndicatorFigures(
        {"rise_ms": 87.5, "half_decay_ms": 270, "spike_dff": 0.13, "kd_nM": 167, "hill": 2.96, "dynamic_range": 38.1},
        _GCAMP6,
        _REST,
    ),
    "GCaMP6s": IndicatorFigures(
        {"rise_ms": 125, "half_decay_ms": 550, "spike_dff": 0.23, "kd_nM": 144, "hill": 2.90, "dynamic_range": 63.2},
        _GCAMP6,
        _REST,
    ),
    "jGCaMP8f": IndicatorFigures(
        {
            "rise_ms": 7.1, "half_rise": True, "half_decay_ms": 67.4, "spike_dff": 0.41, "kd_nM": 334, "hill": 2.08,
            "dynamic_range": 78.8,
        },
        _JGCAMP8,
        _ALL,
    ),
    "jGCaMP8m": IndicatorFigures(
        {
            "rise_ms": 7.1, "half_rise": True, "half_decay_ms": 118.3, "spike_dff": 0.76, "kd_nM": 108, "hill": 1.92,
            "dynamic_range": 45.7,
        },
        _JGCAMP8,
        _ALL,
    ),
    "jGCaMP8s": IndicatorFigures(
        {
            "rise_ms": 10.1, "half_rise": True, "half_decay_ms": 306.7, "spike_dff": 1.11, "kd_nM": 46, "hill": 2.20,
            "dynamic_range": 49.5, "rest_nM": 30,
        },
        _JGCAMP8,
        _ALL,
    ),
}  # fmt: skip
