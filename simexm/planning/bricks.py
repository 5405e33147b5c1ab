"""Choose how many voxels of labels are read at once."""

from __future__ import annotations

from simexm.geometry.grid import Triple

CHUNK = 64
"""Side of a box of voxels that most sources read efficiently."""

BRICK_BYTES = 16 * 2**20
"""Size of a brick of ids and cell indices; ids are read in bricks, since they need up to twice the memory of cell indices."""


def brick(shape: Triple, id_bytes: int) -> Triple:
    """Choose the shape of a brick: multiples of a chunk, extended along x first."""
    sides = [CHUNK, CHUNK, CHUNK]
    for axis in (2, 1, 0):
        while sides[axis] < shape[axis] and 2 * sides[0] * sides[1] * sides[2] * (id_bytes + 4) <= BRICK_BYTES:
            sides[axis] *= 2
    return sides[0], sides[1], sides[2]
