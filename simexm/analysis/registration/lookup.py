"""A stored volume looked up at any places, box by box, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.transform import Floats, Frame
from simexm.geometry.grid import Box, Triple, triple
from simexm.kernels.registration import warp

How = Literal["linear", "cubic", "labels"]
CROP = 8
"""Most voxels of the volume that are read at once, in blocks; a block that needs more is made in parts."""
_SMALLEST = 8


@dataclass(frozen=True)
class Lookup:
    """A volume that is read box by box.

    Attributes
    ----------
    read, shape, frame
        Returns a box, (z, y, x); voxels of the whole; and its grid.
    dtype
        Data type of what is returned.
    how
        Interpolation, or `labels` for the ids of the voxels in which places lie.
    outside
        Values beyond the volume.
    block_voxels
        Side of a block, which bounds what is read at once.
    """

    read: Callable[[Box], NDArray[Any]]
    shape: Triple
    frame: Frame
    dtype: np.dtype[Any]
    how: How
    outside: warp.Outside
    block_voxels: int

    def __call__(self, place: Callable[[Floats], Floats], grid: Frame, box: Box) -> NDArray[Any]:
        """Values, (z, y, x), for the voxels of a box of `grid`, each looked up at the `place` of its centre, um.

        Where the place is NaN, the value is 0.
        """
        return self.at(self.frame.voxels(place(grid.centres(box.start, box.shape))))

    def at(self, at: Floats) -> NDArray[Any]:
        """Values at coordinates (3, z, y, x) that count the volume's voxels from the centre of the first."""
        known = np.isfinite(at).all(axis=0)
        used = known & warp.inside(self.shape, at) if self.outside == "zero" else known
        out = np.zeros(at.shape[1:], self.dtype)
        if not used.any():
            return out
        last = np.asarray(self.shape)[:, None] - 1.0
        inside = np.clip(at[:, used], 0, last)
        low, high = np.floor(inside.min(axis=1)).astype(int), np.ceil(inside.max(axis=1)).astype(int) + 1
        crop = Box(triple(low), triple(high)).grown((self._margin,) * 3).intersect(Box.of_shape(self.shape))
        if crop.size > CROP * self.block_voxels**3 and max(out.shape) > _SMALLEST:
            axis = int(np.argmax(out.shape))
            halves = np.array_split(at, 2, axis=axis + 1)
            return np.concatenate([self.at(half) for half in halves], axis=axis)
        part = self.read(crop)
        inside -= np.asarray(crop.start)[:, None]
        if self.how == "labels":
            out[used] = warp.labels_at(part, inside)
        else:
            out[used] = warp.as_type(warp.image_at(part, inside, 1 if self.how == "linear" else 3), self.dtype)
        return out

    @property
    def _margin(self) -> int:
        return warp.SPLINE_MARGIN if self.how == "cubic" else 1
