"""What the optics are resolved to before a run: channels, the dyes that they see, and the simulation grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, Spacing, Triple
from simexm.kernels.imaging import image
from simexm.names import Name
from simexm.settings import Frozen
from simexm.stages.contract import RunContext
from simexm.stages.roles import Imaging, Pair

LEFT_OUT_LIMIT = 0.05
"""Share of a thick stack's light beyond the axial range, above which there is a warning."""

BLEACHING_PHOTONS = 1e5
"""Photons after which organic dyes in water begin to bleach noticeably (Eggeling et al. 1998, Anal. Chem. 70, 2651)."""

SECONDS_PER_NODE = 6.5e-9


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

    name: Name
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
class OpticsPair(Pair):
    """One dye in one channel; `emission_nm` is the photon-weighted mean of the detected light.

    Attributes
    ----------
    emitted_in_stack
        Photons that a dye in the middle of the specimen emits, in all directions, while the whole stack is taken.
    left_out
        Share of a uniformly stained stack's light that lies beyond the axial range or, for a camera, the lateral radius.
    fwhm_nm
        Axial and lateral full width at half maximum; axial None where the range does not reach it.
    """

    emitted_in_stack: float
    left_out: float
    fwhm_nm: tuple[float | None, float]


@dataclass(frozen=True)
class OpticsPlan(Imaging):
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
    whole_per_nm, band_per_nm
        Lateral frequencies are kept up to the first, and fade out up to the second.
    pairs
        Every dye that a channel sees.
    """

    subdivision: Triple
    node_nm: Spacing
    range_nm: float
    radius_nm: float
    reach: int
    halo: int
    whole_per_nm: float
    band_per_nm: float
    pairs: tuple[OpticsPair, ...]

    def dyes(self) -> tuple[str, ...]:
        """Dyes that any channel sees."""
        return tuple(dict.fromkeys(p.dye for p in self.pairs))

    def lateral(self, tile: Triple) -> image.LateralGrid:
        """Transforms of a tile of this shape."""
        m = self.subdivision[1]
        y, x = (image.fast_pixels(n + 2 * self.halo, m) for n in tile[1:])
        node = float(self.node_nm[1])
        band_y, band_x = (min(n * m // 2, math.floor(self.band_per_nm * n * m * node)) for n in (y, x))
        if band_y == y * m // 2 and (y * m) % 2 == 0:
            band_y -= 1  # the one frequency without a partner: it would need a rule of its own and carries nothing
        return image.LateralGrid((y, x), m, (band_y, band_x))

    seconds_per_pixel = 80e-9

    def node_planes(self, tile: Box) -> tuple[int, int]:
        """First and last + 1 node plane that the planes of a tile see."""
        m = self.subdivision[0]
        return tile.start[0] * m - self.reach, (tile.stop[0] - 1) * m + self.reach + 1

    @property
    def per_cycle(self) -> float:
        """Samples of the radial transfer functions per 1 / nm: a table that ends at a radius R needs steps well below 1 / R."""
        return 16.0 * self.radius_nm

    @property
    def frequencies(self) -> int:
        """Samples of the radial transfer functions."""
        return math.ceil(self.band_per_nm * self.per_cycle) + 4

    def kept(self, frequency_per_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each lateral frequency that is kept."""
        faded = (frequency_per_nm - self.whole_per_nm) / max(self.band_per_nm - self.whole_per_nm, 1e-12)
        share: NDArray[np.float64] = np.cos(np.clip(faded, 0, 1) * (math.pi / 2)) ** 2
        share[frequency_per_nm > self.band_per_nm] = 0
        return share

    def window(self, tile: Box) -> int:
        """Node planes whose spectra are held at once."""
        low, high = self.node_planes(tile)
        return min(high - low, (image.AT_ONCE - 1) * self.subdivision[0] + 2 * self.reach + 1)

    def cost(self, axis: int, pixels: int) -> float:
        """Nodes along z, pixels along the others, halos included."""
        if axis == 0:
            return pixels * self.subdivision[0] + 2 * self.reach
        return image.fast_pixels(pixels + 2 * self.halo, self.subdivision[1])

    @property
    def seconds_per_cost(self) -> float:
        """By the nodes that all tiles transform."""
        return math.prod(self.subdivision[1:]) * len(self.dyes()) * SECONDS_PER_NODE

    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Spectra of node planes, the ring where dyes are deposited, transfer functions, and spectra of the image's planes."""
        grid = self.lateral(tile)
        fine = grid.nodes[0] * grid.nodes[1]
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        spectra = rows * columns * self.window(Box.of_shape(tile)) * 8
        # the ring; of one plane some rows and their transform along x, and all of it, cut to the band, on the way along y
        ring = ring_depth(self, chunk_nm) * fine * 8
        ring += image.ROWS * grid.nodes[1] * 8 + 2 * grid.nodes[0] * columns * 8
        transfer = len(self.pairs) * self.frequencies * (self.reach + 1) * 8 + columns * (self.reach + 1) * 4
        # what is the same in all frames is kept
        return spectra + ring + transfer + self.kept_bytes(tile, channels) * (2 if context.acquisition.axes else 1)

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Spectra of the image's planes."""
        grid = self.lateral(tile)
        return channels * tile[0] * grid.pixels[0] * (grid.pixels[1] // 2 + 1) * 8

    def device_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float, at_once: int) -> int:
        """The same of a GPU's memory, where so many image planes are made at once, but for what comes and goes in batches."""
        grid = self.lateral(tile)
        low, high = self.node_planes(Box.of_shape(tile))
        # the window of node planes, and once more while it moves up
        window = 2 * min(high - low, (at_once - 1) * self.subdivision[0] + 2 * self.reach + 1)
        rows, columns = 2 * grid.band[0] + 1, grid.band[1] + 1
        ring = ring_depth(self, chunk_nm) * math.prod((n + 2 * self.halo) * self.subdivision[1] for n in tile[1:]) * 8
        # the radial tables, and for each frequency where in them it lies and five factors
        response = len(self.pairs) * (self.frequencies * (self.reach + 1) * 8 + (grid.band[0] + 1) * columns * 7 * 8)
        coarse = tile[0] * grid.pixels[0] * (grid.pixels[1] // 2 + 1) * 8 * (2 if context.acquisition.axes else 1)
        return rows * columns * window * 8 + ring + response + channels * (coarse + math.prod(tile) * (4 + 2))

    def describe(self, tile: Triple) -> dict[str, Any]:
        """Grid, range, and every pair."""
        return {
            "simulation_grid_expanded_nm": [float(v) for v in self.node_nm],
            "nodes_per_pixel": list(self.subdivision),
            "axial_range_um": self.range_nm / 1000,
            "lateral_radius_um": self.radius_nm / 1000,
            "halo_pixels": [math.ceil(self.reach / self.subdivision[0]), self.halo, self.halo],
            "transform": list(self.lateral(tile).nodes),
            "pairs": [
                {
                    "channel": p.channel,
                    "dye": p.dye,
                    "emission_nm": round(p.emission_nm, 3),
                    "electrons_per_dye_in_focus": p.in_focus,
                    "photons_per_dye_in_stack": p.emitted_in_stack,
                    "left_out_share": p.left_out,
                    "fwhm_axial_nm": p.fwhm_nm[0],
                    "fwhm_lateral_nm": p.fwhm_nm[1],
                }
                for p in self.pairs
            ],
        }

    def rows(self) -> list[tuple[str, str]]:
        """Grid, range, and every pair."""
        halo = (math.ceil(self.reach / self.subdivision[0]), self.halo, self.halo)
        rows = [
            ("simulation grid", f"{_times(self.node_nm)} nm expanded, {_times(self.subdivision)} nodes a pixel"),
            ("PSF", f"+-{self.range_nm / 1000:.3g} um along z, halo {_times(halo)} pixels"),
        ]
        for p in self.pairs:
            axial, lateral = p.fwhm_nm
            rows.append(
                (
                    f"{p.dye} in {p.channel}",
                    (
                        f"{p.in_focus:.3g} electrons a dye in focus, FWHM {f'{axial:.0f}' if axial else '-'} x {lateral:.0f} nm "
                        f"expanded, {p.left_out:.1%} of a thick stack's light left out; emits {p.emitted_in_stack:.3g} photons "
                        "over the stack"
                    ),
                )
            )
        return rows

    def remarks(self) -> list[str]:
        """Of bleaching."""
        return [
            f"{p.dye} would emit {p.emitted_in_stack:.2g} photons in {p.channel}: most dyes bleach after "
            f"{BLEACHING_PHOTONS:.0e} to 1e6, and bleaching is not simulated; lower the light or take fewer planes"
            for p in self.pairs
            if p.emitted_in_stack > BLEACHING_PHOTONS
        ]

    def warnings(self) -> list[str]:
        """Of light that the axial range leaves out."""
        return [
            f"axial_range_um {self.range_nm / 1000:.3g} leaves out {p.left_out:.0%} of the light of a uniformly "
            f"stained stack ({p.dye} in {p.channel}): haze will be too weak; give a larger axial_range_um"
            for p in self.pairs
            if p.left_out > LEFT_OUT_LIMIT
        ]

    def provenance(self) -> dict[str, Any]:
        """The share of each PSF's energy that is within the axial range."""
        return {"psf_energy_share": [{"channel": p.channel, "dye": p.dye, "share": 1 - p.left_out} for p in self.pairs]}


def ring_depth(plan: OpticsPlan, reach_nm: float) -> int:
    """Node planes that emitters can touch between two floors."""
    return math.ceil(reach_nm / float(plan.node_nm[0])) + 3


def _times(values: Iterable[Fraction | int]) -> str:
    return " x ".join(f"{float(v):.6g}" for v in values)
