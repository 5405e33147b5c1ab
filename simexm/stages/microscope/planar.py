"""Responses without symmetry about the axis: on square grids, and their transfer functions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.diffraction import hankel, plane_spectrum
from simexm.kernels.diffraction.plane_spectrum import Lattice
from simexm.kernels.diffraction.pupil import Square
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging import gridding
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope import haze, objectives, sheet
from simexm.stages.microscope.optics_plan import (
    FADING_RINGS,
    MOST_PLANAR,
    Array,
    Channel,
    OpticsPair,
    OpticsPlan,
    faded,
)
from simexm.stages.microscope.psf_stack import Measured

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

_AT_ONCE = 8  # depths that are computed together
_ROWS = 16  # of frequencies that are corrected along z together
_STENCIL = 3  # pixels about a place from which it is interpolated, on each side


def images(
    optics: Optics,
    channel: Channel,
    dye: Fluorophore,
    emission_nm: float,
    z_nm: Array,
    radius_nm: float,
    focus: Focus,
    unlit: bool = False,
) -> tuple[float, Array]:
    """Pitch, and images (nz, n, n) of a dye at distances z below a plane, photons per nm^2, about pixel n // 2.

    `unlit` are those for each photon that the dye emits.
    """
    stack, pitch = optics.measured(channel), pitch_nm(optics, channel, emission_nm)
    if stack is not None:
        return pitch, _measured(optics, channel, dye, emission_nm, z_nm, radius_nm, stack, unlit)
    square = Square(pitch, 2 * int(radius_nm / pitch + 1e-9) + 1)
    at_dye = (optics.unlit if unlit else optics.response)(channel, dye, emission_nm, z_nm, square, focus)
    return pitch, at_dye[:, ::-1, ::-1]


def averaged(
    optics: Optics, channel: Channel, dye: Fluorophore, emission_nm: float, z_nm: Array, r_nm: Array, focus: Focus
) -> Array:
    """Mean over directions of the response at radii (nr,), (nz, nr)."""
    means = []
    for some in np.array_split(z_nm, math.ceil(z_nm.size / _AT_ONCE)):
        wide = float(r_nm[-1]) + _STENCIL * pitch_nm(optics, channel, emission_nm)
        pitch, planes = images(optics, channel, dye, emission_nm, some, wide, focus)
        means.append(plane_spectrum.mean_over_directions(planes, pitch, r_nm))
    return np.concatenate(means)


def _measured(
    optics: Optics,
    channel: Channel,
    dye: Fluorophore,
    emission_nm: float,
    z: Array,
    radius_nm: float,
    stack: Measured,
    unlit: bool,
) -> Array:
    """Images by a measured stack: each plane, or for scanners the one in focus, with the light that the model gives it."""
    if optics.keeps_light:
        photons = np.ones_like(z) if unlit else optics.emitted(channel, dye, z)
        light = photons * optics.collected(channel, dye)
        return stack.at(z, radius_nm, True) * light[:, None, None]
    return stack.at(z, radius_nm, False) * _in_focus(optics, channel, dye, emission_nm)


@lru_cache(maxsize=64)
def _in_focus(optics: Optics, channel: Channel, dye: Fluorophore, emission_nm: float) -> float:
    """Photons of a dye in focus by the model, times the pixel's area."""
    r = np.arange(4096, dtype=np.float64) * 2.5 / 1.5 * (emission_nm / 500)
    focus = objectives.focus_at(optics.lens, optics.focus_nm, 0.0)
    return float(hankel.plane_energy(optics.response(channel, dye, emission_nm, np.zeros(1), r, focus), r)[0])


def lattice(optics: Optics, channel: Channel, emission_nm: float, radius_nm: float) -> Lattice:
    """Frequencies of the tables."""
    pitch = pitch_nm(optics, channel, emission_nm)
    _, highest = band(optics, channel, emission_nm, radius_nm)
    return plane_spectrum.lattice(2 * int(radius_nm / pitch + 1e-9) + 1, pitch, highest)


def band(optics: Optics, channel: Channel, emission_nm: float, radius_nm: float) -> tuple[float, float]:
    """Pass band and stop band that the microscope, and the grid of its images, allow."""
    fading, passed = FADING_RINGS / radius_nm, optics.cutoff_per_nm(channel, emission_nm)
    highest = min(0.5 / pitch_nm(optics, channel, emission_nm), passed + fading)
    return min(passed, highest - fading), highest


