"""Predict the memory of a tile before anything runs.

A pure function of shapes. Each term is an array of the block code, with its name; arrays that exist at the same time are
added, of others the largest counts. Tests compare the prediction with measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simexm.geometry.grid import Triple
from simexm.kernels.labels.regions import bits_type
from simexm.sources.chunk_cache import CACHE_BYTES

CHUNK = 64
"""Side of a box of voxels that most sources read efficiently."""

BRICK_BYTES = 16 * 2**20
"""Size of a brick of ids and cell indices; ids are read in bricks, since they need up to twice the memory of cell indices."""

MiB = 1 << 20
BASE = 448 * MiB
"""A worker with all imports; measured 270 to 350 MiB if no function has to be compiled."""

COMPILING = 192 * MiB
"""The compiler, in the first run after an installation."""

WRITERS = 4
"""Shards that are written at once: writing mostly waits for the disk."""

EMITTER_FILE = 160 * MiB
"""A chunk of emitters to store: as columns, in Arrow, and in Parquet's encoder."""


@dataclass(frozen=True)
class TileMemory:
    """Memory of a worker for a tile, bytes, by purpose."""

    base: int  # an idle worker, and its cache of chunks
    labels: int  # a part of the tile's labels, and a brick of ids while it is read
    reading: int  # chunks of the source that are decoded at once
    labelling: int  # emitters
    imaging: int  # light
    tile: int  # outputs of the tile
    block: int  # outputs of the block
    writing: int  # coarser levels of the block, and encoded shards
    kept: int  # arrays of the tile that the next frame needs, kept while the block is written
    several: (
        bool  # whether a block has several tiles: the first touches most of its arrays, a single one only at the end
    )
    compiling: int = 0  # the compiler, if its results are not cached; not used for tiles, which decide bytes

    @property
    def parts_bytes(self) -> dict[str, int]:
        """Bytes by purpose."""
        return {name: value for name, value in vars(self).items() if name != "several"}

    @property
    def one_block(self) -> int:
        """Bytes for each block that is computed at the same time."""
        making = self.labels + self.reading + self.labelling + self.imaging + self.tile + self.block * self.several
        return max(making, self.kept + self.block + max(self.tile, self.writing))

    @property
    def steady(self) -> int:
        """Predicted peak of a worker without the compiler, bytes; tiles are chosen by this."""
        return self.base + self.one_block

    @property
    def total(self) -> int:
        """Predicted peak of a worker's resident memory, bytes."""
        return self.at_once(1)

    def at_once(self, blocks: int) -> int:
        """Predict the peak of a process that computes so many blocks at once, in threads; bytes."""
        return self.base + self.compiling + blocks * self.one_block


def tile_memory(
    *,
    voxels: Triple,
    part: Triple,
    id_bytes: int,
    masks: int,
    greys: int,
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

    The tile reads `voxels` of the ground truth, and holds labels of `part` at once (`simexm.run.labels`): ids of
    `id_bytes` and numbers of `masks` and of grey fields, `greys`. `tile` and `block` are pixels of a tile and of a shard;
    `tile_bytes` and `stored_bytes` are bytes per pixel of the tile's outputs and of each stored array, for each channel.
    `labelling`, `imaging` and `reading` come from `Labeller.tile_bytes`, `ImagingCost.tile_bytes` and
    `LabelSource.reading_bytes`; `kept` from `ImagingCost.kept_bytes`, plus outputs of stages that run once,
    None with a single frame.
    """
    held = math.prod(min(n, p + 3) for n, p in zip(voxels, part, strict=True))
    bricks = min(held, math.prod(brick(voxels, id_bytes)))
    planes = 4 * voxels[1] * voxels[2] if voxels[0] > part[0] else 0  # kept for the next part
    pixels = math.prod(block)
    # ids compress to a few percent, noise hardly at all; a shard's chunks are joined
    encoded = 2 * sum(sorted(n for n in stored_bytes if n <= 4)[-WRITERS:])
    bits = bits_type(2 + masks).itemsize
    beside = masks + 4 * greys
    labels = held * (4 + bits + (bits > 1) + beside) + planes * (4 + beside)
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


def brick(shape: Triple, id_bytes: int) -> Triple:
    """Choose the shape of a brick: multiples of a chunk, extended along x first."""
    sides = [CHUNK, CHUNK, CHUNK]
    for axis in (2, 1, 0):
        while sides[axis] < shape[axis] and 2 * sides[0] * sides[1] * sides[2] * (id_bytes + 4) <= BRICK_BYTES:
            sides[axis] *= 2
    return sides[0], sides[1], sides[2]


def parts(voxels: Triple, once: bool) -> Iterator[Triple]:
    """Yield shapes of parts of a tile's labels, the best first: the whole tile, layers, and boxes, down to the smallest.

    If labels are read only `once`, start with thin layers: nothing is gained by holding the whole tile.
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
