"""Contacts of cells: where voxels of two ids are neighbours, or come closer than a gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, ReadPart, Score
from simexm.analysis.objects.borders import PAIRS as TOUCHING
from simexm.analysis.objects.borders import (
    PARTS,
    join,
)
from simexm.analysis.objects.patches import border_patches, patch_ids, patch_parts, touching_pairs
from simexm.analysis.volume import Volume, VolumeAnalysis, voxel_floats
from simexm.geometry.grid import Box, Tiling, Triple, three
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.objects.contacts import (
    CONTACT_COLUMNS,
    CROSSINGS,
    areas_um2,
    contacts,
    crofton_areas_um2,
    face_areas_um2,
)
from simexm.kernels.objects.grow import grown, reach
from simexm.kernels.objects.patches import PATCH_COLUMNS, Patches
from simexm.kernels.objects.runs import Runs

TABLE, PATCHES = "contacts", "patches"
PAIRS = Keyed(("first", "second"), dict.fromkeys(CONTACT_COLUMNS, "sum"))
PATCH_ROWS = Keyed(("first", "second", "patch"), dict.fromkeys(PATCH_COLUMNS, "sum"))
SECONDS_PER_VOXEL = 6e-8
BYTES_PER_VOXEL, PATCH_BYTES = 48, 250
"""Rough work of a voxel; and memory of one in a block, if each is a run of its own; and more where patches are found."""


class Contacts(VolumeAnalysis):
    """Find the contacts of cells, with areas, positions and normals.

    It writes the table `contacts`, one row for each pair of ids, `first` < `second`; and with `patches` a table of these.

    Attributes
    ----------
    gap_nm
        Cells this close touch, too: each grows into the space between by half the gap, and what meets there is the contact. A
        third cell between two keeps them apart. 0: only voxels side by side touch.
    patches
        Whether the separate patches of each contact are found, too: the voxels of the first cell that share a face with the
        other, joined where they are neighbours. A patch's number is one more than the smallest index of its voxels.
    crofton
        Whether areas are also measured by Crofton's formula, which takes half as much time again. Areas by faces depend on how a
        contact lies on the grid, and are up to 1.7 times too large.
    smallest_um2
        Area from which a contact counts, by Crofton's formula if that is measured.
    """

    analysis: Literal["contacts"] = "contacts"
    gap_nm: float = Field(default=0.0, ge=0, le=2000)
    patches: bool = False
    crofton: bool = True
    smallest_um2: float = Field(default=0.0, ge=0)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open the volume; raises SourceError if it holds no ids, SpecError for a bad region."""
        self.refuse_other_count(inputs, 1, "VOLUME")
        return _ContactsBench(self, inputs[0])


