"""Parts of the fixed volume that are scored by themselves: masks, and ranges of depth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.transform import Floats, Frame
from simexm.analysis.volume import Volume
from simexm.errors import SpecError
from simexm.geometry.grid import Box, triple

_CELL = 64
"""Side of the boxes in which masks are looked up at points."""


class Subsets:
    """Masks on the fixed volume's grid by name, and borders of depth along z, um, from its first face.

    Raises SpecError if a mask has another shape than the volume.
    """

    def __init__(self, frame: Frame, masks: Mapping[str, Volume], depth_um: Sequence[float]) -> None:
        for name, mask in masks.items():
            if mask.shape != frame.shape:
                raise SpecError(
                    f"regions: the mask {name!r}, {mask.where}, has {' x '.join(map(str, mask.shape))} voxels, and the fixed "
                    f"volume {' x '.join(map(str, frame.shape))}, so it would mark other places; give a mask on the same grid"
                )
        self.frame = frame
        self._read = {name: mask.numbers("mask") for name, mask in masks.items()}
        self._ranges = {f"depth {a:g} to {b:g} um": (a, b) for a, b in itertools.pairwise(depth_um)}

    @property
    def names(self) -> list[str]:
        """Names, "" for everything first."""
        return ["", *self._read, *self._ranges]

    def in_box(self, box: Box, where: NDArray[np.bool_], points: Floats) -> dict[str, NDArray[np.bool_]]:
        """Which of the voxels of a box that count, (z, y, x), are in each subset, (n,)."""
        masks = {name: read(box)[where] != 0 for name, read in self._read.items()}
        return self._all(masks, points[0][where])

    def at(self, points: Floats) -> dict[str, NDArray[np.bool_]]:
        """Which of the points, (3, n), um, of the fixed volume are in each subset."""
        voxels = np.floor(self.frame.voxels(points) + 0.5).astype(np.int64)
        voxels = np.clip(voxels, 0, np.asarray(self.frame.shape)[:, None] - 1)
        cells, place = np.unique(voxels // _CELL, axis=1, return_inverse=True)
        masks = {name: np.zeros(points.shape[1], np.bool_) for name in self._read}
        for number, cell in enumerate(cells.T):
            here = np.flatnonzero(place.ravel() == number)
            box = Box(triple(cell * _CELL), triple((cell + 1) * _CELL)).intersect(Box.of_shape(self.frame.shape))
            inside = tuple(voxels[:, here] - np.asarray(box.start)[:, None])
            for name, read in self._read.items():
                masks[name][here] = read(box)[inside] != 0
        return self._all(masks, points[0])

    def _all(self, masks: dict[str, NDArray[np.bool_]], z_um: Floats) -> dict[str, NDArray[np.bool_]]:
        depth = z_um - self.frame.corner_um[0]
        ranges = {name: (depth >= a) & (depth < b) for name, (a, b) in self._ranges.items()}
        found: dict[str, Any] = {"": np.ones(z_um.shape, np.bool_), **masks, **ranges}
        return found