def pitch_nm(optics: Optics, channel: Channel, emission_nm: float) -> float:
    """Pitch of the images: that of a measured stack, or half of what the highest frequency asks for."""
    stack = optics.measured(channel)
    return 0.25 / optics.cutoff_per_nm(channel, emission_nm) if stack is None else stack.pixel_nm


@lru_cache(maxsize=MOST_PLANAR)
def tables(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, focus: Focus = SURFACE
) -> tuple[Lattice, NDArray[np.complex64]]:
    """Transfer functions of each term at the offsets -reach ... reach, corrected for the deposit weights along z.

    (terms, offsets, *lattice shape)
    """
    channel = _channel(optics, pair)
    grid = lattice(optics, channel, pair.emission_nm, plan.radius_nm)
    most = plan.reach + gridding.MARGIN
    offsets = np.arange(-most, most + 1, dtype=np.float64)
    found = np.empty((offsets.size, *grid.shape), np.complex64)
    for start in range(0, offsets.size, _AT_ONCE):
        z = offsets[start : start + _AT_ONCE] * float(plan.node_nm[0])
        pitch, planes = images(optics, channel, dye, pair.emission_nm, z, plan.radius_nm, focus, plan.terms is not None)
        for i, plane in enumerate(planes, start):
            found[i] = plane_spectrum.tabulate(plane, pitch, grid)
    light = np.ones((1, offsets.size))
    if plan.terms is not None:
        light = sheet.photons(optics, plan, pair, dye, offsets * float(plan.node_nm[0]))
    result = np.empty((plan.rank, plan.offsets, *grid.shape), np.complex64)
    for start in range(0, grid.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        parts = found[:, rows].view(np.float32).astype(np.float64)  # real and imaginary
        for own, photons in zip(result, light, strict=True):
            lit = parts * photons[:, None, None]
            own[:, rows] = gridding.sharpened_along_signed_z(lit).view(np.complex128)
    result[:, [0, -1]] /= 2  # as in radial tables
    return grid, result


def transfer(
    optics: Optics,
    plan: OpticsPlan,
    pair: OpticsPair,
    dye: Fluorophore,
    foci: tuple[Focus, ...],
    y: Array,
    x: Array,
    term: int = 0,
) -> NDArray[np.complex64]:
    """Transfer functions (depths * offsets, y.size, x.size) at frequencies y, of both signs, and x, per nm; photo-electrons.

    Of one term where the light is a sum of several.
    """
    response = np.empty((len(foci) * plan.offsets, y.size, x.size), np.complex64)
    for i, focus in enumerate(foci):
        grid, found = tables(optics, plan, pair, dye, focus)
        plane_spectrum.interpolate(found[term], grid, y, x, response[i * plan.offsets : (i + 1) * plan.offsets])
    response *= (pair.efficiency * _passed(optics, plan, pair, y, x)).astype(np.float32)
    if plan.haze is not None:
        place = np.hypot(y[:, None], x) * plan.per_cycle
        for o, line in enumerate(_far(optics, plan, pair, dye, term)):
            response[o :: plan.offsets] -= haze.at(line, place).astype(np.float32)
    return response


@lru_cache(maxsize=32)
def _far(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, term: int) -> Array:
    """What the map of far dyes transfers, by signed offset, (offsets, frequencies), corrected along z."""
    most = plan.reach + gridding.MARGIN
    z = np.arange(-most, most + 1, dtype=np.float64) * float(plan.node_nm[0])
    found = gridding.sharpened_along_signed_z(
        haze.taken(optics, plan, pair, dye, z, np.arange(plan.frequencies) / plan.per_cycle, term)
    )
    found[[0, -1]] /= 2
    return found


def _passed(optics: Optics, plan: OpticsPlan, pair: OpticsPair, y: Array, x: Array) -> Array:
    """Pass band, over the transform of the pixels of a measured stack, (y.size, x.size)."""
    channel = _channel(optics, pair)
    k = np.hypot(y[:, None], x)
    passed: Array = plan.kept(k) * faded(k, *band(optics, channel, pair.emission_nm, plan.radius_nm))
    stack = optics.measured(channel)
    if stack is not None:
        area_y, area_x = (sinc_array(np.clip(f * stack.pixel_nm, -0.5, 0.5)) for f in (y, x))
        passed /= area_y[:, None] * area_x
    return passed


def _channel(optics: Optics, pair: OpticsPair) -> Channel:
    return next(c for c in optics.all_channels if c.name == pair.channel)