class _ContactsBench(Bench):
    """The volume in blocks."""

    def __init__(self, settings: Contacts, volume: Volume) -> None:
        self.settings, self.volume = settings, volume
        self.whole, self.voxel_nm = settings.box(volume), voxel_floats(volume)
        self.read = volume.numbers("labels")
        self.halo = three(n + 1 for n in reach(settings.gap_nm / 2, self.voxel_nm))
        self.tiling = Tiling(self.whole, (settings.block_voxels,) * 3)
        self.keyed = {TABLE: PAIRS}
        self.inputs = {"volume": volume.identity}
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        if settings.patches:
            self.keyed = {**self.keyed, PATCHES: PATCH_ROWS}
            self.surveys = (PARTS, TOUCHING)
            self.core_seconds *= 3
        sides = zip(self.tiling.cell, self.whole.shape, self.halo, strict=True)
        bytes_per_voxel = BYTES_PER_VOXEL + (PATCH_BYTES if settings.patches else 0)
        self.block_bytes = bytes_per_voxel * math.prod(min(n, m) + 2 * h for n, m, h in sides)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Count the contacts that begin in a block, and the patches in it."""
        values, own, corner = self._values(self.tiling[number])
        pairs, counts = contacts(Runs.of(values), own.start, own.stop, corner, faces_only=not self.settings.crofton)
        names = {"first": pairs[:, 0], "second": pairs[:, 1]}
        made = {TABLE: {**names, **dict(zip(CONTACT_COLUMNS, counts.T, strict=True))}}
        if not self.settings.patches:
            return made
        found = Patches.of(values, own.start, own.stop, corner)
        numbers = border_patches(found, self.tiling[number], self.whole)
        ids, crossing = patch_ids(found, self.volume.shape), numbers > 0
        ids[crossing] = self.joined["ids"][int(self.joined["first"][number]) + numbers[crossing] - 1]
        columns = dict(zip(PATCH_COLUMNS, found.counts.T, strict=True))
        return {**made, PATCHES: {"first": found.pairs[:, 0], "second": found.pairs[:, 1], "patch": ids, **columns}}

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Find the patches at the borders of a block, then which of them touch."""
        if name == TOUCHING:
            return touching_pairs(self.tiling, number, self.volume.shape, read)
        values, own, corner = self._values(self.tiling[number])
        found = Patches.of(values, own.start, own.stop, corner)
        return patch_parts(found, self.tiling[number], self.whole, self.volume.shape)

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the patches of all blocks."""
        join(self.blocks, read, folder, lambda sizes: np.ones(len(sizes), np.bool_))

    def _values(self, box: Box) -> tuple[NDArray[Any], Box, Triple]:
        """Ids in a box and one voxel around it, the box in this array, and the array's first voxel."""
        wide, near = box.grown(self.halo).intersect(self.whole), box.grown((1, 1, 1)).intersect(self.whole)
        values = grown(self.read(wide), self.settings.gap_nm / 2, self.voxel_nm)
        inner = np.ascontiguousarray(values[near.relative_to(wide.start).slices])
        return inner, box.relative_to(near.start), near.start

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Turn counts into areas, positions and normals, piece by piece."""
        rows: MergedRows = sums[TABLE]
        number, totals = 0, np.zeros(len(CROSSINGS), object)  # whole numbers of any size
        for piece in rows:
            kept = self._kept(piece)
            number += int(kept.sum())
            totals += [sum(piece[name][kept].tolist()) for name in CROSSINGS]
        each = {"faces": face_areas_um2(self.voxel_nm), "area": crofton_areas_um2(self.voxel_nm)}
        faces, area = (math.fsum(map(float, totals * areas)) for areas in each.values())
        scores = [
            Score("contacts", float(number), "pairs", "pairs of cells in contact"),
            Score("faces", faces, "um^2", "area of all contacts by faces"),
        ]
        if self.settings.crofton:
            scores.append(Score("area", area, "um^2", "area of all contacts by Crofton's formula"))
        tables = {TABLE: self._tables(rows)}
        if self.settings.patches:
            patches: MergedRows = sums[PATCHES]
            number = sum(piece["patch"].size for piece in patches)
            scores.append(Score("patches", float(number), "patches", "separate patches of all contacts"))
            tables[PATCHES] = self._patches(patches)
        return Conclusion(tables, tuple(scores))

    def _patches(self, rows: MergedRows) -> Iterator[pa.Table]:
        origin = [float(o) for o in self.volume.origin_nm]
        for piece in rows:
            names = {name: piece[name] for name in PATCH_ROWS.keys}
            yield pa.table({**names, **face_properties(piece, self.voxel_nm, origin)})

    def _kept(self, piece: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        counts = np.stack([piece[name] for name in CROSSINGS], axis=1).reshape(-1, len(CROSSINGS))
        each = crofton_areas_um2(self.voxel_nm) if self.settings.crofton else face_areas_um2(self.voxel_nm)
        kept: NDArray[np.bool_] = areas_um2(counts, each) >= self.settings.smallest_um2
        return kept

    def _tables(self, rows: MergedRows) -> Iterator[pa.Table]:
        origin = [float(o) for o in self.volume.origin_nm]
        for piece in rows:
            table = properties(piece, self.voxel_nm, origin)
            if not self.settings.crofton:
                del table["area_um2"]
            kept = self._kept(piece)
            yield pa.table({name: column[kept] for name, column in table.items()})


def properties(
    rows: Mapping[str, NDArray[Any]], voxel_nm: tuple[float, float, float], origin_nm: list[float]
) -> dict[str, NDArray[Any]]:
    """Compute the properties of contacts from their counts.

    Returns
    -------
    dict
        `first`, `second`. `faces`: their number, 0 where voxels touch only at edges or corners. `faces_um2`: their area.
        `area_um2`: area by Crofton's formula. `z_nm`, `y_nm`, `x_nm`: mean position of the faces by area, NaN without any.
        `normal_z` ...: unit vector from the first to the second cell, the mean of the faces by area; 0 if they cancel.
    """
    counts = np.stack([rows[name] for name in CROSSINGS], axis=1).reshape(-1, len(CROSSINGS))
    made: dict[str, NDArray[Any]] = {"first": rows["first"], "second": rows["second"]}
    made |= {"area_um2": areas_um2(counts, crofton_areas_um2(voxel_nm))}
    return made | face_properties(rows, voxel_nm, origin_nm)


def face_properties(
    rows: Mapping[str, NDArray[Any]], voxel_nm: tuple[float, float, float], origin_nm: list[float]
) -> dict[str, NDArray[Any]]:
    """Compute the properties that follow from faces; see `properties`."""
    counts = np.stack([rows[name] for name in CROSSINGS[:3]], axis=1).reshape(-1, 3)
    face = face_areas_um2(voxel_nm)[:3]
    by_faces = areas_um2(counts, face)
    made: dict[str, NDArray[Any]] = {"faces": counts.sum(axis=1), "faces_um2": by_faces}
    with np.errstate(invalid="ignore"):
        for axis, size, origin in zip("zyx", voxel_nm, origin_nm, strict=True):
            doubled = sum(rows[f"place_{axis}_{across}"] * face[n] for n, across in enumerate("xyz"))
            made[f"{axis}_nm"] = doubled / by_faces / 2 * size + origin
        vector = [rows[f"signed_{across}"] * face[n] for n, across in ((2, "z"), (1, "y"), (0, "x"))]
        length = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
        for axis, along in zip("zyx", vector, strict=True):
            made[f"normal_{axis}"] = np.where(length > 0, along / length, 0.0)
    return made
