"""Base of the microscopes: pixel grid, channels, and the resolution and range of the simulation grid."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

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
from simexm.kernels.imaging.image import fast_pixels
from simexm.spectra.curves import CsvCurve, Curve, Efficiency, resolved_efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import detected_share, mean_detected_nm
from simexm.spectra.spectrum import Spectrum
from simexm.stages.contract import EXPANDED, EXPECTED, Quantity, RunContext, TileState
from simexm.stages.microscope import objectives, planar
from simexm.stages.microscope.dose import Bleaching, Tissue
from simexm.stages.microscope.light import check_light
from simexm.stages.microscope.optics_cost import OpticsCost
from simexm.stages.microscope.optics_description import OpticsDescription
from simexm.stages.microscope.optics_image import expected_image
from simexm.stages.microscope.optics_plan import (
    FADING_RINGS,
    LEFT_OUT_LIMIT,
    Array,
    Channel,
    Depths,
    OpticsPair,
    OpticsPlan,
    Places,
)
from simexm.stages.microscope.psf_stack import Measured, PsfStack, load
from simexm.stages.roles import ImagingPlan, Microscope

LEAST_INDEX = 1.3
"""No gel, and no cleared tissue, has a lower refractive index."""
RADIAL_STEP_NM = 10.0
LATERAL_SHARE = 0.9952
"""Share of a camera plane's light within the lateral radius, in focus and at the end of the axial range."""
ABERRATED_SHARE = 0.98
"""The same for a scanner with aberrations, whose response may be as wide as that of a camera."""
FURTHEST_NM = 5_000
"""Largest default axial range of a camera, whose response does not fall off along z."""
NODES_PER_FWHM = 4.0
_NEGLIGIBLE = 5e-5
"""Largest contribution of the discarded high frequencies to any pixel, relative to the peak of a dye's image."""


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
    objective_transmission, detector_efficiency
        Transmission of the objective and its optics, and quantum efficiency of the detector, a number or a curve.
    """

    objective: objectives.Name | None = None
    numerical_aperture: float = Field(gt=0, le=2)
    refractive_index: float = Field(default=1.333, ge=1, le=2)
    immersion_index: float | None = Field(default=None, ge=1, le=2)
    cover_glass: objectives.CoverGlass | None = None
    depth_um: float = Field(default=0.0, ge=0, le=1e5)
    zernike: tuple[objectives.Zernike, ...] = Field(default=(), max_length=20)
    pixel_size_nm: float = Field(ge=1, le=1e5)
    plane_spacing_nm: float = Field(ge=1, le=1e5)
    axial_range_um: float | None = Field(default=None, gt=0, le=500)
    psf_model: Model = "vectorial"
    psf_stack: PsfStack | None = None
    tissue: Tissue | None = None
    bleaching: Bleaching | None = None
    objective_transmission: float = Field(default=0.8, gt=0, le=1)
    detector_efficiency: Efficiency = 0.7

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    needs_symmetry: ClassVar[bool] = False
    """Whether the response is computed only where it is symmetric about the axis, as that through a disk of holes."""
    tail: ClassVar[psf_response.Tail] = "inverse_square"
    keeps_light: ClassVar[bool] = False
    """Whether an infinite plane receives all collected light of a dye at any distance."""
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
        if (self.zernike or self.cover_glass) and any((self.psf_stack, *(c.psf_stack for c in self.all_channels))):
            raise ValueError(
                "psf_stack shows the microscope with its aberrations, so those of zernike or cover_glass would count twice; "
                "leave out either"
            )
        names = [c.name.lower() for c in self.all_channels]
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(f"two channels are named {', '.join(double)}; rename one")
        return self

    @property
    @abstractmethod
    def all_channels(self) -> tuple[Channel, ...]:
        """The channels, in order."""

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
        """See `Stage`: the curves of channels and detector."""
        read: dict[str, object] = {
            "channels": tuple(channel.resolved(curves) for channel in self.all_channels),
            "detector_efficiency": resolved_efficiency(self.detector_efficiency, curves),
            "psf_stack": self.psf_stack and self.psf_stack.frozen(),
        }
        changed = {key: value for key, value in read.items() if value != getattr(self, key)}
        return self.model_copy(update=changed) if changed else self

    def measured(self, channel: Channel) -> Measured | None:
        """The measured stack of a channel, if any."""
        given = channel.psf_stack or self.psf_stack
        return None if given is None else load(given)

    def planar(self, channel: Channel) -> bool:
        """Whether the channel's response has no symmetry about the axis."""
        return self.measured(channel) is not None or not self.lens.round

    def averaged(
        self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array, focus: Focus = SURFACE
    ) -> Array:
        """`response`; its mean over directions where it has no symmetry about the axis."""
        of = planar.averaged if self.planar(channel) else type(self).response
        return of(self, channel, dye, emission_nm, z_nm, r_nm, focus)

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
        """Photo-electrons per nm^2 of pixel of a dye at distances z below a plane, at radii (nz, nr) or on a square (nz, n, n).

        On a square, places are those of the dye relative to the axis.
        """

    @abstractmethod
    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """Photons that one dye emits in all directions while a plane at distance z is imaged, (nz,)."""

    def check(self, dyes: Mapping[str, Fluorophore], factor: float) -> None:
        """See `check_light`."""
        check_light(self, dyes, factor)

    @property
    def spacing_nm(self) -> Spacing:
        """Distance of planes in the gel and pixel pitch z, y, x, nm, exact."""
        return (exact(self.plane_spacing_nm) * self.focus_scale, exact(self.pixel_size_nm), exact(self.pixel_size_nm))

    def cross_section_m2(self, channel: Channel, dye: Fluorophore) -> float:
        """One-photon absorption cross section of the dye for the channel's light, were all of it at `excitation_nm`."""
        peak = photophysics.cross_section_m2(dye.extinction_per_M_per_cm)
        return peak * channel.excitation.absorbed(dye)

    def collected(self, channel: Channel, dye: Fluorophore) -> float:
        """Photo-electrons per emitted photon, without a pinhole."""
        return (
            self.lens.collected()
            * self.objective_transmission
            * self.passed_share(channel, dye)
            * (self.detector_efficiency if isinstance(self.detector_efficiency, float) else 1.0)
        )

    def passed_share(self, channel: Channel, dye: Fluorophore) -> float:
        """Share of a dye's photons that pass the filters and, if its efficiency is a curve, are counted by the detector."""
        return detected_share(dye, channel.detection, self.efficiency_curve)

    @property
    def efficiency_curve(self) -> Spectrum | None:
        """Quantum efficiency of the detector over wavelength; None if it is one number."""
        given = self.detector_efficiency
        if isinstance(given, float):
            return None
        assert isinstance(given, Curve), "the curve has not been read"
        return given.spectrum

    def seen(self, dyes: Mapping[str, Fluorophore]) -> list[tuple[Channel, Fluorophore, float]]:
        """(channel, dye, mean emission wavelength) of every dye that a channel excites and passes."""
        return [
            (channel, dye, mean_detected_nm(dye, channel.detection, self.efficiency_curve))
            for channel in self.all_channels
            for dye in dyes.values()
            if self.excites(channel, dye) and self.passed_share(channel, dye) > 0
        ]

    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """Pixels and planes from the specimen's corner."""
        return Geometry(volume, crop, voxel_nm, origin_nm, transform, self.spacing_nm)

    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry) -> ImagingPlan:
        """Choose the simulation grid and its range, at most the thickness of the expanded specimen."""
        expanded = geometry.transform.bound(geometry.voxels_nm(Box.of_shape(geometry.crop.shape)))
        depth_nm = float(expanded.stop[0] - expanded.start[0])
        seen = self.seen(dyes)
        if not seen:
            raise SpecError(
                "no channel detects any of the dyes in use, so the image would be only noise; match the lasers and "
                f"bands of {', '.join(c.name for c in self.all_channels)} to {', '.join(dyes) or 'a dye'}"
            )
        depths = self._depths(depth_nm)
        sine = min(1.0, self.numerical_aperture / self.refractive_index)
        shortest = min(min(c.excitation_nm / (2 if self.multiphoton else 1), e) for c, _, e in seen)
        axial = shortest / (4 * self.refractive_index * (1 - math.sqrt(1 - sine * sine)))
        plane_nm = self.spacing_nm[0]
        m_z = max(1, math.ceil(float(plane_nm) / axial))
        node_z = plane_nm / m_z
        ends = (SURFACE,) if depths is None else tuple(dict.fromkeys((depths.foci[0], depths.foci[-1])))
        kept = [self._kept(c, d, e, float(node_z), depth_nm, focus) for c, d, e in seen for focus in ends]
        reach = self._measured_reach(self._reach(kept, float(node_z), depth_nm), float(node_z))
        range_nm = reach * float(node_z)
        radius = max(self._radius_nm(c, e, range_nm, focus) for c, _, e in seen for focus in ends)
        tables = [[self.tabulate(c, d, e, float(node_z), reach, radius, f) for f in ends] for c, d, e in seen]
        pairs = tuple(
            self._pair(c, d, e, table, float(k[min(reach, k.size - 1)]), depth_nm)
            for (c, d, e), table, k in zip(seen, tables, kept[:: len(ends)], strict=True)
        )
        fwhm = min(p.fwhm_nm[1] for p in pairs)
        m = fast_pixels(max(1, math.ceil(self.pixel_size_nm * NODES_PER_FWHM / fwhm - 1e-9)), 1)
        node = exact(self.pixel_size_nm) / m
        bands = [self._band(c, t, e, float(node)) for (c, _, e), some in zip(seen, tables, strict=True) for t in some]
        whole, band = (max(ends) for ends in zip(*bands, strict=True))
        halo = math.ceil((radius + float(node)) / self.pixel_size_nm + 0.5)
        signed = any(v is not None for v in (depths, self.tissue, self.bleaching)) or any(p.planar for p in pairs)
        plan = OpticsPlan(
            (m_z, m, m), (node_z, node, node), range_nm, radius, reach, halo, whole, band, pairs, depths, signed
        )
        return ImagingPlan(plan, OpticsCost(plan), OpticsDescription(plan))

    def _depths(self, thickness_nm: float) -> Depths | None:
        """Depths at which responses are tabulated; None if they are the same at all depths and even along z."""
        lens, nm, start = self.lens, self.focus_nm, self.depth_um * 1000
        if lens.matched or all(self.measured(c) is not None for c in self.all_channels):
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
        stack = self.measured(channel)
        most = math.inf if stack is None else stack.radius_nm
        if self.tail == "constant" or not self.lens.matched:
            share = LATERAL_SHARE if self.tail == "constant" else ABERRATED_SHARE
            return min(most, psf_tables.holding_radius_nm(range_nm, emission, self.lens, share, focus))
        return min(most, psf_tables.lateral_radius_nm(range_nm, max(channel.excitation_nm, emission), self.lens))

    def _kept(
        self, channel: Channel, dye: Fluorophore, emission: float, node_z: float, depth_nm: float, focus: Focus
    ) -> Array:
        """Share of a uniformly stained stack's light within axial ranges of 0, 1, 2, ... node planes.

        Computed for the first plane of the stack, for which it is lowest: all dyes lie on one side.
        """
        most = max(1, math.ceil(depth_nm / node_z))
        if self.keeps_light:
            z = np.arange(most + 1, dtype=np.float64) * node_z
            energy = self.emitted(channel, dye, z)  # up to a factor: an infinite plane receives all collected light
        else:
            furthest = min(most, max(8, math.ceil(max(20.0, self.axial_range_um or 0.0) * 1000 / node_z)))
            if (stack := self.measured(channel)) is not None:
                furthest = min(furthest, max(1, int(stack.extent_nm / node_z)))
            radius = self._radius_nm(channel, emission, furthest * node_z, focus)
            table = self.tabulate(channel, dye, emission, node_z, furthest, radius, focus, coarse=4)
            z = table.z_nm[: furthest + 1]
            energy = hankel.plane_energy(table.table, table.r_nm)[: furthest + 1]
        beyond = psf_response.left_out_share(energy, z, depth_nm, self.tail)
        inside = _integrals(energy)
        return np.asarray(inside * ((1.0 - beyond) / inside[-1]))

    def _reach(self, kept: list[Array], node_z: float, depth_nm: float) -> int:
        """Node planes of the axial range: the user's or the default, at most the specimen's thickness.

        Two nodes are added to the thickness, over which the weights of a dye can spread.
        """
        most = max(1, math.ceil(depth_nm / node_z)) + 2
        if self.axial_range_um is not None:
            return min(most, max(1, math.ceil(self.axial_range_um * 1000 / node_z - 1e-9)))
        wanted = (1.0 - LEFT_OUT_LIMIT) / (LATERAL_SHARE if self.keeps_light else 1.0)
        enough = max(int(np.argmax(k >= min(wanted, k[-1]))) for k in kept)
        furthest = math.ceil(FURTHEST_NM / node_z) if self.tail == "constant" else most
        return min(most, furthest, max(1, enough))

    def _measured_reach(self, reach: int, node_z: float) -> int:
        """Node planes of the axial range that measured stacks hold; SpecError if they do not hold what is asked for."""
        wanted = None if self.axial_range_um is None else self.axial_range_um * 1000
        for channel in self.all_channels:
            if (stack := self.measured(channel)) is not None:
                most = min(reach * node_z, stack.extent_nm) if wanted is None else min(wanted, reach * node_z)
                reach = min(reach, max(1, math.ceil(stack.reach_nm(most, self.keeps_light) / node_z - 1e-9)))
        return reach

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
        """Tabulate the response on node planes 0 to reach + 2, the mean of both sides where it is not even along z."""
        z = np.arange(reach + 3, dtype=np.float64) * node_z
        r = _radii(radius, coarse)
        rough = coarse > 1 and self.measured(channel) is None  # without what breaks the symmetry
        respond = self.response if rough else self.averaged
        table = respond(channel, dye, emission, z, r, focus)
        if self.planar(channel) or not self.lens.matched:
            table = (table + respond(channel, dye, emission, -z, r, focus)) / 2
        return psf_response.Response(z, r, table)

    def both_sides(
        self, pair: OpticsPair, dye: Fluorophore, node_z: float, reach: int, radius: float, focus: Focus
    ) -> tuple[Array, Array]:
        """Radii, and the response on node planes -reach - 2 to reach + 2; the outermost serve the grid correction."""
        channel = next(c for c in self.all_channels if c.name == pair.channel)
        z, r = np.arange(-reach - 2, reach + 3, dtype=np.float64) * node_z, _radii(radius, 1)
        return r, self.response(channel, dye, pair.emission_nm, z, r, focus)

    def _pair(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        tables: list[psf_response.Response],
        kept: float,
        depth_nm: float,
    ) -> OpticsPair:
        table = tables[0]
        received = hankel.plane_energy(table.table[:-2], table.r_nm)
        if self.keeps_light:
            everything = self.emitted(channel, dye, table.z_nm[:-2]) * self.collected(channel, dye)
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
        shape = planar.lattice(self, channel, emission, float(table.r_nm[-1])).shape if self.planar(channel) else None
        return OpticsPair(channel.name, dye.name, emission, float(received[0]), stack, 1.0 - kept, widths, deep, shape)

    def _band(
        self, channel: Channel, table: psf_response.Response, emission: float, node_nm: float
    ) -> tuple[float, float]:
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
        limits = (
            planar.band(self, channel, emission, float(table.r_nm[-1])) if self.planar(channel) else (highest, highest)
        )
        highest = min(highest, limits[1])
        k = np.linspace(0, highest, 257)
        some = table.table[:: max(1, len(table.z_nm) // 12)]
        height = np.abs(hankel.radial_spectrum(np.vstack([table.table[:2], some]), table.r_nm, k))
        rings = height * (np.abs(sinc_array(k * float(self.pixel_size_nm))) * k)
        beyond = np.cumsum(rings[:, ::-1], axis=1)[:, ::-1].max(axis=0)
        whole = float(k[np.argmax(np.append(beyond[1:], 0.0) <= _NEGLIGIBLE * rings[0].sum())])
        whole = min(whole, limits[0])
        return whole, min(highest, whole + FADING_RINGS / float(table.r_nm[-1]))

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of the response's reach, and one node for the deposit weights."""
        plan = _formation(context)
        lateral = plan.halo * self.spacing_nm[1] + plan.node_nm[1]
        axial = (plan.reach + 1) * plan.node_nm[0]
        return {"expanded": wanted.grown((axial, lateral, lateral))}

    def run(self, state: TileState) -> None:
        """Write the expected image of the tile, float32 on its device, (channel, z, y, x), photo-electrons per pixel."""
        kept = state.scratch if any(state.frame) else None
        stream = state.read(EXPANDED)
        expected = expected_image(
            self, _formation(state.context), stream, state.context.dyes, state.pixels, state.device, kept
        )
        state.write(EXPECTED, expected)


def _formation(context: RunContext) -> OpticsPlan:
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, OpticsPlan)
    return context.imaging.formation


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
