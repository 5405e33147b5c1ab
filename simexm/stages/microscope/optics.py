"""Base of the microscopes: pixel grid, channels, and the resolution and range of the simulation grid."""

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

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Spacing, Triple, exact
from simexm.geometry.transform import Transform
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction import tables as psf_tables
from simexm.kernels.diffraction.objective import Model, Objective
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission import photophysics
from simexm.kernels.imaging import gridding
from simexm.kernels.imaging.gridding import NODES
from simexm.kernels.imaging.image import fast_pixels
from simexm.spectra.curves import CsvCurve, Curve
from simexm.spectra.efficiency import Efficiency, counted_nm, mean_efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import detected_share
from simexm.stages.contract import EXPANDED, EXPECTED, MapPass, Quantity, RunContext, TileState
from simexm.stages.microscope import objectives, sheet
from simexm.stages.microscope.dose import Bleaching, Tissue
from simexm.stages.microscope.field import FieldPlan, plan_field
from simexm.stages.microscope.haze import NAME, HazePlan, plan_haze
from simexm.stages.microscope.haze_image import add_haze, map_dyes
from simexm.stages.microscope.light import check_light
from simexm.stages.microscope.optics_cost import OpticsCost
from simexm.stages.microscope.optics_description import OpticsDescription
from simexm.stages.microscope.optics_image import expected_image
from simexm.stages.microscope.optics_plan import LEFT_OUT_LIMIT, Array, Channel, Depths, OpticsPair, OpticsPlan
from simexm.stages.roles import ImagingPlan, Microscope
from simexm.timing import timed

LEAST_INDEX = 1.3
"""No gel, and no cleared tissue, has a lower refractive index."""
RADIAL_STEP_NM = 10.0
LATERAL_SHARE = 0.9952
"""Share of a camera plane's light within the lateral radius, in focus and at the end of the axial range."""
ABERRATED_SHARE = 0.98
"""The same for a scanner with aberrations, whose response may be as wide as that of a camera."""
FURTHEST_NM = 5_000
"""Largest default axial range of a camera, whose response does not fall off along z."""
_BLUR = 8e-4
"""Error that places between nodes along one axis cause in a dye's image, root mean square, as a share of the image's."""
_BLUR_Z = 4e-4
"""Error that places between node planes cause at most, as a share of the maximum of a dye's image."""
_NEGLIGIBLE = 4e-5
"""Contribution of the discarded high frequencies to the brightest pixel of a dye's image, as if that were round."""
_SAMPLED = 33
"""Places along the axis of a sheet at which its thickness is looked up for the axial range."""
_FADING_RINGS = 4.0
"""Periods within the lateral radius over which the highest frequencies fade out, to suppress ringing beyond it."""


