"""Calcium indicators, by the published response of their fluorescence to one spike.

`unchecked` names the figures that were not compared with the paper itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from simexm.kernels.activity.indicator import Hill, Response, fit
from simexm.settings import Frozen


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


class Indicator(Frozen):
    """How calcium and fluorescence follow a spike.

    Attributes
    ----------
    preset
        Name of an indicator, whose published figures are the defaults of all keys that are not given.
    rise_ms
        Time from a spike to the largest fluorescence; with `half_rise`, to half of it.
    half_rise
        Whether `rise_ms` is the time to half of the largest fluorescence.
    half_decay_ms
        Time from the largest fluorescence to half of it.
    spike_dff
        Largest dF/F after one spike.
    kd_nM, hill, dynamic_range
        Half saturation, steepness, and brightness of the saturated indicator relative to that without calcium.
    rest_nM
        Calcium at rest.
    """

    preset: str | None = None
    rise_ms: float = Field(default=62.5, gt=0, le=1e4)
    half_rise: bool = False
    half_decay_ms: float = Field(default=142.0, gt=0, le=1e5)
    spike_dff: float = Field(default=0.19, gt=0, le=100)
    kd_nM: float = Field(default=375.0, gt=0, le=1e6)
    hill: float = Field(default=2.27, ge=0.5, le=10)
    dynamic_range: float = Field(default=51.8, gt=1, le=1e4)
    rest_nM: float = Field(default=50.0, gt=0, le=1e5)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("preset"), str):
            return data
        if data["preset"] not in INDICATORS:
            raise ValueError(
                f"there is no indicator {data['preset']!r}; the presets are {', '.join(INDICATORS)}; or give rise_ms, "
                "half_decay_ms and spike_dff yourself"
            )
        return {**INDICATORS[data["preset"]].figures, **data}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.response  # noqa: B018 - raises ValueError if no response has these figures
        return self

    @model_serializer(mode="wrap")
    def _with_figures(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the figures of a preset even where they are the defaults, so that they outlive the preset."""
        data: dict[str, Any] = handler(self)
        return data | {name: getattr(self, name) for name in (INDICATORS[self.preset].figures if self.preset else ())}

    @property
    def curve(self) -> Hill:
        """Its Hill curve."""
        return Hill(self.kd_nM, self.hill, self.dynamic_range)

    @property
    def response(self) -> Response:
        """Calcium after one spike."""
        figures = self.rest_nM, self.spike_dff, self.rise_ms / 1000, self.half_decay_ms / 1000
        return _fitted(self.curve, *figures, self.half_rise)


@lru_cache(maxsize=64)
def _fitted(hill: Hill, rest_nM: float, spike: float, rise_s: float, half_decay_s: float, half_rise: bool) -> Response:
    return fit(hill, rest_nM, spike, rise_s, half_decay_s, half_rise=half_rise)


def _named(given: Any) -> Any:
    return {"preset": given} if isinstance(given, str) else given


NamedIndicator = Annotated[Indicator, BeforeValidator(_named, json_schema_input_type=str | Indicator)]
"""An indicator, or the name of a preset."""
