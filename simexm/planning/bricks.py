"""How many voxels of labels are read at once."""

from __future__ import annotations

from simexm.geometry.grid import Triple

CHUNK = 64
"""Voxels a side that are well read together."""

BRICK_BYTES = 16 * 2**20
"""Ids are read in bricks of about this size, as they take up to twice the room of cell indices."""


def brick(shape: Triple, id_bytes: int) -> Triple:
    """Voxels that are read at once: multiples of a chunk, the longest rows first."""
    sides = [CHUNK, CHUNK, CHUNK]
    for axis in (2, 1, 0):
        while sides[axis] < shape[axis] and 2 * sides[0] * sides[1] * sides[2] * (id_bytes + 4) <= BRICK_BYTES:
            sides[axis] *= 2
    return sides[0], sides[1], sides[2]
