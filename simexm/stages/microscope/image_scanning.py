"""Image-scanning microscope, such as an Airyscan: a small array of detectors in place of the pinhole."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from simexm.kernels.diffraction import pupil, scanning
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.confocal import Confocal
from simexm.stages.microscope.optics_plan import Array, Channel, Places


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
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """Excitation, saturation, detection by elements whose images are moved back by half their distance from the axis."""
        radius, wide = self.pinhole_radius_nm(channel), at
        if isinstance(at, pupil.Square):
            spacing = at.pitch_nm
            wide = at._replace(size=at.size + 2 * pupil.reassigned_margin(radius, spacing))
        else:
            spacing = float(at[1] - at[0])
            wide = np.arange(at.size + scanning.reassigned_margin(radius, spacing), dtype=np.float64) * spacing
        beam = pupil.excitation(z_nm, wide, channel.excitation_nm, self.lens, focus)
        image = pupil.emission(z_nm, wide, emission_nm, self.lens, focus)
        reassigned = pupil.reassigned if isinstance(at, pupil.Square) else scanning.reassigned
        detected = reassigned(self._rate(channel, dye, beam), image, spacing, radius)
        return detected * (self.collected(channel, dye) * self.dwell_us * 1e-6 / self.pixel_size_nm**2)
