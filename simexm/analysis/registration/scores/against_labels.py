"""Score a transform by labels of both volumes: overlap of each label (Dice), and distance of its borders (Hausdorff).

Label images are looked up by the nearest voxel. A label counts if both volumes hold it. One of which nothing is left on the fixed
grid has a Dice of 0, and the diagonal of the volume as distance, as in the RnR-ExM challenge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from simexm.analysis.contract import Bench, Conclusion, Score
from simexm.analysis.registration.sides import frame_of
from simexm.analysis.registration.transform import Floats, StoredTransform
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, Tiling, triple
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.registration import warp

WAYS = ("found", "identity")
VOXELS = Keyed(("id",), dict.fromkeys(("fixed", "moving", "found", "both_found", "identity", "both_identity"), "sum"))
BORDERS = Keyed(("id", "side", "at"), {})
"""Voxels at the border of a label: of the fixed labels (side 0), and of the moved ones by each of `WAYS` (1, 2)."""
_CROP = 8
"""Most voxels of the moving labels that are read at once, in blocks."""
_WEAKEST = 0.3
_PERCENTILE = 95


class LabelsBench(Bench):
    """Labels of both volumes, compared on the grid of the fixed ones."""

    def __init__(self, found: StoredTransform, fixed: Volume, moving: Volume, block_voxels: int) -> None:
        frame = frame_of(fixed)
        if found.frame is not None and not np.allclose(found.frame.extent_um, frame.extent_um, rtol=1e-3):
            one, other = (" x ".join(f"{v:.4g}" for v in f.extent_um) for f in (frame, found.frame))
            raise SpecError(
                f"{fixed.where} has {one} um, and the fixed volume of {found.path} {other} um, so they belong to different "
                "pairs; name the labels of the fixed volume"
            )
        self.found, self.frame, self.own = found, frame, frame_of(moving)
        self.read_fixed, self.read_moving = fixed.numbers("labels"), moving.numbers("labels")
        self.tiling, self.tiling_moving = (
            Tiling(Box.of_shape(f.shape), (block_voxels,) * 3) for f in (self.frame, self.own)
        )
        self.inputs = {"found": found.identity, "truth": fixed.identity, "moving labels": moving.identity}
        self.blocks, self.voxels = len(self.tiling), math.prod(frame.shape)
        self.core_seconds = 4e-6 * self.voxels
        self.block_bytes = (400 + 8 * _CROP) * (block_voxels + 2) ** 3 + found.held_bytes
        self.keyed = {"voxels": VOXELS, "borders": BORDERS}

    def measure(self, number: int) -> Mapping[str, Any]:
        """Count voxels by label, and list those at borders."""
        box = self.tiling[number]
        wide = box.grown((1, 1, 1)).intersect(Box.of_shape(self.frame.shape))
        core = tuple(slice(a - b, a - b + n) for a, b, n in zip(box.start, wide.start, box.shape, strict=True))
        near = self.found.near(self.frame.centres(wide.start, wide.shape))
        sides = [
            self.read_fixed(wide),
            self._looked_up(wide, near),
            self._looked_up(wide, lambda points: points),
        ]
        fixed = sides[0][core]
        counts = {"fixed": _voxels(fixed), "moving": self._share_of_moving(number)}
        for way, values in zip(WAYS, (s[core] for s in sides[1:]), strict=True):
            counts[way] = _voxels(values)
            counts[f"both_{way}"] = _voxels(np.where(fixed == values, fixed, 0))
        ids = np.unique(np.concatenate([np.fromiter(c, np.uint64, len(c)) for c in counts.values()]))
        rows: dict[str, Any] = {"id": ids}
        rows |= {name: np.array([c.get(int(i), 0) for i in ids], np.int64) for name, c in counts.items()}
        borders = [self._borders(side, values, core, box) for side, values in enumerate(sides)]
        joined = {name: np.concatenate([b[name] for b in borders]) for name in BORDERS.names}
        return {"voxels": rows, "borders": joined}

    def _share_of_moving(self, number: int) -> dict[int, int]:
        """Voxels by label in the blocks of the moving volume that this block counts."""
        found: dict[int, int] = {}
        for other in range(number, len(self.tiling_moving), self.blocks):
            for key, n in _voxels(self.read_moving(self.tiling_moving[other])).items():
                found[key] = found.get(key, 0) + n
        return found

    def _looked_up(self, box: Box, transform: Callable[[Floats], Floats]) -> NDArray[np.uint64]:
        """Moving labels at the centres of a box of the fixed grid, 0 outside; in parts if they lie far apart."""
        at = self.own.voxels(transform(self.frame.centres(box.start, box.shape)))
        where = warp.inside(self.own.shape, at)
        out = np.zeros(box.shape, np.uint64)
        if not where.any():
            return out
        low, high = np.floor(at[:, where].min(axis=1)), np.ceil(at[:, where].max(axis=1)) + 1
        crop = Box(triple(low), triple(high)).grown((1, 1, 1)).intersect(Box.of_shape(self.own.shape))
        if crop.size > _CROP * math.prod(self.tiling.cell) and box.shape[0] > 1:
            middle = box.start[0] + box.shape[0] // 2
            halves = (Box(box.start, (middle, *box.stop[1:])), Box((middle, *box.start[1:]), box.stop))
            return np.concatenate([self._looked_up(half, transform) for half in halves])
        inside = at[:, where] - np.asarray(crop.start)[:, None]
        out[where] = warp.labels_at(self.read_moving(crop), inside)
        return out

    def _borders(self, side: int, values: NDArray[Any], core: tuple[slice, ...], box: Box) -> dict[str, NDArray[Any]]:
        """Voxels of labels in a block with a neighbour, along an axis, of another label or outside the volume."""
        padded = np.pad(values, 1)
        at_border = np.zeros(values.shape, np.bool_)
        inner = tuple(slice(1, n + 1) for n in values.shape)
        for axis in range(3):
            for step in (-1, 1):
                moved = tuple(
                    slice(s.start + step * (a == axis), s.stop + step * (a == axis)) for a, s in enumerate(inner)
                )
                at_border |= padded[moved] != values
        place = np.argwhere((at_border & (values != 0))[core]) + np.asarray(box.start)
        at = np.ravel_multi_index(tuple(place.T), self.frame.shape).astype(np.uint64)
        ids = values[core][tuple((place - np.asarray(box.start)).T)].astype(np.uint64)
        return {"id": ids, "side": np.full(ids.size, side, np.uint64), "at": at}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Compute the scores of each label, and their means."""
        pieces = [piece for piece in sums["voxels"] if piece["id"].size]
        if not pieces:
            raise OutputError("neither volume holds a label, so nothing can be compared; name volumes of labels")
        rows = {name: np.concatenate([p[name] for p in pieces]) for name in VOXELS.names}
        counts = (rows["id"] != 0) & (rows["fixed"] > 0) & (rows["moving"] > 0)
        if not counts.any():
            raise OutputError(
                "the volumes have no label in common, so nothing can be compared; give the same cell the same id in both"
            )
        rows = {name: column[counts] for name, column in rows.items()}
        table: dict[str, NDArray[Any]] = {"id": rows["id"], "voxels": rows["fixed"]}
        for way in WAYS:
            table[_column("dice", way)] = 2 * rows[f"both_{way}"] / (rows["fixed"] + rows[way])
        table |= self._distances(sums["borders"], rows["id"])
        return Conclusion({"labels": pa.table(table)}, tuple(_scores(table)))

    def _distances(self, borders: MergedRows, ids: NDArray[np.uint64]) -> dict[str, NDArray[np.float64]]:
        lost = float(np.linalg.norm(self.frame.extent_um))
        names = [_column(name, way) for way in WAYS for name in ("hausdorff_um", "hausdorff95_um")]
        found = {name: np.full(ids.size, lost) for name in names}
        for label, sides in self._labels(borders):
            row = int(np.searchsorted(ids, label))
            if row == ids.size or ids[row] != label or not sides[0].size:
                continue
            for way, other in zip(WAYS, sides[1:], strict=True):
                if other.size:
                    there, back = (_nearest(a, b) for a, b in ((sides[0], other), (other, sides[0])))
                    found[_column("hausdorff_um", way)][row] = max(there.max(), back.max())
                    found[_column("hausdorff95_um", way)][row] = max(_percentile(there), _percentile(back))
        return found

    def _labels(self, borders: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[tuple[np.uint64, list[Floats]]]:
        """Yield each label with the places of its border voxels, (n, 3), um, by side."""
        held = {name: np.zeros(0, np.uint64) for name in BORDERS.names}
        for piece in itertools.chain(borders, [held]):  # an empty piece ends it
            held = {name: np.concatenate([held[name], piece[name]]) for name in BORDERS.names}
            ids = held["id"]
            last = not piece["id"].size
            complete = ids.size if last else int(np.searchsorted(ids, ids[-1], "left"))
            cuts = np.flatnonzero(np.diff(ids[:complete])) + 1
            for part in np.split(np.arange(complete), cuts) if complete else []:
                side, at = held["side"][part], held["at"][part]
                yield ids[part[0]], [self._places(at[side == number]) for number in range(3)]
            held = {name: column[complete:] for name, column in held.items()}

    def _places(self, at: NDArray[np.uint64]) -> Floats:
        voxels = np.stack(np.unravel_index(at.astype(np.int64), self.frame.shape), axis=1)
        return np.asarray(voxels * np.asarray(self.frame.voxel_um))


def _voxels(ids: NDArray[Any]) -> dict[int, int]:
    found, counts = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _nearest(of: Floats, to: Floats) -> Floats:
    """Distance of each place to the nearest of others."""
    return np.asarray(cKDTree(to).query(of)[0])


def _percentile(values: Floats) -> float:
    return float(np.percentile(values, _PERCENTILE, method="inverted_cdf"))


def _column(name: str, way: str) -> str:
    return name if way == "found" else f"{name}_{way}"


def _scores(table: Mapping[str, NDArray[Any]]) -> Iterator[Score]:
    order = np.argsort(table["dice_identity"], kind="stable")
    weakest = order[: max(1, int(order.size * _WEAKEST))]
    dice = "2 * common voxels / voxels of both, of a label"
    border = (
        "distances from a border voxel of a label to the nearest border voxel of the same label in the other volume"
    )
    for way in WAYS:
        subset = "" if way == "found" else way
        mean, hard = table[_column("dice", way)].mean(), table[_column("dice", way)][weakest].mean()
        yield Score("dice", float(mean), "", f"mean over labels of Dice: {dice}", subset)
        yield Score(
            "dice_weakest", float(hard), "", f"mean Dice of the {_WEAKEST:.0%} of labels with the lowest before", subset
        )
        for name, what in (("hausdorff", "largest"), (f"hausdorff{_PERCENTILE}", f"{_PERCENTILE}th percentile")):
            value = float(table[_column(f"{name}_um", way)].mean())
            yield Score(name, value, "um", f"mean over labels of the {what} of the {border}, both ways", subset)
    yield Score("labels", float(order.size), "labels", "labels that both volumes hold")
