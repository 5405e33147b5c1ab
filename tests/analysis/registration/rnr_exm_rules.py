"""The rules by which the RnR-ExM challenge scores a submission, written from their description; it uses nothing of simexm.

warped(x) = moving(x + d(x)), nearest voxel, 0 outside. Means over labels of Dice and of the robust Hausdorff distance, in voxels
whatever their size, of which each piece of surface counts by its area; a lost label has the diagonal of the volume. SDlogJ is the
standard deviation of log(det + 3), central differences, without the two outer voxels.
"""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class Rules:
    """A submitted pair with the labels of both volumes."""

    def __init__(self, path: Path, pair: str, fixed: NDArray[Any], moving: NDArray[Any]) -> None:
        with h5py.File(path) as file:
            data = file[pair]
            assert (data.dtype, data.compression, data.shape) == (np.dtype(np.float32), "gzip", (*fixed.shape, 3))
            self._open(data[...], fixed, moving)

    def _open(self, field: NDArray[np.float32], fixed: NDArray[Any], moving: NDArray[Any]) -> None:
        self.field, self.fixed, self.moving = field, fixed, moving
        at = np.indices(fixed.shape) + np.moveaxis(field, -1, 0)
        self.warped = ndimage.map_coordinates(moving, at, order=0)
        self.labels = [n for n in np.unique(fixed) if n and (moving == n).any()]

    @classmethod
    def of_field(cls, field: NDArray[np.float32], fixed: NDArray[Any], moving: NDArray[Any]) -> Rules:
        made = cls.__new__(cls)
        made._open(field, fixed, moving)
        return made

    def _dice(self, warped: NDArray[Any]) -> NDArray[np.float64]:
        pairs = [(self.fixed == n, warped == n) for n in self.labels]
        return np.array([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs])

    def dice(self) -> float:
        return float(self._dice(self.warped).mean())

    def robust_dice(self) -> float:
        """Of the 30 % of labels that overlapped least before."""
        weakest = np.argsort(self._dice(self.moving))[: int(0.3 * len(self.labels))]
        return float(self._dice(self.warped)[weakest].mean())

    def hd95(self) -> float:
        diagonal = float(np.linalg.norm(self.fixed.shape))
        each = [robust_hausdorff(self.fixed == n, self.warped == n) for n in self.labels]
        return float(np.mean([diagonal if np.isinf(d) else d for d in each]))

    def sd_log_jacobian(self) -> float:
        gradients = np.stack([*np.gradient(self.field, axis=(0, 1, 2))], axis=-1)[2:-2, 2:-2, 2:-2]
        return float(np.log((np.linalg.det(gradients + np.eye(3)) + 3).clip(1e-9, 1e9)).std())


def robust_hausdorff(one: NDArray[np.bool_], other: NDArray[np.bool_], percent: float = 95.0) -> float:
    """The larger of both ways' percentiles of distances between the corners of voxels that the surfaces pass, by area."""
    codes = [_codes(mask) for mask in (one, other)]
    passed = [(c > 0) & (c < 255) for c in codes]
    if not all(p.any() for p in passed):
        return np.inf
    found = []
    for a, b in ((0, 1), (1, 0)):
        distance = ndimage.distance_transform_edt(~passed[b])[passed[a]]
        areas = _areas()[codes[a][passed[a]]]
        order = np.argsort(distance, kind="stable")
        share = np.cumsum(areas[order]) / areas.sum()
        found.append(float(distance[order][min(int(np.searchsorted(share, percent / 100)), distance.size - 1)]))
    return max(found)


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which of the eight voxels around each corner are in a mask, as bits."""
    padded = np.pad(mask, 1).astype(np.int64)
    shape = tuple(n + 1 for n in mask.shape)
    parts = [padded[tuple(slice(s, s + n) for s, n in zip(corner, shape, strict=True))] for corner in _CORNERS]
    return np.asarray(sum(part << bit for bit, part in enumerate(parts)))


_CORNERS = list(itertools.product((0, 1), repeat=3))


@cache
def _areas() -> NDArray[np.float64]:
    """Area of the surface through the middles of the edges of a cell, by its code (marching cubes)."""
    return np.array([_area(code) for code in range(256)])


def _area(code: int) -> float:
    inside = {corner: bool(code >> bit & 1) for bit, corner in enumerate(_CORNERS)}
    links: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        u, v = (a for a in range(3) if a != axis)
        ring = []
        for p, q in ((0, 0), (0, 1), (1, 1), (1, 0)):
            corner = [0, 0, 0]
            corner[axis], corner[u], corner[v] = side, p, q
            ring.append(tuple(corner))
        cuts = [
            (n, tuple((a + b) / 2 for a, b in zip(ring[n], ring[(n + 1) % 4], strict=True)))
            for n in range(4)
            if inside[ring[n]] != inside[ring[(n + 1) % 4]]
        ]
        if len(cuts) == 4 and inside[ring[0]]:
            cuts = [cuts[-1], *cuts[:-1]]  # pairs lie around the corners inside
        for (_, one), (_, other) in zip(cuts[::2], cuts[1::2], strict=True):
            links.setdefault(one, []).append(other)
            links.setdefault(other, []).append(one)
    total = 0.0
    while links:
        first = next(iter(links))
        loop, last = [first], None
        while True:
            ahead = [p for p in links[loop[-1]] if p != last] or links[loop[-1]]
            last = loop[-1]
            if ahead[0] == first and len(loop) > 2:
                break
            loop.append(ahead[0])
        for point in loop:
            del links[point]
        corner, *rest = np.array(loop)
        total += sum(float(np.linalg.norm(np.cross(a - corner, b - corner))) / 2 for a, b in itertools.pairwise(rest))
    return total
