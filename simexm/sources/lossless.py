"""Which compressions of TIFF give back every number as it was."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import tifffile

from simexm.errors import SourceError

_ALWAYS = frozenset({1, 2, 3, 4, 5, 8, 9, 10, 32771, 32773, 32946, 34661, 34925, 34926, 34933, 50000, 50013})
"""None, CCITT, LZW, Deflate, JBIG, PackBits, LZMA, PNG, Zstandard."""


def refuse_lossy(where: str, compression: int, first: bytes) -> None:
    """Refuse a compression that may change values.

    Parameters
    ----------
    where
        What to call the file.
    compression
        Value of the tag Compression.
    first
        A compressed strip or tile, which some codecs tell in.

    Raises
    ------
    SourceError
        If it is lossy, or nothing proves that it is not.
    """
    if is_lossless(compression, first):
        return
    try:
        name = tifffile.COMPRESSION(compression).name
    except ValueError:
        name = f"the method {compression}"
    told = "JPEG" if "JPEG" in name and not name.startswith(("JPEGX", "JPEG2", "JPEG_2")) else name
    raise SourceError(
        f"{where} is compressed by {told}, which changes values near edges (nothing in the file proves that it did not): ids "
        "would turn into others. Save the segmentation again from its source with LZW, Deflate or no compression. If you know "
        'that nothing was lost, write a copy: python -c "import tifffile as t; '
        "t.imwrite('copy.tif', t.imread('FILE'), compression='zlib', bigtiff=True)\""
    )


def is_lossless(compression: int, segment: bytes) -> bool:
    """Whether a strip or tile gives back what was compressed, as far as it proves that itself."""
    proof = _PROOFS.get(compression)
    try:
        return compression in _ALWAYS or (proof is not None and proof(segment))
    except (struct.error, IndexError):
        return False  # decoding tells what is wrong, where this is asked of one that was cut off


def needs_proof(compression: int) -> bool:
    """Whether each strip or tile must be asked."""
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
    """LERC 2 notes the largest error; of whole numbers one below a half is none. https://github.com/Esri/lerc, Lerc2.h."""
    if data[:6] != b"Lerc2 ":
        return False
    (version,) = struct.unpack_from("<i", data, 6)
    at = 10 + 4 * (version >= 3) + 8 + 4 * (version >= 4) + 12  # checksum; rows, columns; depth; valid, block, bytes
    (kind,) = struct.unpack_from("<i", data, at)
    at += 4 + 8 * (version >= 6)
    (error,) = struct.unpack_from("<d", data, at)
    return error == 0 or (kind < 6 and error <= 0.5)  # types 6 and 7 are floats


def _webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8L"


_PROOFS: dict[int, Callable[[bytes], Any]] = {
    7: _jpeg, 33007: _jpeg, 34892: _jpeg, 34887: _lerc, 34927: _webp, 50001: _webp
}  # fmt: skip
