"""Responses of a microscope tabulated by radius on node planes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging import gridding
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope import planar
from simexm.stages.microscope.optics_plan import Array, Channel, OpticsPair, OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

RADIAL_STEP_NM = 10.0


def averaged(
    optics: Optics,
    channel: Channel,
    dye: Fluorophore,
    emission_nm: float,
    z_nm: Array,
    r_nm: Array,
    focus: Focus = SURFACE,
) -> Array:
    """`response`; its mean over directions where it has no symmetry about the axis."""
    of = planar.averaged if optics.planar(channel) else type(optics).response
    return of(optics, channel, dye, emission_nm, z_nm, r_nm, focus)


def tabulate(
    optics: Optics,
    channel: Channel,
    dye: Fluorophore,
    emission: float,
    node_z: float,
    reach: int,
    radius: float,
    focus: Focus = SURFACE,
    coarse: int = 1,
    model: bool = False,
) -> psf_response.Response:
    """Tabulate the response on the node planes of the range and a margin, which serves the grid correction.

    The mean of both sides where it is not even along z, and of all directions where it is not symmetric about the axis; or,
    much faster, that of the `model` without what breaks the symmetry.
    """
    z = np.arange(reach + 1 + gridding.MARGIN, dtype=np.float64) * node_z
    r = _radii(radius, coarse)
    respond = type(optics).response if model else averaged
    table = respond(optics, channel, dye, emission, z, r, focus)
    if optics.uneven or optics.planar(channel) or not optics.lens.matched:
        table = (table + respond(optics, channel, dye, emission, -z, r, focus)) / 2
    return psf_response.Response(z, r, table)


def both_sides(
    optics: Optics, pair: OpticsPair, dye: Fluorophore, node_z: float, reach: int, radius: float, focus: Focus
) -> tuple[Array, Array]:
    """Radii, and the response on the node planes of the range and a margin, on both sides."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    most = reach + gridding.MARGIN
    z, r = np.arange(-most, most + 1, dtype=np.float64) * node_z, _radii(radius, 1)
    return r, optics.response(channel, dye, pair.emission_nm, z, r, focus)


def unlit(
    optics: Optics, pair: OpticsPair, dye: Fluorophore, plan: OpticsPlan, focus: Focus
) -> tuple[Array, Array, Array]:
    """Radii, distances, and `unlit` on the node planes of the range and a margin, on both sides if they differ."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    most = plan.reach + gridding.MARGIN
    z = np.arange(-most if plan.signed else 0, most + 1, dtype=np.float64) * float(plan.node_nm[0])
    r = _radii(plan.radius_nm, 1)
    return r, z, optics.unlit(channel, dye, pair.emission_nm, z, r, focus)


def _radii(radius_nm: float, coarse: int) -> Array:
    step = RADIAL_STEP_NM * coarse
    return np.arange(max(17, math.ceil(radius_nm / step) + 1), dtype=np.float64) * step
