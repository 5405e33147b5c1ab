"""One slice of a volume in a file of its own: PNG, BMP or TIFF, read as the numbers that were meant."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.grid import Box
from simexm.sources.kinds import BMP, JPEG, PNG, image_kind
from simexm.sources.tiff import TiffStack

_PNG_GREY = (0, 4)


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice's header tells.

    Attributes
    ----------
    shape
        Pixels along y, x.
    dtype
        Type of what `read_slice` returns.
    rows
        Rows that are decoded together.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    rows: int


def look_at(path: Path) -> Slice:
    """Read a slice's header.

    Raises
    ------
    SourceError
        If it is cut off, or no slice that could hold ids: a JPEG, a stack of several planes.
    """
    kind = image_kind(path)
    if kind in (PNG, BMP):
        with path.open("rb") as file:
            head = file.read(34)
        try:
            if kind == PNG:
                width, height, bits = struct.unpack(">IIB", head[16:25])
            else:
                width, height, _, bits = struct.unpack("<iiHH", head[18:30])
                bits = 8 if bits != 16 else 5
        except struct.error:
            raise _damaged(path, "its header is cut off") from None
        if bits == 5:
            raise SourceError(
                f"{path} is a BMP of 16 bits, which hold a colour of 5 bits each and no id. Save the slices as PNG or TIFF."
            )
        return Slice((abs(height), width), np.dtype(np.uint16 if bits == 16 else np.uint8), abs(height))
    if kind == JPEG:
        raise SourceError(
            f"{path} is a JPEG, which changes values near edges: ids would turn into others, and masks would get fringes. "
            "Save the slices again from their source as PNG or TIFF."
        )
    stack = _tiff(path)
    _, y, x = stack.shape
    return Slice((y, x), stack.dtype, stack.grain[1])


def read_slice(path: Path, box: Box) -> NDArray[Any]:
    """Return the grey values of a box's rows and columns, (y, x); its planes do not count.

    A picture in colour is read where all its channels are equal, and where its alpha channel hides nothing.

    Raises
    ------
    SourceError
        If the file cannot be decoded, or is in colour.
    """
    kind = image_kind(path)
    if kind not in (PNG, BMP):
        return _tiff(path).read(Box((0, *box.start[1:]), (1, *box.stop[1:])))[0]
    data = path.read_bytes()
    try:
        image = np.asarray(imagecodecs.png_decode(data) if kind == PNG else imagecodecs.bmp_decode(data))
    except Exception as error:  # each codec raises a type of its own
        raise _damaged(path, str(error)) from error
    image = image[box.slices[1:]]
    if image.ndim == 2:
        return _unscaled(image, data) if kind == PNG else image
    grey = image[..., 0]
    colours = (image.shape[2] - 1) // 2 * 2 + 1  # 1 or 3; where there are 2 or 4 channels the last is alpha
    if any(not np.array_equal(grey, image[..., c]) for c in range(1, colours)):
        raise SourceError(
            f"{path} is in colour, and it is not known which ids its colours stand for. Save the slices as grey values "
            "of 8, 16 or 32 bits, one number a cell (ids packed as red + 256 green + 65536 blue: unpack them first)."
        )
    if (image[..., colours:] != np.iinfo(image.dtype).max).any():
        raise SourceError(
            f"{path} is transparent in places, and it is not known whether there is a cell. Save the slices without alpha."
        )
    return grey


def _unscaled(image: NDArray[Any], data: bytes) -> NDArray[Any]:
    """Undo that 1, 2 and 4 bits were stretched to 8."""
    bits, colour = data[24], data[25]
    return image // (255 // (2**bits - 1)) if bits < 8 and colour in _PNG_GREY else image


def _tiff(path: Path) -> TiffStack:
    stack = TiffStack(path)
    if stack.shape[0] != 1:
        raise SourceError(
            f"{path} holds {stack.shape[0]} planes, and a file of an image sequence holds one slice. If it is the whole "
            "volume, name the file; if each file is one cell, type --cells splitted."
        )
    return stack


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is damaged and cannot be decoded, so its cells would be lost: {why}. Copy it again.")
