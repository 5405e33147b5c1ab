"""Dyes that switch in a frame of a widefield microscope: tables of their images, and the frame."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.diffraction.tables import SURFACE
from simexm.kernels.imaging import flashes as kernel
from simexm.kernels.imaging.flashes import MARGIN, Spots
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EmitterStream, RunContext
from simexm.stages.microscope import planar
from simexm.stages.microscope.optics_plan import OpticsPair, OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

SHARE = 0.98
"""Share of the light within the lateral radius that a spot's window holds."""
_CUTS_PER_PERIOD = 12.0
_PLANES_PER_NODE = 4
_RINGS = 3.0
_AT_ONCE = 8


@lru_cache(maxsize=32)
def table(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore) -> Spots:
    """Return the images of a dye in a channel that is on for a whole exposure, photo-electrons."""
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    pixel, step = float(optics.spacing_nm[1]), float(plan.node_nm[0]) / _PLANES_PER_NODE
    cuts = max(2, math.ceil(pixel * _CUTS_PER_PERIOD * optics.cutoff_per_nm(channel, pair.emission_nm)))
    radius = _radius_nm(optics, plan, pair)
    reach = (math.ceil(radius / pixel) + 2) * cuts
    most = math.ceil(plan.range_nm / step) + MARGIN
    z = np.arange(-most, most + 1, dtype=np.float64) * step
    foci = plan.depths.foci if plan.depths is not None else (SURFACE,)
    (first,), (later,) = plan.blend(range(1))
    planes = []
    for start in range(0, z.size, _AT_ONCE):
        some = z[start : start + _AT_ONCE]
        pitch, images = planar.images(optics, channel, dye, pair.emission_nm, some, radius, foci[first])
        if later > 0:
            deeper = planar.images(optics, channel, dye, pair.emission_nm, some, radius, foci[first + 1])[1]
            images = (1 - later) * images + later * deeper
        planes += [kernel.sampled(image * pair.efficiency, pitch, pixel, cuts, reach) for image in images]
    return kernel.spots(planes, step, plan.range_nm, cuts, SHARE, pair.in_focus)


def _radius_nm(optics: Optics, plan: OpticsPlan, pair: OpticsPair) -> float:
    """Radius of the cone of light at the end of the range, and some rings more."""
    lens = optics.lens
    slope = lens.aperture / math.sqrt(max(lens.gel**2 - lens.aperture**2, 1e-2))
    return min(plan.radius_nm, plan.range_nm * slope + _RINGS * pair.emission_nm / lens.aperture)


def add_flashes(
    optics: Optics,
    plan: OpticsPlan,
    stream: EmitterStream,
    context: RunContext,
    tile: Box,
    expected: NDArray[np.float32],
) -> None:
    """Add the dyes of a stream that flash to the expected image of a tile of one plane, (channel, 1, y, x)."""
    names = [c.name for c in optics.all_channels]
    pixel = float(optics.spacing_nm[1])
    corner = [float(c) for c in context.geometry.pixels_nm(Box.of_shape((0, 0, 0))).start]
    focus = corner[0] + (tile.start[0] + 0.5) * float(context.geometry.pixel_nm[0])
    total = np.zeros((len(names), *tile.shape[1:]))
    for dye, unit in stream.flashing.items():
        chunks = [c.emitters for c in stream.chunks(dye) if c.layer is not None and c.emitters.z.size]
        for number, pair in ((n, p) for n, p in enumerate(plan.pairs) if p.dye == dye):
            spots = table(optics, plan, pair, context.dyes[dye])
            for part in plan.parts(tile):
                _, rows, columns = part.box.relative_to(tile.start).slices
                into = total[names.index(pair.channel), rows, columns]
                for emitters in chunks:
                    seen = emitters
                    if plan.field is not None:
                        seen = emitters.moved(partial(plan.field.moved, plan.shift(number), part.axis_nm))
                    y, x = ((at - c) / pixel for at, c in zip(seen[1:3], corner[1:], strict=True))
                    start = (part.box.start[1], part.box.start[2])
                    kernel.add(seen.z - focus, y, x, np.asarray(seen.weight * unit, np.float64), spots, start, into)
    expected[:, 0] += total
