"""Widefield microscope: even illumination, camera detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.geometry.transform import Transform
from simexm.kernels.diffraction import pupil
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics import Optics, either_lens
from simexm.stages.microscope.optics_plan import Array, Channel, Places, Power
from simexm.stages.roles import MOST_CHANNELS


class CameraChannel(Channel):
    """A channel of a microscope with a camera.

    Attributes
    ----------
    irradiance_W_per_cm2
        At the specimen, before `excitation_filter` takes its share, in the middle of the field (of the sheet, for a light
        sheet).
    """

    irradiance_W_per_cm2: Power = Field(gt=0, le=1e7)


def _one_of_both(schema: dict[str, Any]) -> None:
    """Tell editors that a stack needs plane_spacing_nm, and a movie focus_um."""
    either_lens(schema)
    schema["required"] = [name for name in schema["required"] if name != "plane_spacing_nm"]
    schema["allOf"] = [{"anyOf": [{"required": ["plane_spacing_nm"]}, {"required": ["focus_um"]}]}]


class Widefield(Optics):
    """Even illumination; every plane receives the same light from a dye, blurred by its distance.

    Attributes
    ----------
    channels
        Lasers and bands, imaged one after the other.
    exposure_s
        Exposure of one plane.
    focus_um
        Depth, in the expanded specimen, of the only plane, for movies; in place of plane_spacing_nm.
    haze
        Whether the light of dyes beyond the axial range is added, from a coarse map of the whole specimen. By default, where the
        specimen is thicker than that range; of a light sheet and a spinning disk where the range leaves out more than 5 %
        of a uniformly stained stack's light.
    """

    model_config = ConfigDict(json_schema_extra=_one_of_both)

    stage: Literal["widefield"] = "widefield"
    channels: tuple[CameraChannel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    exposure_s: float = Field(default=0.1, gt=0, le=3600)

    haze: bool | None = None
    focus_um: float | None = Field(default=None, gt=0, le=50)

    films_switching: ClassVar[bool] = True
    """Whether a frame is exposed at once, so that dyes can be filmed while they switch."""
    tail: ClassVar[psf_response.Tail] = "constant"
    keeps_light: ClassVar[bool] = True
    keeps_evenly: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _one_plane(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("focus_um"), int | float):
            return given
        spacing = 2000 * given["focus_um"]  # plane 0 lies half a spacing below the corner
        if given.get("plane_spacing_nm", spacing) != spacing:
            raise ValueError("focus_um asks for one plane, and plane_spacing_nm for a stack; leave one of them out")
        return {**given, "plane_spacing_nm": spacing}

    @property
    def all_channels(self) -> tuple[Channel, ...]:
        return self.channels

    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """See `Optics`; one plane at the focus, if there is one."""
        whole = super().geometry(volume, crop, voxel_nm, origin_nm, transform)
        if self.focus_um is None:
            return whole
        depth = float(crop.shape[0] * voxel_nm[0] * transform.scale) / 1000
        if self.focus_um > depth:
            raise SpecError(
                f"focus_um {self.focus_um:g} lies below the expanded specimen, which is {depth:g} um deep, so nothing would be "
                "in focus; choose a depth inside"
            )
        return replace(whole, fixed_shape=(1, *whole.shape[1:]))

    def excitations_per_s(self, dyes: Mapping[str, Fluorophore]) -> dict[str, float]:
        """See `Microscope`: in the channel that excites the dye most."""
        if not self.films_switching:
            return {}
        found = {}
        for dye in dyes.values():
            rates = [
                photophysics.excitation_rate_per_s(
                    self.cross_section_m2(channel, dye), channel.irradiance_W_per_cm2 * 1e4, channel.excitation_nm
                )
                for channel in self.channels
            ]
            found[dye.name] = photophysics.saturated_rate_per_s(max(rates), dye.lifetime_ns)
        return found

    @property
    def adds_haze(self) -> bool | None:
        """See `Optics`."""
        return self.haze

    def profile(self, z_nm: Array) -> Array:
        """Irradiance at distance z from the focal plane relative to the channel's: 1."""
        return np.ones_like(z_nm)

    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """See `Optics`."""
        return self.emitted_in(channel, dye, self.profile(z_nm))

    def emitted_in(self, channel: Channel, dye: Fluorophore, relative: Array) -> Array:
        """Photons that a dye emits while a plane is imaged, in an irradiance relative to the channel's."""
        assert isinstance(channel, CameraChannel)
        return photophysics.emitted_photons(
            self.cross_section_m2(channel, dye),
            channel.irradiance_W_per_cm2 * 1e4 * relative,
            channel.excitation_nm,
            exposure_s=self.exposure_s,
            quantum_yield=dye.quantum_yield,
            lifetime_ns=dye.lifetime_ns,
        )

    @property
    def pixel_time_s(self) -> float:
        """The exposure time."""
        return self.exposure_s

    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """The dye's image, scaled by the photons that it emits at each distance."""
        image = pupil.emission(z_nm, at, emission_nm, self.lens, focus)
        return image * pupil.along_z(self.emitted(channel, dye, z_nm) * self.collected(channel, dye), image)

    def unlit(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """See `Optics`."""
        return pupil.emission(z_nm, at, emission_nm, self.lens, focus) * self.collected(channel, dye)
