"""Image formation shared by all microscopes: from an emitter stream to the expected image of a tile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Device, NodeGrid, NodePlanes
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging import gridding, image
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EmitterStream
from simexm.stages.microscope import dose, haze, optics_tables, planar
from simexm.stages.microscope.optics_plan import MOST_TABLES, OpticsPair, OpticsPlan, ring_depth
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
    grid = plan.lateral(tile.shape)
    names = [c.name for c in optics.all_channels]
    coarse = (len(names), tile.shape[0], grid.pixels[0], grid.pixels[1] // 2 + 1)

    def add_dye(spectra: Any, dye: str) -> None:
        with timed("imaging: point spread functions"):
            seen = [
                (names.index(p.channel), device.response(transfer(optics, plan, p, dyes[dye], grid, tile)))
                for p in plan.pairs
                if p.dye == dye
            ]
        for wanted, planes in node_windows(stream, dye, plan, tile, device):
            here = slice(wanted.start - tile.start[0], wanted.stop - tile.start[0])
            with timed("imaging: sum over planes"):
                for channel, response in seen:
                    planes.project(response, wanted, spectra[channel, here, :, :])

    def add(spectra: Any, some: Iterable[str]) -> Any:
        for dye in some:
            add_dye(
                spectra, dye
            )  # in a function, so that one dye's planes are freed before the next one's are allocated
        return spectra

    used_dyes = list(dict.fromkeys(stream.dyes.values()))
    if kept is None:
        spectra = add(device.zeros(coarse, np.complex64), used_dyes)
    else:
        if "spectra" not in kept:
            constant = [d for d in used_dyes if d not in stream.varying]
            kept["spectra"] = add(device.zeros(coarse, np.complex64), constant)
        spectra = device.zeros(coarse, np.complex64)
        spectra += kept["spectra"]
        spectra = add(spectra, [d for d in used_dyes if d in stream.varying])
    expected = device.zeros((len(names), *tile.shape), np.float32)
    inner = slice(plan.halo, plan.halo + tile.shape[1]), slice(plan.halo, plan.halo + tile.shape[2])
    with timed("imaging: inverse transforms"):
        for c in range(len(names)):
            device.image(spectra[c, ...], grid, inner, expected[c, ...])
    return expected


def node_windows(
    stream: EmitterStream, dye: str, plan: OpticsPlan, tile: Box, device: Device
) -> Iterator[tuple[range, NodePlanes]]:
    """Deposit one dye and transform its node planes, a window of image planes at a time.

    Yields ranges of image planes, ascending, with the transformed node planes that they see.
    """
    m = plan.subdivision
    low, high = plan.node_planes(tile)
    corner = (low, (tile.start[1] - plan.halo) * m[1], (tile.start[2] - plan.halo) * m[2])
    ny, nx = ((n + 2 * plan.halo) * m[1] for n in tile.shape[1:])
    z, y, x = (1.0 / float(c) for c in plan.node_nm)
    # pixel p (centre (p + 1/2) * pitch) is node m * p
    shift = (0.5 * m[0], 0.5 * m[1], 0.5 * m[2])
    depth = ring_depth(plan, stream.reach_nm)
    shape, wanted = (high - low, ny, nx), range(tile.start[0], tile.stop[0])
    grid = NodeGrid(plan.lateral(tile.shape), corner, shape, depth, (z, y, x), shift, wanted, m[0], plan.reach)
    planes = device.node_planes(grid)
    for chunk in stream.chunks(dye):
        if chunk.layer is not None:
            with timed("imaging: deposit"):
                planes.add(chunk.emitters)
        else:
            for ready in timed_each(planes.advance(math.floor(chunk.floor_nm * z - shift[0]) - 1), _FORWARD):
                yield ready, planes
    for ready in timed_each(planes.advance(high), _FORWARD):
        yield ready, planes


def transfer(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, grid: image.LateralGrid, tile: Box
) -> image.Transfer | image.Blended | image.Planar:
    """Transfer function of one pair on a tile's frequencies, photo-electrons per pixel and dye.

    The product of response, pixel aperture and grid correction.
    """
    m = grid.subdivision
    node = float(plan.node_nm[1])
    y, x = (np.arange(q + 1) / n for q, n in zip(grid.band, grid.nodes, strict=True))
    factor_y, factor_x = (m * sinc_array(c * m) * gridding.sharpened(c) for c in (y, x))
    wanted = range(tile.start[0], tile.stop[0])
    left = dose.shares(optics, plan, pair, dye, wanted)
    if not plan.signed:
        return image.Transfer(_radial(optics, plan, pair, dye), plan.per_cycle, y / node, factor_y, x / node, factor_x)
    used = plan.tables(tile)
    first, share = plan.blend(wanted)
    weight = np.ones((len(wanted), 2 * plan.reach + 1)) if left is None else left
    low, high = ((s[:, None] * weight).astype(np.float32) for s in (1 - share, share))
    foci = (SURFACE,) if plan.depths is None else tuple(plan.depths.foci[j] for j in used)
    if pair.planar is not None:
        y, factor_y = (np.concatenate([v, s * v[:0:-1]]) for v, s in ((y, -1), (factor_y, 1)))
        response = planar.transfer(optics, plan, pair, dye, foci, y / node, x / node)
        response *= (factor_y[:, None] * factor_x).astype(np.float32)
        return image.Planar(response, wanted.start, first - used.start, low, high)
    table = np.ascontiguousarray(np.concatenate([_radial_at(optics, plan, pair, dye, f) for f in foci], axis=1))
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
