"""Labelling of the 2017 program: regions, cells, displaced voxels, proteins, dyes.

It reproduces that program's images, not physics. Two passes over the specimen come first: they count the voxels of each cell in
the layer's region, and those that leave the specimen when they are displaced.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, NmBox, three
from simexm.kernels.labels import regions
from simexm.kernels.labels.cells import CellIndex, counts
from simexm.kernels.numbers.detmath import CUT_SIGMA
from simexm.legacy2017.kernels import label
from simexm.legacy2017.kernels import regions as simexm2017_regions
from simexm.names import Name
from simexm.random import derive_key, id_uniform
from simexm.settings import Frozen
from simexm.stages.contract import (
    LABELS,
    REGIONS,
    CellTable,
    Counted,
    CountPass,
    LabelPart,
    Quantity,
    RegionRule,
    RunContext,
    TileState,
)
from simexm.stages.roles import MOST_LAYERS, Labeller

FLUOROPHORES = Quantity("fluorophores", "zyx", "fluorophores of each dye per voxel")
VOXELS, DROPPED = "simexm2017_voxels", "simexm2017_dropped"


class Layer2017(Frozen):
    """One layer of the 2017 program.

    Attributes
    ----------
    name
        Names the layer's label image and its random streams.
    dye
        Name of a dye. Layers of the same dye add up.
    region
        `membrane`, `cytosol`, or a mask of the source.
    labeling_density
        Share of the eligible cells that the layer labels.
    protein_density_per_nm3
        Proteins per nm^3 of the region.
    protein_noise
        floor((1 - protein_noise) n) draws with replacement mark the voxels, of a cell's n, that stay; the others are displaced by
        a Gaussian of 100 nm along each axis. So about 37 % move even at 0.
    antibody_amp
        Fluorophores per protein.
    single_neuron
        Label one cell only: of those to be labelled, the one with most voxels in the region.
    """

    name: Name
    dye: str
    region: str = "membrane"
    labeling_density: float = Field(default=0.5, ge=0, le=1)
    protein_density_per_nm3: float = Field(default=0.2, ge=0, le=1)
    protein_noise: float = Field(default=0.0, ge=0, le=1)
    antibody_amp: float = Field(default=5.0, ge=1, le=1e6)
    single_neuron: bool = False


class Labelling2017(Labeller):
    """Fluorophores per voxel, by the rules of the 2017 program.

    Membrane is where the Laplacian of the ids is not zero, so a cell 5 between cells 4 and 6 has none there. Voxels on the
    specimen's border are cytosol.

    Attributes
    ----------
    neighbourhood
        26: neighbours in 3-D (the original's `isotropic`). 8: neighbours in the slice.
    global_density
        Share of the cells that any layer may label.
    layers
        What is labelled.
    """

    stage: Literal["simexm2017_labelling"] = "simexm2017_labelling"
    neighbourhood: Literal[26, 8] = 26
    global_density: float = Field(default=1.0, ge=0, le=1)
    layers: tuple[Layer2017, ...] = Field(min_length=1, max_length=MOST_LAYERS)

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (REGIONS, FLUOROPHORES)
    whole_labels: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = False

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [layer.name.lower() for layer in self.layers]
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(f"two layers are named {', '.join(double)}; the name keys label images and random numbers")
        if "cells" in names:
            raise ValueError("a layer cannot be named 'cells': the truth of all cells is stored under that name")
        return self

    @property
    def named_layers(self) -> tuple[Layer2017, ...]:
        """The layers, in order."""
        return self.layers

    def labelled(self, layer: str, ids: NDArray[np.uint64], seed: int, counted: Counted) -> NDArray[np.uint8]:
        """1 for each id that the layer labels; before the count, all candidates of `single_neuron`. Id 0 is no cell."""
        mine = next(n for n in self.layers if n.name == layer)
        eligible = id_uniform(ids, derive_key(seed, self.stage, "cells")) < self.global_density
        flags = eligible & (id_uniform(ids, derive_key(seed, self.stage, layer, "cells")) < mine.labeling_density)
        if mine.single_neuron and VOXELS in counted:
            flags &= ids == np.uint64(counted[VOXELS].largest(_column(layer))[0])
        flags &= ids != 0
        return flags.astype(np.uint8)

    def reach_nm(self, context: RunContext) -> float:
        """Largest displacement of a voxel."""
        return label.DISPLACEMENT_NM * CUT_SIGMA

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Fluorophores of each dye, and copies of the ids and regions within the specimen."""
        return voxels.size * (4 * len({layer.dye for layer in self.layers}) + 5)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The largest displacement on each side, and one more voxel for the Laplacian."""
        voxel = context.geometry.voxel_nm
        reach = label.reach(three(map(float, voxel)))
        return {"labels": wanted.grown(three((r + 1) * v for r, v in zip(reach, voxel, strict=True)))}

    # ---------------------------------------------------------------- passes

    def passes(self) -> tuple[CountPass, ...]:
        """Count the voxels of each cell in each layer's region, then those of them that leave the specimen."""
        columns = tuple(_column(layer.name) for layer in self.layers)
        return CountPass(VOXELS, columns), CountPass(DROPPED, columns)

    def count_box(self, name: str, own: Box, context: RunContext) -> Box | None:
        """The voxels and their neighbours; None if the box is too far from the border for any voxel to leave."""
        crop = context.geometry.crop
        if name == DROPPED:
            reach = label.reach(three(map(float, context.geometry.voxel_nm)))
            inner = crop.grown((-reach[0], -reach[1], -reach[2]))
            if min(b - a for a, b in zip(inner.start, inner.stop, strict=True)) > 0 and inner.contains(own):
                return None
        return simexm2017_regions.label_box(own, crop)

    def count(self, name: str, own: Box, part: LabelPart, state: TileState) -> dict[str, NDArray[np.int64]]:
        """Count one box."""
        found = self._regions(part.index, part, state)
        columns = {}
        for layer in self.layers:
            out = np.zeros(len(part.cells.ids), np.int64)
            if name == VOXELS:
                bits = state.context.region_bits[layer.region]
                simexm2017_regions.count_region(part.index, found, part.box, own, bits, out)
            else:
                law = self._law(layer, part.cells, state)
                crop = state.context.geometry.crop
                label.count_dropped(part.index, found, part.box, own, crop, law, out)
            ids = part.cells.ids
            out[self.labelled(layer.name, ids, state.context.seed, state.counted) == 0] = 0
            columns[_column(layer.name)] = out
        return columns

    def counted_warnings(self, name: str, table: CellTable) -> list[str]:
        """Layers that will be empty."""
        if name != VOXELS:
            return []
        return [
            f"layer {layer.name!r} will be empty: no cell that it labels has a voxel in the region {layer.region!r}; check the "
            "region's mask, global_density and labeling_density, or try another seed"
            for layer in self.layers
            if table.largest(_column(layer.name))[1] == 0
        ]

    # ---------------------------------------------------------------- a tile

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Find the regions within the specimen."""
        inside = part.box.intersect(state.context.geometry.crop)
        specimen = inside.relative_to(part.box.start).slices
        found = self._regions(np.ascontiguousarray(part.index[specimen]), part, state, specimen)
        part.placed, part.regions = part.index, np.zeros(part.index.shape, found.dtype)
        part.regions[specimen] = found

    def run(self, state: TileState) -> None:
        """Write `fluorophores`: a box of voxels and, by dye, the int32 counts in it."""
        state.write(REGIONS, RegionRule(in_slice=self.neighbourhood == 8))
        geometry, part = state.context.geometry, state.labels.whole()
        wanted = state.boxes.get("fluorophores")
        if wanted is None:
            return
        inside = part.box.intersect(geometry.crop)
        specimen = inside.relative_to(part.box.start).slices
        index, found = np.ascontiguousarray(part.index[specimen]), np.ascontiguousarray(part.marked()[specimen])
        target = geometry.voxels(wanted).intersect(geometry.crop)
        own = geometry.own_voxels(state.pixels)
        volumes: dict[str, NDArray[np.int32]] = {}
        for layer in self.layers:
            volume = volumes.setdefault(layer.dye, np.zeros(target.shape, np.int32))
            count = state.tally.dyes[layer.name] = counts()
            law = self._law(layer, part.cells, state, with_proteins=True)
            label.add_dyes(index, found, inside, geometry.crop, target, law, volume, own, count.at(part.cells.ids))
        state.write(FLUOROPHORES, (target, volumes))

    def _regions(
        self,
        index: NDArray[np.int32],
        part: LabelPart,
        state: TileState,
        specimen: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None)),
    ) -> NDArray[np.integer[Any]]:
        found = simexm2017_regions.laplacian_regions(
            index, part.cells.ids, self.neighbourhood == 8, regions.MEMBRANE, regions.CYTOSOL
        )
        masks = [(state.context.region_bits[name], mask[specimen]) for name, mask in part.masks.items()]
        bits = found.astype(regions.bits_type_of(masks), copy=False)
        for bit, mask in masks:
            regions.add_mask(index, mask, bits.dtype.type(bit), bits)
        return bits

    def _law(self, layer: Layer2017, cells: CellIndex, state: TileState, with_proteins: bool = False) -> label.Layer:
        """The layer's effect on the voxels of each cell."""
        ids, column = cells.ids, _column(layer.name)
        voxel = three(map(float, state.context.geometry.voxel_nm))
        voxels = state.counted[VOXELS].look_up(ids)[column]
        proteins = np.zeros(len(ids))
        if with_proteins:
            left = voxels - state.counted[DROPPED].look_up(ids)[column]
            proteins = label.proteins_per_voxel(left, layer.protein_density_per_nm3, voxel)
            proteins[self.labelled(layer.name, ids, state.context.seed, state.counted) == 0] = 0
        return label.Layer(
            state.context.region_bits[layer.region],
            label.stay_probability(voxels, layer.protein_noise),
            proteins,
            layer.antibody_amp,
            voxel,
            derive_key(state.context.seed, self.stage, layer.name, "proteins"),
        )


def _column(layer: str) -> str:
    return f"voxels_{layer}"
