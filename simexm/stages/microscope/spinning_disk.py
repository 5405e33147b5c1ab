"""Spinning-disk confocal microscope: many holes at once, camera detection."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simexm.kernels.diffraction import pupil, scanning, tables
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics_plan import Array, Channel, Places
from simexm.stages.microscope.widefield import CameraChannel, Widefield

_BEAM_STEP_NM = 20.0
_BEAM_SHARE = 0.995


class SpinningDisk(Widefield):
    """Holes of a turning disk light the specimen and pass the light from near their foci, and some from elsewhere.

    The irradiance is the mean over time and field. The sharp image is that of a confocal microscope with a pinhole of the size
    of a hole; light from out of focus passes through other holes, more of it the closer they are.

    Attributes
    ----------
    hole_diameter_um, hole_spacing_um
        Of the disk: 50 and 250 um for the disk of Yokogawa's CSU series.
    magnification
        From specimen to disk.
    """

    stage: Literal["spinning_disk"] = "spinning_disk"  # type: ignore[assignment]
    hole_diameter_um: float = Field(default=50.0, gt=0, le=1000)
    hole_spacing_um: float = Field(default=250.0, gt=0, le=10_000)
    magnification: float = Field(gt=0, le=1000)

    keeps_light: ClassVar[bool] = False
    keeps_evenly: ClassVar[bool] = False
    films_switching: ClassVar[bool] = False
    needs_symmetry: ClassVar[bool] = True

    @model_validator(mode="after")
    def _holes(self) -> Self:
        if self.hole_spacing_um < self.hole_diameter_um:
            raise ValueError(
                f"hole_spacing_um {self.hole_spacing_um:g} is less than hole_diameter_um {self.hole_diameter_um:g}, so holes "
                "would overlap; the spacing is that of their centres"
            )
        return self

    @property
    def open_share(self) -> float:
        """Share of the disk that is open."""
        return math.pi / 4 * self.hole_diameter_um**2 / (self.hole_spacing_um**2 * math.sqrt(0.75))

    def cutoff_per_nm(self, channel: Channel, emission_nm: float) -> float:
        """See `Optics`; of excitation and detection together."""
        return 2 * self.numerical_aperture * (1 / channel.excitation_nm + 1 / emission_nm)

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`; dyes saturate at the irradiance below a hole."""
        assert isinstance(channel, CameraChannel)
        photons = photophysics.emitted_photons(
            self.cross_section_m2(channel, dye),
            np.full(z_nm.shape, channel.irradiance_W_per_cm2 * 1e4 / self.open_share),
            channel.excitation_nm,
            exposure_s=self.exposure_s * self.open_share,
            quantum_yield=dye.quantum_yield,
            lifetime_ns=dye.lifetime_ns,
        )
        return np.asarray(photons)

    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """The dye's image, where and while the disk is open."""
        assert not isinstance(at, pupil.Square)
        line = channel.excitation_nm
        reach = tables.holding_radius_nm(float(np.abs(z_nm).max()), line, self.lens, _BEAM_SHARE, focus)
        beam_r = np.arange(max(17, math.ceil(reach / _BEAM_STEP_NM)), dtype=np.float64) * _BEAM_STEP_NM
        beam = tables.excitation_table(z_nm, beam_r, line, self.lens, focus)
        to_specimen = 1000.0 / self.magnification
        passed = scanning.disk_share(
            beam, beam_r, at, self.hole_diameter_um * to_specimen / 2, self.hole_spacing_um * to_specimen,
            2 * self.lens.aperture / line,
        )  # fmt: skip
        image = tables.emission_table(z_nm, at, emission_nm, self.lens, focus) * passed
        return image * (self.emitted(channel, dye, z_nm) * self.collected(channel, dye))[:, None]
