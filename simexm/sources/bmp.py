"""Read BMP slices as indexes or colours, without applying the palette."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError

_HEADER = 54
_PLAIN, _MASKS = 0, 3
_SAMPLES = {1: 1, 4: 1, 8: 1, 24: 3, 32: 3}


def read_bmp_header(path: Path) -> tuple[tuple[int, int], int, NDArray[Any] | None]:
    """Return pixels along y, x, samples per pixel, and the palette, (indexes, 3), or None.

    Raises SourceError if the file is cut off, or of a kind that holds no ids.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER + 4 * 256)
    try:
        begin, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
        (colours,) = struct.unpack_from("<I", head, 46)
    except struct.error:
        raise damaged_image(path, "its header is cut off") from None
    if bits == 16:
        raise SourceError(
            f"{path} is a BMP of 16 bits: colours of 5 bits each, no ids. Save the slices as PNG or TIFF."
        )
    if size < 40 or bits not in _SAMPLES or compression not in (_PLAIN, _MASKS):
        raise SourceError(
            f"{path} is a BMP of an unsupported kind (header of {size} bytes, {bits} bits, compression {compression}). "
            "Save the slices as PNG or TIFF."
        )
    rows, stride = abs(height), _stride(width, bits)
    if width <= 0 or height == 0 or begin + rows * stride > path.stat().st_size:
        raise damaged_image(path, f"its header says {rows} x {width} pixels, and there are fewer")
    if bits > 8:
        return (rows, width), _SAMPLES[bits], None
    palette = np.frombuffer(head[14 + size :][: 4 * (colours or 2**bits)], np.uint8)
    return (rows, width), 1, palette[: palette.size // 4 * 4].reshape(-1, 4)[:, 2::-1]


def read_bmp(data: bytes) -> NDArray[Any]:
    """Return a BMP as (y, x) indexes or (y, x, samples) colours; its header was checked by `read_bmp_header`."""
    begin, _, width, height, _, bits = struct.unpack_from("<IIiiHH", data, 10)
    if bits > 8:
        return np.asarray(imagecodecs.bmp_decode(data, asrgb=True))
    rows, stride = abs(height), _stride(width, bits)
    stored = np.frombuffer(data, np.uint8, rows * stride, begin).reshape(rows, stride)
    if bits < 8:
        each = np.unpackbits(stored, axis=1).reshape(rows, -1, bits)
        stored = np.packbits(each, axis=2).reshape(rows, -1) >> (8 - bits)
    stored = stored[:, :width]
    return stored if height < 0 else stored[::-1]


def _stride(width: int, bits: int) -> int:
    """Return the bytes of a row, padded to a multiple of four."""
    return (width * bits + 31) // 32 * 4


def damaged_image(path: Path, why: str) -> SourceError:
    """Return the error for an image that cannot be decoded."""
    return SourceError(f"{path} is damaged and cannot be decoded, so its cells would be lost: {why}. Copy it again.")
