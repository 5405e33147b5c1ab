"""Synapses: contacts of cells at junctions, with their direction, sign, and what lies on either side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.contract import Bench, Conclusion, ReadPart
from simexm.analysis.objects.borders import PAIRS, PARTS, join
from simexm.analysis.objects.foreground import Foreground, ForegroundReader
from simexm.analysis.stored_table import StoredTable
from simexm.analysis.synapses import inputs as given
from simexm.analysis.synapses.borders import Found, near_pairs, parts_of
from simexm.analysis.synapses.inputs import Named, Volumes, bits_of
from simexm.analysis.synapses.rows import CONTACTS, COUNTS, TABLE, VOTES, Rows, contact_keys, synapse_keys, vote_keys
from simexm.analysis.volume import voxel_floats
from simexm.errors import OutputError
from simexm.geometry.grid import Box, Tiling, Triple, three
from simexm.kernels.objects.clusters import reach_of, shortest_nm
from simexm.kernels.objects.faces import STEPS, Faces, unpacked
from simexm.kernels.objects.grow import grown, reach
from simexm.kernels.objects.patches import PATCH_COLUMNS, add_faces
from simexm.kernels.objects.synapses import around, ball, ball_reach, nearest_values

SECONDS_PER_VOXEL = 2e-7
BYTES_PER_VOXEL = 160
"""Rough work of a voxel; and memory of one in a block."""
AT_ONCE = 1 << 20
"""Faces that are looked at together."""


class Synapses(Foreground):
    """Find the synapses of cells: contacts at junctions, such as densities or clefts, with position, area, direction and sign.

    It reads CELLS, JUNCTIONS, and further NAME=PATH: masks of vesicles, presynaptic and postsynaptic sides, symmetric and
    asymmetric junctions; compartment, cell_type and spine_heads, whose values on both sides are noted; and truth, a table of
    junctions by id with pre and post. It writes the table `synapses`. `content`, `threshold` and the radii are of junctions.

    Attributes
    ----------
    datasets
        Volume inside an input, by its name, such as junctions: synapse_id. That of the cells is `dataset`.
    gap_nm
        Cells this close touch; see `simexm contacts`.
    junction_on
        A face between two cells is synaptic if a junction is on both sides of it, or on either: in the cell's own voxels or in
        the space between cells, near the voxel at the face. Densities of one side need either.
    junction_reach_nm
        How near, centre to centre.
    join_nm
        Synaptic voxels of the same two cells, and of the same junction where junctions are labels, belong to one synapse if
        steps of at most this length lead from one to the other; at least the diagonal of a voxel.
    side_nm
        Radius around each face within which each cell's share of vesicles and other masks is measured.
    symmetric_share
        Share of symmetric among symmetric and asymmetric voxels from which a synapse is inhibitory.
    smallest_um2
        Area by faces from which a synapse counts.
    """

    analysis: Literal["synapses"] = "synapses"
    datasets: Mapping[str, str] = Field(default_factory=dict)
    gap_nm: float = Field(default=40.0, ge=0, le=2000)
    junction_on: Literal["both", "either"] = "both"
    junction_reach_nm: float = Field(default=40.0, ge=0, le=1000)
    join_nm: float = Field(default=250.0, ge=0, le=1e5)
    side_nm: float = Field(default=200.0, gt=0, le=5000)
    symmetric_share: float = Field(default=0.5, ge=0, le=1)
    smallest_um2: float = Field(default=0.005, ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.datasets:
            if name not in (given.JUNCTIONS, *given.MASKS, *given.VALUES):
                raise ValueError(
                    f"datasets names {name!r}, and the volumes are junctions, {', '.join((*given.MASKS, *given.VALUES))}; that "
                    "of the cells is `dataset`"
                )
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open CELLS, JUNCTIONS and further inputs, NAME=PATH."""
        found = []
        for number, one in enumerate(inputs):
            if isinstance(one, Named):
                found.append(one)
                continue
            name, path = given.named(one, number)
            if name == given.TRUTH:
                found.append(Named(name, StoredTable.of(path, TABLE, ("id", "pre", "post"))))
                continue
            dataset = self.dataset if name == given.CELLS else self.datasets.get(name)
            found.append(Named(name, self.model_copy(update={"dataset": dataset})._volume(path)))
        return tuple(found)

    def open(self, inputs: tuple[Named, ...]) -> Bench:
        """Open the volumes; raises SpecError if their grids do not agree, OutputError if one is missing or given twice."""
        names = [one.name for one in inputs]
        if len(names) < 2:
            raise OutputError(
                f"synapses reads CELLS and JUNCTIONS, not {len(names)} inputs; type: simexm synapses CELLS JUNCTIONS"
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise OutputError(f"{twice[0]} is given twice, and only one can be used; leave one out")
        if given.TRUTH in names and self.content != "labels":
            raise OutputError(
                "truth names junctions by their ids, and a mask or probability has none; set content: labels, or leave truth out"
            )
        for one in inputs:
            if isinstance(one.what, StoredTable) and not one.what.rows:
                raise OutputError(f"{one.what.path} holds no synapse, so no direction is known; leave truth out")
        return _SynapsesBench(self, inputs)


class _SynapsesBench(Bench):
    """The volumes in blocks."""

    def __init__(self, settings: Synapses, inputs: tuple[Named, ...]) -> None:
        self.settings = settings
        self.volumes = volumes = Volumes.of(inputs, settings.roi)
        self.whole, self.voxel_nm = volumes.whole, voxel_floats(volumes.cells)
        self.read_cells = volumes.cells.numbers("labels")
        junctions = volumes.others[given.JUNCTIONS]
        self._junctions = ForegroundReader(settings, junctions, volumes.within(given.JUNCTIONS))
        self.masks = tuple(name for name in given.MASKS if name in volumes.others)
        self.values = tuple(name for name in given.VALUES if name in volumes.others)
        self._read_masks = [volumes.reader(name, "mask") for name in self.masks]
        self._read_values = [volumes.reader(name, "labels") for name in self.values]
        self._near, self._sides = ball(settings.junction_reach_nm, self.voxel_nm), ball(settings.side_nm, self.voxel_nm)
        self.join_nm = max(settings.join_nm, shortest_nm(self.voxel_nm))
        self.tiling = Tiling(self.whole, (settings.block_voxels,) * 3)
        truth = next((one.what for one in inputs if one.name == given.TRUTH), None)
        self.rows = Rows(settings, self.voxel_nm, volumes.cells, self.masks, self.values, truth)
        self.keyed = {TABLE: synapse_keys(self.masks), CONTACTS: contact_keys(), VOTES: vote_keys()}
        self.surveys = (PARTS, PAIRS)
        self.inputs = {one.name: one.what.identity for one in inputs}
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        halo = max(*ball_reach(settings.side_nm, self.voxel_nm), *reach(settings.gap_nm / 2, self.voxel_nm)) + 2
        sides = zip(self.tiling.cell, self.whole.shape, strict=True)
        self.block_bytes = BYTES_PER_VOXEL * math.prod(min(n, m) + 2 * halo for n, m in sides)

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Find the parts of synapses near the borders of a block, then which of them are near each other."""
        if name == PAIRS:
            return near_pairs(self.tiling, number, self.voxel_nm, self.join_nm, read)
        found, _, _ = self._found(self.tiling[number])
        return parts_of(found, self.tiling[number], self.whole, self.volumes.cells.shape, self._reach)

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the parts of all blocks."""
        join(self.blocks, read, folder, lambda sizes: np.ones(len(sizes), np.bool_))

    @property
    def _reach(self) -> Triple:
        return reach_of(self.join_nm, self.voxel_nm)

    def _found(self, box: Box) -> tuple[Found, NDArray[np.int8], Faces]:
        """The parts of synapses in a block, their faces, and all faces between cells."""
        near = box.grown((1, 1, 1)).intersect(self.whole)
        halo = three(n + 1 for n in reach(self.settings.gap_nm / 2, self.voxel_nm))
        wide = box.grown(halo).intersect(self.whole)
        cells = grown(self.read_cells(wide), self.settings.gap_nm / 2, self.voxel_nm)
        own = box.relative_to(near.start)
        faces = Faces.of(np.ascontiguousarray(cells[near.relative_to(wide.start).slices]), own.start, own.stop)
        rows = self._synaptic(box, faces, near.start)
        keys, voxels, kinds = (np.concatenate(column) for column in zip(*rows, strict=True))
        return Found.of(keys, voxels, self.voxel_nm, self.join_nm), kinds, faces

    def _synaptic(
        self, box: Box, faces: Faces, corner: Triple
    ) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int8]]]:
        """Faces at junctions: keys, see `Found`, voxels in the volume, and faces; some at a time, to bound the memory."""
        margin = ball_reach(self.settings.junction_reach_nm, self.voxel_nm)
        near = box.grown(three(n + 1 for n in margin)).intersect(self.whole)
        junctions = self._junctions.read(near.shifted(self.volumes.shifts[given.JUNCTIONS]))
        cells = self.read_cells(near)
        for begin in range(0, max(1, faces.keys.size), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            voxels, kinds = unpacked(faces.places[part], faces.shape) + corner, faces.faces[part]
            pairs = faces.pairs_of(faces.keys[part])
            one, other = (
                nearest_values(junctions, cells, at - near.start, np.ascontiguousarray(pairs[:, side]), self._near)
                for side, at in enumerate((voxels, voxels + STEPS[kinds]))
            )
            found = np.where(one != 0, one, other)
            some = (one != 0) & (other != 0) if self.settings.junction_on == "both" else found != 0
            yield np.column_stack([pairs[some], found[some]]), voxels[some], kinds[some]

    def measure(self, number: int) -> Mapping[str, Any]:
        """Measure what of each synapse lies in a block, and the contacts of all cells there."""
        box = self.tiling[number]
        found, faces, every = self._found(box)
        synapse = found.numbers(self.volumes.cells.shape)
        numbers = found.border_numbers(found.near_border(box, self.whole, self._reach))
        crossing = numbers > 0
        synapse[crossing] = self.joined["ids"][int(self.joined["first"][number]) + numbers[crossing] - 1]
        names = {**dict(zip(("first", "second", "junction"), found.keys.T, strict=True)), "synapse": synapse}
        counts = np.zeros((len(found), len(PATCH_COLUMNS)), np.int64)
        add_faces(counts, found.part, found.voxels, faces)
        touching = np.unique(np.column_stack([found.part, found.voxels]), axis=0)[:, 0]
        voxels = np.bincount(touching, minlength=len(found))
        sides, votes = self._around(box, found, faces, names)
        sums = dict(zip(PATCH_COLUMNS, counts.T, strict=True)) | {"voxels": voxels} | sides
        return {TABLE: {**names, **sums}, CONTACTS: _contacts(every), VOTES: votes}

    def _around(
        self, box: Box, found: Found, faces: NDArray[np.int8], names: Mapping[str, NDArray[Any]]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Sums over the faces of each part of what is around them on either side, and votes for values there."""
        sums = {f"{side}_{what}": np.zeros(len(found), np.int64) for side in COUNTS for what in ("around", *self.masks)}
        rows: list[NDArray[np.uint64]] = [np.empty((0, 4), np.uint64)]
        if (self.masks or self.values) and len(found):
            near = box.grown(three(n + 1 for n in ball_reach(self.settings.side_nm, self.voxel_nm))).intersect(
                self.whole
            )
            cells, bits = self.read_cells(near), bits_of(self._read_masks, near)
            values = [read(near).reshape(-1) for read in self._read_values]
            for s, side in enumerate(COUNTS):
                at = found.voxels - near.start + (STEPS[faces] if s else 0)
                own = found.keys[found.part, s]
                counts, nearest = around(cells, bits, len(self.masks), at, own, self._sides)
                for n, what in enumerate(("around", *self.masks)):
                    np.add.at(sums[f"{side}_{what}"], found.part, counts[:, n])
                known = nearest >= 0
                for n, field in enumerate(values):
                    voted = field[nearest[known]].astype(np.uint64)
                    role = np.full(voted.size, 2 * n + s, np.uint64)
                    pairs = np.column_stack([found.part[known].astype(np.uint64), role, voted])
                    unique, times = np.unique(pairs, axis=0, return_counts=True)
                    rows.append(np.column_stack([unique, times.astype(np.uint64)]))
        part, role, value, times = np.concatenate(rows).T
        keys = {name: column[part.astype(np.int64)] for name, column in names.items()}
        return sums, {**keys, "role": role, "value": value, "times": times.astype(np.int64)}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Turn sums into the table of synapses, piece by piece."""
        return self.rows.concluded(sums[TABLE], sums[CONTACTS], sums[VOTES])


def _contacts(faces: Faces) -> dict[str, NDArray[Any]]:
    """Faces of each pair of cells, by the axis across them."""
    keys, where = np.unique(faces.keys, return_inverse=True)
    pairs = faces.pairs_of(keys)
    counts = np.zeros((keys.size, 3), np.int64)
    np.add.at(counts, (where, faces.faces // 2), 1)
    return {"first": pairs[:, 0], "second": pairs[:, 1], **dict(zip(PATCH_COLUMNS[:3], counts.T, strict=True))}
