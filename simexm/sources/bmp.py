"""Slices as BMP, whose palette is not read."""

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


def look_at_bmp(path: Path) -> tuple[tuple[int, int], int, NDArray[Any] | None]:
    """Read a BMP's header.

    Returns
    -------
    tuple
        Pixels along y, x; numbers of a pixel; the palette, (indexes, 3), or None.

    Raises
    ------
    SourceError
        If it is cut off, or of a kind that holds no ids.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER + 4 * 256)
    try:
        begin, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
        (colours,) = struct.unpack_from("<I", head, 46)
    except struct.error:
        raise _damaged(path, "its header is cut off") from None
    if bits == 16:
        raise SourceError(
            f"{path} is a BMP of 16 bits, which hold a colour of 5 bits each and no id. Save the slices as PNG or TIFF."
        )
    if size < 40 or bits not in _SAMPLES or compression not in (_PLAIN, _MASKS):
        raise SourceError(
            f"{path} is a BMP of a kind that is not read here (header of {size} bytes, {bits} bits, compression {compression}). "
            "Save the slices as PNG or TIFF."
        )
    rows, stride = abs(height), _stride(width, bits)
    if width <= 0 or height == 0 or begin + rows * stride > path.stat().st_size:
        raise _damaged(path, f"its header tells {rows} x {width} pixels, and there are fewer")
    if bits > 8:
        return (rows, width), _SAMPLES[bits], None
    palette = np.frombuffer(head[14 + size :][: 4 * (colours or 2**bits)], np.uint8)
    return (rows, width), 1, palette[: palette.size // 4 * 4].reshape(-1, 4)[:, 2::-1]


def read_bmp(data: bytes) -> NDArray[Any]:
    """Return the numbers of a BMP whose header was looked at: (y, x) indexes, or (y, x, samples) colours."""
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
    """Bytes of a row, which ends at a multiple of four."""
    return (width * bits + 31) // 32 * 4


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is damaged and cannot be decoded, so its cells would be lost: {why}. Copy it again.")
