"""How much memory a tile needs, before anything runs.

A pure function of shapes. Each line is an array that the block code holds, named as there; what is held at the same time is
added, what follows one another competes. The tests hold the prediction against measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from simexm.geometry.grid import Triple
from simexm.kernels.labels.regions import bits_type
from simexm.planning.bricks import CHUNK, brick
from simexm.sources.chunk_cache import CACHE_BYTES

MiB = 1 << 20
BASE = 448 * MiB
"""A worker with everything imported; 270 to 350 MiB where no function has to be compiled."""

COMPILING = 192 * MiB
"""What the compiler takes beyond that in the first run after an installation."""

WRITERS = 4
"""Shards that are written at once: most of it is waiting for the disk."""

EMITTER_FILE = 160 * MiB
"""Where emitters are kept: one chunk of them as columns, as Arrow's, and in Parquet's encoder."""


@dataclass(frozen=True)
class TileMemory:
    """Bytes that a worker needs for a tile, by what they are for.

    Attributes
    ----------
    base
        A worker without work, and the chunks that it keeps.
    labels
        A part of the tile's labels, and what is read on the way to it.
    reading
        Chunks of the source that are decoded at once on that way.
    labelling, imaging
        Emitters and light.
    tile
        What is made of the tile.
    block
        What is made of the block.
    writing
        Its coarser levels, and encoded shards.
    kept
        What of the tile is kept while its block is written, for the next frame.
    several
        Whether a block has several tiles; the first of them touches most of the block's arrays, a single one only in the end.
    compiling
        The compiler, where its results are not cached yet. It plays no part in the choice of tiles, which decide bytes.
    """

    base: int
    labels: int
    reading: int
    labelling: int
    imaging: int
    tile: int
    block: int
    writing: int
    kept: int
    several: bool
    compiling: int = 0

    @property
    def parts_bytes(self) -> dict[str, int]:
        """What is held for what, bytes."""
        return {name: value for name, value in vars(self).items() if name != "several"}

    @property
    def one_block(self) -> int:
        """Bytes for each block that is computed at the same time."""
        making = self.labels + self.reading + self.labelling + self.imaging + self.tile + self.block * self.several
        return max(making, self.kept + self.block + max(self.tile, self.writing))

    @property
    def steady(self) -> int:
        """Predicted peak of a worker that has compiled all functions before, bytes; by this, tiles are chosen."""
        return self.base + self.one_block

    @property
    def total(self) -> int:
        """Predicted peak of a worker's resident memory, bytes."""
        return self.at_once(1)

    def at_once(self, blocks: int) -> int:
        """Predicted peak of a process that computes so many blocks at once, in threads; bytes."""
        return self.base + self.compiling + blocks * self.one_block

    def compiled(self, before: bool) -> TileMemory:
        """The same where all functions were compiled before, or were not."""
        return replace(self, compiling=0 if before else COMPILING)


def tile_memory(
    *,
    voxels: Triple,
    part: Triple,
    id_bytes: int,
    masks: int,
    tile: Triple,
    tile_bytes: int,
    block: Triple,
    stored_bytes: Sequence[int],
    labelling: int,
    imaging: int,
    kept: int | None,
    reading: int = 0,
) -> TileMemory:
    """Predict the peak of one tile.

    Parameters
    ----------
    voxels
        Voxels of the ground truth that the tile reads, z y x.
    part
        Voxels of which labels are held at once; see `simexm.run.labels`.
    id_bytes
        Bytes of an id.
    masks
        Masks read beside the labels.
    tile, block
        Pixels of a tile and of a shard.
    tile_bytes
        Bytes per pixel of what is made of a tile.
    stored_bytes
        Bytes per pixel of each array that is stored, for each channel.
    labelling, imaging
        See `Labeller.tile_bytes` and `ImagingCost.tile_bytes`.
    kept
        See `ImagingCost.kept_bytes`; with what stages keep that run once; None where there is one frame.
    reading
        See `LabelSource.reading_bytes`.
    """
    held = math.prod(min(n, p + 3) for n, p in zip(voxels, part, strict=True))
    bricks = min(held, math.prod(brick(voxels, id_bytes)))
    planes = 4 * voxels[1] * voxels[2] if voxels[0] > part[0] else 0  # carried on from part to part
    pixels = math.prod(block)
    # ids compress to a few percent; of noise hardly a bit may be saved, and a shard's chunks are joined
    encoded = 2 * sum(sorted(n for n in stored_bytes if n <= 4)[-WRITERS:])
    bits = bits_type(2 + masks).itemsize
    labels = held * (4 + bits + (bits > 1) + masks) + planes * (4 + masks)
    several = tile != block
    return TileMemory(
        base=BASE + CACHE_BYTES,
        labels=labels + bricks * (id_bytes + 4),
        reading=reading,
        labelling=labelling,
        imaging=imaging,
        tile=math.prod(tile) * tile_bytes,
        block=pixels * sum(stored_bytes),
        writing=pixels * (-(-sum(stored_bytes) // 3) + encoded),
        kept=0 if kept is None or several else labels + labelling + kept,
        several=several,
    )


def parts(voxels: Triple, once: bool) -> Iterator[Triple]:
    """Parts of a tile's labels to choose from, the best first: all at once, layers, and boxes, down to the smallest.

    Where labels are gone through `once`, in thin layers at once: all would be held for nothing.
    """
    z, y, x = (-(-n // CHUNK) * CHUNK for n in voxels)
    if not once:
        yield z, y, x
    depth = CHUNK * 2 if once else 1 << (z - 1).bit_length()
    while depth > CHUNK:
        depth //= 2
        yield depth, y, x
    side = 1 << (max(y, x) - 1).bit_length()
    while side > 2 * CHUNK:
        side //= 2
        yield CHUNK, min(side, y), min(side, x)
