"""How much memory a tile needs, before anything runs.

A pure function of shapes. Each line is an array that the block code holds, named as there; what is held at the same time is
added, what follows one another competes. The tests hold the prediction against measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from simexm.engine.labels import CHUNK, brick
from simexm.grid import Triple
from simexm.sources.chunk_cache import CACHE_BYTES

MiB = 1 << 20
BASE = 576 * MiB
"""A worker with everything imported, and the compiler in it, as in the first run after an installation; 340 MiB later.

The phantom, which is compiled as well, needs most."""

EMITTER_FILE = 160 * MiB
"""Where emitters are kept: one chunk of them as columns, as Arrow's, and in Parquet's encoder."""


@dataclass(frozen=True)
class TileMemory:
    """Bytes that a worker needs for a tile, by what they are for."""

    base: int
    labels: int
    labelling: int
    imaging: int
    output: int

    @property
    def total(self) -> int:
        """Predicted peak of the worker's resident memory, bytes."""
        return self.base + self.labels + self.labelling + self.imaging + self.output


def tile_memory(
    *,
    voxels: Triple,
    part: Triple,
    id_bytes: int,
    masks: int,
    block: Triple,
    pixel_bytes: int,
    labelling: int,
    imaging: int,
) -> TileMemory:
    """Predict the peak of one tile.

    Parameters
    ----------
    voxels
        Voxels of the ground truth that the tile reads, z y x.
    part
        Voxels of which labels are held at once; see `engine.labels`.
    id_bytes
        Bytes of an id.
    masks
        Masks read beside the labels.
    block
        Pixels in a shard.
    pixel_bytes
        Bytes per pixel of all that is stored.
    labelling, imaging
        See `Labeller.tile_bytes` and `Imaging.tile_bytes`.
    """
    held = math.prod(min(n, p + 3) for n, p in zip(voxels, part, strict=True))
    bricks = min(held, math.prod(brick(voxels, id_bytes)))
    planes = 4 * voxels[1] * voxels[2] if voxels[0] > part[0] else 0  # carried on from part to part
    block_pixels = block[0] * block[1] * block[2]
    return TileMemory(
        base=BASE,
        labels=held * (4 + 1 + masks) + planes * (4 + masks) + bricks * (id_bytes + 4) + CACHE_BYTES,
        labelling=labelling,
        imaging=imaging,
        # the block's images and labels, their levels (a third more), and the bytes of one shard
        output=block_pixels * pixel_bytes * 4 // 3 + block_pixels * id_bytes,
    )


def parts(voxels: Triple) -> Iterator[Triple]:
    """Parts of a tile's labels to choose from, the best first: all at once, layers, and boxes, down to the smallest."""
    z, y, x = (-(-n // CHUNK) * CHUNK for n in voxels)
    yield z, y, x
    depth = 1 << (z - 1).bit_length()
    while depth > CHUNK:
        depth //= 2
        yield depth, y, x
    side = 1 << (max(y, x) - 1).bit_length()
    while side > 2 * CHUNK:
        side //= 2
        yield CHUNK, min(side, y), min(side, x)
