"""Light-sheet microscope: widefield detection, illumination of a plane from the side."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from simexm.kernels.diffraction import response
from simexm.stages.microscope.optics_plan import Array
from simexm.stages.microscope.widefield import Widefield


class LightSheet(Widefield):
    """A sheet with the irradiance exp(-2 z^2 / w^2) about the focal plane, relative to `irradiance_W_per_cm2`.

    Attributes
    ----------
    sheet_waist_um
        Half thickness w at 1 / e^2, um of expanded tissue; constant over the field.
    """

    stage: Literal["light_sheet"] = "light_sheet"  # type: ignore[assignment]
    keeps_evenly: ClassVar[bool] = False
    lit_from_above: ClassVar[bool] = False
    sheet_waist_um: float = Field(gt=0, le=1000)

    def profile(self, z_nm: Array) -> Array:
        """Gaussian profile across the sheet."""
        return response.light_sheet_profile(z_nm, self.sheet_waist_um * 1000)
