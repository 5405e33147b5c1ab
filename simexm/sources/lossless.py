"""Decide which compressions of TIFF are lossless."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import tifffile

from simexm.errors import SourceError

_ALWAYS = frozenset({1, 2, 3, 4, 5, 8, 9, 10, 32771, 32773, 32946, 34661, 34925, 34926, 34933, 50000, 50013})
"""None, CCITT, LZW, Deflate, JBIG, PackBits, LZMA, PNG, Zstandard."""


def refuse_lossy(where: str, compression: int, first: bytes) -> None:
    """Raise SourceError unless a compression (of the tag Compression) is lossless, as some prove in the first segment."""
    if is_lossless(compression, first):
        return
    try:
        name = tifffile.COMPRESSION(compression).name
    except ValueError:
        name = f"the method {compression}"
    shown = "JPEG" if "JPEG" in name and not name.startswith(("JPEGX", "JPEG2", "JPEG_2")) else name
    raise SourceError(
        f"{where} is compressed by {shown}, which changes values near edges (nothing in the file proves that it did not): ids "
        "would turn into others. Save the segmentation again from its source with LZW, Deflate or no compression. If you know "
        'that nothing was lost, write a copy: python -c "import tifffile as t; '
        "t.imwrite('copy.tif', t.imread('FILE'), compression='zlib', bigtiff=True)\""
    )


def is_lossless(compression: int, segment: bytes) -> bool:
    """Whether a strip or tile proves that it is lossless."""
    proof = _PROOFS.get(compression)
    try:
        return compression in _ALWAYS or (proof is not None and proof(segment))
    except (struct.error, IndexError):
        return False  # it is cut off, which decoding will report


def needs_proof(compression: int) -> bool:
    """Whether each strip or tile must be checked."""
    return compression in _PROOFS


def _jpeg(data: bytes) -> bool:
    """Lossless JPEG: one component, process 14 (SOF3), no bits shifted out. ITU-T T.81, annexes B and H."""
    at, frame, components = 2, 0, 0
    while True:
        mark, kind, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            return False
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            frame, components = kind, data[at + 9]
        if kind == 0xDA:
            shifted = data[at + 2 + length - 1] & 15
            return frame == 0xC3 and components == 1 and shifted == 0
        at += 2 + length


def _lerc(data: bytes) -> bool:
    """LERC 2 stores the largest error; below 1/2 it is none for integers. https://github.com/Esri/lerc, Lerc2.h."""
    if data[:6] != b"Lerc2 ":
        return False
    (version,) = struct.unpack_from("<i", data, 6)
    at = 10 + 4 * (version >= 3) + 8 + 4 * (version >= 4) + 12  # checksum; rows, columns; depth; valid, block, bytes
    (kind,) = struct.unpack_from("<i", data, at)
    at += 4 + 8 * (version >= 6)
    error: float
    (error,) = struct.unpack_from("<d", data, at)
    return error == 0 or (kind < 6 and error <= 0.5)  # types 6 and 7 are floats


def _webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8L"


_PROOFS: dict[int, Callable[[bytes], Any]] = {
    **dict.fromkeys((7, 33007, 34892), _jpeg),
    34887: _lerc,
    **dict.fromkeys((34927, 50001), _webp),
}
