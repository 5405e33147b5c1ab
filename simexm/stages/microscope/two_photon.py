"""Two-photon laser scanning microscope."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from simexm.kernels.diffraction import pupil, tables
from simexm.kernels.diffraction.hankel import plane_energy
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics_plan import Array, Channel, Places
from simexm.stages.microscope.scanner import Scanner, ScannerChannel


class TwoPhoton(Scanner):
    """A pulsed infrared laser excites dyes in its focus; all light that the objective collects is detected.

    Attributes
    ----------
    repetition_MHz, pulse_fs
        Pulses per second, and their full width at half maximum at the specimen.
    pulse_shape_g
        Temporal coherence factor of the pulse shape: 0.66 for Gaussian pulses (Xu & Webb 1996).
    """

    stage: Literal["two_photon"] = "two_photon"
    repetition_MHz: float = Field(gt=0, le=1e5)
    pulse_fs: float = Field(gt=0, le=1e6)
    pulse_shape_g: float = Field(default=0.66, gt=0, le=2)

    multiphoton: ClassVar[bool] = True

    def excites(self, channel: Channel, dye: Fluorophore) -> bool:
        """See `Optics`."""
        return dye.two_photon_GM_at(channel.excitation_nm) > 0

    def _rate(self, channel: Channel, dye: Fluorophore, per_nm2: Array) -> Array:
        """Photons emitted per second at `per_nm2` of the beam's mean power."""
        assert isinstance(channel, ScannerChannel)
        flux = photophysics.photon_flux_per_m2_per_s(channel.power_W * 1e18 * per_nm2, channel.excitation_nm)
        frequency = self.repetition_MHz * 1e6
        rate = photophysics.two_photon_rate_per_s(
            dye.two_photon_GM_at(channel.excitation_nm), flux,
            repetition_Hz=frequency, pulse_s=self.pulse_fs * 1e-15, g=self.pulse_shape_g,
        )  # fmt: skip
        return photophysics.pulse_saturated_rate_per_s(rate, frequency) * dye.quantum_yield

    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """Two-photon excitation, saturation and detection, pointwise."""
        beam = pupil.excitation(z_nm, at, channel.excitation_nm, self.lens, focus)
        return self._rate(channel, dye, beam) * (
            self.collected(channel, dye) * self.dwell_us * 1e-6 / self.pixel_size_nm**2
        )

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`; summed over the cone of light in planes within 10 um, beyond which it is left out (1 / z^2).

        Aberrations that are not symmetric are neglected.
        """
        photons = np.zeros(z_nm.shape)
        near = z_nm <= 10_000
        radius = tables.lateral_radius_nm(float(z_nm[near].max(initial=0)), channel.excitation_nm, self.lens)
        r = np.arange(max(17, int(radius / 40)), dtype=np.float64) * 40.0
        beam = tables.excitation_table(z_nm[near], r, channel.excitation_nm, self.lens)
        photons[near] = plane_energy(self._rate(channel, dye, beam), r)
        return photons * (self.dwell_us * 1e-6 / self.pixel_size_nm**2)
