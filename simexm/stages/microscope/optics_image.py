"""Image formation shared by all microscopes: from an emitter stream to the expected image of a tile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Device, NodeGrid, NodePlanes
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.emission.points import Emitters
from simexm.kernels.imaging import gridding, image
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EmitterStream
from simexm.stages.microscope import dose, haze, optics_tables, planar, sheet
from simexm.stages.microscope.field import Part
from simexm.stages.microscope.optics_plan import MOST_TABLES, Look, OpticsPair, OpticsPlan, ring_depth
from simexm.stages.microscope.sheet import Lit
from simexm.timing import timed, timed_each

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

_FORWARD = "imaging: forward transforms"


def expected_image(
    optics: Optics,
    plan: OpticsPlan,
    stream: EmitterStream,
    dyes: Mapping[str, Fluorophore],
    tile: Box,
    device: Device,
    kept: dict[str, Any] | None = None,
) -> Any:
    """Compute the expected image of a tile on the device, float32, (channel, z, y, x), photo-electrons per pixel.

    `tile` is in pixels. With several frames, `kept` caches the image spectra of the dyes that do not vary between them.
    """
    parts = plan.parts(tile)
    grids = [plan.lateral(part.box.shape) for part in parts]
    names = [c.name for c in optics.all_channels]
    lit = None if plan.terms is None else sheet.lit_by(optics, plan, dyes)

    def dark() -> list[Any]:
        shapes = ((len(names), tile.shape[0], g.pixels[0], g.pixels[1] // 2 + 1) for g in grids)
        return [device.zeros(shape, np.complex64) for shape in shapes]

    def responses(pair: int, dye: str, part: Part, grid: image.LateralGrid) -> list[Any]:
        return [
            device.response(transfer(optics, plan, plan.pairs[pair], dyes[dye], grid, part.box, term))
            for term in range(plan.rank)
        ]

    def add_dye(spectra: list[Any], dye: str) -> None:
        with timed("imaging: point spread functions"):
            views = [
                View(
                    n,
                    part,
                    look,
                    [(names.index(plan.pairs[p].channel), responses(p, dye, part, grid)) for p in look.pairs],
                )
                for n, (part, grid) in enumerate(zip(parts, grids, strict=True))
                for look in plan.looks()
                if look.dye == dye
            ]
        for view, wanted, planes in node_windows(stream, plan, views, device, lit):
            here = slice(wanted.start - tile.start[0], wanted.stop - tile.start[0])
            with timed("imaging: sum over planes"):
                for channel, terms in view.seen:
                    for term, response in enumerate(terms):
                        planes.project(response, wanted, spectra[view.number][channel, here, :, :], term)

    def add(spectra: list[Any], some: Iterable[str]) -> list[Any]:
        for dye in some:
            add_dye(
                spectra, dye
            )  # in a function, so that one dye's planes are freed before the next one's are allocated
        return spectra

    used_dyes = list(dict.fromkeys(stream.dyes.values()))
    if kept is None:
        spectra = add(dark(), used_dyes)
    else:
        if "spectra" not in kept:
            constant = [d for d in used_dyes if d not in stream.varying]
            kept["spectra"] = add(dark(), constant)
        spectra = dark()
        for own, shared in zip(spectra, kept["spectra"], strict=True):
            own += shared
        spectra = add(spectra, [d for d in used_dyes if d in stream.varying])
    expected = device.zeros((len(names), *tile.shape), np.float32)
    with timed("imaging: inverse transforms"):
        for part, grid, own in zip(parts, grids, spectra, strict=True):
            inner = (
                slice(plan.halo, plan.halo + part.box.shape[1]),
                slice(plan.halo, plan.halo + part.box.shape[2]),
            )
            _, y, x = part.box.relative_to(tile.start).slices
            for c in range(len(names)):
                device.image(own[c, ...], grid, inner, expected[c, :, y, x])
    return expected


class View(NamedTuple):
    """A dye as some channels show it in a part of a tile: their numbers, each with its responses by term."""

    number: int
    part: Part
    look: Look
    seen: list[tuple[int, list[Any]]]


def node_windows(
    stream: EmitterStream, plan: OpticsPlan, views: Sequence[View], device: Device, lit: Lit | None = None
) -> Iterator[tuple[View, range, NodePlanes]]:
    """Deposit the dye of all views and transform its node planes, a window of image planes at a time.

    Yields views and ranges of image planes, ascending in each view, with the transformed node planes that they see.
    """
    per_nm, shift = 1.0 / float(plan.node_nm[0]), 0.5 * plan.subdivision[0]
    deeper = [_deeper(plan, view) for view in views]
    held = [
        device.node_planes(_nodes(plan, view, stream.reach_nm + high - low, lit))
        for view, (low, high) in zip(views, deeper, strict=True)
    ]
    for chunk in stream.chunks(views[0].look.dye):
        for view, planes, (_, high) in zip(views, held, deeper, strict=True):
            if chunk.layer is not None:
                with timed("imaging: deposit"):
                    planes.add(_moved(plan, view, chunk.emitters))
            else:
                reached = math.floor((chunk.floor_nm - high) * per_nm - shift) - 1
                for ready in timed_each(planes.advance(reached), _FORWARD):
                    yield view, ready, planes
    for view, planes in zip(views, held, strict=True):
        for ready in timed_each(planes.advance(plan.node_planes(view.part.box)[1]), _FORWARD):
            yield view, ready, planes


def _deeper(plan: OpticsPlan, view: View) -> tuple[float, float]:
    """How much deeper, at least and at most, the dyes of a view lie than where it shows them."""
    return (0.0, 0.0) if plan.field is None else plan.field.reach_nm(view.part, view.look.shift, plan.halo_nm)


def _moved(plan: OpticsPlan, view: View, emitters: Emitters) -> Emitters:
    if plan.field is None:
        return emitters
    return emitters.moved(partial(plan.field.moved, view.look.shift, view.part.axis_nm))


def _nodes(plan: OpticsPlan, view: View, reach_nm: float, lit: Lit | None) -> NodeGrid:
    """The simulation grid around a part of a tile, for a stream of this reach."""
    m, tile = plan.subdivision, view.part.box
    low, high = plan.node_planes(tile)
    corner = (low, (tile.start[1] - plan.halo) * m[1], (tile.start[2] - plan.halo) * m[2])
    ny, nx = ((n + 2 * plan.halo) * m[1] for n in tile.shape[1:])
    z, y, x = (1.0 / float(c) for c in plan.node_nm)
    # pixel p (centre (p + 1/2) * pitch) is node m * p
    shift = (0.5 * m[0], 0.5 * m[1], 0.5 * m[2])
    shape, wanted = (high - low, ny, nx), range(tile.start[0], tile.stop[0])
    factors = None
    if lit is not None:
        spans = [
            (first, count, float(nm), 0.5 * m[1])
            for first, count, nm in zip(corner[1:], (ny, nx), plan.node_nm[1:], strict=True)
        ]
        factors = sheet.factors(plan, view.part, view.look.shift, lit, spans)
    return NodeGrid(
        plan.lateral(tile.shape), corner, shape, ring_depth(plan, reach_nm), (z, y, x), shift, wanted, m[0], plan.reach,
        factors,
    )  # fmt: skip


def transfer(
    optics: Optics,
    plan: OpticsPlan,
    pair: OpticsPair,
    dye: Fluorophore,
    grid: image.LateralGrid,
    tile: Box,
    term: int = 0,
) -> image.Transfer | image.Blended | image.Planar:
    """Transfer function of one pair on a tile's frequencies, photo-electrons per pixel and dye.

    The product of response, pixel aperture and grid correction; of one term where the light is a sum of several.
    """
    m = grid.subdivision
    node = float(plan.node_nm[1])
    y, x = (np.arange(q + 1) / n for q, n in zip(grid.band, grid.nodes, strict=True))
    factor_y, factor_x = (m * sinc_array(c * m) * gridding.sharpened(c) for c in (y, x))
    wanted = range(tile.start[0], tile.stop[0])
    left = dose.shares(optics, plan, pair, dye, wanted)
    if not plan.signed:
        whole = _radial(optics, plan, pair, dye) if plan.terms is None else _radial_terms(optics, plan, pair, dye)[term]
        return image.Transfer(whole, plan.per_cycle, y / node, factor_y, x / node, factor_x)
    used = plan.tables(tile)
    first, share = plan.blend(wanted)
    weight = np.ones((len(wanted), 2 * plan.reach + 1)) if left is None else left
    low, high = ((s[:, None] * weight).astype(np.float32) for s in (1 - share, share))
    foci = (SURFACE,) if plan.depths is None else tuple(plan.depths.foci[j] for j in used)
    if pair.planar is not None:
        y, factor_y = (np.concatenate([v, s * v[:0:-1]]) for v, s in ((y, -1), (factor_y, 1)))
        response = planar.transfer(optics, plan, pair, dye, foci, y / node, x / node, term)
        response *= (factor_y[:, None] * factor_x).astype(np.float32)
        return image.Planar(response, wanted.start, first - used.start, low, high)
    each = [
        _radial_at(optics, plan, pair, dye, f)
        if plan.terms is None
        else _radial_terms(optics, plan, pair, dye, f)[term]
        for f in foci
    ]
    table = np.ascontiguousarray(np.concatenate(each, axis=1))
    deep = image.Transfer(table, plan.per_cycle, y / node, factor_y, x / node, factor_x)
    return image.Blended(deep, wanted.start, first - used.start, low, high)


@lru_cache(maxsize=32)
def _radial(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore) -> NDArray[np.float64]:
    """Radial transfer by axial offset, (frequencies, reach + 1), corrected for the deposit weights along z."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    table = optics_tables.tabulate(
        optics, channel, dye, pair.emission_nm, float(plan.node_nm[0]), plan.reach, plan.radius_nm
    )
    response = gridding.sharpened_along_z(_near(optics, plan, pair, dye, table.z_nm, table.table, table.r_nm))
    # the outermost planes count half, so that the range ends at them whatever the pitch
    response[-1] /= 2
    return np.ascontiguousarray(response.T)


