"""Base of the microscopes: pixel grid, channels, and the resolution and range of the simulation grid."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Spacing, Triple, exact, exact3
from simexm.geometry.transform import Transform
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction import tables as psf_tables
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.emission import photophysics
from simexm.kernels.imaging import gridding
from simexm.kernels.imaging.gridding import NODES
from simexm.kernels.imaging.image import fast_pixels
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EXPANDED, EXPECTED, Quantity, RunContext, TileState
from simexm.stages.microscope.light import check_light
from simexm.stages.microscope.optics_cost import OpticsCost
from simexm.stages.microscope.optics_description import OpticsDescription
from simexm.stages.microscope.optics_image import expected_image
from simexm.stages.microscope.optics_plan import LEFT_OUT_LIMIT, Array, Channel, OpticsPair, OpticsPlan
from simexm.stages.roles import ImagingPlan, Microscope

RADIAL_STEP_NM = 10.0
LATERAL_SHARE = 0.9952
"""Share of a camera plane's light within the lateral radius, in focus and at the end of the axial range."""
FURTHEST_NM = 5_000
"""Largest default axial range of a camera, whose response does not fall off along z."""
_BLUR = 8e-4
"""Error that places between nodes along one axis cause in a dye's image, root mean square, as a share of the image's."""
_BLUR_Z = 4e-4
"""Error that places between node planes cause at most, as a share of the maximum of a dye's image."""
_NEGLIGIBLE = 4e-5
"""Contribution of the discarded high frequencies to the brightest pixel of a dye's image, as if that were round."""
_FADING_RINGS = 4.0
"""Periods within the lateral radius over which the highest frequencies fade out, to suppress ringing beyond it."""


