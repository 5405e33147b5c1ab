"""Labelling: which cells are labelled, how many proteins and dyes they carry, and where each dye sits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, NmBox, Tiling, exact, exact3, three
from simexm.kernels.devices.device import Where
from simexm.kernels.emission.emit import CAPACITY, emitter_bytes
from simexm.kernels.emission.points import NO_DEPTH, NO_GREY, EmissionLaw, Factors, LayerKeys
from simexm.kernels.labels import regions
from simexm.kernels.labels.cells import ByCell, counts
from simexm.kernels.numbers.detmath import CUT_SIGMA
from simexm.random import derive_key, id_uniform
from simexm.stages.contract import (
    EMITTERS,
    LABELS,
    REGIONS,
    Chunk,
    Counted,
    EmitterStream,
    LabelPart,
    Quantity,
    RunContext,
    TileState,
)
from simexm.stages.roles import MOST_LAYERS, Labeller
from simexm.stages.sample.layer import EVERYWHERE, Layer


class _Stream(NamedTuple):
    """The specific dyes of a layer, or its unspecific ones."""

    layer: Layer
    law: EmissionLaw
    cells: ByCell  # factor of each cell; see `Factors.cell`
    keys: LayerKeys
    specific: bool


class Labelling(Labeller):
    """Dyes on cells, as points.

    Proteins per voxel are Poisson(density * volume, or * surface), at random positions in the voxel. Each carries its
    own dyes, retained with probability `retention`, at a Gaussian linker's distance from the protein.

    Attributes
    ----------
    layers
        Labels and their dyes.
    """

    stage: Literal["labelling"] = "labelling"
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=MOST_LAYERS)

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS, REGIONS)
    writes: ClassVar[tuple[Quantity, ...]] = (EMITTERS,)

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [layer.name.lower() for layer in self.layers]
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(
                f"two layers are named {', '.join(double)}, but label images and random streams need distinct names; rename one"
            )
        return self

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of the longest linker; one voxel more of labels, for surfaces."""
        own = wanted.grown(exact3((exact(self.reach_nm(context)),) * 3))
        return {"regions": own, "labels": own.grown(context.geometry.voxel_nm)}

    @property
    def named_layers(self) -> tuple[Layer, ...]:
        """See `Labeller`."""
        return self.layers

    def labelled(self, layer: str, ids: NDArray[np.uint64], seed: int, counted: Counted) -> NDArray[np.uint8]:
        """See `Labeller`."""
        fraction = next(n.cell_fraction for n in self.layers if n.name == layer)
        key = derive_key(seed, "labelling", layer, "cells")
        return np.asarray((id_uniform(ids, key) < fraction) & (ids != 0), np.uint8)

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """See `Stage`; not of layers that label all tissue."""
        return tuple(used for used in super().regions_used if used[0] != EVERYWHERE)

    @property
    def greys_used(self) -> tuple[tuple[str, str], ...]:
        """See `Stage`."""
        found = ((layer.density_from, layer.name) for layer in self.layers)
        return tuple((grey.field, f"layer {name!r} takes its density from") for grey, name in found if grey is not None)

    def reach_nm(self, context: RunContext) -> float:
        """Length of the longest linker."""
        return max(layer.sigma_nm(float(context.geometry.transform.scale)) for layer in self.layers) * CUT_SIGMA

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """One set of emitter buffers, reused for every chunk."""
        return CAPACITY * emitter_bytes(context.identified)

    def run(self, state: TileState) -> None:
        """Write the stream of emitters; reading it fills the tally."""
        context, labels = state.context, state.labels
        geometry = context.geometry
        voxel_nm = three(map(float, geometry.voxel_nm))
        reach = max(exact(layer.sigma_nm(float(geometry.transform.scale)) * CUT_SIGMA) for layer in self.layers)
        source = geometry.voxels(state.boxes["emitters"].grown(exact3((reach,) * 3))).intersect(geometry.crop)
        own = geometry.own_voxels(state.pixels)
        device = state.device
        surface = device.put(regions.crofton_weights(voxel_nm, state.read(REGIONS).in_slice))
        room = device.room(device.capacity, context.identified)
        # planes of voxels between two floors
        depth = device.slab if labels.depth == 1 else labels.depth
        for layer in self.layers:
            state.tally.dyes[layer.name] = counts()
            state.tally.unspecific[layer.name] = 0

        def floor(z: int) -> Chunk:
            return Chunk(None, room.first(0), float((z - geometry.crop.start[0]) * geometry.voxel_nm[0] - reach))

        def chunks(dye: str) -> Iterator[Chunk]:
            streams = list(self._streams(dye, state))
            for part in labels.parts():
                here = part.core.intersect(source)
                if part.opens and labels.depth > 1:
                    yield floor(max(part.core.start[0], source.start[0]))
                if here.is_empty:
                    continue
                ids = labels.cells.ids
                factors = [self._factors(stream, part, ids, state) for stream in streams]
                counted = [device.zeros((ids.size,), np.int64) for _ in streams]
                slabs = [here] if labels.depth > 1 else list(Tiling(here, (device.slab, *here.shape[1:])))
                for inside in slabs:
                    if labels.depth == 1:
                        yield floor(inside.start[0])
                    where = Where(geometry.crop, inside, own, voxel_nm)
                    for (layer, law, _, keys, specific), factor, count in zip(streams, factors, counted, strict=True):
                        for found in device.emit(part.on_device(), where, factor, surface, law, keys, room, count):
                            if not specific:
                                found.cell[:] = 0
                            yield Chunk(layer.name, found, -math.inf)
                for (layer, _, _, _, specific), count in zip(streams, counted, strict=True):
                    dyes_of_cell = device.to_host(count)
                    if specific:
                        state.tally.dyes[layer.name].at(ids)[: ids.size] += dyes_of_cell
                    else:
                        state.tally.unspecific[layer.name] += int(dyes_of_cell.sum())

        dyes = {layer.name: layer.dye for layer in self.layers}
        state.write(EMITTERS, EmitterStream(dyes, float(depth * geometry.voxel_nm[0] + 2 * reach), chunks))

    def _streams(self, dye: str, state: TileState) -> Iterator[_Stream]:
        """Yield each layer of a dye, and its unspecific part."""
        seed = state.context.seed
        for layer in (n for n in self.layers if n.dye == dye):
            cells = ByCell(partial(self._bright, layer, seed=seed, counted=state.counted))
            yield _Stream(layer, layer.law(state.context), cells, _keys(seed, layer.name, ""), True)
            if layer.unspecific_per_um3 > 0:
                keys = _keys(seed, layer.name, "unspecific ")
                yield _Stream(layer, layer.unspecific_law(state.context), cells, keys, False)

    def _bright(self, layer: Layer, ids: NDArray[np.uint64], seed: int, counted: Counted) -> NDArray[np.float64]:
        """Factor of the density by cell; 0 for cells that the layer does not label."""
        factors = layer.brightness.factors(ids, derive_key(seed, "labelling", layer.name, "brightness"))
        return self.labelled(layer.name, ids, seed, counted) * factors

    def _factors(self, stream: _Stream, part: LabelPart, ids: NDArray[np.uint64], state: TileState) -> Factors:
        """What multiplies the mean of a law in the voxels of a part."""
        layer, put = stream.layer, state.device.put
        depth, grey = NO_DEPTH, NO_GREY
        if layer.penetration is not None:
            depth = layer.penetration.along_axes(part.box, state.context.geometry)
        if layer.density_from is not None and stream.specific:
            grey = part.greys[layer.density_from.field]
        return Factors(put(stream.cells.at(ids)), put(depth), put(grey))


def _keys(seed: int, layer: str, kind: str) -> LayerKeys:
    return LayerKeys(
        *(derive_key(seed, "labelling", layer, kind + purpose) for purpose in ("number", "place", "linker"))
    )
