"""Confocal laser scanning microscope."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction import tables
from simexm.kernels.emission import photophysics
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import Array, Channel
from simexm.stages.roles import MOST_CHANNELS


class ScannerChannel(Channel):
    """A channel of a scanner.

    Attributes
    ----------
    laser_power_uW
        Power at the specimen (mean power for pulsed lasers).
    """

    laser_power_uW: float = Field(gt=0, le=1e6)

    @property
    def power_W(self) -> float:
        """Power in W."""
        return self.laser_power_uW * 1e-6


class Confocal(Optics):
    """A focused laser is scanned; a pinhole passes the light from near the focus.

    A dye at (z, r) from the focus is excited at the rate k = sigma * P * E(z, r) / (h nu), where E is the focused beam
    per nm^2 at unit power, and saturates as k / (1 + k tau). The pinhole passes the share of its light that falls into
    a disc about the axis. A pixel is the mean of this over its area times the dwell time.

    Attributes
    ----------
    channels
        Lasers and bands, imaged one after the other.
    dwell_us
        Dwell time per pixel.
    pinhole_airy_units
        Pinhole diameter in units of the Airy disc, 1.22 lambda / NA at the middle of the channel's band.
    """

    stage: Literal["confocal"] = "confocal"
    channels: tuple[ScannerChannel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    dwell_us: float = Field(default=5.0, gt=0, le=1e6)
    pinhole_airy_units: float = Field(default=1.0, gt=0.05, le=20)

    @property
    def all_channels(self) -> tuple[Channel, ...]:
        return self.channels

    def pinhole_radius_nm(self, channel: Channel) -> float:
        """Radius of the pinhole, referred to the specimen."""
        return self.pinhole_airy_units * 0.61 * sum(channel.band_nm) / 2 / self.numerical_aperture

    def _rate(self, channel: Channel, dye: Fluorophore, per_nm2: Array) -> Array:
        """Photons emitted per second at `per_nm2` of the beam's power."""
        assert isinstance(channel, ScannerChannel)
        sigma = self.cross_section_m2(channel, dye)
        rate = photophysics.excitation_rate_per_s(sigma, channel.power_W * 1e18 * per_nm2, channel.laser_wavelength_nm)
        return photophysics.saturated_rate_per_s(rate, dye.lifetime_ns) * dye.quantum_yield

    @property
    def pixel_time_s(self) -> float:
        """The dwell time."""
        return self.dwell_us * 1e-6

    def response(self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array) -> Array:
        """Excitation, saturation, pinhole and detection, pointwise."""
        na, n = self.numerical_aperture, self.refractive_index
        beam = tables.excitation_table(z_nm, r_nm, channel.laser_wavelength_nm, na, n)
        passed = psf_response.pinhole_table(z_nm, r_nm, emission_nm, na, n, self.pinhole_radius_nm(channel))
        detected = self._rate(channel, dye, beam) * passed * self.collected(channel, dye)
        return detected * (self.dwell_us * 1e-6 / self.pixel_size_nm**2)

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`; equal in all planes, each crossed by the full beam. Saturation, which lowers it, is neglected."""
        assert isinstance(channel, ScannerChannel)
        sigma = self.cross_section_m2(channel, dye)
        mean_irradiance = channel.power_W / (self.pixel_size_nm * 1e-9) ** 2
        rate = photophysics.excitation_rate_per_s(sigma, mean_irradiance, channel.laser_wavelength_nm)
        return np.full(z_nm.shape, rate * dye.quantum_yield * self.dwell_us * 1e-6)
