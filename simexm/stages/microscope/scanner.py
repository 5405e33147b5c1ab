"""Base of the microscopes that scan a focused laser over the specimen."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from simexm.kernels.diffraction.objective import Objective
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import Channel, Power
from simexm.stages.roles import MOST_CHANNELS


class ScannerChannel(Channel):
    """A channel of a scanner.

    Attributes
    ----------
    laser_power_uW
        Power at the specimen, before `excitation_filter` takes its share (mean power for pulsed lasers).
    """

    laser_power_uW: Power = Field(gt=0, le=1e6)

    @property
    def power_W(self) -> float:
        """Power in W."""
        return self.laser_power_uW * 1e-6


class Scanner(Optics):
    """A focused laser is scanned over the specimen.

    Attributes
    ----------
    channels
        Lasers and bands, imaged one after the other.
    dwell_us
        Dwell time per pixel.
    fill
        1/e^2 radius of the laser beam over the radius of the back aperture, or `uniform` for an evenly filled one. 1 is
        what microscopes are built for: a larger beam makes the focus up to 8 % narrower, but wastes most of the laser.
    polarisation_deg
        Direction of a linearly polarised laser from x towards y; by default unpolarised, or circular, which excites alike.
    """

    channels: tuple[ScannerChannel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    dwell_us: float = Field(default=5.0, gt=0, le=1e6)
    polarisation_deg: float | None = Field(default=None, ge=-180, le=180)
    fill: Annotated[float, Field(ge=0.1, le=100)] | Literal["uniform"] = 1.0

    @property
    def all_channels(self) -> tuple[Channel, ...]:
        return self.channels

    @property
    def lens(self) -> Objective:
        """See `Optics`; with the laser beam in its back aperture."""
        fill = math.inf if self.fill == "uniform" else self.fill
        return super().lens._replace(fill=fill, polarisation_deg=self.polarisation_deg)

    @property
    def pixel_time_s(self) -> float:
        """The dwell time."""
        return self.dwell_us * 1e-6

    def cutoff_per_nm(self, channel: Channel, emission_nm: float) -> float:
        """See `Optics`; of excitation and detection together, or of excitation twice with two photons."""
        detection = channel.excitation_nm if self.multiphoton else emission_nm
        return 2 * self.numerical_aperture * (1 / channel.excitation_nm + 1 / detection)
