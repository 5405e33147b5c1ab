"""From dyes on coarse nodes to the light that they add to the expected image; see `haze`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Device
from simexm.kernels.imaging import far, nodes
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EmitterStream, NodeMap
from simexm.stages.maps import MARGIN, MapPass
from simexm.stages.microscope import dose, haze
from simexm.stages.microscope.optics_plan import OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

UNIT_BITS = 10
"""Values of the map count dyes in units of 2^-10."""
AT_ONCE = 16
"""Planes of nodes, or of pixels, that are processed together."""


def map_dyes(wanted: MapPass, cells: Box, stream: EmitterStream, plan: OpticsPlan, device: Device) -> NDArray[np.int64]:
    """Dyes at the nodes of a box of cells of the finest level, (dyes, *cells.shape), in units of 2^-10 dyes."""
    m = plan.subdivision
    pixel_nm = tuple(n * c for n, c in zip(m, plan.node_nm, strict=True))
    z, y, x = (1.0 / float(c) for c in wanted.cell_nm((pixel_nm[0], pixel_nm[1], pixel_nm[2])))
    found = np.zeros((len(wanted.layers), *cells.shape), np.int64)
    drop = 3 * nodes.FRACTION_BITS - UNIT_BITS
    for values, dye in zip(found, wanted.layers, strict=True):
        if dye not in stream.dyes.values():
            continue
        held = device.zeros(cells.shape, np.int64)
        for chunk in stream.chunks(dye):
            if chunk.layer is not None:
                device.deposit_nodes(chunk.emitters, (z, y, x), cells.start, held)
        values[...] = (device.to_host(held) + (1 << (drop - 1))) >> drop
    return found


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
    one = plan.haze
    assert one is not None
    windows = [(tile.start[1:], tile.stop[1:])]
    while 2 ** (len(windows) - 1) < one.pixels[-1]:
        (y, x), (v, u) = windows[-1]
        along = (far.coarser_window(y, v), far.coarser_window(x, u))
        windows.append(((along[0][0], along[1][0]), (along[0][1], along[1][1])))
    xp, channels = device.xp, expected.shape[0]
    for k in range(tile.start[0], tile.stop[0], 4 * AT_ONCE):
        wanted = range(k, min(k + 4 * AT_ONCE, tile.stop[0]))
        light: list[Any] = [None] * channels
        for n in reversed(range(len(windows))):
            (y, x), (v, u) = windows[n]
            light = [None if c is None else far.finer(c, (y, x), (v, u), xp) for c in light]
            if 2**n in one.pixels:
                box = Box((0, y, x), (0, v, u))
                level = one.pixels.index(2**n)
                more = _level(optics, plan, dyes, nodes_of, planes, level, wanted, box, device, channels)
                light = [b if a is None else a if b is None else a + b for a, b in zip(light, more, strict=True)]
        at = slice(wanted.start - tile.start[0], wanted.stop - tile.start[0])
        for c, found in enumerate(light):
            if found is not None:
                expected[c, at, :, :] += found


def _level(
    optics: Optics,
    plan: OpticsPlan,
    dyes: Mapping[str, Fluorophore],
    nodes_of: NodeMap,
    planes: int,
    level: int,
    wanted: range,
    box: Box,
    device: Device,
    channels: int,
) -> list[Any]:
    """Light that a level adds at its own nodes `box`, by channel, (planes, y, x); None where there is none."""
    one, xp = plan.haze, device.xp
    assert one is not None
    radius, b = one.radii[level], one.per_plane
    offsets = range(one.starts[level], one.starts[level + 1])
    size = far.lengths((box.shape[1], box.shape[2]), radius)
    names = [c.name for c in optics.all_channels]
    centres = np.array(wanted) * b + b // 2
    low = max(int(centres[0]) - offsets.stop + 1, -MARGIN * b)
    high = min(int(centres[-1]) + offsets.stop, (planes + MARGIN + 1) * b)
    layers = plan.dyes()
    tables: dict[int, tuple[Any, NDArray[np.float32] | None]] = {}
    total: list[Any] = [None] * channels
    for start in range(low, high, AT_ONCE):
        stop = min(start + AT_ONCE, high)
        near = np.abs(np.arange(start, stop)[:, None] - centres)
        if not ((near >= offsets.start) & (near < offsets.stop)).any():
            continue
        values = nodes_of.read(level, box.grown((0, radius, radius)).with_z(start, stop))
        for layer, dye in enumerate(layers):
            if not values[layer].any():
                continue
            held = device.put((values[layer] * np.float32(2.0**-UNIT_BITS)).astype(np.float32))
            spectra = far.spectra(held, size, xp)
            for n, pair in enumerate(plan.pairs):
                if pair.dye != dye:
                    continue
                if n not in tables:
                    kernels = haze.kernels(optics, plan, pair, dyes[dye], level)
                    left = dose.far_shares(optics, plan, dyes[dye], wanted, offsets.stop)
                    tables[n] = device.put(far.transfers(kernels, size)), left
                c = names.index(pair.channel)
                if total[c] is None:
                    total[c] = device.zeros((len(wanted), size[0], size[1] // 2 + 1), np.complex64)
                for j in range(start, stop):
                    _add(total[c], spectra[j - start, :, :], *tables[n], j - centres, offsets, device)
    cut = slice(radius, radius + box.shape[1]), slice(radius, radius + box.shape[2])
    return [None if t is None else far.inverse(t, size, xp)[:, cut[0], cut[1]] for t in total]


def _add(
    total: Any,
    spectrum: Any,
    table: Any,
    left: NDArray[np.float32] | None,
    distance: NDArray[np.int64],
    offsets: range,
    device: Device,
) -> None:
    """Add a plane of nodes at a distance from each image plane to those that it serves."""
    for side in (distance, -distance):
        served = np.flatnonzero((side >= offsets.start) & (side < offsets.stop))
        if not served.size:
            continue
        first, last = int(served[0]), int(served[-1]) + 1
        place = side[first:last] - offsets.start
        part = device.xp.take(table, device.put(place), axis=0)
        if left is not None:
            share = left[np.arange(first, last), distance[first:last] + left.shape[1] // 2]
            part = part * device.put(share[:, None, None])
        total[first:last, :, :] += part * spectrum[None, :, :]
