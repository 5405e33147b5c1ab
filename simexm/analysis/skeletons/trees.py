"""Trees of several objects, put together from the vertices of blocks and the joints between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.kernels.skeletons.tree import degrees, oriented, positions, running_majority


@dataclass(frozen=True)
class Along:
    """Names of what is sampled; how far along the tree the majority is taken; radius from which a vertex is in a cell body."""

    names: tuple[str, ...] = ()
    reach_nm: float = 0.0
    body_nm: float = math.inf


@dataclass(frozen=True)
class Trees:
    """Vertices of the skeletons of some ids; each object's follow each other, and each vertex follows its parent."""

    first: NDArray[np.int64]
    """(objects + 1,): where each object's vertices begin."""
    ids: NDArray[np.uint64]
    """(objects,)."""
    voxel: NDArray[np.int64]
    """(n, 3): z, y, x."""
    parent: NDArray[np.int64]
    """(n,): place of the parent, -1 for the root of a tree."""
    radius_nm: NDArray[np.float64]
    voxel_nm: Sequence[float]
    origin_nm: Sequence[Any]
    sampled: Mapping[str, NDArray[np.int64]]
    """(n,) by name: the value around each vertex, and that of the majority along the tree."""

    @classmethod
    def of(
        cls,
        vertices: Mapping[str, NDArray[Any]],
        joints: Mapping[str, NDArray[Any]],
        shape: Sequence[int],
        voxel_nm: Sequence[float],
        origin_nm: Sequence[Any],
        unit_nm: float,
        along: Along,
    ) -> Trees:
        """Put trees together: `vertices` have id, voxel, parent and surface; `joints` id, one and other."""
        ids, first = np.unique(vertices["id"], return_index=True)
        first = np.append(first, vertices["id"].size).astype(np.int64)
        owner = np.repeat(np.arange(ids.size), np.diff(first))
        index = vertices["voxel"].astype(np.int64)
        inside = np.flatnonzero(vertices["parent"] >= 0)
        above = positions(first, owner[inside], index, vertices["parent"][inside])
        whose = np.searchsorted(ids, joints["id"])
        one, other = (positions(first, whose, index, joints[name].astype(np.int64)) for name in ("one", "other"))
        order, parent = oriented(
            first, np.concatenate([inside, one]), np.concatenate([above, other]), vertices["surface"]
        )
        _, ny, nx = shape
        at = index[order]
        voxel = np.stack([at // (ny * nx), at // nx % ny, at % nx], axis=1)
        radius = np.sqrt(vertices["surface"][order].astype(np.float64)) * unit_nm
        sampled = {name: vertices[name][order] for name in along.names}
        trees = cls(first, ids, voxel, parent, radius, voxel_nm, origin_nm, sampled)
        for name in along.names:
            of = sampled[name], radius < along.body_nm
            sampled[f"{name}_along"] = running_majority(parent, trees.lengths_nm, *of, along.reach_nm)
        return trees

    @cached_property
    def lengths_nm(self) -> NDArray[np.float64]:
        """(n,): length of the edge to the parent, 0 at roots."""
        steps = (self.voxel - self.voxel[self.parent]) * np.asarray(self.voxel_nm)
        return np.where(self.parent >= 0, np.sqrt((steps**2).sum(axis=1)), 0.0)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """(n,): number of the object of each vertex."""
        return np.repeat(np.arange(self.ids.size), np.diff(self.first))

    def vertices(self) -> pa.Table:
        """Rows of the table of vertices; `vertex` and `parent` count from the first vertex of the id."""
        begin = self.first[self.owner]
        columns: dict[str, Any] = {"id": self.ids[self.owner], "vertex": np.arange(self.owner.size) - begin}
        columns["parent"] = np.where(self.parent >= 0, self.parent - begin, -1)
        for n, axis in enumerate("zyx"):
            columns[axis] = self.voxel[:, n]
            columns[f"{axis}_nm"] = (self.voxel[:, n] + 0.5) * self.voxel_nm[n] + float(self.origin_nm[n])
        return pa.table({**columns, "radius_nm": self.radius_nm, "length_nm": self.lengths_nm, **self.sampled})

    def summary(self) -> pa.Table:
        """One row for each id: trees, vertices, cable, branch points, end points, mean and largest radius."""
        degree, objects = degrees(self.parent), self.ids.size

        def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(self.owner[which], minlength=objects)

        cable = np.bincount(self.owner, self.lengths_nm, objects).astype(np.float64)  # of nothing it counts integers
        upper = np.where(self.parent >= 0, self.radius_nm[self.parent], 0.0)
        area = np.bincount(self.owner, self.lengths_nm * (self.radius_nm + upper) / 2, objects).astype(np.float64)
        largest = np.maximum.reduceat(self.radius_nm, self.first[:-1]) if objects else np.zeros(0)
        return pa.table(
            {
                "id": self.ids,
                "trees": count(self.parent < 0),
                "vertices": np.diff(self.first),
                "cable_um": cable * 1e-3,
                "branch_points": count(degree > 2),
                "end_points": count(degree == 1),
                "radius_nm": np.where(cable > 0, area / np.where(cable > 0, cable, 1.0), largest),
                "largest_radius_nm": largest,
                **{f"{name}_um": self._cable_in(value) for name, value in self.sampled.items()},
            }
        )

    def _cable_in(self, value: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cable of each object where a sampled value is not 0; half of an edge belongs to either vertex."""
        joined = self.parent >= 0
        share = ((value != 0).astype(np.float64) + (value[self.parent] != 0)) / 2
        weights = np.where(joined, self.lengths_nm * share, 0.0)
        return np.bincount(self.owner, weights, self.ids.size).astype(np.float64) * 1e-3
