"""A magnification of a WEBKNOSSOS layer in WKW: cubes of blocks in Morton order, each block plain or LZ4.

https://github.com/scalableminds/webknossos-wrap, "wk-wrap format". Within a block x runs fastest.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.foreign_files import RENAME, ChunkNames, Parts, refuse_foreign_files
from simexm.sources.limits import refuse_absurd
from simexm.sources.stack import ORIGIN, PlanesByZ
from simexm.sources.state import FilesState, state_below
from simexm.sources.webknossos import Mag, mag_at

HEADER = "header.wkw"
_TYPES = ["u1", "u2", "u4", "u8", "f4", "f8", "i1", "i2", "i4", "i8"]
_RAW, _LZ4, _LZ4HC = 1, 2, 3
_CUBE = re.compile(r"z(\d+)/y(\d+)/x(\d+)\.wkw")


@dataclass(frozen=True, slots=True)
class _Header:
    """The first 16 bytes of each file: sides of a block (voxels) and of a cube (blocks), packing, dtype, offset of the data."""

    block: int
    blocks: int
    packing: int
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def of(cls, path: Path, data: bytes) -> _Header:
        try:
            magic, version, sides, packing, kind, nbytes, offset = struct.unpack("<3sBBBBBQ", data[:16])
            if magic != b"WKW" or version != 1 or packing not in (_RAW, _LZ4, _LZ4HC):
                raise ValueError
            dtype = np.dtype("<" + _TYPES[kind - 1 if kind else len(_TYPES)])
        except (struct.error, ValueError, IndexError):
            raise SourceError(
                f"{path} has no header of WKW 1, so it is damaged. Copy it again from where it came."
            ) from None
        if nbytes != dtype.itemsize:
            raise SourceError(
                f"{path} has {nbytes / dtype.itemsize:g} channels, and labels have one. Name a segmentation layer."
            )
        return cls(1 << (sides & 15), 1 << (sides >> 4), packing, dtype, offset)

    @property
    def cube(self) -> int:
        return self.block * self.blocks


class WkwStack(PlanesByZ):
    """A magnification in WKW; obeys `simexm.sources.stack.Stack`.

    Its extent is the layer's bounding box in the dataset, or else that of all cubes.

    Raises SourceError if it cannot be read, or holds several channels.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = str(folder)
        try:
            self._header = _Header.of(folder / HEADER, (folder / HEADER).read_bytes())
        except OSError as error:
            raise SourceError(f"{folder / HEADER} cannot be read: {error.strerror}. Copy it again.") from error
        self.dtype: np.dtype[Any] = self._header.dtype.newbyteorder("=")
        mag = mag_at(folder.resolve())
        start, stop = mag.box if mag is not None and mag.box is not None else self._extent()
        z, y, x = (b - a for a, b in zip(start[::-1], stop[::-1], strict=True))
        self.shape: Triple = (z, y, x)
        self._first: Triple = (start[2], start[1], start[0])
        side = self._header.block
        self.grain: Triple = (side, side, side)
        refuse_absurd(self.where, self.shape, self.grain, self.dtype.itemsize)
        self.voxel_size_nm, self.origin_nm, self.size_doubt = self._place(mag)
        refuse_foreign_files(self.where, folder, ChunkNames("z0/y0/x0.wkw", _is_cube, 3), lambda _: RENAME)

    def _place(self, mag: Mag | None) -> tuple[Spacing | None, Spacing, str | None]:
        size = None if mag is None else mag.voxel_size_nm
        if size is None:
            return None, ORIGIN, None if mag is None else mag.doubt
        z, y, x = (a * s for a, s in zip(self._first, size, strict=True))
        return size, (z, y, x), None

    def _extent(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return first voxel and end of all cubes, x y z."""
        names = (_CUBE.fullmatch(p.relative_to(self._folder).as_posix()) for p in self._folder.glob("z*/y*/x*.wkw"))
        cubes = [[int(n) for n in found.groups()[::-1]] for found in names if found]
        if not cubes:
            raise SourceError(
                f"{self.where} holds no cubes (z0/y0/x0.wkw), so there is nothing to read. Copy it again."
            )
        side = self._header.cube
        first = tuple(min(c) * side for c in zip(*cubes, strict=True))
        return first, tuple((max(c) + 1) * side for c in zip(*cubes, strict=True))

    def state(self, box: Box) -> FilesState:
        """Return the state of the files of all cubes."""
        return state_below(self.where, self._folder)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x); 0 in missing cubes, which were never written.

        Raises SourceError if a cube is damaged, and FileNotFoundError if the folder is gone.
        """
        wanted = box.shifted(self._first)
        side = self._header.cube
        out = np.zeros(box.shape, self.dtype)
        for cube in product(*_ranges(wanted, side)):
            corner = cube[0] * side, cube[1] * side, cube[2] * side
            part = Box.at(corner, (side, side, side)).intersect(wanted)
            path = self._folder / f"z{cube[0]}/y{cube[1]}/x{cube[2]}.wkw"
            try:
                self._read_cube(path, part.relative_to(corner), out[part.relative_to(wanted.start).slices])
            except FileNotFoundError:
                if not (self._folder / HEADER).is_file():
                    raise
            except (OSError, ValueError, RuntimeError, struct.error) as error:
                raise SourceError(f"{path} is damaged: {error}. Copy it again from where it came.") from error
        return out

    def _read_cube(self, path: Path, part: Box, out: NDArray[Any]) -> None:
        """Read a box of a cube into `out`, which is zeros."""
        side, nbytes = self._header.block, self._header.block**3 * self.dtype.itemsize
        with path.open("rb") as file:
            header = _Header.of(path, file.read(16))
            if (header.block, header.blocks, header.dtype) != (side, self._header.blocks, self._header.dtype):
                raise ValueError(f"its header differs from that of {HEADER}")
            ends = None
            if header.packing != _RAW:
                table = file.read(8 * header.blocks**3)
                ends = [header.offset, *struct.unpack(f"<{header.blocks**3}Q", table)]
            for block in product(*_ranges(part, side)):
                n = _morton(*block)
                first = header.offset + n * nbytes
                begin, end = (first, first + nbytes) if ends is None else ends[n : n + 2]
                if not 0 <= end - begin <= 2 * nbytes + 64:
                    raise ValueError(f"its block {n} would have {end - begin} bytes")
                file.seek(begin)
                data = file.read(end - begin)
                voxels = data if ends is None else imagecodecs.lz4_decode(data, out=nbytes)
                if len(data) != end - begin or len(voxels) != nbytes:
                    raise ValueError(f"its block {n} is cut off")
                corner = block[0] * side, block[1] * side, block[2] * side
                inner = Box.at(corner, (side, side, side)).intersect(part)
                block_voxels = np.frombuffer(voxels, header.dtype).reshape(side, side, side)
                out[inner.relative_to(part.start).slices] = block_voxels[inner.relative_to(corner).slices]


def _ranges(box: Box, side: int) -> list[range]:
    """Return the positions along each axis of cubes of this side that a box meets."""
    return [range(a // side, -(-b // side)) for a, b in zip(box.start, box.stop, strict=True)]


def _morton(z: int, y: int, x: int) -> int:
    """Return the number of a block in its cube: the bits of x, y, z interleaved, x lowest."""
    return sum((a >> bit & 1) << (3 * bit + axis) for bit in range(16) for axis, a in enumerate((x, y, z)))


def _is_cube(parts: Parts) -> bool:
    return _CUBE.fullmatch("/".join(parts)) is not None
