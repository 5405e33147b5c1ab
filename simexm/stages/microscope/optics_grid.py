"""How the simulation grid of a microscope is chosen: its range along z, its radius, and its resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, exact
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction import tables as psf_tables
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging import gridding
from simexm.kernels.imaging.gridding import NODES
from simexm.kernels.imaging.image import fast_pixels
from simexm.spectra.efficiency import Efficiency, mean_efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope import objectives, optics_field, planar
from simexm.stages.microscope.field import FieldPlan, plan_field
from simexm.stages.microscope.haze import HazePlan, plan_haze
from simexm.stages.microscope.optics_cost import OpticsCost
from simexm.stages.microscope.optics_description import OpticsDescription
from simexm.stages.microscope.optics_plan import (
    FADING_RINGS,
    LEFT_OUT_LIMIT,
    Array,
    Channel,
    Depths,
    OpticsPair,
    OpticsPlan,
)
from simexm.stages.microscope.optics_tables import RADIAL_STEP_NM, tabulate
from simexm.stages.roles import ImagingPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

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


def resolve(optics: Optics, dyes: Mapping[str, Fluorophore], geometry: Geometry, efficiency: Efficiency) -> ImagingPlan:
    """Choose the simulation grid and its range, at most the thickness of the expanded specimen."""
    expanded = geometry.transform.bound(geometry.voxels_nm(Box.of_shape(geometry.crop.shape)))
    depth_nm = float(expanded.stop[0] - expanded.start[0])
    seen = optics.seen(dyes, efficiency)
    if not seen:
        raise SpecError(
            "no channel detects any of the dyes in use, so the image would be only noise; match the lasers and "
            f"bands of {', '.join(c.name for c in optics.all_channels)} to {', '.join(dyes) or 'a dye'}"
        )
    depths = _depths(optics, depth_nm)
    ends = (SURFACE,) if depths is None else tuple(dict.fromkeys((depths.foci[0], depths.foci[-1])))
    field = plan_field(
        geometry,
        [(c.name, c.chromatic) for c, *_ in seen],
        optics.field_curvature_radius_mm,
        optics.along,
        optics.by_terms,
    )
    specimen_nm, depth_nm = depth_nm, depth_nm + optics_field.furthest_nm(field)
    m_z = _subdivision_z(optics, seen, ends[0])
    node_z = optics.spacing_nm[0] / m_z
    kept = [_kept(optics, c, d, e, float(node_z), depth_nm, focus, field) for c, d, e in seen for focus in ends]
    reach = _measured_reach(optics, _reach(optics, kept, float(node_z), depth_nm), float(node_z))
    reach, far = _near_and_far(optics, seen, kept, reach, float(node_z), depth_nm, depths)
    range_nm = reach * float(node_z)
    radius = max(_radius_nm(optics, c, e, range_nm, focus) for c, _, e in seen for focus in ends)
    if far is not None:
        kept = [np.ones_like(k) for k in kept]
    tables = [[tabulate(optics, c, d, e, float(node_z), reach, radius, f) for f in ends] for c, d, e in seen]
    pairs = tuple(
        _pair(optics, c, d, e, table, float(k[min(reach, k.size - 1)]), specimen_nm, efficiency)
        for (c, d, e), table, k in zip(seen, tables, kept[:: len(ends)], strict=True)
    )
    # the grid of the perfect image serves all others, which have less contrast at each frequency
    perfect = [
        [tabulate(optics, c, d, e, float(node_z), reach, radius, f, model=True) for f in ends]
        if optics.planar(c)
        else some
        for (c, d, e), some in zip(seen, tables, strict=True)
    ]
    m = _subdivision(optics, [t for some in perfect for t in some])
    node = exact(optics.pixel_size_nm) / m
    bands = [_band(optics, c, t, e, float(node)) for (c, _, e), some in zip(seen, perfect, strict=True) for t in some]
    whole, band = (max(ends) for ends in zip(*bands, strict=True))
    halo = math.ceil((radius + 2 * float(node)) / optics.pixel_size_nm + 0.5)
    signed = any(v is not None for v in (depths, optics.tissue, optics.bleaching)) or any(p.planar for p in pairs)
    plan = OpticsPlan(
        (m_z, m, m), (node_z, node, node), range_nm, radius, reach, halo, whole, band, pairs, depths, signed, far, field
    )
    plan = optics_field.over_field(optics, plan, [(c, d) for c, d, _ in seen], depth_nm)
    described = OpticsDescription(plan, optics.bleaching is not None, optics.any_measured, optics.remarks(geometry))
    return ImagingPlan(plan, OpticsCost(plan), described)


def _near_and_far(
    optics: Optics,
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
    wanted = optics.adds_haze
    if wanted is False or depth_nm <= reach * node_z:
        return reach, None
    least = min(float(k[min(reach, k.size - 1)]) for k in kept)
    if wanted is None and not optics.keeps_evenly and least >= 1.0 - LEFT_OUT_LIMIT:
        return reach, None
    focus = SURFACE if depths is None else depths.foci[len(depths.foci) // 2]
    pairs = [(c.name, d, e) for c, d, e in seen]
    fixed = optics.axial_range_um is not None or optics.any_measured
    further = reach
    while further * node_z < depth_nm:
        if (found := plan_haze(optics, pairs, further, node_z, depth_nm, focus)) is not None:
            return further, found
        if fixed:
            break
        further = math.ceil(further * 1.4)
    if wanted and fixed:
        given, longer = (
            ("psf_stack ends", "record more planes of it")
            if optics.any_measured
            else ("axial_range_um ends", "leave it out")
        )
        raise SpecError(
            f"{given} {reach * node_z / 1000:.3g} um from the plane, too near for haze: at that distance the image of a dye "
            f"has details finer than pixels of {optics.pixel_size_nm:g} nm resolve; {longer}, or set haze: false"
        )
    return (reach if fixed else min(further, math.ceil(depth_nm / node_z) + 2)), None


def _depths(optics: Optics, thickness_nm: float) -> Depths | None:
    """Depths at which responses are tabulated; None if they are the same at all depths and even along z."""
    lens, nm, start = optics.lens, optics.focus_nm, optics.depth_um * 1000
    if lens.matched or all(optics.measured(c) is not None for c in optics.all_channels):
        return None
    step = objectives.depth_step_nm(lens, nm, start + thickness_nm)
    first = 0 if math.isinf(step) else math.floor(start / step)
    last = 0 if math.isinf(step) else math.ceil((start + thickness_nm) / step) + 1
    foci = tuple(objectives.focus_at(lens, nm, j * step if j else 0.0) for j in range(first, last + 1))
    plane_nm = float(optics.spacing_nm[0])
    ends = (start + plane_nm / 2, start + max(plane_nm / 2, thickness_nm - plane_nm / 2))
    off = tuple(
        (psf_tables.best_focus_nm(d, nm, lens) - objectives.focus_at(lens, nm, d).setting_nm)
        * float(optics.focus_scale)
        for d in ends
    )
    return Depths(foci, ends[0], plane_nm, step, off)


def _radius_nm(optics: Optics, channel: Channel, emission: float, range_nm: float, focus: Focus = SURFACE) -> float:
    """Lateral radius of the response: the light cone and, for a camera, its diffraction rings.

    A scanner's response is a product of two such patterns, whose rings fall off fast enough to be neglected.
    """
    stack = optics.measured(channel)
    most = math.inf if stack is None else stack.radius_nm
    if optics.tail == "constant" or not optics.lens.matched:
        share = LATERAL_SHARE if optics.tail == "constant" else ABERRATED_SHARE
        return min(most, psf_tables.holding_radius_nm(range_nm, emission, optics.lens, share, focus))
    return min(most, psf_tables.lateral_radius_nm(range_nm, max(channel.excitation_nm, emission), optics.lens))


def _kept(
    optics: Optics,
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
    if optics.keeps_light:
        z = np.arange(most + 1, dtype=np.float64) * node_z
        energy = optics.emitted(channel, dye, z)  # up to a factor: an infinite plane receives all collected light
        if optics.by_terms:
            assert field is not None
            energy = optics_field.brightest(optics, channel, dye, z, field)
    else:
        furthest = min(most, max(8, math.ceil(max(20.0, optics.axial_range_um or 0.0) * 1000 / node_z)))
        if (stack := optics.measured(channel)) is not None:
            furthest = min(furthest, max(1, int(stack.extent_nm / node_z)))
        radius = _radius_nm(optics, channel, emission, furthest * node_z, focus)
        table = tabulate(
            optics, channel, dye, emission, node_z, furthest, radius, focus, 4, optics.measured(channel) is None
        )
        z = table.z_nm[: furthest + 1]
        energy = hankel.plane_energy(table.table, table.r_nm)[: furthest + 1]
    beyond = psf_response.left_out_share(energy, z, depth_nm, optics.tail)
    inside = _integrals(energy)
    return np.asarray(inside * ((1.0 - beyond) / inside[-1]))


def _reach(optics: Optics, kept: list[Array], node_z: float, depth_nm: float) -> int:
    """Node planes of the axial range: the user's or the default, at most the specimen's thickness.

    Two nodes are added to the thickness, over which a dye is shared out.
    """
    thickness = max(1, math.ceil(depth_nm / node_z))
    most = thickness + NODES // 2
    if optics.axial_range_um is not None:
        return min(most, max(1, math.ceil(optics.axial_range_um * 1000 / node_z - 1e-9)))
    wanted = (1.0 - LEFT_OUT_LIMIT) / (LATERAL_SHARE if optics.keeps_light else 1.0)
    enough = max(int(np.argmax(k >= min(wanted, k[-1]))) for k in kept)
    furthest = math.ceil(FURTHEST_NM / node_z) if optics.tail == "constant" else most
    return min(furthest, max(1, enough) if enough < thickness else most)


def _measured_reach(optics: Optics, reach: int, node_z: float) -> int:
    """Node planes of the axial range that measured stacks hold; SpecError if they do not hold what is asked for."""
    wanted = None if optics.axial_range_um is None else optics.axial_range_um * 1000
    for channel in optics.all_channels:
        if (stack := optics.measured(channel)) is not None:
            most = min(reach * node_z, stack.extent_nm) if wanted is None else min(wanted, reach * node_z)
            stack.check_range(most, optics.keeps_light)
            reach = min(reach, max(1, int(stack.extent_nm / node_z + 1e-9)))
    return reach


def _pair(
    optics: Optics,
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
    if optics.keeps_light:
        everything = optics.emitted(channel, dye, table.z_nm[: -gridding.MARGIN]) * optics.collected(channel, dye)
        kept *= float(_integrals(received)[-1] / _integrals(everything)[-1])
    try:
        axial: float | None = psf_response.fwhm_axial_nm(table)
    except ValueError:
        axial = None
    widths = (axial, psf_response.fwhm_lateral_nm(table))
    plane_nm = float(optics.spacing_nm[0])
    planes = max(1, math.floor(depth_nm / plane_nm))
    distances = np.abs(np.arange(planes) - (planes - 1) // 2) * plane_nm
    stack = float(optics.emitted(channel, dye, distances).sum())
    peaks = [float(t.table[0, 0]) for t in tables]
    deep = None if len(tables) == 1 else peaks[-1] / peaks[0]
    counted = mean_efficiency(efficiency, dye, channel.detection)
    in_focus = counted * float(received[0])
    shape = planar.lattice(optics, channel, emission, float(table.r_nm[-1])).shape if optics.planar(channel) else None
    return OpticsPair(channel.name, dye.name, emission, in_focus, stack, 1.0 - kept, widths, counted, deep, shape)


def _subdivision_z(optics: Optics, seen: list[tuple[Channel, Fluorophore, float]], focus: Focus) -> int:
    """Fewest node planes a plane spacing that image a dye well, wherever it lies between them."""
    sine = min(1.0, optics.numerical_aperture / optics.refractive_index)
    plane_nm = float(optics.spacing_nm[0])
    period = min(e for _, _, e in seen) / (optics.refractive_index * (1 - math.sqrt(1 - sine * sine)))
    m = max(1, math.floor(plane_nm / period))
    while any(_blur_z(optics, c, d, e, plane_nm / m, period, focus) > _BLUR_Z for c, d, e in seen):
        m = max(m + 1, m * 11 // 10)
    return m


def _blur_z(
    optics: Optics, channel: Channel, dye: Fluorophore, emission: float, node_z: float, period: float, focus: Focus
) -> float:
    """Largest error of the pixel above a dye halfway between two node planes, as a share of the pixel's maximum."""
    planes = min(32, math.ceil(4 * period / node_z)) + gridding.MARGIN
    radius = min(optics.pixel_size_nm / math.sqrt(math.pi), emission / optics.numerical_aperture)  # a pixel's area
    table = tabulate(optics, channel, dye, emission, node_z / 2, 2 * planes, 2 * radius, focus, model=True)
    pixel = hankel.radial_weights(table.r_nm.size, RADIAL_STEP_NM) * (table.r_nm <= radius)
    exact = np.cumsum(table.table * pixel, axis=1)[:, -1]
    half = gridding.between_planes(gridding.sharpened_along_z(exact[::2, None]))[:, 0]
    return float(np.abs(half - exact[1::2][: half.size]).max() / exact[0])