@lru_cache(maxsize=MOST_TABLES)
def _radial_at(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, focus: Focus
) -> NDArray[np.float64]:
    """`_radial` at one depth, with signed offsets, (frequencies, 2 * reach + 1)."""
    r, table = optics_tables.both_sides(optics, pair, dye, float(plan.node_nm[0]), plan.reach, plan.radius_nm, focus)
    most = plan.reach + gridding.MARGIN
    z = np.arange(-most, most + 1, dtype=np.float64) * float(plan.node_nm[0])
    response = gridding.sharpened_along_signed_z(_near(optics, plan, pair, dye, z, table, r))
    response[[0, -1]] /= 2
    return np.ascontiguousarray(response.T)


@lru_cache(maxsize=MOST_TABLES)
def _radial_terms(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, focus: Focus = SURFACE
) -> tuple[NDArray[np.float64], ...]:
    """`_radial` or, if offsets are signed, `_radial_at`, of each term of the light."""
    assert plan.terms is not None
    r, z, table = optics_tables.unlit(optics, pair, dye, plan, focus)
    unlit, k = _spectrum(plan, pair, table, r), np.arange(plan.frequencies) / plan.per_cycle
    found = []
    photons = sheet.photons(optics, plan, pair, dye, z)
    for term in range(plan.rank):
        response = unlit * photons[term][:, None]
        if plan.haze is not None:
            response -= haze.taken(optics, plan, pair, dye, z, k, term)
        sharpen = gridding.sharpened_along_signed_z if plan.signed else gridding.sharpened_along_z
        response = sharpen(response)
        response[[0, -1] if plan.signed else [-1]] /= 2
        found.append(np.ascontiguousarray(response.T))
    return tuple(found)


def _near(
    optics: Optics,
    plan: OpticsPlan,
    pair: OpticsPair,
    dye: Fluorophore,
    z_nm: NDArray[np.float64],
    table: NDArray[np.float64],
    r_nm: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Lateral transforms of a table's rows without what the map of far dyes transfers."""
    found = _spectrum(plan, pair, table, r_nm)
    if plan.haze is not None:
        k = np.arange(plan.frequencies) / plan.per_cycle
        found = found - haze.taken(optics, plan, pair, dye, z_nm, k)
    return found


def _spectrum(
    plan: OpticsPlan, pair: OpticsPair, table: NDArray[np.float64], r_nm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lateral transforms of a table's rows in photo-electrons, faded out to the band."""
    k = np.arange(plan.frequencies) / plan.per_cycle
    return hankel.radial_spectrum(table, r_nm, k) * (plan.kept(k) * pair.efficiency)
