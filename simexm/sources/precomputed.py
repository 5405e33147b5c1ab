"""Neuroglancer precomputed volumes, also with chunk files that CloudVolume compressed (NAME.gz, NAME.br).

https://neuroglancer-docs.web.app/datasource/precomputed
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, exact, exact3, triple
from simexm.sources.foreign_files import RENAME, ChunkNames, Parts, refuse_foreign_files
from simexm.sources.limits import read_json
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.tensorstore_volumes import TensorStoreVolume, kvstore, open_store
from simexm.sources.zarr.ngff import UnclearError, checked_size

_LOSSY = frozenset({"jpeg", "jxl", "zfpc", "kempressed", "fpzip"})
_READ = frozenset({"raw", "png", "compressed_segmentation"})
_PACKED = (".gz", ".br", ".zst", ".zstd")
_OVERHEAD = 4
"""Largest ratio of an encoded chunk to its voxels, else it is damaged: compressed_segmentation has tables."""


def open_precomputed(path: str, scale: str | None) -> TensorStoreVolume:
    """Open a Neuroglancer precomputed volume on disk or behind a URL, by default its finest scale.

    Raises SourceError if TensorStore is missing, the volume cannot be read or is an image, or foreign files are among
    its chunks.
    """
    ts = need("tensorstore", f"{path} is a Neuroglancer precomputed volume")
    local = path.removeprefix("precomputed://").removeprefix("file://")
    folder = None if "://" in local else Path(local).expanduser().resolve()
    if folder is not None:
        _refuse_images(path, read_json(folder / "info"), scale)
    spec: dict[str, Any] = {"driver": "neuroglancer_precomputed", "kvstore": kvstore(local)}
    if scale is not None:
        spec["scale_metadata"] = {"key": scale}
    store = open_store(ts, path, spec)
    metadata = store.spec().to_json()
    scale_metadata = metadata["scale_metadata"]
    _refuse_images(path, {**metadata["multiscale_metadata"], "scales": [scale_metadata]}, None)
    if store.shape[3] != 1:
        raise SourceError(f"{path} has {store.shape[3]} channels, and labels have one. Name a segmentation.")
    size = exact3(scale_metadata["resolution"][::-1])
    z, y, x = (exact(o) * s for o, s in zip(scale_metadata["voxel_offset"][::-1], size, strict=True))
    doubt = None
    try:
        checked_size(size)
    except UnclearError as error:
        doubt = str(error)
    volume = store[..., 0].T[ts.d[:].translate_to[0]]
    place: tuple[Spacing | None, Spacing] = (None, ORIGIN) if doubt else (size, (z, y, x))
    plain = TensorStoreVolume(path, volume, *place, doubt, metadata="info", chunks=str(scale_metadata["key"]))
    if folder is None:
        return plain
    chunks = folder / scale_metadata["key"]
    if not chunks.is_dir():
        raise SourceError(
            f"{path}: the folder of its scale, {scale_metadata['key']}, is missing. Copy it again with all its scales."
        )
    if scale_metadata.get("sharding") is not None:
        names = _shard_names(int(scale_metadata["sharding"]["shard_bits"]))
        refuse_foreign_files(path, chunks, names, _hint)
        return plain
    grid = _Grid(scale_metadata)
    refuse_foreign_files(path, chunks, grid.names(chunks), _hint)
    return _PackedVolume(path, volume, place, doubt, _ChunkFiles(ts, metadata, grid, chunks))


def _refuse_images(path: str, info: Any, scale: str | None) -> None:
    """Raise SourceError if the metadata describe an image, or an encoding that TensorStore cannot read."""
    if not isinstance(info, Mapping) or not isinstance(info.get("scales"), list):
        return
    scales = [s for s in info["scales"] if isinstance(s, Mapping) and scale in (None, s.get("key"))]
    encoding = scales[0].get("encoding") if scales else None
    if encoding in _LOSSY:
        raise SourceError(
            f"{path} is encoded by {str(encoding).upper()}, which changes values: it is an image, not labels. "
            "Name a segmentation."
        )
    if info.get("type") == "image":
        raise SourceError(
            f'{path} is an image ("type": "image" in its info), and each of its grey values would become a cell. Name a '
            'segmentation; if these are labels, correct the type to "segmentation".'
        )
    if encoding is not None and encoding not in _READ:
        raise SourceError(
            f"{path} is encoded by {encoding!r}, which is not supported ({', '.join(sorted(_READ))} are). Write a copy in "
            "compressed_segmentation, for example with CloudVolume or igneous."
        )


class _Grid:
    """Chunks of an unsharded scale, x y z."""

    def __init__(self, scale: Mapping[str, Any]) -> None:
        self.first = [int(o) for o in scale["voxel_offset"]]
        self.size = [int(n) for n in scale["size"]]
        sizes = scale.get("chunk_sizes", [scale.get("chunk_size")])
        self.chunk = [int(n) for n in sizes[0]]

    def name(self, position: tuple[int, ...]) -> str:
        """Return the file name of the chunk at a position."""
        ends = []
        for p, first, size, chunk in zip(position, self.first, self.size, self.chunk, strict=True):
            ends.append(f"{first + p * chunk}-{first + min((p + 1) * chunk, size)}")
        return "_".join(ends)

    def box(self, position: tuple[int, ...]) -> Box:
        """Return the voxels of the chunk at a position, z y x, counted from the first of the scale."""
        z, y, x = (p * c for p, c in zip(position[::-1], self.chunk[::-1], strict=True))
        shape, chunk = triple(self.size[::-1]), triple(self.chunk[::-1])
        return Box.at((z, y, x), chunk).intersect(Box.of_shape(shape))

    def positions(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Return positions x y z of the chunks in a box z y x."""
        ranges = (
            range(a // c, -(-b // c)) for a, b, c in zip(box.start[::-1], box.stop[::-1], self.chunk, strict=True)
        )
        return product(*ranges)

    def names(self, folder: Path) -> ChunkNames:
        """Return the names of chunks, also with a suffix of compression."""

        def is_chunk(parts: Parts) -> bool:
            name, packing = _split(parts[0])
            found = re.fullmatch(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)", name)
            if found is None or len(parts) != 1:
                return False
            starts = [int(n) for n in found.groups()[::2]]
            position = tuple((a - f) // c for a, f, c in zip(starts, self.first, self.chunk, strict=True))
            inside = all(0 <= p * c < n for p, c, n in zip(position, self.chunk, self.size, strict=True))
            twice = packing and (folder / name).exists()
            return inside and self.name(position) == name and not twice

        return ChunkNames(self.name((0, 0, 0)), is_chunk, 1)


def _shard_names(bits: int) -> ChunkNames:
    digits = max(1, -(-bits // 4))

    def is_chunk(parts: Parts) -> bool:
        found = re.fullmatch(rf"([0-9a-f]{{{digits}}})\.(shard|index|data)", parts[0])
        return len(parts) == 1 and found is not None and int(found[1], 16) < 2**bits

    return ChunkNames("0" * digits + ".shard", is_chunk, 1)


def _hint(parts: Parts) -> str:
    name, packing = _split(parts[-1])
    return f"If {name} exists, too, keep the newer of the two." if packing else RENAME


def _split(name: str) -> tuple[str, str]:
    """Split a file name into the chunk's name and the suffix of compression."""
    packing = next((p for p in _PACKED if name.endswith(p)), "")
    return name.removesuffix(packing), packing


@dataclass(frozen=True)
class _ChunkFiles:
    """Chunk files of a scale on a disk, some of them compressed."""

    ts: Any
    metadata: Mapping[str, Any]
    grid: _Grid
    folder: Path

    def packed(self, name: str) -> Path | None:
        """Return the compressed file of a chunk; None if it is not compressed."""
        if (self.folder / name).exists():
            return None
        return next((p for packing in _PACKED if (p := self.folder / (name + packing)).exists()), None)

    def is_gzip(self, name: str) -> bool:
        """Whether a chunk is compressed under its own name, as when copied from a bucket."""
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(2) == b"\x1f\x8b"
        except FileNotFoundError:
            return False

    def unpacked(self, position: tuple[int, ...], path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the voxels of a compressed chunk, z y x; TensorStore decodes it from a store in memory."""
        box = self.grid.box(position)
        largest = _OVERHEAD * box.size * dtype.itemsize + 2**16
        try:
            data = _unpack(path.read_bytes(), path.suffix, largest)
        except Exception as error:  # each codec has its own error type
            raise ValueError(f"{path.name} cannot be unpacked: {error}") from error
        size = list(box.shape[::-1])
        scale = {**self.metadata["scale_metadata"], "key": "chunks", "voxel_offset": [0, 0, 0]}
        scale |= {"size": size, "chunk_size": size}
        scale.pop("chunk_sizes", None)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory"},
            "dtype": dtype.name,
            "multiscale_metadata": self.metadata["multiscale_metadata"],
            "scale_metadata": scale,
        }
        store = self.ts.open(spec, create=True, context=self.ts.Context()).result()  # a context has its own memory
        store.kvstore.write("chunks/" + "_".join(f"0-{n}" for n in size), data).result()
        return np.asarray(store[..., 0].T.read().result())


class _PackedVolume(TensorStoreVolume):
    """An unsharded volume on a disk with compressed chunk files, which TensorStore does not know."""

    def __init__(
        self, where: str, store: Any, place: tuple[Spacing | None, Spacing], doubt: str | None, files: _ChunkFiles
    ) -> None:
        super().__init__(where, store, *place, doubt, metadata="info", chunks=files.folder.name)
        self._files = files

    def _stored(self, box: Box) -> NDArray[Any]:
        files, grid = self._files, self._files.grid
        names = {grid.name(position): position for position in grid.positions(box)}
        packed = {name: path for name in names for path in [files.packed(name)] if path is not None}
        try:
            if not packed:
                return super()._stored(box)
        except ValueError:
            packed = {name: files.folder / name for name in names if files.is_gzip(name)}
            if not packed:
                raise
        out = np.empty(box.shape, self.dtype)
        for name, position in names.items():
            chunk = grid.box(position)
            part = chunk.intersect(box)
            if name in packed:
                data = files.unpacked(position, packed[name], self.dtype)[part.relative_to(chunk.start).slices]
            else:
                data = super()._stored(part)
            out[part.relative_to(box.start).slices] = data
        return out


def _unpack(data: bytes, suffix: str, largest: int) -> bytes:
    """Decompress a chunk file; raises if it is longer than `largest` bytes."""
    if suffix == ".br":
        return bytes(imagecodecs.brotli_decode(data, out=largest))
    if suffix in (".zst", ".zstd"):
        return bytes(imagecodecs.zstd_decode(data, out=largest))
    unpacker = zlib.decompressobj(wbits=31)
    found = unpacker.decompress(data, largest)
    if not unpacker.eof:
        raise ValueError("it is cut off, or far larger than its voxels")
    return found
