"""Confocal laser scanning microscope."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from simexm.kernels.diffraction import pupil, tables
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics_plan import Array, Channel, Places
from simexm.stages.microscope.scanner import Scanner, ScannerChannel


class Confocal(Scanner):
    """A focused laser is scanned; a pinhole passes the light from near the focus.

    A dye at (z, r) from the focus is excited at the rate k = sigma * P * E(z, r) / (h nu), where E is the focused beam
    per nm^2 at unit power, and saturates as k / (1 + k tau). The pinhole passes the share of its light that falls into
    a disc about the axis. A pixel is the mean of this over its area times the dwell time.

    Attributes
    ----------
    pinhole_airy_units
        Pinhole diameter in units of the Airy disc, 1.22 lambda / NA at the middle of the channel's band.
    """

    stage: Literal["confocal"] = "confocal"
    pinhole_airy_units: float = Field(default=1.0, gt=0.05, le=20)

    def pinhole_radius_nm(self, channel: Channel) -> float:
        """Radius of the pinhole, referred to the specimen."""
        return self.pinhole_airy_units * 0.61 * sum(channel.passes_nm) / 2 / self.numerical_aperture

    def _rate(self, channel: Channel, dye: Fluorophore, per_nm2: Array) -> Array:
        """Photons emitted per second at `per_nm2` of the beam's power."""
        assert isinstance(channel, ScannerChannel)
        sigma = self.cross_section_m2(channel, dye)
        rate = photophysics.excitation_rate_per_s(sigma, channel.power_W * 1e18 * per_nm2, channel.excitation_nm)
        return photophysics.saturated_rate_per_s(rate, dye.lifetime_ns) * dye.quantum_yield

    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """Excitation, saturation, pinhole and detection, pointwise."""
        beam = pupil.excitation(z_nm, at, channel.excitation_nm, self.lens, focus)
        radius_nm = self.pinhole_radius_nm(channel)
        passed = pupil.through_pinhole(z_nm, at, emission_nm, self.lens, radius_nm, focus)
        detected = self._rate(channel, dye, beam) * passed * self.collected(channel, dye)
        return detected * (self.dwell_us * 1e-6 / self.pixel_size_nm**2)

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`; equal in all planes, each crossed by the full beam. Saturation, which lowers it, is neglected."""
        assert isinstance(channel, ScannerChannel)
        sigma = self.cross_section_m2(channel, dye)
        mean_irradiance = channel.power_W * tables.plane_fluence(self.lens) / (self.pixel_size_nm * 1e-9) ** 2
        rate = photophysics.excitation_rate_per_s(sigma, mean_irradiance, channel.excitation_nm)
        return np.full(z_nm.shape, rate * dye.quantum_yield * self.dwell_us * 1e-6)
