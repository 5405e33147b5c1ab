"""How much memory a tile needs, before anything runs.

A pure function of shapes. Each line is an array that the block code holds, named as there; what is held at the same time is
added, what follows one another competes. The tests hold the prediction against measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from simexm.grid import Box, Triple
from simexm.sources.chunk_cache import CACHE_BYTES

MiB = 1 << 20
BASE = 576 * MiB
"""A worker with everything imported, and the compiler in it, as in the first run after an installation; 340 MiB later.

The phantom, which is compiled as well, needs most."""

EMITTER_FILE = 160 * MiB
"""Where emitters are kept: one chunk of them as columns, as Arrow's, and in Parquet's encoder."""

SLAB_BYTES = 32 * MiB
"""Labels are read in slabs of about this size."""


@dataclass(frozen=True)
class TileMemory:
    """Bytes that a worker needs for a tile, by what they are for."""

    base: int
    labels: int
    regions: int
    labelling: int
    imaging: int
    output: int

    @property
    def total(self) -> int:
        """Predicted peak of the worker's resident memory, bytes."""
        return self.base + self.labels + max(self.regions, self.labelling + self.imaging) + self.output


def tile_memory(
    *,
    voxels: Box,
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
        Box of the ground truth that the tile reads.
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
    volume = voxels.size
    layer = voxels.shape[1] * voxels.shape[2]
    slab = min(volume * (id_bytes + 4), 2 * SLAB_BYTES + layer * (id_bytes + 4))
    block_pixels = block[0] * block[1] * block[2]
    return TileMemory(
        base=BASE,
        labels=volume * (4 + 1 + masks) + CACHE_BYTES,
        regions=max(slab, volume * 2),
        labelling=labelling,
        imaging=imaging,
        # the block's images and labels, their levels (a third more), and the bytes of one shard
        output=block_pixels * pixel_bytes * 4 // 3 + block_pixels * id_bytes,
    )
