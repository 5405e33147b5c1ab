"""Base of the microscopes: what a microscope is. How its simulation grid is chosen is in `optics_grid`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Spacing, Triple, exact
from simexm.geometry.transform import Transform
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction.objective import Model, Objective
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.spectra.curves import CsvCurve, Curve
from simexm.spectra.efficiency import Efficiency, counted_nm
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import detected_share
from simexm.stages.contract import EXPANDED, EXPECTED, EmitterStream, MapPass, Quantity, RunContext, TileState
from simexm.stages.microscope import objectives, optics_grid
from simexm.stages.microscope.dose import Bleaching, Tissue
from simexm.stages.microscope.flashes import add_flashes
from simexm.stages.microscope.haze import NAME
from simexm.stages.microscope.haze_image import add_haze, map_dyes
from simexm.stages.microscope.light import check_light
from simexm.stages.microscope.optics_image import expected_image
from simexm.stages.microscope.optics_plan import Array, Channel, OpticsPlan, Places
from simexm.stages.microscope.psf_stack import Measured, PsfStack, load
from simexm.stages.roles import ImagingPlan, Microscope
from simexm.timing import timed

LEAST_INDEX = 1.3
"""No gel, and no cleared tissue, has a lower refractive index."""


def either_lens(schema: dict[str, Any]) -> None:
    """Say in the JSON schema that a named objective gives the numerical aperture."""
    schema["required"] = [key for key in schema.get("required", []) if key != "numerical_aperture"]
    schema["anyOf"] = [{"required": ["numerical_aperture"]}, {"required": ["objective"]}]


class Optics(Microscope):
    """A microscope with a pixel grid.

    Attributes
    ----------
    objective
        Name of an objective, which gives its numerical aperture and its immersion where these are left out.
    numerical_aperture, refractive_index
        Aperture of the objective, and index of the expanded gel (close to water's 1.333).
    immersion_index
        Refractive index of the immersion; by default that of the gel. With another one the image of a dye depends on its
        depth below the cover glass, towards which the first plane lies.
    cover_glass
        The cover glass, where it is not the one that the objective expects.
    depth_um
        Gel between the cover glass and the specimen, um of expanded tissue.
    zernike
        Aberrations of the objective.
    field_curvature_radius_mm
        Radius of the surface of best focus, mm of expanded tissue: r from the optical axis, the middle of the detector's
        frame, the focus lies r^2 / (2 R) deeper, or higher if the radius is negative. Flat by default.
    pixel_size_nm, plane_spacing_nm
        Pixel pitch at the specimen (camera pixel over magnification, or scan step), nm of expanded tissue, and step of the
        stage. Planes lie that far apart in the gel, too, unless the immersion's index is another one: see `focus_scale`.
    axial_range_um
        Distance above and below a plane from which light is simulated, um of expanded tissue. By default the range that
        holds 95 % of a uniformly stained stack's light, but at most 5 um for widefield and light sheet.
    psf_model
        Model of diffraction: `vectorial`, or `psf` for that of the `psf` package, to compare with programs that use it.
    psf_stack
        A measured point spread function in place of the model's; a channel may have its own.
    tissue, bleaching
        Attenuation of light with depth, and bleaching of dyes by the planes that were imaged before; none by default.
    objective_transmission
        Transmission of the objective and its optics.
    """

    model_config = ConfigDict(json_schema_extra=either_lens)

    objective: objectives.Name | None = None
    numerical_aperture: float = Field(gt=0, le=2)
    refractive_index: float = Field(default=1.333, ge=1, le=2)
    immersion_index: float | None = Field(default=None, ge=1, le=2)
    cover_glass: objectives.CoverGlass | None = None
    depth_um: float = Field(default=0.0, ge=0, le=1e5)
    zernike: tuple[objectives.Zernike, ...] = Field(default=(), max_length=20)
    field_curvature_radius_mm: float | None = Field(default=None, ge=-1e4, le=1e4)
    pixel_size_nm: float = Field(ge=1, le=1e5)
    plane_spacing_nm: float = Field(ge=1, le=1e5)
    axial_range_um: float | None = Field(default=None, gt=0, le=500)
    psf_model: Model = "vectorial"
    psf_stack: PsfStack | None = None
    tissue: Tissue | None = None
    bleaching: Bleaching | None = None
    objective_transmission: float = Field(default=0.8, gt=0, le=1)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    needs_symmetry: ClassVar[bool] = False
    """Whether the response is computed only where it is symmetric about the axis, as that through a disk of holes."""
    tail: ClassVar[psf_response.Tail] = "inverse_square"
    keeps_light: ClassVar[bool] = False
    """Whether an infinite plane receives all collected light of a dye at any distance."""
    keeps_evenly: ClassVar[bool] = False
    """Whether every plane receives the same light of a dye, at any distance."""
    lit_from_above: ClassVar[bool] = True
    """Whether the light that excites dyes comes through the tissue above them."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return objectives.fill_in(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        if self.refractive_index < LEAST_INDEX:
            raise ValueError(
                f"refractive_index {self.refractive_index:g} is that of the gel, and no gel's: water has 1.333; give the air or "
                "oil below the objective as immersion_index"
            )
        if self.numerical_aperture >= self.lens.n1:
            immersion = "immersion_index" if self.immersion_index else "refractive_index"
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below {immersion} {self.lens.n1:g}: no light comes at "
                "such an angle; lower the aperture, or give the immersion_index of the objective (oil 1.515, silicone 1.406)"
            )
        if self.needs_symmetry and not self.lens.round:
            terms = ", ".join(f"({z.n}, {z.m})" for z in self.zernike if z.m != 0)
            raise ValueError(
                f"zernike {terms}: the light that passes other holes of the disk is computed for symmetric aberrations only, "
                "m = 0; leave these out, or measure a psf_stack"
            )
        if self.psf_model == "psf" and not (self.lens.matched and self.lens.round):
            raise ValueError(
                "psf_model psf knows one refractive index and no aberrations; leave out immersion_index, cover_glass, "
                "zernike and polarisation_deg, or take psf_model vectorial"
            )
        if (self.zernike or self.cover_glass) and self.any_measured:
            raise ValueError(
                "psf_stack shows the microscope with its aberrations, so those of zernike or cover_glass would count twice; "
                "leave out either"
            )
        if self.field_curvature_radius_mm == 0:
            raise ValueError(
                "field_curvature_radius_mm 0 would bend the focus into a point; objectives have radii of some mm; leave it out "
                "for a flat field"
            )
        names = [c.name.lower() for c in self.all_channels]
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(f"two channels are named {', '.join(double)}; rename one")
        return self

    @property
    def adds_haze(self) -> bool | None:
        """Whether the light of dyes beyond the axial range is added; None: where it matters."""
        return False

    @property
    @abstractmethod
    def all_channels(self) -> tuple[Channel, ...]:
        """The channels, in order."""

    @property
    def by_terms(self) -> bool:
        """Whether the light that excites dyes depends on more than their distance from the focus; see `sheet`."""
        return False

    def remarks(self, geometry: Geometry) -> tuple[str, ...]:
        """What `plan` remarks on the light over an image."""
        return ()

    @property
    def uneven(self) -> bool:
        """Whether that light differs above and below its plane."""
        return False

    @property
    def along(self) -> str | None:
        """Axis of the field along which the light that excites dyes changes, if any."""
        return None

    def check_range(self, range_nm: float) -> None:
        """Raise SpecError if the light is not known as far as an axial range."""

    def light_nm(self, channel: Channel) -> float:
        """How much deeper than its plane a channel's light is focused: as deep as the channel itself focuses."""
        return channel.chromatic.axial_nm if channel.chromatic else 0.0

    def unlit(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """`response` for each photon that the dye emits; of microscopes with `by_terms`."""
        raise TypeError(f"{type(self).__name__} lights the field evenly")

    def emitted_at(self, channel: Channel, dye: Fluorophore, z_nm: Array, y_nm: Array, x_nm: Array) -> Array:
        """`emitted` at a distance from the plane, and at places from the optical axis, as they broadcast."""
        raise TypeError(f"{type(self).__name__} lights the field evenly")

    @property
    def lens(self) -> Objective:
        """The objective and the layers before it, its back aperture evenly filled."""
        immersion = self.immersion_index or self.refractive_index
        return Objective(
            self.numerical_aperture,
            self.refractive_index,
            immersion=immersion if immersion != self.refractive_index else 0.0,
            model=self.psf_model,
            glass=self.cover_glass.layer() if self.cover_glass else None,
            spherical=tuple((z.n, z.nm) for z in self.zernike if z.m == 0),
            aberrations=tuple((z.n, z.m, z.nm) for z in self.zernike if z.m != 0),
        )

    @property
    def focus_nm(self) -> float:
        """Wavelength for which the focus is computed: the mean of the channels' bands."""
        return sum(sum(c.passes_nm) for c in self.all_channels) / (2 * len(self.all_channels))

    @property
    def focus_scale(self) -> Fraction:
        """Distance of planes in the gel over the step of the stage."""
        return objectives.focus_scale(self.lens._replace(fill=math.inf), self.focus_nm)

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Stage`: the curves of channels, and the measured stack."""
        read: dict[str, object] = {
            "channels": tuple(channel.resolved(curves) for channel in self.all_channels),
            "psf_stack": self.psf_stack and self.psf_stack.frozen(),
        }
        changed = {key: value for key, value in read.items() if value != getattr(self, key)}
        return self.model_copy(update=changed) if changed else self

    def measured(self, channel: Channel) -> Measured | None:
        """The measured stack of a channel, if any."""
        given = channel.psf_stack or self.psf_stack
        return None if given is None else load(given)

    @property
    def any_measured(self) -> bool:
        """Whether a channel has a measured stack, with which the axial range ends."""
        return any(given is not None for given in (self.psf_stack, *(c.psf_stack for c in self.all_channels)))

    def planar(self, channel: Channel) -> bool:
        """Whether the channel's response has no symmetry about the axis."""
        return self.measured(channel) is not None or not self.lens.round

    def cutoff_per_nm(self, channel: Channel, emission_nm: float) -> float:
        """Highest lateral frequency of the response; of detection, unless a microscope confines the light it excites with."""
        return 2 * self.numerical_aperture / emission_nm

    def excites(self, channel: Channel, dye: Fluorophore) -> bool:
        """Whether the channel's light excites the dye at all."""
        return channel.excitation.absorbed(dye) > 0

    @abstractmethod
    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, at: Places, focus: Focus = SURFACE
    ) -> Array:
        """Photons at the detector per nm^2 of pixel of a dye at distances z below a plane, (nz, nr) or (nz, n, n).

        At radii from the axis, or on a square of places of the dye relative to the axis.
        """

    @abstractmethod
    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """Photons that one dye emits in all directions while a plane at distance z is imaged, (nz,)."""

    def check(self, dyes: Mapping[str, Fluorophore], factor: float, efficiency: Efficiency) -> None:
        """See `check_light`."""
        check_light(self, dyes, factor, efficiency)

    @property
    def spacing_nm(self) -> Spacing:
        """Distance of planes in the gel and pixel pitch z, y, x, nm, exact."""
        return (exact(self.plane_spacing_nm) * self.focus_scale, exact(self.pixel_size_nm), exact(self.pixel_size_nm))

    def cross_section_m2(self, channel: Channel, dye: Fluorophore) -> float:
        """One-photon absorption cross section of the dye for the channel's light, were all of it at `excitation_nm`."""
        peak = photophysics.cross_section_m2(dye.extinction_per_M_per_cm)
        return peak * channel.excitation.absorbed(dye)

    def collected(self, channel: Channel, dye: Fluorophore) -> float:
        """Photons that reach the detector per emitted photon, without a pinhole."""
        return self.lens.collected() * self.objective_transmission * self.passed_share(channel, dye)

    def passed_share(self, channel: Channel, dye: Fluorophore) -> float:
        """Share of a dye's photons that pass the filters."""
        return detected_share(dye, channel.detection)

    def seen(self, dyes: Mapping[str, Fluorophore], efficiency: Efficiency) -> list[tuple[Channel, Fluorophore, float]]:
        """(channel, dye, mean wavelength of the counted photons) of every dye that a channel excites and passes."""
        return [
            (channel, dye, counted_nm(efficiency, dye, channel.detection))
            for channel in self.all_channels
            for dye in dyes.values()
            if self.excites(channel, dye) and self.passed_share(channel, dye) > 0
        ]

    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """Pixels and planes from the specimen's corner."""
        return Geometry(volume, crop, voxel_nm, origin_nm, transform, self.spacing_nm)

    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry, efficiency: Efficiency) -> ImagingPlan:
        """See `optics_grid.resolve`."""
        return optics_grid.resolve(self, dyes, geometry, efficiency)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of the response's reach, and the two nodes over which a dye is shared out."""
        plan = _formation(context)
        lateral = plan.halo * self.spacing_nm[1] + 2 * plan.node_nm[1]
        axial = (plan.reach + 2) * plan.node_nm[0]
        seen = wanted.grown((axial, lateral, lateral))
        return {"expanded": seen if plan.field is None else plan.field.origin(seen, plan.halo_nm)}

    def maps(self, context: RunContext) -> tuple[MapPass, ...]:
        """See `Stage`: the dyes of the whole specimen, where light comes from beyond the axial range."""
        plan = _formation(context)
        return () if plan.haze is None else (plan.haze.map_pass(plan.layers()),)

    def map(self, wanted: MapPass, cells: Box, state: TileState) -> NDArray[np.int64]:
        """See `Stage`."""
        return map_dyes(wanted, cells, state.read(EXPANDED), _formation(state.context), state.device)

    def run(self, state: TileState) -> None:
        """Write the expected image of the tile, float32 on its device, (channel, z, y, x), photo-electrons per pixel."""
        kept = state.scratch if any(state.frame) else None
        stream: EmitterStream = state.read(EXPANDED)
        plan, dyes = _formation(state.context), state.context.dyes
        if stream.flashing:  # of these few dyes, images are added one by one
            steady = {layer: dye for layer, dye in stream.dyes.items() if dye not in stream.flashing}
            whole = replace(stream, dyes=steady, varying=stream.varying - set(stream.flashing))
        else:
            whole = stream
        expected = self._lasting(whole, plan, state, kept)
        if stream.flashing:
            with timed("imaging: flashes"):
                add_flashes(self, plan, stream, state.context, state.pixels, expected)
        if plan.haze is not None:
            with timed("imaging: haze"):
                planes = state.context.geometry.shape[0]
                add_haze(self, plan, dyes, state.mapped[NAME], planes, state.pixels, state.device, expected)
        state.write(EXPECTED, expected)

    def _lasting(self, stream: EmitterStream, plan: OpticsPlan, state: TileState, kept: dict[str, Any] | None) -> Any:
        """The expected image of dyes that do not flash; where there are others, kept if it is the same in all frames."""
        if kept is None or not state.read(EXPANDED).flashing or stream.varying & set(stream.dyes.values()):
            return expected_image(self, plan, stream, state.context.dyes, state.pixels, state.device, kept)
        if "lasting" not in kept:
            if stream.dyes:
                made = expected_image(self, plan, stream, state.context.dyes, state.pixels, state.device)
            else:
                made = state.device.zeros((len(self.all_channels), *state.pixels.shape), np.float32)
            kept["lasting"] = made
        return kept["lasting"].copy()


def _formation(context: RunContext) -> OpticsPlan:
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, OpticsPlan)
    return context.imaging.formation