def _subdivision(optics: Optics, tables: list[psf_response.Response]) -> int:
    """Fewest nodes a pixel along y and x that image a dye in focus well, of those that allow fast transforms."""
    pixel = float(optics.pixel_size_nm)
    k = np.linspace(0, 4 * optics.numerical_aperture / 200, 513)
    spectra = [hankel.radial_spectrum(t.table[:1], t.r_nm, k)[0] * sinc_array(k * pixel) for t in tables]
    energies = [s * s * k for s in spectra]
    m = 1
    while True:
        lost = np.where(k * pixel < 0.5 * m, gridding.left_over(np.minimum(k * pixel / m, 0.5)), 1.0)
        if all(float((e * lost * lost).sum()) <= _BLUR**2 * float(e.sum()) for e in energies):
            return m
        m = fast_pixels(m + 1, 1)


def _band(
    optics: Optics, channel: Channel, table: psf_response.Response, emission: float, node_nm: float
) -> tuple[float, float]:
    """Pass band and stop band of lateral frequencies, per nm, at most the Nyquist frequency of the grid.

    Frequencies above the pass band contribute a negligible part of any plane's response. They fade out: a sharp
    edge would ring across the tile, differently in each.

    A lens passes nothing above 2 NA / wavelength; a camera's response has content beyond it only because its table
    ends at the lateral radius. A scanner's table is cut and sampled, too, which causes most of its content in the
    highest third.
    """
    highest = 0.5 / node_nm
    if optics.keeps_light:
        highest = min(highest, 2 * optics.numerical_aperture / emission + 4 / float(table.r_nm[-1]))
    limits = (
        planar.band(optics, channel, emission, float(table.r_nm[-1])) if optics.planar(channel) else (highest, highest)
    )
    highest = min(highest, limits[1])
    k = np.linspace(0, highest, 257)
    some = table.table[:: max(1, len(table.z_nm) // 12)]
    height = np.abs(hankel.radial_spectrum(np.vstack([table.table[:2], some]), table.r_nm, k))
    rings = height * (np.abs(sinc_array(k * float(optics.pixel_size_nm))) * k)
    beyond = np.cumsum(rings[:, ::-1], axis=1)[:, ::-1].max(axis=0)
    whole = float(k[np.argmax(np.append(beyond[1:], 0.0) <= _NEGLIGIBLE * rings[0].sum())])
    whole = min(whole, limits[0])
    return whole, min(highest, whole + FADING_RINGS / float(table.r_nm[-1]))


def _integrals(energy: Array) -> Array:
    """Integrals of an even function from 0 to each sample, in units of the spacing, by cubics through four samples."""
    line = np.concatenate([energy[1:2], energy, energy[-1:]])
    steps = (13 * (line[1:-2] + line[2:-1]) - line[:-3] - line[3:]) / 24
    if len(steps):
        steps[-1] = (energy[-2] + energy[-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])