def _either(schema: dict[str, Any]) -> None:
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
    tissue, bleaching
        Attenuation of light with depth, and bleaching of dyes by the planes that were imaged before; none by default.
    objective_transmission
        Transmission of the objective and its optics.
    """

    model_config = ConfigDict(json_schema_extra=_either)

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
    tissue: Tissue | None = None
    bleaching: Bleaching | None = None
    objective_transmission: float = Field(default=0.8, gt=0, le=1)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
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
        if self.psf_model == "psf" and not self.lens.matched:
            raise ValueError(
                "psf_model psf knows one refractive index and no aberrations; leave out immersion_index, cover_glass and "
                "zernike, or take psf_model vectorial"
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
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array, focus: Focus = SURFACE
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
            spherical=tuple((z.n, z.nm) for z in self.zernike),
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
        """See `Stage`: the curves of channels."""
        channels = tuple(channel.resolved(curves) for channel in self.all_channels)
        return self if channels == self.all_channels else self.model_copy(update={"channels": channels})

    def excites(self, channel: Channel, dye: Fluorophore) -> bool:
        """Whether the channel's light excites the dye at all."""
        return channel.excitation.absorbed(dye) > 0

    @abstractmethod
    def response(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array, focus: Focus = SURFACE
    ) -> Array:
        """Photons at the detector per dye and nm^2 of pixel at distances z below a plane and radii r from the axis, (nz, nr)."""

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
        """Choose the simulation grid and its range, at most the thickness of the expanded specimen."""
        expanded = geometry.transform.bound(geometry.voxels_nm(Box.of_shape(geometry.crop.shape)))
        depth_nm = float(expanded.stop[0] - expanded.start[0])
        seen = self.seen(dyes, efficiency)
        if not seen:
            raise SpecError(
                "no channel detects any of the dyes in use, so the image would be only noise; match the lasers and "
                f"bands of {', '.join(c.name for c in self.all_channels)} to {', '.join(dyes) or 'a dye'}"
            )
        depths = self._depths(depth_nm)
        ends = (SURFACE,) if depths is None else (depths.foci[0], depths.foci[-1])
        field = self._field(seen, geometry)
        specimen_nm, depth_nm = depth_nm, depth_nm + _furthest(field)
        m_z = self._subdivision_z(seen, ends[0])
        node_z = self.spacing_nm[0] / m_z
        kept = [self._kept(c, d, e, float(node_z), depth_nm, focus, field) for c, d, e in seen for focus in ends]
        reach = self._reach(kept, float(node_z), depth_nm)
        reach, far = self._near_and_far(seen, kept, reach, float(node_z), depth_nm, depths)
        range_nm = reach * float(node_z)
        radius = max(self._radius_nm(c, e, range_nm, focus) for c, _, e in seen for focus in ends)
        if far is not None:
            kept = [np.ones_like(k) for k in kept]
        tables = [[self.tabulate(c, d, e, float(node_z), reach, radius, f) for f in ends] for c, d, e in seen]
        pairs = tuple(
            self._pair(c, d, e, table, float(k[min(reach, k.size - 1)]), specimen_nm, efficiency)
            for (c, d, e), table, k in zip(seen, tables, kept[:: len(ends)], strict=True)
        )
        m = self._subdivision([t for some in tables for t in some])
        node = exact(self.pixel_size_nm) / m
        bands = [self._band(t, e, float(node)) for (_, _, e), some in zip(seen, tables, strict=True) for t in some]
        whole, band = (max(ends) for ends in zip(*bands, strict=True))
        halo = math.ceil((radius + 2 * float(node)) / self.pixel_size_nm + 0.5)
        signed = depths is not None or self.tissue is not None or self.bleaching is not None
        plan = OpticsPlan(
            (m_z, m, m),
            (node_z, node, node),
            range_nm,
            radius,
            reach,
            halo,
            whole,
            band,
            pairs,
            depths,
            signed,
            far,
            field,
        )
        plan = self._over_field(plan, [(c, d) for c, d, _ in seen], depth_nm)
        return ImagingPlan(
            plan, OpticsCost(plan), OpticsDescription(plan, self.bleaching is not None, self.remarks(geometry))
        )

    def _field(self, seen: list[tuple[Channel, Fluorophore, float]], geometry: Geometry) -> FieldPlan | None:
        """What changes over the field."""
        channels = [(c.name, c.chromatic) for c, _, _ in seen]
        return plan_field(geometry, channels, self.field_curvature_radius_mm, self.along, self.by_terms)

    def _over_field(self, plan: OpticsPlan, seen: list[tuple[Channel, Fluorophore]], depth_nm: float) -> OpticsPlan:
        """Add to a plan what the field asks for: the terms of light, and how far the map of far dyes is moved."""
        field = plan.field
        if field is None:
            return plan
        if plan.haze is not None:
            moved = plan.haze.moved(field.offsets_nm(plan.halo_nm), self.spacing_nm)
            plan = replace(plan, haze=moved)
        if not self.by_terms:
            return plan
        self.check_range(plan.range_nm)
        lit = sheet.lit_of(self, field, seen)
        reach = plan.reach + gridding.MARGIN
        z = sheet.distances(float(plan.node_nm[0]), reach, depth_nm if plan.haze is not None else 0.0)
        reading_nm = plan.halo_nm
        if plan.haze is not None:
            reading_nm = max(reading_nm, plan.haze.map_pass(()).reach_pixels * self.pixel_size_nm)
        places = sheet.places(field, reading_nm, self.along)
        try:
            terms = sheet.decompose(lit, len(seen), z, *places, sheet.changing_axes(field, self.along))
        except ValueError as error:
            raise SpecError(
                f"the light of the sheet changes so much over the field that {error}; give a thicker sheet, a shorter "
                "axial_range_um, or smaller frames (frame_pixels of the detector)"
            ) from error
        even = not self.uneven and not any(field.axial_nm(plan.halo_nm))
        return replace(plan, terms=terms, signed=plan.signed or not even)

    def _near_and_far(
        self,
        seen: list[tuple[Channel, Fluorophore, float]],
        kept: list[Array],
        reach: int,
        node_z: float,
        depth_nm: float,
        depths: Depths | None,
    ) -> tuple[int, HazePlan | None]:
        """Node planes of the near range, and the map of dyes beyond it, where it is wanted and there are any.

        A default range is extended until the pixels resolve all that lies beyond.
        """
        wanted = self.adds_haze
        if wanted is False or depth_nm <= reach * node_z:
            return reach, None
        least = min(float(k[min(reach, k.size - 1)]) for k in kept)
        if wanted is None and not self.keeps_evenly and least >= 1.0 - LEFT_OUT_LIMIT:
            return reach, None
        focus = SURFACE if depths is None else depths.foci[len(depths.foci) // 2]
        pairs = [(c.name, d, e) for c, d, e in seen]
        further = reach
        while further * node_z < depth_nm:
            if (found := plan_haze(self, pairs, further * node_z, depth_nm, focus)) is not None:
                return further, found
            if self.axial_range_um is not None:
                break
            further = math.ceil(further * 1.4)
        if wanted and self.axial_range_um is not None:
            raise SpecError(
                f"axial_range_um {self.axial_range_um:g} is too short for haze: at that distance the image of a dye has details "
                f"finer than pixels of {self.pixel_size_nm:g} nm resolve; leave out axial_range_um, or set haze: false"
            )
        return (reach if self.axial_range_um is not None else min(further, math.ceil(depth_nm / node_z) + 2)), None

    def _depths(self, thickness_nm: float) -> Depths | None:
        """Depths at which responses are tabulated; None if they are the same at all depths and even along z."""
        lens, nm, start = self.lens, self.focus_nm, self.depth_um * 1000
        if lens.matched:
            return None
        step = objectives.depth_step_nm(lens, nm, start + thickness_nm)
        first = 0 if math.isinf(step) else math.floor(start / step)
        last = 0 if math.isinf(step) else math.ceil((start + thickness_nm) / step) + 1
        foci = tuple(objectives.focus_at(lens, nm, j * step if j else 0.0) for j in range(first, last + 1))
        plane_nm = float(self.spacing_nm[0])
        ends = (start + plane_nm / 2, start + max(plane_nm / 2, thickness_nm - plane_nm / 2))
        off = tuple(
            (psf_tables.best_focus_nm(d, nm, lens) - objectives.focus_at(lens, nm, d).setting_nm)
            * float(self.focus_scale)
            for d in ends
        )
        return Depths(foci, ends[0], plane_nm, step, off)

    def _radius_nm(self, channel: Channel, emission: float, range_nm: float, focus: Focus = SURFACE) -> float:
        """Lateral radius of the response: the light cone and, for a camera, its diffraction rings.

        A scanner's response is a product of two such patterns, whose rings fall off fast enough to be neglected.
        """
        if self.tail == "constant" or not self.lens.matched:
            share = LATERAL_SHARE if self.tail == "constant" else ABERRATED_SHARE
            return psf_tables.holding_radius_nm(range_nm, emission, self.lens, share, focus)
        return psf_tables.lateral_radius_nm(range_nm, max(channel.excitation_nm, emission), self.lens)

    def _kept(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        node_z: float,
        depth_nm: float,
        focus: Focus,
        field: FieldPlan | None,
    ) -> Array:
        """Share of a uniformly stained stack's light within axial ranges of 0, 1, 2, ... node planes.

        Computed for the first plane of the stack, for which it is lowest: all dyes lie on one side.
        """
        most = max(1, math.ceil(depth_nm / node_z))
        if self.keeps_light:
            z = np.arange(most + 1, dtype=np.float64) * node_z
            energy = self.emitted(channel, dye, z)  # up to a factor: an infinite plane receives all collected light
            if self.by_terms:
                assert field is not None
                energy = self._brightest(channel, dye, z, field)
        else:
            furthest = min(most, max(8, math.ceil(max(20.0, self.axial_range_um or 0.0) * 1000 / node_z)))
            radius = self._radius_nm(channel, emission, furthest * node_z, focus)
            table = self.tabulate(channel, dye, emission, node_z, furthest, radius, focus, coarse=4)
            z = table.z_nm[: furthest + 1]
            energy = hankel.plane_energy(table.table, table.r_nm)[: furthest + 1]
        beyond = psf_response.left_out_share(energy, z, depth_nm, self.tail)
        inside = _integrals(energy)
        return np.asarray(inside * ((1.0 - beyond) / inside[-1]))

    def _brightest(self, channel: Channel, dye: Fluorophore, z_nm: Array, field: FieldPlan) -> Array:
        """Most photons that a dye emits anywhere in the field, at a distance on either side, as a share of those at 0."""
        axial = channel.chromatic.axial_nm if channel.chromatic else 0.0
        y, x = sheet.places(field, 0.0, self.along, _SAMPLED)
        deeper = np.asarray(field.depth_nm(y, x) + axial)[..., None]
        y, x = y[..., None], x[..., None]
        both = [self.emitted_at(channel, dye, side * z_nm + deeper, y, x) for side in (1, -1)]
        photons = np.maximum(*both).reshape(-1, z_nm.size)
        return np.asarray((photons / np.maximum(photons.max(axis=1, keepdims=True), 1e-300)).max(axis=0))

    def _reach(self, kept: list[Array], node_z: float, depth_nm: float) -> int:
        """Node planes of the axial range: the user's or the default, at most the specimen's thickness.

        Two nodes are added to the thickness, over which a dye is shared out.
        """
        thickness = max(1, math.ceil(depth_nm / node_z))
        most = thickness + NODES // 2
        if self.axial_range_um is not None:
            return min(most, max(1, math.ceil(self.axial_range_um * 1000 / node_z - 1e-9)))
        wanted = (1.0 - LEFT_OUT_LIMIT) / (LATERAL_SHARE if self.keeps_light else 1.0)
        enough = max(int(np.argmax(k >= min(wanted, k[-1]))) for k in kept)
        furthest = math.ceil(FURTHEST_NM / node_z) if self.tail == "constant" else most
        return min(furthest, max(1, enough) if enough < thickness else most)

    def tabulate(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        node_z: float,
        reach: int,
        radius: float,
        focus: Focus = SURFACE,
        coarse: int = 1,
    ) -> psf_response.Response:
        """Tabulate the response on the node planes of the range and a margin, which serves the grid correction.

        The mean of both sides where it is not even along z.
        """
        z = np.arange(reach + 1 + gridding.MARGIN, dtype=np.float64) * node_z
        r = _radii(radius, coarse)
        table = self.response(channel, dye, emission, z, r, focus)
        if self.uneven or not self.lens.matched:
            table = (table + self.response(channel, dye, emission, -z, r, focus)) / 2
        return psf_response.Response(z, r, table)

    def unlit_rows(
        self, pair: OpticsPair, dye: Fluorophore, plan: OpticsPlan, focus: Focus
    ) -> tuple[Array, Array, Array]:
        """Radii, distances, and `unlit` on the node planes of the range and a margin, on both sides if they differ."""
        channel = next(c for c in self.all_channels if c.name == pair.channel)
        most = plan.reach + gridding.MARGIN
        z = np.arange(-most if plan.signed else 0, most + 1, dtype=np.float64) * float(plan.node_nm[0])
        r = _radii(plan.radius_nm, 1)
        return r, z, self.unlit(channel, dye, pair.emission_nm, z, r, focus)

    def both_sides(
        self, pair: OpticsPair, dye: Fluorophore, node_z: float, reach: int, radius: float, focus: Focus
    ) -> tuple[Array, Array]:
        """Radii, and the response on the node planes of the range and a margin, on both sides."""
        channel = next(c for c in self.all_channels if c.name == pair.channel)
        most = reach + gridding.MARGIN
        z, r = np.arange(-most, most + 1, dtype=np.float64) * node_z, _radii(radius, 1)
        return r, self.response(channel, dye, pair.emission_nm, z, r, focus)

    def _pair(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        tables: list[psf_response.Response],
        kept: float,
        depth_nm: float,
        efficiency: Efficiency,
    ) -> OpticsPair:
        table = tables[0]
        received = hankel.plane_energy(table.table[: -gridding.MARGIN], table.r_nm)
        if self.keeps_light:
            everything = self.emitted(channel, dye, table.z_nm[: -gridding.MARGIN]) * self.collected(channel, dye)
            kept *= float(_integrals(received)[-1] / _integrals(everything)[-1])
        try:
            axial: float | None = psf_response.fwhm_axial_nm(table)
        except ValueError:
            axial = None
        widths = (axial, psf_response.fwhm_lateral_nm(table))
        plane_nm = float(self.spacing_nm[0])
        planes = max(1, math.floor(depth_nm / plane_nm))
        distances = np.abs(np.arange(planes) - (planes - 1) // 2) * plane_nm
        stack = float(self.emitted(channel, dye, distances).sum())
        peaks = [float(t.table[0, 0]) for t in tables]
        deep = None if len(tables) == 1 else peaks[-1] / peaks[0]
        counted = mean_efficiency(efficiency, dye, channel.detection)
        in_focus = counted * float(received[0])
        return OpticsPair(channel.name, dye.name, emission, in_focus, stack, 1.0 - kept, widths, counted, deep)

    def _subdivision_z(self, seen: list[tuple[Channel, Fluorophore, float]], focus: Focus) -> int:
        """Fewest node planes a plane spacing that image a dye well, wherever it lies between them."""
        sine = min(1.0, self.numerical_aperture / self.refractive_index)
        plane_nm = float(self.spacing_nm[0])
        period = min(e for _, _, e in seen) / (self.refractive_index * (1 - math.sqrt(1 - sine * sine)))
        m = max(1, math.floor(plane_nm / period))
        while any(self._blur_z(c, d, e, plane_nm / m, period, focus) > _BLUR_Z for c, d, e in seen):
            m = max(m + 1, m * 11 // 10)
        return m

    def _blur_z(
        self, channel: Channel, dye: Fluorophore, emission: float, node_z: float, period: float, focus: Focus
    ) -> float:
        """Largest error of the pixel above a dye halfway between two node planes, as a share of the pixel's maximum."""
        planes = min(32, math.ceil(4 * period / node_z)) + gridding.MARGIN
        radius = min(self.pixel_size_nm / math.sqrt(math.pi), emission / self.numerical_aperture)  # a pixel's area
        table = self.tabulate(channel, dye, emission, node_z / 2, 2 * planes, 2 * radius, focus)
        pixel = hankel.radial_weights(table.r_nm.size, RADIAL_STEP_NM) * (table.r_nm <= radius)
        exact = np.cumsum(table.table * pixel, axis=1)[:, -1]
        half = gridding.between_planes(gridding.sharpened_along_z(exact[::2, None]))[:, 0]
        return float(np.abs(half - exact[1::2][: half.size]).max() / exact[0])

    def _subdivision(self, tables: list[psf_response.Response]) -> int:
        """Fewest nodes a pixel along y and x that image a dye in focus well, of those that allow fast transforms."""
        pixel = float(self.pixel_size_nm)
        k = np.linspace(0, 4 * self.numerical_aperture / 200, 513)
        spectra = [hankel.radial_spectrum(t.table[:1], t.r_nm, k)[0] * sinc_array(k * pixel) for t in tables]
        energies = [s * s * k for s in spectra]
        m = 1
        while True:
            lost = np.where(k * pixel < 0.5 * m, gridding.left_over(np.minimum(k * pixel / m, 0.5)), 1.0)
            if all(float((e * lost * lost).sum()) <= _BLUR**2 * float(e.sum()) for e in energies):
                return m
            m = fast_pixels(m + 1, 1)

    def _band(self, table: psf_response.Response, emission: float, node_nm: float) -> tuple[float, float]:
        """Pass band and stop band of lateral frequencies, per nm, at most the Nyquist frequency of the grid.

        Frequencies above the pass band contribute a negligible part of any plane's response. They fade out: a sharp
        edge would ring across the tile, differently in each.

        A lens passes nothing above 2 NA / wavelength; a camera's response has content beyond it only because its table
        ends at the lateral radius. A scanner's table is cut and sampled, too, which causes most of its content in the
        highest third.
        """
        highest = 0.5 / node_nm
        if self.keeps_light:
            highest = min(highest, 2 * self.numerical_aperture / emission + 4 / float(table.r_nm[-1]))
        k = np.linspace(0, highest, 257)
        some = table.table[:: max(1, len(table.z_nm) // 12)]
        height = np.abs(hankel.radial_spectrum(np.vstack([table.table[:2], some]), table.r_nm, k))
        rings = height * (np.abs(sinc_array(k * float(self.pixel_size_nm))) * k)
        beyond = np.cumsum(rings[:, ::-1], axis=1)[:, ::-1].max(axis=0)
        whole = float(k[np.argmax(np.append(beyond[1:], 0.0) <= _NEGLIGIBLE * rings[0].sum())])
        return whole, min(highest, whole + _FADING_RINGS / float(table.r_nm[-1]))

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
        stream = state.read(EXPANDED)
        plan, dyes = _formation(state.context), state.context.dyes
        expected = expected_image(self, plan, stream, dyes, state.pixels, state.device, kept)
        if plan.haze is not None:
            with timed("imaging: haze"):
                planes = state.context.geometry.shape[0]
                add_haze(self, plan, dyes, state.mapped[NAME], planes, state.pixels, state.device, expected)
        state.write(EXPECTED, expected)


def _formation(context: RunContext) -> OpticsPlan:
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, OpticsPlan)
    return context.imaging.formation


def _furthest(field: FieldPlan | None) -> float:
    """How far along z the field moves dyes, nm."""
    return 0.0 if field is None else max(abs(end) for end in field.axial_nm(0.0))


def _radii(radius_nm: float, coarse: int) -> Array:
    step = RADIAL_STEP_NM * coarse
    return np.arange(max(17, math.ceil(radius_nm / step) + 1), dtype=np.float64) * step


def _integrals(energy: Array) -> Array:
    """Integrals of an even function from 0 to each sample, in units of the spacing, by cubics through four samples."""
    line = np.concatenate([energy[1:2], energy, energy[-1:]])
    steps = (13 * (line[1:-2] + line[2:-1]) - line[:-3] - line[3:]) / 24
    if len(steps):
        steps[-1] = (energy[-2] + energy[-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])
