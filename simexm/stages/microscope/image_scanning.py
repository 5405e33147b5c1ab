"""Image-scanning microscope, such as an Airyscan: a small array of detectors in place of the pinhole."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from simexm.kernels.diffraction import scanning, tables
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.confocal import Confocal
from simexm.stages.microscope.optics_plan import Array, Channel


class ImageScanning(Confocal):
    """A confocal microscope whose detector is an array; the images of its elements are moved back and added.

    It collects the light of an open pinhole with the width of a closed one. The sum of the elements where they lie is the
    image of `confocal` with the same `pinhole_airy_units`. Deconvolution, which makers add, is not part of it.

    Attributes
    ----------
    pinhole_airy_units
        Diameter of the array of detectors in units of the Airy disc.
    """

    stage: Literal["image_scanning"] = "image_scanning"  # type: ignore[assignment]
    pinhole_airy_units: float = Field(default=1.25, gt=0.05, le=5)

    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array, focus: Focus = SURFACE
    ) -> Array:
        """Excitation, saturation, detection by elements whose images are moved back by half their distance from the axis."""
        radius, spacing = self.pinhole_radius_nm(channel), float(r_nm[1] - r_nm[0])
        r = np.arange(r_nm.size + scanning.reassigned_margin(radius, spacing), dtype=np.float64) * spacing
        beam = tables.excitation_table(z_nm, r, channel.excitation_nm, self.lens, focus)
        image = tables.emission_table(z_nm, r, emission_nm, self.lens, focus)
        detected = scanning.reassigned(self._rate(channel, dye, beam), image, spacing, radius)
        return detected * (self.collected(channel, dye) * self.dwell_us * 1e-6 / self.pixel_size_nm**2)
