"""From a stream of dyes to the expected image of a tile: the work that all microscopes share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simexm.grid import Box
from simexm.kernels import hankel, imaging
from simexm.kernels.deposit import Ring
from simexm.kernels.psf_special import sinc_array
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.base import EmitterStream
from simexm.stages.optics_plan import AT_ONCE, OpticsPair, OpticsPlan, ring_depth

if TYPE_CHECKING:
    from simexm.stages.optics import Optics


def expected_image(
    optics: Optics,
    plan: OpticsPlan,
    stream: EmitterStream,
    dyes: Mapping[str, Fluorophore],
    tile: Box,
    kept: dict[str, NDArray[np.complex64]] | None = None,
) -> NDArray[np.float32]:
    """Expected image of a tile, float32, (channel, z, y, x), photo-electrons per pixel.

    Parameters
    ----------
    optics, plan
        The microscope, and what it was resolved to.
    stream
        Where dyes are.
    dyes
        Spectra, by name.
    tile
        Pixels.
    kept
        Where there are rounds: holds the spectra of the dyes that do not vary, from the tile's first round on.
    """
    grid = plan.lateral(tile.shape)
    names = [c.name for c in optics.all_channels]

    def add(spectra: NDArray[np.complex64], some: Iterable[str]) -> NDArray[np.complex64]:
        for dye in some:
            seen = [
                (names.index(p.channel), transfer(optics, plan, p, dyes[dye], grid)) for p in plan.pairs if p.dye == dye
            ]
            for wanted, planes, used in node_windows(stream, dye, plan, tile, grid):
                here = slice(wanted.start - tile.start[0], wanted.stop - tile.start[0])
                for channel, response in seen if used.any() else ():
                    imaging.project(
                        planes, used, *response, plan.subdivision[0], wanted.start, *grid.pixels, grid.nodes[1],
                        spectra[channel, here],
                    )  # fmt: skip
        return spectra

    def dark() -> NDArray[np.complex64]:
        return np.zeros((len(names), tile.shape[0], grid.pixels[0], grid.pixels[1] // 2 + 1), np.complex64)

    used_dyes = list(dict.fromkeys(stream.dyes.values()))
    if kept is None:
        spectra = add(dark(), used_dyes)
    else:
        if "spectra" not in kept:
            kept["spectra"] = add(dark(), [d for d in used_dyes if d not in stream.varying])
        spectra = add(kept["spectra"].copy(), [d for d in used_dyes if d in stream.varying])
    expected = np.empty((len(names), *tile.shape), np.float32)
    inner = slice(plan.halo, plan.halo + tile.shape[1]), slice(plan.halo, plan.halo + tile.shape[2])
    for c in range(len(names)):
        for k in range(tile.shape[0]):
            expected[c, k] = imaging.inverse_plane(spectra[c, k], grid)[inner]
    return expected


def node_windows(
    stream: EmitterStream, dye: str, plan: OpticsPlan, tile: Box, grid: imaging.LateralGrid
) -> Iterator[tuple[range, NDArray[np.float32], NDArray[np.bool_]]]:
    """Deposit one dye and transform its node planes, as many at a time as some planes of the image see.

    Yields
    ------
    Planes of the image in ascending order, and spectra of all node planes that they see with their slots in use; see
    `imaging.project`. Both arrays are used again.
    """
    m = plan.subdivision
    low, high = plan.node_planes(tile)
    corner = (low, (tile.start[1] - plan.halo) * m[1], (tile.start[2] - plan.halo) * m[2])
    ny, nx = ((n + 2 * plan.halo) * m[1] for n in tile.shape[1:])
    ring = Ring(corner, (high - low, ny, nx), ring_depth(plan, stream.reach_nm))
    slots = plan.window(tile)
    planes = np.zeros((2 * grid.band[0] + 1, slots, 2, grid.band[1] + 1), np.float32)
    used = np.zeros(slots, np.bool_)
    per_nm = tuple(1.0 / float(c) for c in plan.node_nm)
    # pixel p (centre (p + 1/2) * pitch) is node m * p
    shift = tuple(0.5 * n for n in m)
    begin = tile.start[0]  # of the next planes

    def seen() -> Iterator[tuple[range, NDArray[np.float32], NDArray[np.bool_]]]:
        nonlocal begin
        wanted = range(begin, min(begin + AT_ONCE, tile.stop[0]))
        yield wanted, planes, used
        begin = wanted.stop
        for node in range(wanted.start * m[0] - plan.reach, begin * m[0] - plan.reach):
            used[node % slots] = False  # no later plane sees it

    def stored(up_to: int) -> Iterator[tuple[range, NDArray[np.float32], NDArray[np.bool_]]]:
        for node, held in ring.advance(up_to):
            while node >= begin * m[0] - plan.reach + slots:
                yield from seen()
            imaging.store_plane(imaging.plane_spectrum(held, grid), planes, node % slots)
            used[node % slots] = True

    for chunk in stream.chunks(dye):
        if chunk.layer is not None:
            e = chunk.emitters
            ring.add(e.z, e.y, e.x, e.weight, per_nm, shift)  # type: ignore[arg-type]
        else:
            yield from stored(math.floor(chunk.floor_nm * per_nm[0] - shift[0] - 0.5))
    yield from stored(high)
    while begin < tile.stop[0]:
        yield from seen()


def transfer(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, grid: imaging.LateralGrid
) -> tuple[
    NDArray[np.float64], float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]:
    """Transfer function of one pair on a tile's frequencies, as `imaging.project` takes it.

    In photo-electrons per pixel for a dye: response, pixel aperture and grid correction together.
    """
    m = grid.subdivision
    table = _radial(optics, plan, pair, dye)
    node = float(plan.node_nm[1])
    y, x = (np.arange(q + 1) / n for q, n in zip(grid.band, grid.nodes, strict=True))
    factor_y, factor_x = (m * sinc_array(c * m) * imaging.sharpened(c) for c in (y, x))
    return table, plan.per_cycle, y / node, factor_y, x / node, factor_x


@lru_cache(maxsize=32)
def _radial(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore) -> NDArray[np.float64]:
    """Radial transfer on the axial offsets, (frequencies, reach + 1), corrected for the weights along z."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    table = optics.tabulate(channel, dye, pair.emission_nm, float(plan.node_nm[0]), plan.reach, plan.radius_nm)
    k = np.arange(plan.frequencies) / plan.per_cycle
    spectrum = hankel.radial_spectrum(table.table, table.r_nm, k)
    spectrum[:, k > plan.band_per_nm] = 0
    response = imaging.sharpened_along_z(spectrum)
    # the outermost planes stand for half a node each, so that the range ends at them whatever the pitch
    response[-1] /= 2
    return np.ascontiguousarray(response.T)
