"""From dyes on coarse nodes to the light that they add to the expected image; see `haze`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Device
from simexm.kernels.imaging import far, nodes
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EmitterStream, NodeMap
from simexm.stages.maps import MapPass
from simexm.stages.microscope import dose, haze, sheet
from simexm.stages.microscope.field import ChromaticShift, Part
from simexm.stages.microscope.haze import HazePlan
from simexm.stages.microscope.optics_plan import OpticsPair, OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

UNIT_BITS = 10
"""Values of the map count dyes in units of 2^-10."""
PLANES = 128
"""Image planes whose far light is computed together."""
AT_ONCE = 16
"""Planes of nodes that are read together, and image planes that are interpolated together."""


def map_dyes(wanted: MapPass, cells: Box, stream: EmitterStream, plan: OpticsPlan, device: Device) -> NDArray[np.int64]:
    """Dyes at the nodes of a box of cells of the finest level, (looks, *cells.shape), in units of 2^-10 dyes."""
    m = plan.subdivision
    pixel_nm = tuple(n * c for n, c in zip(m, plan.node_nm, strict=True))
    z, y, x = (1.0 / float(c) for c in wanted.cell_nm((pixel_nm[0], pixel_nm[1], pixel_nm[2])))
    found = [np.empty(0, np.int64)] * len(wanted.layers)
    drop = 3 * nodes.FRACTION_BITS - UNIT_BITS
    for dye in dict.fromkeys(stream.dyes.values()):
        looks = [(n, look) for n, look in enumerate(plan.looks()) if look.dye == dye]
        if not looks:
            continue
        held = [device.zeros(cells.shape, np.int64) for _ in looks]
        for chunk in stream.chunks(dye):
            if chunk.layer is None:
                continue
            for (_, look), nodes_of in zip(looks, held, strict=True):
                emitters = chunk.emitters
                if plan.field is not None:
                    emitters = emitters.moved(partial(plan.field.moved_by_frame, look.shift, xp=device.xp))
                device.deposit_nodes(emitters, (z, y, x), cells.start, nodes_of)
        for (n, _), nodes_of in zip(looks, held, strict=True):
            nodes_of += 1 << (drop - 1)
            nodes_of >>= drop
            found[n] = device.to_host(nodes_of)
    return np.stack(found)


def add_haze(
    optics: Optics,
    plan: OpticsPlan,
    dyes: Mapping[str, Fluorophore],
    nodes_of: NodeMap,
    planes: int,
    tile: Box,
    device: Device,
    expected: Any,
) -> None:
    """Add the light of far dyes to the expected image of a tile, (channel, z, y, x), of an image of so many `planes`."""
    for part in plan.parts(tile):
        _, y, x = part.box.relative_to(tile.start).slices
        _add_to_part(optics, plan, dyes, nodes_of, planes, part, device, expected[:, :, y, x])


def _add_to_part(
    optics: Optics,
    plan: OpticsPlan,
    dyes: Mapping[str, Fluorophore],
    nodes_of: NodeMap,
    planes: int,
    part: Part,
    device: Device,
    expected: Any,
) -> None:
    one, tile = plan.haze, part.box
    assert one is not None
    xp, windows = device.xp, windows_of(one, tile)
    for k in range(tile.start[0], tile.stop[0], PLANES):
        wanted = range(k, min(k + PLANES, tile.stop[0]))
        light = {
            times: _level(
                optics, plan, dyes, nodes_of, planes, level, wanted, part, windows[times.bit_length() - 1], device
            )
            for level, times in enumerate(one.pixels)
        }
        for c in range(expected.shape[0]):
            for first in range(0, len(wanted), AT_ONCE):
                some = slice(first, min(first + AT_ONCE, len(wanted)))
                found = None
                for n in reversed(range(len(windows))):
                    box = windows[n]
                    if found is not None:
                        found = far.finer(found, (box.start[1], box.start[2]), (box.stop[1], box.stop[2]), xp)
                    more = light[2**n][c] if 2**n in light else None
                    if more is not None:
                        found = more[some, :, :] if found is None else found + more[some, :, :]
                if found is not None:
                    start = wanted.start - tile.start[0] + some.start
                    expected[c, start : start + found.shape[0], :, :] += found


def windows_of(one: HazePlan, tile: Box) -> list[Box]:
    """Nodes, along y and x, from which the pixels of a tile are interpolated: of 1 pixel, of 2, of 4, ..."""
    windows = [tile]
    while 2 ** (len(windows) - 1) < one.pixels[-1]:
        (_, y, x), (_, v, u) = windows[-1].start, windows[-1].stop
        (a, b), (c, d) = far.coarser_window(y, v), far.coarser_window(x, u)
        windows.append(Box((0, a, c), (0, b, d)))
    return windows


def _level(
    optics: Optics,
    plan: OpticsPlan,
    dyes: Mapping[str, Fluorophore],
    nodes_of: NodeMap,
    planes: int,
    level: int,
    wanted: range,
    part: Part,
    box: Box,
    device: Device,
) -> list[Any]:
    """Light that a level adds at its own nodes `box`, by channel, (planes, y, x); None where there is none."""
    one, xp = plan.haze, device.xp
    assert one is not None
    radius, b = one.radii[level], one.per_plane
    offsets = range(one.starts[level], one.starts[level + 1])
    size = far.lengths((box.shape[1], box.shape[2]), radius)
    names = [c.name for c in optics.all_channels]
    centres = np.array(wanted) * b + b // 2
    beyond = one.map_pass(()).planes_beyond
    low = max(int(centres[0]) - offsets.stop + 1, -beyond * b)
    high = min(int(centres[-1]) + offsets.stop, (planes + beyond + 1) * b)
    lit = None if plan.terms is None else sheet.lit_by(optics, plan, dyes)
    weights = [_weights(plan, part, look.shift, lit, level, box, device) for look in plan.looks()]
    tables: dict[tuple[int, int], tuple[Any, NDArray[np.float32]]] = {}
    total: list[Any] = [None] * len(names)
    for start in range(low, high, AT_ONCE):
        stop = min(start + AT_ONCE, high)
        near = np.abs(np.arange(start, stop)[:, None] - centres)
        if not ((near >= offsets.start) & (near < offsets.stop)).any():
            continue
        values = nodes_of.read(level, box.grown((0, radius, radius)).with_z(start, stop))
        for layer, look in enumerate(plan.looks()):
            if not values[layer].any():
                continue
            held = device.put(values[layer])
            for term in range(plan.rank):
                own = held if weights[layer] is None else held * weights[layer][term, :, :][None, :, :]
                spectra = far.spectra(own, size, xp)
                for n in look.pairs:
                    if (n, term) not in tables:
                        left = dose.far_shares(optics, plan, n, dyes[look.dye], wanted, offsets.stop)
                        tables[n, term] = (
                            _transfers(optics, plan, plan.pairs[n], dyes[look.dye], level, term, size, device),
                            left,
                        )
                    c = names.index(plan.pairs[n].channel)
                    if total[c] is None:
                        total[c] = device.zeros((len(wanted), size[0], size[1] // 2 + 1), np.complex64)
                    device.add_far(total[c], spectra, *tables[n, term], offsets.start, start - centres)
    inner = slice(radius, radius + box.shape[1]), slice(radius, radius + box.shape[2])
    return [None if t is None else far.inverse(t, size, inner, xp) for t in total]


def _weights(
    plan: OpticsPlan, part: Part, shift: ChromaticShift, lit: sheet.Lit | None, level: int, box: Box, device: Device
) -> Any:
    """a_k at the nodes of a level, (terms, ny or 1, nx or 1); None if the light is the same everywhere."""
    if lit is None:
        return None
    assert plan.haze is not None
    radius, times = plan.haze.radii[level], plan.haze.pixels[level]
    spans = [
        (first - radius, count + 2 * radius, float(node) * m * times, 0.5)
        for first, count, node, m in zip(
            box.start[1:], box.shape[1:], plan.node_nm[1:], plan.subdivision[1:], strict=True
        )
    ]
    return device.put(sheet.factors(plan, part, shift, lit, spans))


def _transfers(
    optics: Optics,
    plan: OpticsPlan,
    pair: OpticsPair,
    dye: Fluorophore,
    level: int,
    term: int,
    size: tuple[int, int],
    device: Device,
) -> Any:
    """Transfer functions of planes of nodes on each side, (sides, distances, y, x), on the device, by units of the map."""
    kernels = (haze.kernels(optics, plan, pair, dye, level, side, term) for side in haze.sides(optics))
    return device.put(np.stack([far.transfers(each, size) for each in kernels]) * np.float32(2.0**-UNIT_BITS))
