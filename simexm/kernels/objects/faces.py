"""Faces between voxels of different ids, as a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple, triple
from simexm.kernels.labels.cells import CellIndex

STEPS = np.array([(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)])
"""Where the other voxel lies, z y x, by the number of a face: 2 * axis from x, and one more if it leads backwards."""


@dataclass(frozen=True)
class Faces:
    """Faces between a voxel of a box and a neighbour of a larger id, in the order of the voxels."""

    shape: Triple
    """Of the array."""
    ids: NDArray[np.uint64]
    """Ids by the indices in `keys`."""
    keys: NDArray[np.int64]
    """(n,): index of the smaller id * 2^32 + that of the larger."""
    places: NDArray[np.int64]
    """(n,): voxel of the smaller id; see `unpacked`."""
    faces: NDArray[np.int8]
    """(n,): see `STEPS`."""

    @classmethod
    def of(cls, values: NDArray[Any], start: Triple, stop: Triple) -> Faces:
        """List the faces of the voxels in a box of an array (z, y, x) that reaches one voxel further where the volume does."""
        known = CellIndex()
        index = np.empty(values.shape, np.int32)
        known.add_to(np.ascontiguousarray(values), index)
        box = np.array([*start, *stop], np.int64)
        count = _faces(index, known.ids, box, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8))
        keys, places, faces = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int8)
        _faces(index, known.ids, box, keys, places, faces)
        return cls(triple(values.shape), known.ids, keys, places, faces)

    def pairs_of(self, keys: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Smaller and larger id of some keys, (n, 2)."""
        return np.stack([self.ids[keys >> 32], self.ids[keys & 0xFFFFFFFF]], axis=1)


def unpacked(places: NDArray[np.int64], shape: Triple) -> NDArray[np.int64]:
    """Return z, y, x, (n, 3), of places in an array that has a margin of one voxel around this shape."""
    _, ny, nx = shape
    rest = places % ((ny + 2) * (nx + 2))
    return np.stack([places // ((ny + 2) * (nx + 2)), rest // (nx + 2), rest % (nx + 2)], axis=1) - 1


@njit(cache=True, nogil=True)
def _faces(index, ids, box, keys, places, faces):  # type: ignore[no-untyped-def]
    """List the faces between a voxel of the box and one of a larger id; only count them if the arrays are empty.

    `places` are indices in the array with a margin of one voxel; a face is 2 * axis from x, and one more if it leads backwards.
    """
    nz, ny, nx = index.shape
    count = 0
    for z in range(box[0], box[3]):
        for y in range(box[1], box[4]):
            for x in range(box[2], box[5]):
                a = index[z, y, x]
                if a == 0:
                    continue
                for face in range(6):
                    step = 1 - 2 * (face % 2)
                    w, v, u = z, y, x
                    if face < 2:
                        u += step
                    elif face < 4:
                        v += step
                    else:
                        w += step
                    if not (0 <= w < nz and 0 <= v < ny and 0 <= u < nx):
                        continue
                    b = index[w, v, u]
                    if b == a or b == 0 or ids[a] > ids[b]:
                        continue
                    if keys.size:
                        keys[count] = (np.int64(a) << np.int64(32)) | np.int64(b)
                        places[count] = ((z + 1) * (ny + 2) + y + 1) * (nx + 2) + x + 1
                        faces[count] = face
                    count += 1
    return count
