"""Labelling: which cells are labelled, how many proteins and dyes they carry, and where each dye sits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, NmBox, Tiling, Triple, exact, exact3, three
from simexm.kernels.devices.device import Where
from simexm.kernels.emission.emit import CAPACITY, emitter_bytes
from simexm.kernels.emission.points import BINOMIAL, POISSON, UNSPECIFIC, EmissionLaw, LayerKeys
from simexm.kernels.labels import regions
from simexm.kernels.labels.cells import ByCell, counts
from simexm.kernels.numbers.detmath import CUT_SIGMA
from simexm.names import Name
from simexm.random import derive_key, id_uniform
from simexm.settings import Frozen
from simexm.stages.contract import (
    EMITTERS,
    LABELS,
    REGIONS,
    Chunk,
    Counted,
    EmitterStream,
    Quantity,
    RunContext,
    TileState,
)
from simexm.stages.roles import MOST_LAYERS, Labeller


class DyesPerProtein(Frozen):
    """How many dyes a labelled protein carries.

    Attributes
    ----------
    distribution
        `poisson`: mean `mean`. `binomial`: `sites` sites, each filled with `probability`. `fixed`: exactly `sites`.
    mean
        Mean number of dyes, for `poisson`.
    sites
        Binding sites, for `binomial`; number of dyes, for `fixed`.
    probability
        Probability that a site is filled, for `binomial`.
    """

    distribution: Literal["poisson", "binomial", "fixed"] = "poisson"
    mean: float | None = Field(default=None, gt=0, le=1000)
    sites: int | None = Field(default=None, ge=1, le=1000)
    probability: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = {"poisson": {"mean"}, "binomial": {"sites", "probability"}, "fixed": {"sites"}}[self.distribution]
        given = {k for k in ("mean", "sites", "probability") if getattr(self, k) is not None}
        if wanted != given:
            raise ValueError(
                f"a {self.distribution} number of dyes needs {' and '.join(sorted(wanted))}, "
                f"not {' and '.join(sorted(given)) or 'nothing'}"
            )
        return self

    def law(self, retention: float) -> tuple[int, float, float]:
        """(kind, dyes, kept) of `EmissionLaw` if each dye is retained with probability `retention`."""
        if self.distribution == "poisson":
            return POISSON, float(self.mean or 0), retention
        return BINOMIAL, float(self.sites or 0), retention * (self.probability or 1.0)

    @property
    def average(self) -> float:
        """Mean number of dyes before any is lost."""
        return float(self.mean) if self.mean is not None else (self.sites or 0) * (self.probability or 1.0)


class Layer(Frozen):
    """One kind of label: a dye on the proteins of one region.

    Attributes
    ----------
    name
        Name of the layer, its label image and its random streams: letters, digits, - and _.
    dye
        Name of a dye.
    region
        `membrane`, `cytosol`, or a mask of the source.
    cell_fraction
        Share of the cells that are labelled; chosen by seed and cell id, so a cell is labelled alike everywhere.
    density_per_um2, density_per_um3
        Labelled proteins per um^2 of cell surface (membrane only) or per um^3 of the region; give one of the two.
    dyes_per_protein
        Distribution of dyes on a protein.
    retention
        Probability that a dye survives anchoring, digestion and polymerisation.
    linker_nm
        Standard deviation along each axis of the distance from protein to dye, truncated at 4 standard deviations.
    stained
        `before_expansion`: the linker expands with the tissue. `after_expansion`: it keeps its length.
    unspecific_per_um3
        Dyes bound unspecifically per um^3 of tissue, inside cells and outside.
    """

    name: Name
    dye: str
    region: str = "membrane"
    cell_fraction: float = Field(default=1.0, gt=0, le=1)
    density_per_um2: float | None = Field(default=None, gt=0, le=1e6)
    density_per_um3: float | None = Field(default=None, gt=0, le=1e9)
    dyes_per_protein: DyesPerProtein = DyesPerProtein(mean=4.0)
    retention: float = Field(default=1.0, gt=0, le=1)
    linker_nm: float = Field(default=0.0, ge=0, le=200)
    stained: Literal["before_expansion", "after_expansion"] = "before_expansion"
    unspecific_per_um3: float = Field(default=0.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _one_density(self) -> Self:
        if self.name == "cells":
            raise ValueError(
                "a layer cannot be named 'cells': the label image of all cells has that name; choose another"
            )
        if (self.density_per_um2 is None) == (self.density_per_um3 is None):
            raise ValueError(f"layer {self.name!r} needs exactly one of density_per_um2 and density_per_um3")
        if self.density_per_um2 is not None and self.region != "membrane":
            raise ValueError(
                f"layer {self.name!r} gives density_per_um2, which is per surface of membrane, but labels region "
                f"{self.region!r}; give density_per_um3"
            )
        return self

    def sigma_nm(self, factor: float) -> float:
        """Standard deviation of the linker in nm of tissue."""
        return self.linker_nm / factor if self.stained == "after_expansion" else self.linker_nm

    def law(self, context: RunContext) -> EmissionLaw:
        """The emission law of a voxel."""
        kind, dyes, kept = self.dyes_per_protein.law(self.retention)
        volume = math.prod(float(v) for v in context.geometry.voxel_nm) * 1e-9
        by_surface = self.density_per_um2 is not None
        mean = self.density_per_um2 if self.density_per_um2 is not None else (self.density_per_um3 or 0.0) * volume
        full = mean * _largest_surface_um2(context) if by_surface else mean
        subcells, clumped = subdivide(context, full * dyes * kept, full)
        sigma = self.sigma_nm(float(context.geometry.transform.scale))
        bits = context.region_bits[self.region]
        return EmissionLaw(mean, by_surface, bits, kind, dyes, kept, (sigma, sigma, sigma), subcells, clumped)

    def unspecific_law(self, context: RunContext) -> EmissionLaw:
        """The emission law of unspecific binding, dye by dye."""
        volume = math.prod(float(v) for v in context.geometry.voxel_nm) * 1e-9
        mean = self.unspecific_per_um3 * volume * self.retention
        subcells, clumped = subdivide(context, mean, mean)
        return EmissionLaw(mean, False, 0, BINOMIAL, 1.0, 1.0, (0.0, 0.0, 0.0), subcells, clumped, UNSPECIFIC)


def _largest_surface_um2(context: RunContext) -> float:
    """Upper bound of the surface in one voxel: its six faces."""
    z, y, x = (float(v) * 1e-3 for v in context.geometry.voxel_nm)
    return 2 * (z * y + y * x + z * x)


def subdivide(context: RunContext, dyes_per_voxel: float, proteins_per_voxel: float) -> tuple[Triple, bool]:
    """Sub-cells of a voxel (z, y, x), and whether each draws its number of dyes at once.

    If a cell of `context.clump_cell_nm` would hold more than `context.clump_above` dyes on average, the voxel is
    divided into sub-cells no larger than that, which draw at once. Otherwise dyes are drawn protein by protein, in
    sub-cells of at most a few thousand dyes and proteins, because the number of either is part of the counter of a
    draw.
    """
    voxel = [float(v) for v in context.geometry.voxel_nm]
    if context.clump_cell_nm is not None:
        cell = context.clump_cell_nm
        share = math.prod(min(1.0, c / v) for c, v in zip(cell, voxel, strict=True))
        if dyes_per_voxel * share > context.clump_above:
            z, y, x = (math.ceil(v / c - 1e-9) for v, c in zip(voxel, cell, strict=True))
            return (max(1, z), max(1, y), max(1, x)), True
    parts = max(1, math.ceil((max(dyes_per_voxel, proteins_per_voxel) / 4096) ** (1 / 3)))
    return (parts, parts, parts), False


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
                flags = [device.put(labelled.at(ids)) for _, _, labelled, _, _ in streams]
                counted = [device.zeros((ids.size,), np.int64) for _ in streams]
                slabs = [here] if labels.depth > 1 else list(Tiling(here, (device.slab, *here.shape[1:])))
                for inside in slabs:
                    if labels.depth == 1:
                        yield floor(inside.start[0])
                    where = Where(geometry.crop, inside, own, voxel_nm)
                    for (layer, law, _, keys, specific), flag, count in zip(streams, flags, counted, strict=True):
                        for found in device.emit(part.on_device(), where, flag, surface, law, keys, room, count):
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

    def _streams(self, dye: str, state: TileState) -> Iterator[tuple[Layer, EmissionLaw, ByCell, LayerKeys, bool]]:
        """Yield each layer of a dye, and its unspecific part, as (layer, law, labelled cells, keys, whether specific)."""
        for layer in (n for n in self.layers if n.dye == dye):
            labelled = ByCell(partial(self.labelled, layer.name, seed=state.context.seed, counted=state.counted))
            yield layer, layer.law(state.context), labelled, _keys(state.context.seed, layer.name, ""), True
            if layer.unspecific_per_um3 > 0:
                keys = _keys(state.context.seed, layer.name, "unspecific ")
                yield layer, layer.unspecific_law(state.context), labelled, keys, False


def _keys(seed: int, layer: str, kind: str) -> LayerKeys:
    return LayerKeys(
        *(derive_key(seed, "labelling", layer, kind + purpose) for purpose in ("number", "place", "linker"))
    )
