"""Overlaps of two volumes: voxels by pair of ids, and which id of the second holds most of each of the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Bench, Conclusion, Score
from simexm.analysis.volume import Volume, VolumeAnalysis, same_grid, voxel_floats
from simexm.geometry.grid import Box, Tiling
from simexm.geometry.roi import box_of
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.objects.overlaps import overlaps

TABLE, OWNERS = "overlaps", "owners"
PAIRS = Keyed(("first", "second"), {"voxels": "sum"})
SECONDS_PER_VOXEL = 4e-8
BYTES_PER_VOXEL = 64
"""Rough work of a voxel; and memory of one in a block, if each is a run of its own."""


class TwoVolumes(VolumeAnalysis):
    """Settings of an analysis of two volumes with equal voxels, on their common part.

    Attributes
    ----------
    second_dataset
        Volume inside the second input; `dataset` is that of the first.
    """

    second_dataset: str | None = None

    def opened(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:  # type: ignore[override]
        """Open paths or results as volumes, the second with a dataset of its own."""
        second = self.model_copy(update={"dataset": self.second_dataset})
        return tuple((second if n == 1 else self)._volume(one) for n, one in enumerate(inputs))


class Overlaps(TwoVolumes):
    """Count the voxels that the ids of two volumes share, and assign each id of the first to one of the second.

    It writes the tables `overlaps` (first, second, voxels; 0 is outside) and `owners`: for each id of the first that counts, the
    id of the second with most of its voxels.

    Attributes
    ----------
    smallest_share
        An id of the first is assigned only if at least this share of its voxels lies in its owner.
    smallest_voxels
        And only if it has at least so many voxels.
    """

    analysis: Literal["overlaps"] = "overlaps"
    smallest_share: float = Field(default=0.0, ge=0, le=1)
    smallest_voxels: int = Field(default=0, ge=0)

    def open(self, inputs: tuple[Volume, ...]) -> Bench:
        """Open two volumes; raises SpecError if their grids do not agree."""
        self.refuse_other_count(inputs, 2, "FIRST SECOND")
        return OverlapsBench(self, *inputs)


class OverlapsBench(Bench):
    """Two volumes in blocks of their common part."""

    def __init__(self, settings: TwoVolumes, first: Volume, second: Volume) -> None:
        self.settings, self.first, self.second = settings, first, second
        self.start_first, self.start_second, shape = same_grid(first, second)
        self.whole = box_of(settings.roi, shape, f"the common part of {first.where} and {second.where}")
        self.read_first, self.read_second = first.numbers("labels"), second.numbers("labels")
        self.tiling = Tiling(self.whole, (settings.block_voxels,) * 3)
        self.keyed = {TABLE: PAIRS}
        self.inputs = {"first": first.identity, "second": second.identity}
        self.blocks, self.voxels = len(self.tiling), self.whole.size
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels
        self.block_bytes = BYTES_PER_VOXEL * math.prod(map(min, self.tiling.cell, self.whole.shape))

    def measure(self, number: int) -> Mapping[str, Any]:
        """Count the pairs of ids in a block."""
        pairs, voxels = overlaps(*self.values(self.tiling[number]))
        return {TABLE: {"first": pairs[:, 0], "second": pairs[:, 1], "voxels": voxels}}

    def values(self, box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids of both volumes in a box of the common part."""
        return self.read_first(box.shifted(self.start_first)), self.read_second(box.shifted(self.start_second))

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Assign ids of the first volume to those of the second."""
        assert isinstance(self.settings, Overlaps)
        rows: MergedRows = sums[TABLE]
        owned = total = 0
        for piece in self._owners(rows):
            total += piece.num_rows
            owned += int((piece["owner"].to_numpy() != 0).sum())
        scores = (
            Score("ids", float(total), "ids", "ids of the first volume that count"),
            Score("owned", float(owned), "ids", "those that were assigned to an id of the second"),
        )
        names = PAIRS.names
        voxel = math.prod(voxel_floats(self.first)) * 1e-9

        def table() -> Iterator[pa.Table]:
            for piece in rows:
                yield pa.table({**{n: piece[n] for n in names}, "volume_um3": piece["voxels"] * voxel})

        return Conclusion({TABLE: table(), OWNERS: self._owners(rows)}, scores)

    def _owners(self, rows: MergedRows) -> Iterator[pa.Table]:
        """Pieces of the table of owners; an id whose rows lie in two pieces is completed by the second."""
        settings = self.settings
        assert isinstance(settings, Overlaps)
        for first, second, voxels in whole_groups(rows):
            starts = np.flatnonzero(np.diff(first, prepend=first[:1] + np.uint64(1)))
            total = np.add.reduceat(voxels, starts) if first.size else np.zeros(0, np.int64)
            inside = np.where(second != 0, voxels, 0)
            # the largest overlap, of equals that of the smallest id, which comes first
            order = np.lexsort((second, -inside, first))
            best = order[starts]
            share = inside[best] / np.maximum(total, 1)
            counts = (first[starts] != 0) & (total >= settings.smallest_voxels)
            owned = (inside[best] > 0) & (share >= settings.smallest_share)
            columns = {
                "id": first[starts],
                "owner": np.where(owned, second[best], 0).astype(np.uint64),
                "voxels": total,
                "shared": inside[best],
                "share": share,
            }
            yield pa.table({name: column[counts] for name, column in columns.items()})


def whole_groups(rows: MergedRows) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield first, second and voxels in pieces that never cut the rows of a first id; at least one piece, if empty."""
    held: list[NDArray[Any]] = [np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)]
    for piece in rows:
        joined = [np.concatenate([h, piece[n]]) for h, n in zip(held, PAIRS.names, strict=True)]
        cut = int(np.searchsorted(joined[0], joined[0][-1], "left")) if joined[0].size else 0
        if cut:
            yield joined[0][:cut], joined[1][:cut], joined[2][:cut]
        held = [column[cut:] for column in joined]
    yield held[0], held[1], held[2]
