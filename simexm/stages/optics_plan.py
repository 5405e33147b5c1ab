"""What the optics are resolved to before a run: channels, the dyes that they see, and the simulation grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from simexm.grid import Box, Spacing, Triple
from simexm.kernels import imaging
from simexm.stages.base import Frozen
from simexm.stages.labelling import NAME


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
        Share of a uniformly stained stack's light that lies beyond the axial range or, for a camera, the lateral radius.
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


def ring_depth(plan: OpticsPlan, reach_nm: float) -> int:
    """Node planes that emitters can touch between two floors."""
    return math.ceil(reach_nm / float(plan.node_nm[0])) + 3
