"""How much memory a tile needs, before anything runs.

A pure function of shapes. Each line is an array that the block code holds, named as there; what is held at the same time is
added, what follows one another competes. The tests hold the prediction against measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from simexm.grid import Box, Triple

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
    spectra: int
    grid: int
    transfer: int
    image: int
    output: int

    @property
    def total(self) -> int:
        """Predicted peak of the worker's resident memory, bytes."""
        return (
            self.base
            + self.labels
            + max(self.regions, self.grid + self.spectra + self.transfer + self.image)
            + self.output
        )


def tile_memory(
    *,
    voxels: Box,
    id_bytes: int,
    masks: int,
    tile: Triple,
    block: Triple,
    channels: int,
    label_images: int,
    kept_bytes: int,
    chunk_bytes: int,
    nodes: tuple[int, int],
    band: tuple[int, int],
    pixels: tuple[int, int],
    node_planes: int,
    ring_planes: int,
    offsets: int,
    pairs: int,
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
    tile, block
        Pixels computed at once, and in a shard.
    channels
        Channels of the image.
    label_images
        Label images written (all cells, and one for each layer).
    kept_bytes
        Bytes per pixel of the intermediate results that are stored as well.
    chunk_bytes
        Bytes of the buffers through which emitters pass.
    nodes, band, pixels
        Fine lateral transform, frequencies kept, coarse lateral transform, each along y, x.
    node_planes, ring_planes
        Planes of the simulation grid in the tile, and those held while dyes are deposited.
    offsets, pairs
        Axial offsets of the response, and pairs of dye and channel.
    """
    volume = voxels.size
    layer = voxels.shape[1] * voxels.shape[2]
    slab = min(volume * (id_bytes + 4), 2 * SLAB_BYTES + layer * (id_bytes + 4))
    fine = nodes[0] * nodes[1]
    half = nodes[0] * (nodes[1] // 2 + 1)
    rows, columns = 2 * band[0] + 1, band[1] + 1
    tile_pixels = tile[0] * tile[1] * tile[2]
    block_pixels = block[0] * block[1] * block[2]
    return TileMemory(
        base=BASE,
        labels=volume * (4 + 1 + masks),
        regions=max(slab, volume * 2),
        spectra=rows * columns * node_planes * 8,
        # the ring; one plane as float64 and float32; its transform along x, cut to the band, and along y, cut again
        grid=chunk_bytes
        + ring_planes * fine * 8
        + max(fine * 12, fine * 4 + half * 8 + nodes[0] * columns * 8 + rows * columns * 8),
        transfer=pairs * (band[0] + 1) * columns * offsets * 4,
        image=channels * (tile[0] * pixels[0] * (pixels[1] // 2 + 1) * 8 + tile_pixels * 4),
        # the block's images and labels, their levels (a third more), and the bytes of one shard
        output=(block_pixels * (channels * 2 + label_images * id_bytes + kept_bytes)) * 4 // 3
        + block_pixels * id_bytes,
    )
