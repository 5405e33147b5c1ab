"""What the microscopes have in common: a pixel grid, channels, and the way from dyes to the expected image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.grid import Box, NmBox, Spacing, Triple, exact, exact3
from simexm.kernels import hankel, imaging, photophysics, psf_response, psf_tables
from simexm.kernels.deposit import Ring
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.base import EXPANDED, EXPECTED, EmitterStream, Frozen, Quantity, Stage, Work, World
from simexm.stages.labelling import NAME

RADIAL_STEP_NM = 10.0
LEFT_OUT_LIMIT = 0.05
FURTHEST_NM = 10_000
"""Default axial range at most, where light does not fall off."""
NODES_PER_FWHM = 4.0
_NEGLIGIBLE = 1e-8
"""A lateral frequency at which every response is below this share of its integral carries nothing that a float32 would show."""


class Channel(Frozen):
    """One laser and one detected band.

    Attributes
    ----------
    name
        Names the channel and its random streams.
    laser_wavelength_nm
        Excitation line.
    band_nm
        Lowest and highest wavelength that the filters pass.
    color
        RRGGBB for viewers; left out, the colour of the light that it detects.
    """

    name: str = Field(pattern=NAME, max_length=64)
    laser_wavelength_nm: float = Field(ge=200, le=2000)
    band_nm: tuple[float, float]
    color: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{6}$")

    @model_validator(mode="after")
    def _band(self) -> Self:
        low, high = self.band_nm
        if not 200 <= low < high <= 2000:
            raise ValueError(
                f"band_nm of channel {self.name!r} must be two wavelengths in ascending order, got {low:g}, {high:g}"
            )
        return self


@dataclass(frozen=True)
class Pair:
    """One dye in one channel, with its response on the axial offsets of the simulation grid.

    Attributes
    ----------
    channel, dye
        Names.
    emission_nm
        Photon-weighted mean of the detected light.
    in_focus
        Photo-electrons that one dye gives to the plane it lies in.
    emitted_in_stack
        Photons that a dye in the middle of the specimen emits, in all directions, while the whole stack is taken.
    left_out
        Share of a uniformly stained stack's light that lies beyond the axial range.
    fwhm_nm
        Axial and lateral full width at half maximum; axial None where the range does not reach it.
    """

    channel: str
    dye: str
    emission_nm: float
    in_focus: float
    emitted_in_stack: float
    left_out: float
    fwhm_nm: tuple[float | None, float]


@dataclass(frozen=True)
class OpticsPlan:
    """How the optics are computed; a function of the spec alone, the same for every tile.

    Attributes
    ----------
    subdivision
        Nodes of the simulation grid per plane spacing and per pixel, (m_z, m, m).
    node_nm
        Pitch of the simulation grid, nm of expanded tissue.
    range_nm, radius_nm
        How far the response reaches along and across the axis, nm of expanded tissue.
    reach
        Node planes within the range.
    halo
        Pixels within the radius.
    band_per_nm
        Highest lateral frequency kept.
    pairs
        Every dye that a channel sees.
    """

    subdivision: Triple
    node_nm: Spacing
    range_nm: float
    radius_nm: float
    reach: int
    halo: int
    band_per_nm: float
    pairs: tuple[Pair, ...]

    def dyes(self) -> tuple[str, ...]:
        """Dyes that any channel sees."""
        return tuple(dict.fromkeys(p.dye for p in self.pairs))

    def lateral(self, tile: Triple) -> imaging.LateralGrid:
        """Transforms of a tile of this shape."""
        m = self.subdivision[1]
        y, x = (imaging.fast_pixels(n + 2 * self.halo, m) for n in tile[1:])
        node = float(self.node_nm[1])
        band_y, band_x = (min(n * m // 2, math.floor(self.band_per_nm * n * m * node)) for n in (y, x))
        if band_y == y * m // 2 and (y * m) % 2 == 0:
            band_y -= 1  # the one frequency without a partner: it would need a rule of its own and carries nothing
        return imaging.LateralGrid((y, x), m, (band_y, band_x))

    def node_planes(self, tile: Box) -> tuple[int, int]:
        """First and last + 1 node plane that the planes of a tile see."""
        m = self.subdivision[0]
        return tile.start[0] * m - self.reach, (tile.stop[0] - 1) * m + self.reach + 1


class Optics(Stage):
    """A microscope over a pixel grid.

    Attributes
    ----------
    numerical_aperture, refractive_index
        Of the objective, and of the expanded gel (close to water's 1.333).
    pixel_size_nm, plane_spacing_nm
        Pixel pitch at the specimen (camera pixel over magnification, or scan step) and step of the stage, nm of expanded
        tissue.
    axial_range_um
        How far above and below a plane light is followed, um of expanded tissue. Left out: as far as keeps all but 5 %
        of a uniformly stained stack's light, but for widefield and light sheet at most 10 um.
    objective_transmission, detector_efficiency
        Shares of the light that the objective and its optics transmit, and that the detector turns into electrons.
    """

    numerical_aperture: float = Field(gt=0, le=2)
    refractive_index: float = Field(default=1.333, ge=1, le=2)
    pixel_size_nm: float = Field(gt=0, le=1e5)
    plane_spacing_nm: float = Field(gt=0, le=1e5)
    axial_range_um: float | None = Field(default=None, gt=0, le=500)
    objective_transmission: float = Field(default=0.8, gt=0, le=1)
    detector_efficiency: float = Field(default=0.7, gt=0, le=1)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    tail: ClassVar[psf_response.Tail] = "inverse_square"
    multiphoton: ClassVar[bool] = False

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        if self.numerical_aperture >= self.refractive_index:
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below refractive_index {self.refractive_index:g}: "
                "no light can leave the gel at such an angle; lower the aperture, or correct the index"
            )
        names = [c.name.lower() for c in self.all_channels]
        double = sorted({n for n in names if names.count(n) > 1})
        if double:
            raise ValueError(f"two channels are named {', '.join(double)}; give each its own name")
        return self

    @property
    @abstractmethod
    def all_channels(self) -> tuple[Channel, ...]:
        """The channels, whatever their kind."""

    @abstractmethod
    def excites(self, channel: Channel, dye: Fluorophore) -> bool:
        """Whether the channel's laser excites the dye at all."""

    @abstractmethod
    def response(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission_nm: float,
        z_nm: NDArray[np.float64],
        r_nm: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Photo-electrons per dye and nm^2 of pixel at depths and radii, (nz, nr)."""

    @abstractmethod
    def emitted(self, channel: Channel, dye: Fluorophore, z_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Photons that one dye emits, in all directions, while a plane at the distance z is taken, (nz,)."""

    @property
    def spacing_nm(self) -> Spacing:
        """Plane spacing and pixel pitch, exact."""
        return exact3((self.plane_spacing_nm, self.pixel_size_nm, self.pixel_size_nm))

    def collected(self, channel: Channel, dye: Fluorophore) -> float:
        """Photo-electrons per photon emitted, pinhole aside."""
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

    def resolve(self, dyes: Mapping[str, Fluorophore], depth_nm: float) -> OpticsPlan:
        """Choose grid and range.

        Parameters
        ----------
        dyes
            The dyes in use.
        depth_nm
            Thickness of the expanded specimen: light cannot come from further away.
        """
        seen = self.seen(dyes)
        if not seen:
            raise SpecError(
                "no channel detects any of the dyes in use, so the image would be noise alone; match the lasers and "
                f"bands of {', '.join(c.name for c in self.all_channels)} to {', '.join(dyes) or 'a dye'}"
            )
        sine = self.numerical_aperture / self.refractive_index
        shortest = min(min(c.laser_wavelength_nm / (2 if self.multiphoton else 1), e) for c, _, e in seen)
        axial = shortest / (4 * self.refractive_index * (1 - math.sqrt(1 - sine * sine)))
        m_z = max(1, math.ceil(self.plane_spacing_nm / axial))
        node_z = exact(self.plane_spacing_nm) / m_z
        kept = [self._kept(c, d, e, float(node_z), depth_nm) for c, d, e in seen]
        reach = self._reach(kept, float(node_z), depth_nm)
        range_nm = reach * float(node_z)
        longest = max(max(c.laser_wavelength_nm, e) for c, _, e in seen)
        radius = psf_tables.lateral_radius_nm(range_nm, longest, self.numerical_aperture, self.refractive_index)
        tables = {(c.name, d.name): self.tabulate(c, d, e, float(node_z), reach, radius) for c, d, e in seen}
        pairs = tuple(
            self._pair(c, d, e, tables[c.name, d.name], 1.0 - float(k[min(reach, k.size - 1)]), depth_nm)
            for (c, d, e), k in zip(seen, kept, strict=True)
        )
        fwhm = min(p.fwhm_nm[1] for p in pairs)
        m = max(1, math.ceil(self.pixel_size_nm * NODES_PER_FWHM / fwhm - 1e-9))
        node = exact(self.pixel_size_nm) / m
        band = max(self._band(t, float(node)) for t in tables.values())
        halo = math.ceil((radius + float(node)) / self.pixel_size_nm + 0.5)
        return OpticsPlan((m_z, m, m), (node_z, node, node), range_nm, radius, reach, halo, band, pairs)

    def _kept(
        self, channel: Channel, dye: Fluorophore, emission: float, node_z: float, depth_nm: float
    ) -> NDArray[np.float64]:
        """Share of a uniformly stained stack's light that axial ranges of 0, 1, 2, ... node planes keep.

        For the first plane of the stack, which sees dyes from 0 to the stack's depth on one side, where the share is lowest.
        """
        most = max(1, math.ceil(depth_nm / node_z))
        if self.tail == "constant":
            z = np.arange(most + 1, dtype=np.float64) * node_z
            energy = self.emitted(channel, dye, z)  # in proportion, since every plane receives all that is collected
        else:
            furthest = min(most, max(8, math.ceil(max(20.0, self.axial_range_um or 0.0) * 1000 / node_z)))
            radius = psf_tables.lateral_radius_nm(
                furthest * node_z,
                max(channel.laser_wavelength_nm, emission),
                self.numerical_aperture,
                self.refractive_index,
            )
            table = self.tabulate(channel, dye, emission, node_z, furthest, radius, coarse=4)
            z = table.z_nm[: furthest + 1]
            energy = hankel.plane_energy(table.table, table.r_nm)[: furthest + 1]
        beyond = psf_response.left_out_share(energy, z, depth_nm, self.tail)
        inside = _integrals(energy)
        return inside * ((1.0 - beyond) / inside[-1])

    def _reach(self, kept: list[NDArray[np.float64]], node_z: float, depth_nm: float) -> int:
        """Node planes of the axial range: the user's, or as far as matters, never beyond the specimen's thickness.

        That is two nodes more than the thickness, over which the weights of a dye may spread.
        """
        most = max(1, math.ceil(depth_nm / node_z)) + 2
        if self.axial_range_um is not None:
            return min(most, max(1, math.ceil(self.axial_range_um * 1000 / node_z - 1e-9)))
        enough = max(int(np.argmax(k >= min(1.0 - LEFT_OUT_LIMIT, k[-1]))) for k in kept)
        furthest = math.ceil(FURTHEST_NM / node_z) if self.tail == "constant" else most
        return min(most, furthest, max(1, enough))

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
        """Response on the node planes 0 to reach + 2 (two more than used, for the grid correction)."""
        z = np.arange(reach + 3, dtype=np.float64) * node_z
        step = RADIAL_STEP_NM * coarse
        r = np.arange(max(17, math.ceil(radius / step) + 1), dtype=np.float64) * step
        return psf_response.Response(z, r, self.response(channel, dye, emission, z, r))

    def _pair(
        self,
        channel: Channel,
        dye: Fluorophore,
        emission: float,
        table: psf_response.Response,
        left_out: float,
        depth_nm: float,
    ) -> Pair:
        in_focus = float(hankel.plane_energy(table.table[:1], table.r_nm)[0])
        try:
            axial: float | None = psf_response.fwhm_axial_nm(table)
        except ValueError:
            axial = None
        widths = (axial, psf_response.fwhm_lateral_nm(table))
        planes = max(1, math.floor(depth_nm / self.plane_spacing_nm))
        distances = np.abs(np.arange(planes) - (planes - 1) // 2) * self.plane_spacing_nm
        stack = float(self.emitted(channel, dye, distances).sum())
        return Pair(channel.name, dye.name, emission, in_focus, stack, left_out, widths)

    def _band(self, table: psf_response.Response, node_nm: float) -> float:
        """Highest frequency (per nm, at most the grid's) where any plane's response is more than negligible."""
        k = np.linspace(0, 0.5 / node_nm, 257)
        some = table.table[:: max(1, len(table.z_nm) // 12)]
        height = np.abs(hankel.radial_spectrum(np.vstack([table.table[:2], some]), table.r_nm, k))
        aperture = np.abs(np.sinc(k * float(self.pixel_size_nm)))
        above = (height / height[:, :1].max() * aperture).max(axis=0) > _NEGLIGIBLE
        return float(k[min(256, np.flatnonzero(above)[-1] + 1)])

    def transfer(
        self, plan: OpticsPlan, pair: Pair, dye: Fluorophore, grid: imaging.LateralGrid
    ) -> NDArray[np.float32]:
        """Transfer function of one pair on a tile's frequencies, float32, (band_y + 1, reach + 1, band_x + 1).

        In photo-electrons per pixel for a dye: response, pixel aperture and grid correction together.
        """
        m = grid.subdivision
        spectrum, per_cycle = _radial(self, plan, pair, dye)
        node = float(plan.node_nm[1])
        cycles = [np.arange(q + 1) / n for q, n in zip(grid.band, grid.nodes, strict=True)]
        factors = [m * np.sinc(c * m) * imaging.sharpened(c) for c in cycles]
        out = np.empty((grid.band[0] + 1, plan.reach + 1, grid.band[1] + 1), np.float32)
        imaging.spread_radial(spectrum, per_cycle, cycles[0] / node, cycles[1] / node, factors[0], factors[1], out)
        return out

    def needs(self, wanted: NmBox, world: World) -> dict[str, NmBox]:
        """The response's reach more on each side, and one node for the weights."""
        assert world.optics is not None
        plan = world.optics
        lateral = plan.halo * self.spacing_nm[1] + plan.node_nm[1]
        axial = (plan.reach + 1) * plan.node_nm[0]
        return {"expanded": wanted.grown((axial, lateral, lateral))}

    def run(self, work: Work) -> None:
        """Write the expected image of the tile, float32, (channel, z, y, x), photo-electrons per pixel."""
        plan = work.world.optics
        assert plan is not None
        stream: EmitterStream = work.values["expanded"]
        dyes: Mapping[str, Fluorophore] = work.values["dyes"]
        tile = work.pixels
        grid = plan.lateral(tile.shape)
        names = [c.name for c in self.all_channels]
        spectra = np.zeros((len(names), tile.shape[0], grid.pixels[0], grid.pixels[1] // 2 + 1), np.complex64)
        m = plan.subdivision[0]
        for dye in dict.fromkeys(stream.dyes.values()):
            planes, used, first = _node_spectra(stream, dye, plan, tile, grid)
            for pair in plan.pairs:
                if pair.dye == dye and used.any():
                    imaging.project(
                        planes, first, used, _transfer(self, plan, pair, dyes[dye], grid), m, tile.start[0],
                        grid.pixels[0], grid.pixels[1], grid.nodes[1], spectra[names.index(pair.channel)],
                    )  # fmt: skip
            del planes
        expected = np.empty((len(names), *tile.shape), np.float32)
        inner = slice(plan.halo, plan.halo + tile.shape[1]), slice(plan.halo, plan.halo + tile.shape[2])
        for c in range(len(names)):
            for k in range(tile.shape[0]):
                expected[c, k] = imaging.inverse_plane(spectra[c, k], grid)[inner]
        work.values["expected"] = expected


_TRANSFERS: dict[tuple[object, ...], NDArray[np.float32]] = {}
"""Transfer functions of the tile shape at hand: neighbouring tiles share them, and one shape's are what memory is planned for."""


def _transfer(
    optics: Optics, plan: OpticsPlan, pair: Pair, dye: Fluorophore, grid: imaging.LateralGrid
) -> NDArray[np.float32]:
    key = (optics, plan, grid)
    if any(k[:3] != key for k in _TRANSFERS):
        _TRANSFERS.clear()
    found = _TRANSFERS.get((*key, pair))
    if found is None:
        found = _TRANSFERS[(*key, pair)] = optics.transfer(plan, pair, dye, grid)
    return found


@lru_cache(maxsize=32)
def _radial(optics: Optics, plan: OpticsPlan, pair: Pair, dye: Fluorophore) -> tuple[NDArray[np.float64], float]:
    """Radial transfer on the axial offsets, (reach + 1, n), corrected for the weights along z; and samples per 1 / nm."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    table = optics.tabulate(channel, dye, pair.emission_nm, float(plan.node_nm[0]), plan.reach, plan.radius_nm)
    # the spectrum of a table that ends at the radius R needs steps well below 1 / R to be interpolated
    per_cycle = 16.0 * plan.radius_nm
    k = np.arange(math.ceil(plan.band_per_nm * per_cycle) + 4) / per_cycle
    spectrum = hankel.radial_spectrum(table.table, table.r_nm, k)
    spectrum[:, k > plan.band_per_nm] = 0
    response = imaging.sharpened_along_z(spectrum)
    # the outermost planes stand for half a node each, so that the range ends at them whatever the pitch
    response[-1] /= 2
    return response, per_cycle


def _integrals(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integrals of an even function from 0 to each of its samples, in units of their spacing, by cubics through four of them."""
    line = np.concatenate([energy[1:2], energy, energy[-1:]])
    steps = (13 * (line[1:-2] + line[2:-1]) - line[:-3] - line[3:]) / 24
    if len(steps):
        steps[-1] = (energy[-2] + energy[-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def ring_depth(plan: OpticsPlan, reach_nm: float) -> int:
    """Node planes that emitters can touch between two floors; before the first floor there is half a reach more."""
    return math.ceil(1.5 * reach_nm / float(plan.node_nm[0])) + 3


def _node_spectra(
    stream: EmitterStream, dye: str, plan: OpticsPlan, tile: Box, grid: imaging.LateralGrid
) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """Deposit one dye and transform its node planes: (spectra as `imaging.project` takes them, which hold dyes, first plane)."""
    m = plan.subdivision
    low, high = plan.node_planes(tile)
    corner = (low, (tile.start[1] - plan.halo) * m[1], (tile.start[2] - plan.halo) * m[2])
    ny, nx = ((n + 2 * plan.halo) * m[1] for n in tile.shape[1:])
    ring = Ring(corner, (high - low, ny, nx), ring_depth(plan, stream.reach_nm))
    planes = np.zeros((2 * grid.band[0] + 1, high - low, 2, grid.band[1] + 1), np.float32)
    used = np.zeros(high - low, np.bool_)
    per_nm = tuple(1.0 / float(c) for c in plan.node_nm)
    # pixel p (centre (p + 1/2) * pitch) is node m * p
    shift = tuple(0.5 * n for n in m)

    def hand_over(up_to: int) -> None:
        for plane, held in ring.advance(up_to):
            spectrum = imaging.plane_spectrum(held, grid)
            imaging.store_plane(spectrum, planes, plane - low)
            used[plane - low] = True

    # before the first floor is announced: no dye lies further outside the specimen than its linker, below half a reach
    hand_over(math.floor(-0.5 * stream.reach_nm * per_nm[0] - shift[0] - 0.5))
    for chunk in stream.chunks(dye):
        if chunk.layer is not None:
            e = chunk.emitters
            ring.add(e.z, e.y, e.x, e.weight, per_nm, shift)  # type: ignore[arg-type]
        else:
            hand_over(math.floor(chunk.floor_nm * per_nm[0] - shift[0] - 0.5))
    hand_over(high)
    return planes, used, low
