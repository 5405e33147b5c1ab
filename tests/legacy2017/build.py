"""The model of 2017 put together from its kernels, tile by tile, for the tests of its laws."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm.geometry.grid import Box, Tiling
from simexm.kernels.labels.cells import CellIndex
from simexm.kernels.labels.regions import CYTOSOL, MEMBRANE
from simexm.legacy2017.kernels import blur, label, light
from simexm.legacy2017.kernels import frame as frames
from simexm.legacy2017.kernels import regions as places
from simexm.legacy2017.kernels.psf import Kernel
from simexm.random import derive_key

Counts = NDArray[np.int64]


def blobs(shape: tuple[int, int, int], cells: int, seed: int, scale: int = 1) -> NDArray[np.uint64]:
    """Random cells, touching, and some no-cell; ids are multiples of `scale`."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(cells + 1)])
    ids: NDArray[np.uint64] = smooth.argmax(axis=0).astype(np.uint64) * np.uint64(scale)
    return ids


@dataclass(frozen=True)
class LayerSpec:
    """A layer as the 2017 configuration has it, every cell labelled."""

    name: str
    dye: str
    bits: int
    density_per_nm3: float
    noise: float
    amp: float


@dataclass(frozen=True)
class Channel:
    """A channel: per dye that it sees, mean photons and kernel."""

    name: str
    dyes: dict[str, tuple[float, Kernel]]


@dataclass
class Model:
    """A crop of a volume with its layers and channels."""

    labels: NDArray[np.unsignedinteger]
    crop: Box
    voxel_nm: tuple[int, int, int]
    in_slice: bool
    layers: list[LayerSpec]
    channels: list[Channel]
    camera: frames.Frame
    background: float = 0.0
    _blurs: dict[tuple[object, ...], blur.Blur] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cells = CellIndex()
        self.index = self.cells.add(self.labels[self.crop.slices])
        self.n = {layer.name: np.zeros(len(self.cells.ids), np.int64) for layer in self.layers}
        self._regions: dict[Box, NDArray[np.uint8]] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns of the image."""
        return self.camera.shape(self.crop.shape)

    def look(self, box: Box) -> tuple[NDArray[np.int32], NDArray[np.uint8], Box]:
        """Cell indices and regions of the voxels of a box and its neighbours."""
        array = places.label_box(box, self.crop)
        index = np.ascontiguousarray(self.index[array.relative_to(self.crop.start).slices])
        if array not in self._regions:
            self._regions[array] = places.laplacian_regions(index, self.cells.ids, self.in_slice, MEMBRANE, CYTOSOL)
        return index, self._regions[array], array

    def count(self, tiling: Tiling) -> None:
        """n of each layer and cell, tile by tile."""
        for counts in self.n.values():
            counts[:] = 0
        for tile in tiling:
            index, regions, array = self.look(tile)
            for layer in self.layers:
                places.count_region(index, regions, array, tile, layer.bits, self.n[layer.name])

    def laws(self, seed: int, tiling: Tiling) -> list[tuple[str, label.Layer]]:
        """What each layer does, with n' counted tile by tile."""
        voxel = tuple(map(float, self.voxel_nm))
        out = []
        for layer in self.layers:
            n = self.n[layer.name]
            stay = label.stay_probability(n, layer.noise)
            key = derive_key(seed, "simexm2017", layer.name, "proteins")
            law = label.Layer(layer.bits, stay, np.zeros(n.size), layer.amp, voxel, key)  # type: ignore[arg-type]
            dropped = np.zeros_like(n)
            for tile in tiling:
                label.count_dropped(*self.look(tile), tile, self.crop, law, dropped)
            proteins = label.proteins_per_voxel(n - dropped, layer.density_per_nm3, self.voxel_nm)
            out.append((layer.dye, law._replace(proteins=proteins)))
        return out

    def tile(self, seed: int, laws: list[tuple[str, label.Layer]], pixels: Box) -> Counts:
        """Image of a box of pixels, (channel, z, y, x)."""
        size, start = self.crop.shape, self.crop.start
        rows, columns = (self.camera.voxels(pixels.start[a], pixels.stop[a], size[a]) for a in (1, 2))
        wanted = range(
            pixels.start[0] * self.camera.step, (pixels.stop[0] - 1) * self.camera.step + 1, self.camera.step
        )
        planes = blur.source_range(wanted[0], wanted[-1] + 1, size[0])
        lateral = [blur.source_range(*axis, n) for axis, n in zip((rows, columns), size[1:], strict=True)]
        corner = (planes[0], lateral[0][0], lateral[1][0])
        target = Box(corner, (planes[1], lateral[0][1], lateral[1][1])).shifted(start)
        index, regions, array = self.look(label.source_box(target, self.crop, laws[0][1].voxel_nm))
        dyes: dict[str, NDArray[np.int32]] = {}
        for dye, law in laws:
            into = dyes.setdefault(dye, np.zeros(target.shape, np.int32))
            of_cell = np.zeros(len(self.cells.ids), np.int64)
            label.add_dyes(index, regions, array, self.crop, target, law, into, target, of_cell)
        falloff = light.vignette(size[1], *rows), light.vignette(size[2], *columns)
        images = np.zeros((len(self.channels), *pixels.shape), np.int64)
        for channel, image in zip(self.channels, images, strict=True):
            voxels = np.zeros((len(wanted), rows[1] - rows[0], columns[1] - columns[0]), np.int64)
            for dye, (mean, kernel) in channel.dyes.items():
                key = derive_key(seed, "simexm2017", channel.name, dye, "photons")
                which = (channel.name, dye, rows, columns)
                if which not in self._blurs:
                    self._blurs[which] = blur.Blur(kernel, (*rows, size[1]), (*columns, size[2]))

                def photons(z: int, dye: str = dye, mean: float = mean, key: tuple[int, int] = key) -> Counts:
                    origin = (z + start[0], target.start[1], target.start[2])
                    return light.photons(dyes[dye][z - corner[0]], origin, mean, key)

                for k, (_, plane) in enumerate(self._blurs[which].planes(photons, size[0], wanted)):
                    voxels[k] += plane
            dark = derive_key(seed, "simexm2017", channel.name, "background")
            thrown = derive_key(seed, "simexm2017", channel.name, "scatter")
            for k, z in enumerate(wanted):
                origin = (z + start[0], rows[0] + start[1], columns[0] + start[2])
                light.add_background(self.background, *falloff, origin, dark, voxels[k])
                y, x = ((pixels.start[a], pixels.stop[a]) for a in (1, 2))
                image[k] = frames.sample(voxels[k], origin, (*start[1:], *size[1:]), self.camera, y, x, thrown)
        return images

    def image(self, seed: int, cell: tuple[int, int, int] | None = None) -> Counts:
        """The whole image, in tiles of `cell` pixels; the counts in tiles of as many voxels."""
        self.count(Tiling(self.crop, cell or self.crop.shape))
        laws = self.laws(seed, Tiling(self.crop, cell or self.crop.shape))
        whole = np.full((len(self.channels), *self.shape), -1, np.int64)
        for tile in reversed(list(Tiling(Box.of_shape(self.shape), cell or self.shape))):
            whole[(slice(None), *tile.slices)] = self.tile(seed, laws, tile)
        return whole
