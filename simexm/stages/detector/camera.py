"""A plain camera, such as an interline CCD."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from simexm.stages.detector.sensor import Electronics, Sensor


class Camera(Sensor):
    """Shot noise of signal and background, Gaussian read noise, gain, offset, bits; all pixels alike.

    Attributes
    ----------
    full_well_e
        Photo-electrons that a pixel holds, at most; by default no limit but the bits.
    read_noise_e
        Standard deviation of the read noise, electrons.
    gain_counts_per_e, offset_counts
        counts = gain * electrons + offset, clipped to 0 ... 2^bits - 1.
    """

    stage: Literal["camera"] = "camera"
    full_well_e: float | None = Field(default=None, gt=0, le=1e9)
    read_noise_e: float = Field(default=1.5, ge=0, le=1e4)
    gain_counts_per_e: float = Field(default=1.0, gt=0, le=1e4)
    offset_counts: float = Field(default=100.0, ge=0, le=65535)

    def _electronics(self, pixel_time_s: float | None) -> Electronics:
        full_well_e = self.full_well_e or math.inf
        return Electronics(self.read_noise_e, self.gain_counts_per_e, self.offset_counts, full_well_e)
