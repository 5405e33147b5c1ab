"""Light-sheet microscope: widefield detection, illumination of a plane from the side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from simexm.geometry.geometry import Geometry
from simexm.kernels.diffraction import response
from simexm.kernels.numbers.detmath import exp_array
from simexm.spectra.curves import CsvCurve, Curve
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics_plan import Array, Channel
from simexm.stages.microscope.sheet_profile import SheetProfile
from simexm.stages.microscope.widefield import Widefield

_GROWS = 1.1
"""Growth of a sheet over an image above which `plan` remarks on it."""


def _path(given: object) -> object:
    return {"csv": given} if isinstance(given, str | Path) else given


class LightSheet(Widefield):
    """A sheet of light about the focal plane, relative to `irradiance_W_per_cm2`.

    A Gaussian sheet has the irradiance (w0 / w) exp(-2 z^2 / w^2) at a distance z from its plane. Its half thickness w at
    1 / e^2 is w0 everywhere, or grows along the way of the light, w = w0 sqrt(1 + (x / xR)^2), from the waist at x = 0 with the
    Rayleigh range xR = pi n w0^2 / wavelength; the same power passes at every x. The sheet lies where the stage puts the
    plane: a chromatic shift of a channel, or a curved focus, moves the focus off it.

    Attributes
    ----------
    sheet_waist_um
        Half thickness w0 at 1 / e^2, um of expanded tissue.
    sheet_numerical_aperture
        Numerical aperture of the sheet at 1 / e^2, instead of its waist: w0 = wavelength / (pi NA).
    sheet_profile
        A measured sheet instead, from a CSV file.
    sheet_along
        Axis along which the light of the sheet travels, over which it grows; without it the sheet is the same everywhere.
    sheet_waist_at_um
        Place of the waist (of a measured sheet: of the middle of its profiles) along that axis, from the middle of the
        detector's frame, um of expanded tissue.
    """

    stage: Literal["light_sheet"] = "light_sheet"  # type: ignore[assignment]
    keeps_evenly: ClassVar[bool] = False
    films_switching: ClassVar[bool] = False
    lit_from_above: ClassVar[bool] = False
    sheet_waist_um: float | None = Field(default=None, gt=0, le=1000)
    sheet_numerical_aperture: float | None = Field(default=None, gt=0, le=2)
    sheet_profile: Annotated[
        SheetProfile | None, BeforeValidator(_path, json_schema_input_type=str | SheetProfile | None)
    ] = None
    sheet_along: Literal["y", "x"] | None = None
    sheet_waist_at_um: float = Field(default=0.0, ge=-1e5, le=1e5)

    @model_validator(mode="after")
    def _one_sheet(self) -> Self:
        keys = ("sheet_waist_um", "sheet_numerical_aperture", "sheet_profile")
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            how = f"has {' and '.join(given)}" if given else "has none of them"
            raise ValueError(f"a light sheet is given by one of {', '.join(keys)}, but this one {how}; give one")
        if self.sheet_waist_at_um and self.sheet_along is None:
            raise ValueError(
                "sheet_waist_at_um is the place of the waist along the way of the light, but the sheet is the same everywhere; "
                "give sheet_along as y or x, or leave out sheet_waist_at_um"
            )
        for channel in self.channels:
            if self.sheet_profile is not None or channel.laser_wavelength_nm is None:
                continue
            least_um = self._line_nm(channel) / (math.pi * self.refractive_index * 1000)
            if self.waist_nm(channel) < 1000 * least_um:
                raise ValueError(
                    f"{given[0]} {getattr(self, given[0]):g}: no sheet of {self._line_nm(channel):.4g} nm (channel "
                    f"{channel.name!r}) is thinner than {least_um:.2g} um in a gel of index {self.refractive_index:g}, the "
                    "limit of diffraction; give a thicker sheet (w0, half the thickness at 1/e^2, is usually 1 to 5 um)"
                )
        changing = [key for key in ("sheet_along", "field_curvature_radius_mm") if getattr(self, key) is not None]
        if self.bleaching is not None and changing:
            raise ValueError(
                "bleaching by a sheet that changes over the field, or lies off a curved focus, is not simulated; leave out "
                f"bleaching, or {' and '.join(changing)}"
            )
        return self

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Stage`; the measured sheet as well."""
        found = super().resolved(curves)
        if found.sheet_profile is None:
            return found
        profile = found.sheet_profile.read()
        if len(profile.along_um) > 1 and found.sheet_along is None:
            raise profile.fault(
                "has profiles at several places along the way of the light; say along which axis: sheet_along"
            )
        return found.model_copy(update={"sheet_profile": profile})

    @property
    def by_terms(self) -> bool:
        """See `Optics`."""
        shifted = any(c.chromatic is not None and c.chromatic.axial_nm for c in self.channels)
        if self.sheet_along is not None or self.sheet_profile is not None:
            return True
        return shifted or self.field_curvature_radius_mm is not None

    def check_range(self, range_nm: float) -> None:
        """See `Optics`."""
        if self.sheet_profile is not None:
            self.sheet_profile.check_reach(range_nm / 1000)

    def remarks(self, geometry: Geometry) -> tuple[str, ...]:
        """See `Optics`; on a sheet taken as constant that would grow by a tenth over the image."""
        if self.sheet_along is not None or self.sheet_profile is not None:
            return ()
        half_nm = max(geometry.shape[1:]) * self.pixel_size_nm / 2
        thinnest = min(self.channels, key=self.rayleigh_nm)
        wider = math.hypot(1.0, half_nm / self.rayleigh_nm(thinnest))
        if wider < _GROWS:
            return ()
        waist_um = self.waist_nm(thinnest) / 1000
        text = (
            f"the light sheet is taken as equally thin everywhere, but a Gaussian one of {waist_um:.3g} um would be {wider:.3g} "
            f"times as thick {half_nm / 1000:.3g} um from its waist; set sheet_along: x or y to simulate it"
        )
        return (text,)

    @property
    def uneven(self) -> bool:
        """See `Optics`."""
        return self.sheet_profile is not None

    @property
    def along(self) -> str | None:
        """See `Optics`."""
        return self.sheet_along

    def light_nm(self, channel: Channel) -> float:
        """See `Optics`; the sheet does not move with the channel's focus."""
        return 0.0

    def _line_nm(self, channel: Channel) -> float:
        line = channel.laser_wavelength_nm
        return channel.excitation_nm if line is None else line

    def waist_nm(self, channel: Channel) -> float:
        """Half thickness of a Gaussian sheet at its waist, nm of expanded tissue."""
        if self.sheet_waist_um is not None:
            return self.sheet_waist_um * 1000
        assert self.sheet_numerical_aperture is not None
        return self._line_nm(channel) / (math.pi * self.sheet_numerical_aperture)

    def rayleigh_nm(self, channel: Channel) -> float:
        """Distance from the waist at which a Gaussian sheet is sqrt(2) times as thick, nm of expanded tissue."""
        return math.pi * self.refractive_index * self.waist_nm(channel) ** 2 / self._line_nm(channel)

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`; at the waist."""
        return self.emitted_in(channel, dye, self._across(channel, z_nm))

    def emitted_at(self, channel: Channel, dye: Fluorophore, z_nm: Array, y_nm: Array, x_nm: Array) -> Array:
        """See `Optics`."""
        place = None if self.sheet_along is None else (y_nm if self.sheet_along == "y" else x_nm)
        shape = np.broadcast_shapes(z_nm.shape, y_nm.shape, x_nm.shape)
        if place is None:
            return np.broadcast_to(self.emitted(channel, dye, z_nm), shape)
        place = place - self.sheet_waist_at_um * 1000
        if self.sheet_profile is not None:
            relative = self.sheet_profile.at(z_nm, place)
        else:
            waist = self.waist_nm(channel)
            wider = np.sqrt(1 + (place / self.rayleigh_nm(channel)) ** 2)
            relative = exp_array(-2.0 * (z_nm / (waist * wider)) ** 2) / wider
        return np.broadcast_to(self.emitted_in(channel, dye, relative), shape)

    def _across(self, channel: Channel, z_nm: Array) -> Array:
        if self.sheet_profile is not None:
            return self.sheet_profile.at(z_nm, np.zeros(1))
        return response.light_sheet_profile(z_nm, self.waist_nm(channel))