class Optics(Microscope):
    """A microscope with a pixel grid.

    Attributes
    ----------
    numerical_aperture, refractive_index
        Aperture of the objective, and index of the expanded gel (close to water's 1.333).
    pixel_size_nm, plane_spacing_nm
        Pixel pitch at the specimen (camera pixel over magnification, or scan step) and step of the stage, nm of
        expanded tissue.
    axial_range_um
        Distance above and below a plane from which light is simulated, um of expanded tissue. By default the range that
        holds 95 % of a uniformly stained stack's light, but at most 5 um for widefield and light sheet.
    objective_transmission, detector_efficiency
        Transmission of the objective and its optics, and quantum efficiency of the detector.
    """

    numerical_aperture: float = Field(gt=0, le=2)
    refractive_index: float = Field(default=1.333, ge=1, le=2)
    pixel_size_nm: float = Field(ge=1, le=1e5)
    plane_spacing_nm: float = Field(ge=1, le=1e5)
    axial_range_um: float | None = Field(default=None, gt=0, le=500)
    objective_transmission: float = Field(default=0.8, gt=0, le=1)
    detector_efficiency: float = Field(default=0.7, gt=0, le=1)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    tail: ClassVar[psf_response.Tail] = "inverse_square"

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        if self.numerical_aperture >= self.refractive_index:
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below refractive_index {self.refractive_index:g}: "
                "no light leaves the gel at such an angle; lower the aperture, or correct the index"
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

    def excites(self, channel: Channel, dye: Fluorophore) -> bool:
        """Whether the channel's laser excites the dye at all."""
        return dye.excitation_at(channel.laser_wavelength_nm) > 0

    @abstractmethod
    def response(self, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array) -> Array:
        """Photo-electrons per dye and nm^2 of pixel at distances z and radii r from the focus, (nz, nr)."""

    @abstractmethod
    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: Array) -> Array:
        """Photons that one dye emits in all directions while a plane at distance z is imaged, (nz,)."""

    def check(self, dyes: Mapping[str, Fluorophore], factor: float) -> None:
        """See `check_light`."""
        check_light(self, dyes, factor)

    @property
    def spacing_nm(self) -> Spacing:
        """Plane spacing and pixel pitch z, y, x, nm, exact."""
        return exact3((self.plane_spacing_nm, self.pixel_size_nm, self.pixel_size_nm))

    def cross_section_m2(self, channel: Channel, dye: Fluorophore) -> float:
        """One-photon absorption cross section of the dye at the channel's laser line."""
        peak = photophysics.cross_section_m2(dye.extinction_per_M_per_cm)
        return peak * dye.excitation_at(channel.laser_wavelength_nm)

    def collected(self, channel: Channel, dye: Fluorophore) -> float:
        """Photo-electrons per emitted photon, without a pinhole."""
        return (
            photophysics.collection_share(self.numerical_aperture, self.refractive_index)
            * self.objective_transmission
            * dye.emission_share(*channel.band_nm)
            * self.detector_efficiency
        )

    def seen(self, dyes: Mapping[str, Fluorophore]) -> list[tuple[Channel, Fluorophore, float]]:
        """(channel, dye, mean emission wavelength) of every dye that a channel excites and passes."""
        return [
            (channel, dye, dye.mean_emission_nm(*channel.band_nm))
            for channel in self.all_channels
            for dye in dyes.values()
            if self.excites(channel, dye) and dye.emission_share(*channel.band_nm) > 0
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
        m_z = self._subdivision_z(seen)
        node_z = exact(self.plane_spacing_nm) / m_z
        kept = [self._kept(c, d, e, float(node_z), depth_nm) for c, d, e in seen]
        reach = self._reach(kept, float(node_z), depth_nm)
        range_nm = reach * float(node_z)
        radius = max(self._radius_nm(c, e, range_nm) for c, _, e in seen)
        tables = {(c.name, d.name): self.tabulate(c, d, e, float(node_z), reach, radius) for c, d, e in seen}
        pairs = tuple(
            self._pair(c, d, e, tables[c.name, d.name], float(k[min(reach, k.size - 1)]), depth_nm)
            for (c, d, e), k in zip(seen, kept, strict=True)
        )
        m = self._subdivision(list(tables.values()))
        node = exact(self.pixel_size_nm) / m
        bands = [self._band(tables[c.name, d.name], e, float(node)) for c, d, e in seen]
        whole, band = (max(ends) for ends in zip(*bands, strict=True))
        halo = math.ceil((radius + 2 * float(node)) / self.pixel_size_nm + 0.5)
        plan = OpticsPlan((m_z, m, m), (node_z, node, node), range_nm, radius, reach, halo, whole, band, pairs)
        return ImagingPlan(plan, OpticsCost(plan), OpticsDescription(plan))

    def _radius_nm(self, channel: Channel, emission: float, range_nm: float) -> float:
        """Lateral radius of the response: the light cone and, for a camera, its diffraction rings.

        A scanner's response is a product of two such patterns, whose rings fall off fast enough to be neglected.
        """
        na, n = self.numerical_aperture, self.refractive_index
        if self.tail == "constant":
            return psf_tables.holding_radius_nm(range_nm, emission, na, n, LATERAL_SHARE)
        return psf_tables.lateral_radius_nm(range_nm, max(channel.laser_wavelength_nm, emission), na, n)

    def _kept(self, channel: Channel, dye: Fluorophore, emission: float, node_z: float, depth_nm: float) -> Array:
        """Share of a uniformly stained stack's light within axial ranges of 0, 1, 2, ... node planes.

        Computed for the first plane of the stack, for which it is lowest: all dyes lie on one side.
        """
        most = max(1, math.ceil(depth_nm / node_z))
        if self.tail == "constant":
            z = np.arange(most + 1, dtype=np.float64) * node_z
            energy = self.emitted(channel, dye, z)  # up to a factor: an infinite plane receives all collected light
        else:
            furthest = min(most, max(8, math.ceil(max(20.0, self.axial_range_um or 0.0) * 1000 / node_z)))
            radius = self._radius_nm(channel, emission, furthest * node_z)
            table = self.tabulate(channel, dye, emission, node_z, furthest, radius, coarse=4)
            z = table.z_nm[: furthest + 1]
            energy = hankel.plane_energy(table.table, table.r_nm)[: furthest + 1]
        beyond = psf_response.left_out_share(energy, z, depth_nm, self.tail)
        inside = _integrals(energy)
        return np.asarray(inside * ((1.0 - beyond) / inside[-1]))

    def _reach(self, kept: list[Array], node_z: float, depth_nm: float) -> int:
        """Node planes of the axial range: the user's or the default, at most the specimen's thickness.

        Two nodes are added to the thickness, over which a dye is shared out.
        """
        thickness = max(1, math.ceil(depth_nm / node_z))
        most = thickness + NODES // 2
        if self.axial_range_um is not None:
            return min(most, max(1, math.ceil(self.axial_range_um * 1000 / node_z - 1e-9)))
        wanted = (1.0 - LEFT_OUT_LIMIT) / (LATERAL_SHARE if self.tail == "constant" else 1.0)
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
        coarse: int = 1,
    ) -> psf_response.Response:
        """Tabulate the response on the node planes of the range and a margin, which serves the grid correction."""
        z = np.arange(reach + 1 + gridding.MARGIN, dtype=np.float64) * node_z
        step = RADIAL_STEP_NM * coarse
        r = np.arange(max(17, math.ceil(radius / step) + 1), dtype=np.float64) * step
        return psf_response.Response(z, r, self.response(channel, dye, emission, z, r))

    def _pair(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        table: psf_response.Response,
        kept: float,
        depth_nm: float,
    ) -> OpticsPair:
        received = hankel.plane_energy(table.table[: -gridding.MARGIN], table.r_nm)
        if self.tail == "constant":
            everything = self.emitted(channel, dye, table.z_nm[: -gridding.MARGIN]) * self.collected(channel, dye)
            kept *= float(_integrals(received)[-1] / _integrals(everything)[-1])
        try:
            axial: float | None = psf_response.fwhm_axial_nm(table)
        except ValueError:
            axial = None
        widths = (axial, psf_response.fwhm_lateral_nm(table))
        planes = max(1, math.floor(depth_nm / self.plane_spacing_nm))
        distances = np.abs(np.arange(planes) - (planes - 1) // 2) * self.plane_spacing_nm
        stack = float(self.emitted(channel, dye, distances).sum())
        return OpticsPair(channel.name, dye.name, emission, float(received[0]), stack, 1.0 - kept, widths)

    def _subdivision_z(self, seen: list[tuple[Channel, Fluorophore, float]]) -> int:
        """Fewest node planes a plane spacing that image a dye well, wherever it lies between them."""
        sine = self.numerical_aperture / self.refractive_index
        period = min(e for _, _, e in seen) / (self.refractive_index * (1 - math.sqrt(1 - sine * sine)))
        m = max(1, math.floor(self.plane_spacing_nm / period))
        while any(self._blur_z(c, d, e, self.plane_spacing_nm / m, period) > _BLUR_Z for c, d, e in seen):
            m = max(m + 1, m * 11 // 10)
        return m

    def _blur_z(self, channel: Channel, dye: Fluorophore, emission: float, node_z: float, period: float) -> float:
        """Largest error of the pixel above a dye halfway between two node planes, as a share of the pixel's maximum."""
        planes = min(32, math.ceil(4 * period / node_z)) + gridding.MARGIN
        radius = min(self.pixel_size_nm / math.sqrt(math.pi), emission / self.numerical_aperture)  # a pixel's area
        table = self.tabulate(channel, dye, emission, node_z / 2, 2 * planes, 2 * radius)
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
        if self.tail == "constant":
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


def _integrals(energy: Array) -> Array:
    """Integrals of an even function from 0 to each sample, in units of the spacing, by cubics through four samples."""
    line = np.concatenate([energy[1:2], energy, energy[-1:]])
    steps = (13 * (line[1:-2] + line[2:-1]) - line[:-3] - line[3:]) / 24
    if len(steps):
        steps[-1] = (energy[-2] + energy[-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])
