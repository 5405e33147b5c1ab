"""Score a transform against the true one: distances between where both put the voxels of the fixed volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import Bench, Conclusion, Measured, ReadPart, Score
from simexm.analysis.registration.scores.residuals import column_of, concluded, counted
from simexm.analysis.registration.scores.subsets import Subsets
from simexm.analysis.registration.transform import Floats, Frame, StoredTransform, affine_at
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, Tiling, three, triple
from simexm.jobs.keyed_rows import Keyed
from simexm.kernels.registration import fields

WHAT = "distance between where the transform and the true one put a voxel of the fixed volume"
FOUND, IDENTITY, AFFINE, NODES = "found", "identity", "best affine", "true at nodes"
TOTALS = Keyed(("row",), {"covered": "sum", "folds": "sum", "jacobian": "min"})
_LATTICE = 24
"""Places along an axis through which the best affine map is drawn."""
_JACOBIAN_STEP = 1e-6


class TransformBench(Bench):
    """Two transforms on the grid of the one that was found, or else of the true one."""

    surveys = ("truth",)

    def __init__(
        self,
        found: StoredTransform,
        truth: StoredTransform,
        masks: Mapping[str, Volume],
        depth_um: tuple[float, ...],
        nodes_um: float | None,
        block_voxels: int,
    ) -> None:
        frame = found.frame or truth.frame
        if frame is None:
            raise OutputError(
                f"neither {found.path} nor {truth.path} has a grid to compare on; name a result of `simexm align` as one of them"
            )
        if truth.frame is not None and not np.allclose(truth.frame.extent_um, frame.extent_um, rtol=1e-3):
            one, other = (" x ".join(f"{v:.4g}" for v in f.extent_um) for f in (frame, truth.frame))
            raise SpecError(
                f"{found.path} has a fixed volume of {one} um, and {truth.path} one of {other} um, so they belong to different "
                "pairs; name the truth of this pair"
            )
        self.found, self.truth, self.frame, self.nodes_um = found, truth, frame, nodes_um
        self.moving = found.moving or truth.moving
        self.subsets = Subsets(frame, masks, depth_um)
        self.ways = (FOUND, IDENTITY, AFFINE, *([NODES] if nodes_um else []))
        self.tiling = Tiling(Box.of_shape(frame.shape), (block_voxels,) * 3)
        self.inputs = {
            "found": found.identity,
            "truth": truth.identity,
            **{f"region {name}": mask.identity for name, mask in masks.items()},
        }
        self.blocks, self.voxels = len(self.tiling), math.prod(frame.shape)
        self.core_seconds = 3e-6 * self.voxels
        self.block_bytes = (350 + 8 * len(self.subsets.names)) * block_voxels**3
        self.block_bytes += found.held_bytes + truth.held_bytes
        self.columns = {"residuals": tuple(column_of(w, s) for s in self.subsets.names for w in self.ways)}
        self.keyed = {"totals": TOTALS}

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Look the truth up at the places of a coarse lattice, the same whatever the blocks, that lie in a block."""
        box = self.tiling[number]
        steps = [np.unique(np.linspace(0, n - 1, min(n, _LATTICE)).astype(int)) for n in self.frame.shape]
        inside = [s[(s >= a) & (s < b)] for s, a, b in zip(steps, box.start, box.stop, strict=True)]
        at = np.stack(np.meshgrid(*inside, indexing="ij")).reshape(3, -1)
        if not at.shape[1]:
            return {"at": at, "true": np.zeros((3, 0))}
        points = self.frame.first_um[:, None] + at * np.asarray(self.frame.voxel_um)[:, None]
        true = self.truth.near(points)(points)
        covered = self._covered(true)
        return {"at": at[:, covered], "true": true[:, covered]}

    def join(self, read: ReadPart, folder: Path) -> None:
        """Draw the best affine map through the truth."""
        parts = [read("truth", number) for number in range(self.blocks)]
        at, true = (np.concatenate([p[name] for p in parts], axis=1) for name in ("at", "true"))
        order = np.lexsort(at)
        points = self.frame.first_um[:, None] + at[:, order] * np.asarray(self.frame.voxel_um)[:, None]
        known = np.concatenate([points, np.ones((1, order.size))])
        affine = np.eye(3, 4) if order.size < 4 else np.linalg.lstsq(known.T, true[:, order].T, rcond=None)[0].T
        np.save(folder / "affine.npy", affine)

    def _covered(self, true: Floats) -> NDArray[np.bool_]:
        if self.moving is None:
            return np.ones(true.shape[1:], np.bool_)
        along = (3, *(1,) * (true.ndim - 1))
        centre, half = self.moving.centre_um.reshape(along), self.moving.extent_um.reshape(along) / 2
        return np.asarray(np.all(np.abs(true - centre) <= half, axis=0))

    def measure(self, number: int) -> dict[str, Measured]:
        """Count residuals by bins, covered voxels, and folds of one block."""
        box = self.tiling[number]
        points = self.frame.centres(box.start, box.shape)
        true = self.truth.near(points)(points)
        covered = self._covered(true)
        placed = {
            FOUND: self.found.near(points)(points),
            IDENTITY: points,
            AFFINE: affine_at(np.asarray(self.joined["affine"]), points),
        }
        if self.nodes_um:
            placed[NODES] = self._between_nodes(box, points)
        distances = {way: np.sqrt(((place - true)[:, covered] ** 2).sum(axis=0)) for way, place in placed.items()}
        folds, least = self._folds(box)
        totals = {
            "row": np.zeros(1, np.uint64),
            "covered": np.array([int(covered.sum())]),
            "folds": np.array([folds]),
            "jacobian": np.array([round(least / _JACOBIAN_STEP)]),
        }
        subsets = self.subsets.in_box(box, covered, points)
        return {"residuals": counted(distances, subsets, self.columns["residuals"]), "totals": totals}

    def _between_nodes(self, box: Box, points: Floats) -> Floats:
        """The true transform, known at nodes only and linear between them."""
        assert self.nodes_um
        step = np.full(3, self.nodes_um)
        first = self.frame.first_um
        low = np.floor((points.reshape(3, -1).min(axis=1) - first) / step).astype(int)
        high = np.ceil((points.reshape(3, -1).max(axis=1) - first) / step).astype(int) + 1
        corner = three(map(float, first + (low - 0.5) * step))
        lattice = Frame(triple(high - low), three(map(float, step)), corner)
        nodes = lattice.centres()
        shift = np.asarray(self.truth.near(nodes)(nodes) - nodes, np.float32)
        return np.asarray(points + fields.sample(shift, lattice.voxels(points)))

    def _folds(self, box: Box) -> tuple[int, float]:
        """Folds and smallest Jacobian of the cells that begin in a block."""
        wide = Box(box.start, triple(b + 1 for b in box.stop)).intersect(Box.of_shape(self.frame.shape))
        if self.found.frame is None or min(wide.shape) < 2:
            return 0, 1.0
        part = self.found.near(self.frame.centres(wide.start, wide.shape))
        if part.displacement is None:
            return 0, 1.0
        cells = fields.smallest_jacobian(part.displacement, np.asarray(self.frame.voxel_um))
        return int((cells <= 0).sum()), float(cells.min())

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Turn the counts into percentiles and the rms."""
        table, scores = concluded(sums["residuals"], self.ways, self.subsets.names, WHAT)
        (totals,) = (piece for piece in sums["totals"] if piece["row"].size)
        covered, folds, least = (float(totals[name][0]) for name in ("covered", "folds", "jacobian"))
        cells = "cells between eight voxel centres whose smallest ratio of volumes is not positive"
        share = "share of the fixed volume that the true transform puts into the moving one"
        least_what = "smallest ratio of volumes of the displacement found, over corners of cells"
        scores += [
            Score("covered", covered / self.voxels, "", share),
            Score("folds", folds, "cells", cells),
            Score("smallest_jacobian", least * _JACOBIAN_STEP, "", least_what),
        ]
        return Conclusion({"residuals": table}, tuple(scores))
