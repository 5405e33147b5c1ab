"""One-photon light in tissue, resolved for a run: what of a voxel's light arrives where, by depth and place in the field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Spacing, Triple
from simexm.kernels.imaging.footprints import SIGMAS
from simexm.kernels.numbers.detmath import exp_array
from simexm.stages.contract import RunContext
from simexm.stages.motion_path import MotionPath
from simexm.stages.roles import ImageFormation, ImagingCost, ImagingDescription, Pair
from simexm.units import times

Array = NDArray[np.float64]
NODE_PIXELS = 4
"""Pixels between the nodes of scattered light."""
WIDE_NODES = 1.5
"""Standard deviation, in nodes, from which scattered light is held on nodes."""
RADIUS_STEP_PIXELS = 0.1
"""Step of the discs' radii in their table."""
PATCHES = 64
"""Sharp images that are held over each pixel, at most on average."""
SECONDS_PER_PIXEL = 15e-9
Z_STEP_UM = 1.0
"""Steps of the focus between which sharp images of tissue that moves along the axis are interpolated."""


def reach_um(context: RunContext, light: Light) -> tuple[float, float]:
    """Farthest that a pixel looks beyond its place in the tissue at rest, along y and x."""
    if context.motion is None:
        return 0.0, 0.0
    rows, columns = light.field
    return context.motion.moved(context).reach_um(rows * light.pixel_um, columns * light.pixel_um)


def reach_pixels(context: RunContext, light: Light) -> tuple[int, int]:
    """The same in whole pixels, with one for the splines."""
    y, x = reach_um(context, light)
    return math.ceil(y / light.pixel_um) + 1, math.ceil(x / light.pixel_um) + 1


def focus_steps(context: RunContext) -> int:
    """Steps of the focus that a movie needs at most."""
    if context.motion is None:
        return 1
    z = context.motion.moved(context).z_um / Z_STEP_UM
    return math.ceil(float(z.max(initial=0.0))) - math.floor(float(z.min(initial=0.0))) + 1


@dataclass(frozen=True)
class Light:
    """The light of a miniscope; depths and lengths are in um of tissue, places in the field in pixels."""

    pixel_um: float
    voxel_um: tuple[float, float, float]
    field: tuple[int, int]
    focus_um: float
    curvature_um: float | None
    aperture_ratio: float  # NA over the index of the tissue
    depth_of_field_um: float
    diffraction_um: float  # standard deviation of an image in focus
    scattering_um: float
    anisotropy: float
    absorption_um: float
    excitation_um: float
    illumination_edge: float
    vignette_edge: float
    leakage_e: float

    def attenuation(self, depth_um: Array) -> Array:
        """Light that excites at a depth and leaves from it again, relative to the surface, scattered or not."""
        return np.asarray(exp_array(-np.maximum(depth_um, 0.0) * (1 / self.excitation_um + 1 / self.absorption_um)))

    def ballistic(self, depth_um: Array) -> Array:
        """Share of the light from a depth that is not scattered."""
        return np.asarray(exp_array(-np.maximum(depth_um, 0.0) / self.scattering_um))

    def halo_um(self, depth_um: Array) -> Array:
        """Standard deviation along y and x of the scattered light, in the plane of its source.

        Each scattering turns light by a mean square angle of 1 - g along each axis; traced back through a layer z, the
        places spread by (1 - g) z^3 / (3 l).
        """
        z = np.maximum(depth_um, 0.0)
        return np.asarray(np.sqrt((1 - self.anisotropy) * z * z * z / (3 * self.scattering_um)))

    def focus_at(self, radius2_um: Array) -> Array:
        """Depth of the focus at a square distance from the optical axis: shallower off the axis, if it is curved."""
        if self.curvature_um is None:
            return np.full(np.shape(radius2_um), self.focus_um)
        r2 = np.minimum(radius2_um, self.curvature_um**2)
        return np.asarray(self.focus_um - (self.curvature_um - np.sqrt(self.curvature_um**2 - r2)))

    def from_axis2_um(self, y: Array, x: Array) -> Array:
        """Square distance of places, in pixels, from the optical axis."""
        dy, dx = (y - self.field[0] / 2) * self.pixel_um, (x - self.field[1] / 2) * self.pixel_um
        return np.asarray(dy * dy + dx * dx)

    def moved(self, y: Array, x: Array, path: MotionPath, time: int) -> tuple[Array, Array]:
        """Places in a frame, in pixels, of tissue that lies at these places at rest."""
        cy, cx = (n / 2 for n in self.field)
        cos, sin = math.cos(path.rotation_rad[time]), math.sin(path.rotation_rad[time])
        dy, dx = (float(v[time]) / self.pixel_um for v in (path.y_um, path.x_um))
        return cos * (y - cy) + sin * (x - cx) + cy + dy, cos * (x - cx) - sin * (y - cy) + cx + dx

    def disc_um(self, depth_um: Array, focus_um: Array) -> Array:
        """Radius of the disc of a point out of focus."""
        return np.asarray(self.aperture_ratio * np.abs(depth_um - focus_um))

    def _fall_off(self, edge: float, y: Array, x: Array) -> Array:
        corner2 = (self.field[0] ** 2 + self.field[1] ** 2) * self.pixel_um**2 / 4
        return np.asarray(1 - (1 - edge) * np.minimum(self.from_axis2_um(y, x) / corner2, 1.0))

    def illumination(self, y: Array, x: Array) -> Array:
        """Irradiance at places of the field relative to the axis: a parabola that reaches `illumination_edge` in the corners."""
        return self._fall_off(self.illumination_edge, y, x)

    def vignette(self, y: Array, x: Array) -> Array:
        """Collected light, likewise."""
        return self._fall_off(self.vignette_edge, y, x)

    @property
    def blur_um(self) -> float:
        """Standard deviation of the Gaussian part of sharp images: diffraction, and the widths of a voxel and a pixel."""
        lateral = (self.voxel_um[1] ** 2 + self.voxel_um[2] ** 2) / 2
        return math.sqrt(self.diffraction_um**2 + (lateral + self.pixel_um**2) / 12)

    def widest_um(self, deepest_um: float) -> float:
        """Radius of the largest disc in a specimen of this depth."""
        corner2 = (self.field[0] ** 2 + self.field[1] ** 2) * self.pixel_um**2 / 4
        focus = np.array([self.focus_um, float(self.focus_at(np.array(corner2)))])
        return float(max(self.disc_um(np.zeros(2), focus).max(), self.disc_um(np.full(2, deepest_um), focus).max()))

    def reach_um(self, deepest_um: float) -> float:
        """Distance from which a voxel's sharp image reaches a pixel."""
        return self.widest_um(deepest_um) + 4 * self.blur_um + self.pixel_um

    def far_um(self, deepest_um: float) -> float:
        """Distance from which scattered light reaches a pixel."""
        return SIGMAS * float(self.halo_um(np.array(deepest_um)))


