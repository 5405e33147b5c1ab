"""Whole-number lengths: units of a 64th of the smallest side of a voxel, so that no rounding depends on a CPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARTS = 64
NEIGHBOURS = [o for o in itertools.product((-1, 0, 1), repeat=3) if o != (0, 0, 0)]


@dataclass(frozen=True)
class Units:
    """Sides of a voxel, z, y, x, in units of `nm` nm."""

    sides: tuple[int, int, int]
    nm: float

    @classmethod
    def of(cls, voxel_nm: Sequence[float]) -> Units:
        """Units for a voxel of this size."""
        nm = min(voxel_nm) / PARTS
        z, y, x = (round(v / nm) for v in voxel_nm)
        return cls((z, y, x), nm)

    def whole(self, length_nm: float) -> int:
        """A length as the nearest number of units."""
        return round(length_nm / self.nm)

    @property
    def steps(self) -> NDArray[np.int64]:
        """(26,): length of the step to each of the `NEIGHBOURS`, rounded."""
        lengths = [math.sqrt(sum((o * s) ** 2 for o, s in zip(n, self.sides, strict=True))) for n in NEIGHBOURS]
        return np.array([round(length) for length in lengths], np.int64)

    def offsets(self, shape: Sequence[int]) -> NDArray[np.int64]:
        """(26,): index of each of the `NEIGHBOURS` in an array of this shape, as a difference."""
        return np.array([(z * shape[1] + y) * shape[2] + x for z, y, x in NEIGHBOURS], np.int64)
