"""Microscopes over frames of chosen size, and dyes at chosen places, near and far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Tiling, Triple, exact3
from simexm.geometry.transform import IDENTITY
from simexm.run.maps import InMemory
from simexm.spectra.efficiency import EVERY_PHOTON
from simexm.stages.contract import EXPANDED, EXPECTED, Counted, RunContext, Tile
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from tests.stages.optics_build import Array, _stream, dye_of


def context_of(optics: Optics, shape: Triple, frame: tuple[int, int] | None = None) -> RunContext:
    """A specimen as large as the image, in frames of these rows and columns."""
    thick = exact3(float(s) * n for s, n in zip(optics.spacing_nm, shape, strict=True))
    one = Box.of_shape((1, 1, 1))
    geometry = Geometry((1, 1, 1), one, thick, exact3((0, 0, 0)), IDENTITY, optics.spacing_nm, frame=frame)
    dye = dye_of(optics)
    imaging = optics.resolve({dye.name: dye}, geometry, EVERY_PHOTON)
    channels = tuple(c.name for c in optics.all_channels)
    return RunContext(0, geometry, {}, {dye.name: dye.name}, imaging, channels=channels, dyes={dye.name: dye})


def plan_of(context: RunContext) -> OpticsPlan:
    """The resolved optics."""
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, OpticsPlan)
    return context.imaging.formation


def image(
    optics: Optics,
    shape: Triple,
    points: Array,
    frame: tuple[int, int] | None = None,
    tile: Triple | None = None,
) -> tuple[NDArray[np.float32], OpticsPlan]:
    """Expected image (channel, z, y, x) of dyes at places (n, 3), nm."""
    context = context_of(optics, shape, frame)
    name = dye_of(optics).name
    everything, counted = Box.of_shape(shape), Counted()
    for wanted in optics.maps(context):
        own = wanted.own(everything, shape)
        cells = [wanted.cells(own, level) for level in range(len(wanted.pixels))]
        state = Tile(context, everything, values={EXPANDED.name: _stream({name: points})}).of(optics)
        finest = optics.map(wanted, cells[0], state)
        levels = [v.astype(np.float32) for v in wanted.levels(finest)]
        counted = Counted({}, {wanted.name: InMemory([c.start for c in cells], levels)})
    found = np.empty((len(optics.all_channels), *shape), np.float32)
    for box in Tiling(everything, tile or shape):
        made = Tile(context, box, counted=counted, values={EXPANDED.name: _stream({name: points})})
        optics.run(made.of(optics))
        found[(slice(None), *box.slices)] = made.values[EXPECTED.name]
    return found, plan_of(context)


def scattered(shape: Triple, pitch: Array, n: int, seed: int) -> Array:
    """Dyes at random places of an image."""
    places: Array = np.random.default_rng(seed).random((n, 3)) * np.array(shape) * pitch
    return places
