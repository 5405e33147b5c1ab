"""Light sheet: widefield detection of a plane lit from the side."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.kernels.diffraction import response
from simexm.stages.microscope.widefield import Widefield


class LightSheet(Widefield):
    """The irradiance falls off from the focal plane as exp(-2 z^2 / w^2); `irradiance_W_per_cm2` is that of its middle.

    Attributes
    ----------
    sheet_waist_um
        Half thickness w at 1 / e^2, um of expanded tissue; taken as constant over the field.
    """

    stage: Literal["light_sheet"] = "light_sheet"  # type: ignore[assignment]
    sheet_waist_um: float = Field(gt=0, le=1000)

    def profile(self, z_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gaussian across the sheet."""
        return response.light_sheet_profile(z_nm, self.sheet_waist_um * 1000)
