"""The optics resolved for a run: channels, the dyes that they see, and the simulation grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, Spacing, Triple
from simexm.kernels.imaging import image
from simexm.kernels.imaging.gridding import NODES
from simexm.names import Name
from simexm.settings import Frozen
from simexm.stages.roles import ImageFormation, Pair

Array = NDArray[np.float64]
LEFT_OUT_LIMIT = 0.05
"""Share of a thick stack's light beyond the axial range above which a run warns."""


class Channel(Frozen):
    """One laser and one detected band.

    Attributes
    ----------
    name
        Name of the channel and its random streams.
    laser_wavelength_nm
        Wavelength of the laser.
    band_nm
        Lowest and highest wavelength that the filters pass.
    color
        RRGGBB for viewers; by default the colour of the detected light.
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
        Photons that a dye in the middle of the specimen emits in all directions while the stack is imaged.
    left_out
        Share of a uniformly stained stack's light beyond the axial range or, for a camera, beyond the lateral radius.
    fwhm_nm
        Axial and lateral full width at half maximum; axial None where the range does not reach it.
    """

    emitted_in_stack: float
    left_out: float
    fwhm_nm: tuple[float | None, float]


@dataclass(frozen=True)
class OpticsPlan(ImageFormation):
    """How the optics are computed; depends on the spec alone.

    Attributes
    ----------
    subdivision
        Nodes of the simulation grid per plane spacing and per pixel, (m_z, m, m).
    node_nm
        Pitch of the simulation grid, nm of expanded tissue.
    range_nm, radius_nm
        Axial range and lateral radius of the response, nm of expanded tissue.
    reach
        Node planes within the range.
    halo
        Pixels within the radius.
    whole_per_nm, band_per_nm
        Pass band and stop band of lateral frequencies; those between fade out.
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

    @property
    def cell_nm(self) -> Spacing:
        """Cell of the simulation grid."""
        return self.node_nm

    def dyes(self) -> tuple[str, ...]:
        """Dyes that a channel sees."""
        return tuple(dict.fromkeys(p.dye for p in self.pairs))

    def lateral(self, tile: Triple) -> image.LateralGrid:
        """Lateral transforms of a tile of this shape."""
        m = self.subdivision[1]
        y, x = (image.fast_pixels(n + 2 * self.halo, m) for n in tile[1:])
        node = float(self.node_nm[1])
        band_y, band_x = (min(n * m // 2, math.floor(self.band_per_nm * n * m * node)) for n in (y, x))
        if band_y == y * m // 2 and (y * m) % 2 == 0:
            band_y -= 1  # the Nyquist frequency carries nothing and has no conjugate, so it would need a special case
        return image.LateralGrid((y, x), m, (band_y, band_x))

    def node_planes(self, tile: Box) -> tuple[int, int]:
        """First node plane that the planes of a tile see, and the end (exclusive)."""
        m = self.subdivision[0]
        return tile.start[0] * m - self.reach, (tile.stop[0] - 1) * m + self.reach + 1

    @property
    def per_cycle(self) -> float:
        """Samples of the radial transfer functions per 1 / nm; a table of radius R needs steps well below 1 / R."""
        return 16.0 * self.radius_nm

    @property
    def frequencies(self) -> int:
        """Samples of the radial transfer functions."""
        return math.ceil(self.band_per_nm * self.per_cycle) + 4

    def kept(self, frequency_per_nm: Array) -> Array:
        """Factor by which each lateral frequency is kept, 0 to 1."""
        faded = (frequency_per_nm - self.whole_per_nm) / max(self.band_per_nm - self.whole_per_nm, 1e-12)
        share: Array = np.cos(np.clip(faded, 0, 1) * (math.pi / 2)) ** 2
        share[frequency_per_nm > self.band_per_nm] = 0
        return share

    def window(self, tile: Box) -> int:
        """Node planes whose spectra are held together."""
        low, high = self.node_planes(tile)
        return min(high - low, (image.AT_ONCE - 1) * self.subdivision[0] + 2 * self.reach + 1)


def ring_depth(plan: OpticsPlan, reach_nm: float) -> int:
    """Node planes that emitters can touch between two floors of the stream."""
    return math.ceil(reach_nm / float(plan.node_nm[0])) + NODES