@dataclass(frozen=True)
class MiniscopePlan(ImageFormation):
    """Light, and the electrons of each pair: of 1 uM in 1 um^3 at the surface, at the brightness of the saturated indicator."""

    follows_motion: ClassVar[bool] = True
    pairs: tuple[Pair, ...]
    light: Light
    electrons: tuple[float, ...]
    deepest_um: float

    @property
    def cell_nm(self) -> Spacing | None:
        """None: dyes are no points."""
        return None


@dataclass(frozen=True)
class MiniscopeCost(ImagingCost):
    """Cost by pixels; footprints are made once for each block."""

    plan: MiniscopePlan
    frames: int
    seconds_per_pixel = 40e-9

    def relative(self, axis: int, pixels: int) -> float:
        """Pixels with the reach of a sharp image."""
        reach = self.plan.light.reach_um(self.plan.deepest_um) / self.plan.light.pixel_um
        return 1.0 if axis == 0 else pixels + 2 * reach

    @property
    def seconds_per_cost(self) -> float:
        """Seconds of a pixel."""
        return SECONDS_PER_PIXEL

    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Sharp images, scattered light on nodes, and an image in float64."""
        total = self.kept_bytes(tile, channels) + 16 * math.prod(tile)
        if context.motion is not None:  # four values per pixel, of a larger tile, for each step of the focus
            reach = reach_pixels(context, self.plan.light)
            nodes = 4 * math.prod(n + 2 * r for n, r in zip(tile[1:], reach, strict=True))
            total += PATCHES * nodes * focus_steps(context) + 8 * nodes + 32 * math.prod(tile)
        return total

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Footprints."""
        return PATCHES * 4 * math.prod(tile)


@dataclass(frozen=True)
class MiniscopeDescription(ImagingDescription):
    """Describe focus, blur, and what arrives from the focus."""

    plan: MiniscopePlan

    def describe(self, tile: Triple) -> dict[str, Any]:
        """See `ImagingDescription`."""
        light = self.plan.light
        at = np.array(light.focus_um)
        return {
            "focus_um": light.focus_um,
            "depth_of_field_um": light.depth_of_field_um,
            "ballistic_share": float(light.ballistic(at)),
            "halo_um": float(light.halo_um(at)),
            "attenuation": float(light.attenuation(at)),
            "widest_disc_um": light.widest_um(self.plan.deepest_um),
            "pairs": [
                {
                    "channel": p.channel, "dye": p.dye, "emission_nm": round(p.emission_nm, 3),
                    "electrons_per_dye_in_focus": p.in_focus, "electrons_per_uM_um3": e,
                }
                for p, e in zip(self.plan.pairs, self.plan.electrons, strict=True)
            ],
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str]]:
        """See `ImagingDescription`."""
        light, at = self.plan.light, np.array(self.plan.light.focus_um)
        corner2 = np.array((light.field[0] ** 2 + light.field[1] ** 2) * light.pixel_um**2 / 4)
        curved = f", {float(light.focus_at(corner2)):.4g} um in the corners" if light.curvature_um else ""
        scattered = (
            f"of the light from the focus {float(light.ballistic(at)):.2%} is sharp, the rest spreads over "
            f"{float(light.halo_um(at)):.3g} um (standard deviation)"
        )
        rows = [
            ("field", f"{times(light.field)} pixels of {light.pixel_um:.4g} um"),
            ("focus", f"{light.focus_um:.4g} um deep{curved}; depth of field {light.depth_of_field_um:.3g} um"),
            ("scattering", scattered),
        ]
        for pair, e in zip(self.plan.pairs, self.plan.electrons, strict=True):
            e *= float(light.attenuation(at))
            rows.append((f"{pair.dye} in {pair.channel}", f"{e:.3g} electrons from 1 uM in 1 um^3 in focus, saturated"))
        return rows

    def provenance(self) -> dict[str, Any]:
        """See `ImagingDescription`."""
        return {"focus_um": self.plan.light.focus_um}
