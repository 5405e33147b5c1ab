"""An electron-multiplying CCD."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from simexm.spectra.curves import QuantumEfficiency
from simexm.stages.detector.sensor import Electronics, Pixels, Sensor


class Emccd(Sensor):
    """A camera that multiplies electrons before they are read.

    n = Poisson(signal + background + clock-induced charge) electrons leave the register as Gamma(n, gain), none for n = 0;
    then read noise (Basden et al., MNRAS 345, 985, 2003; Hirsch et al., PLoS ONE 8, e53671, 2013). The variance is twice
    that of the shot noise alone.

    Attributes
    ----------
    em_gain
        Mean electrons out of the register for one that enters it.
    clock_induced_e
        Spurious electrons per pixel and plane from clocking the charge.
    full_well_e
        Photo-electrons that a pixel holds, at most.
    register_well_e
        Multiplied electrons that the register holds, at most.
    read_noise_e
        Standard deviation of the read noise, multiplied electrons.
    gain_counts_per_e, offset_counts
        counts = gain * multiplied electrons + offset. By default a register of 730,000 electrons just fills 16 bits.
    """

    stage: Literal["emccd"] = "emccd"
    quantum_efficiency: QuantumEfficiency = 0.95
    frame_pixels: tuple[Pixels, Pixels] = (1024, 1024)
    em_gain: float = Field(default=300.0, ge=1, le=1e4)
    clock_induced_e: float = Field(default=0.005, ge=0, le=1e3)
    full_well_e: float = Field(default=80_000, gt=0, le=1e9)
    register_well_e: float = Field(default=730_000, gt=0, le=1e12)
    read_noise_e: float = Field(default=45.0, ge=0, le=1e5)
    gain_counts_per_e: float = Field(default=0.089, gt=0, le=1e4)
    offset_counts: float = Field(default=100.0, ge=0, le=65535)

    @model_validator(mode="after")
    def _register(self) -> Self:
        if self.register_well_e <= self.em_gain:
            raise ValueError(
                f"register_well_e {self.register_well_e:g} is not above em_gain {self.em_gain:g}, so a single photo-electron "
                "would fill the register; lower em_gain or raise register_well_e"
            )
        return self

    @property
    def unlit_e(self) -> float:
        """See `Sensor`; clock-induced charge included."""
        return self.stray_light_e + self.dark_e + self.clock_induced_e

    def _electronics(self, pixel_time_s: float | None) -> Electronics:
        return Electronics(
            self.read_noise_e,
            self.gain_counts_per_e,
            self.offset_counts,
            full_well_e=self.full_well_e,
            pulse_variance=1.0,
            multiplication=self.em_gain,
            register_e=self.register_well_e,
        )
