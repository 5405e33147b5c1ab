"""A photomultiplier or hybrid detector of a scanner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.spectra.curves import QuantumEfficiency
from simexm.stages.detector.sensor import Electronics, Pixels, Sensor
from simexm.stages.roles import Microscope

_ANALOG = ("excess_noise", "read_noise_e", "gain_counts_per_e", "offset_counts")


class Photomultiplier(Sensor):
    """A detector of single pulses, whose heights are added up (`analog`) or which are counted (`photon_counting`).

    Pulse heights are gamma-distributed about the mean: the limit of the Polya distribution of dynode chains (Prescott,
    Nucl. Instrum. Methods 39, 173, 1966). A counter is deaf for the dead time after each pulse that it counts, so that of n
    pulses in a dwell time T about n / (1 + n tau / T) are counted; the number is drawn from the exact distribution.

    Attributes
    ----------
    mode
        `analog` or `photon_counting`.
    excess_noise
        1 + variance / mean^2 of the pulse heights; delta / (delta - 1) for dynodes of gain delta each. Analog only.
    read_noise_e
        Standard deviation of the amplifier's noise, in mean pulses. Analog only.
    gain_counts_per_e, offset_counts
        counts = gain * pulses + offset. Analog only; a counter stores the number of pulses.
    dead_time_ns
        Time after a counted pulse in which others are lost. Photon counting only.
    """

    stage: Literal["photomultiplier"] = "photomultiplier"
    quantum_efficiency: QuantumEfficiency = 0.25
    frame_pixels: tuple[Pixels, Pixels] = (1024, 1024)
    mode: Literal["analog", "photon_counting"] = "analog"
    excess_noise: float = Field(default=1.2, ge=1, le=4)
    read_noise_e: float = Field(default=0.2, ge=0, le=1e4)
    gain_counts_per_e: float = Field(default=50.0, gt=0, le=1e4)
    offset_counts: float = Field(default=100.0, ge=0, le=65535)
    dead_time_ns: float = Field(default=0.0, ge=0, le=1e6)

    @classmethod
    def _preset(cls, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Sensor`; a counter has no use for the analog figures."""
        figures = super()._preset(name, given)
        analog = given.get("mode", "analog") == "analog"
        return {key: value for key, value in figures.items() if analog or key not in _ANALOG}

    @model_validator(mode="after")
    def _mode(self) -> Self:
        idle = ("dead_time_ns",) if self.mode == "analog" else _ANALOG
        defaults = {key: type(self).model_fields[key].default for key in idle}
        for key, default in defaults.items():
            if key in self.model_fields_set and getattr(self, key) != default:
                other = "photon_counting" if self.mode == "analog" else "analog"
                raise ValueError(f"{key} has no effect in the mode {self.mode}; remove it, or set mode to {other}")
        return self

    def check(self, microscope: Microscope) -> None:
        """See `Detector`."""
        if self.dead_time_ns and microscope.pixel_time_s is None:
            raise SpecError(
                f"{self.tag}: dead_time_ns needs the time of a pixel, which the stage {microscope.tag} has not; remove it"
            )
        super().check(microscope)

    def _electronics(self, pixel_time_s: float | None) -> Electronics:
        if self.mode == "analog":
            return Electronics(
                self.read_noise_e, self.gain_counts_per_e, self.offset_counts, pulse_variance=self.excess_noise - 1.0
            )
        return Electronics(0.0, 1.0, 0.0, dead_share=self.dead_time_ns * 1e-9 / pixel_time_s if pixel_time_s else 0.0)
