"""Read one slice of a volume from a PNG, BMP or TIFF, as ids."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing
from simexm.sources.bmp import damaged_image, read_bmp, read_bmp_header
from simexm.sources.colours import ColorIds, dtype_of, merge_samples, warn_of_palette
from simexm.sources.kinds import BMP, JPEG, PNG, image_kind
from simexm.sources.stack import ORIGIN
from simexm.sources.tiff.source import TiffStack

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED, _GREY_ALPHA = 0, 3, 4
_SAMPLES = {_GREY: 1, 2: 3, _INDEXED: 1, _GREY_ALPHA: 2, 6: 4}
_DEFLATE_AT_BEST = 1100
"""Largest ratio of Deflate: 1032, and a margin for headers."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Header of a slice."""

    shape: tuple[int, int]  # pixels along y, x
    dtype: np.dtype[Any]  # dtype of what `read_slice` returns
    rows: int  # rows that are decoded together
    voxel_size_nm: Spacing | None = None  # as in `simexm.sources.stack.Stack`; a PNG or BMP has none
    origin_nm: Spacing = field(default=ORIGIN)


def read_header(path: Path, color_ids: ColorIds | None = None, *, quiet: bool = True) -> Slice:
    """Read a slice's header; with `quiet`, do not warn of a palette.

    Raises SourceError if it is cut off, a JPEG, or a stack of several planes.
    """
    kind = image_kind(path)
    if kind == PNG:
        return _read_png_header(path, color_ids, quiet=quiet)
    if kind == BMP:
        shape, samples, palette = read_bmp_header(path)
        if palette is not None and not quiet:
            warn_of_palette(str(path), palette)
        return Slice(shape, dtype_of(np.dtype(np.uint8), samples, color_ids), shape[0])
    if kind == JPEG:
        raise SourceError(
            f"{path} is a JPEG, which changes values near edges: ids would turn into others, and masks would get fringes. "
            "Save the slices again from their source as PNG or TIFF."
        )
    stack = _tiff(path, color_ids, quiet=quiet)
    _, y, x = stack.shape
    return Slice((y, x), stack.dtype, stack.grain[1], stack.voxel_size_nm, stack.origin_nm)


def read_slice(path: Path, box: Box, color_ids: ColorIds | None = None) -> NDArray[Any]:
    """Return the stored numbers (of an image with a palette, the indexes) in a box's rows and columns, (y, x).

    A colour image is read if its colours are ids or all its channels are equal, and no pixel is transparent.

    Raises SourceError if the file cannot be decoded, or is in colour without `color_ids`.
    """
    kind = image_kind(path)
    if kind not in (PNG, BMP):
        (plane,) = _tiff(path, color_ids).read(Box((0, *box.start[1:]), (1, *box.stop[1:])))
        return np.asarray(plane)
    data = path.read_bytes()
    try:
        image = _decode_png(data) if kind == PNG else read_bmp(data)
    except Exception as error:  # each codec has its own error type
        raise damaged_image(path, str(error)) from error
    image = image[box.slices[1:]]
    return image if image.ndim == 2 else merge_samples(str(path), image, color_ids)


def _read_png_header(path: Path, color_ids: ColorIds | None, *, quiet: bool) -> Slice:
    with path.open("rb") as file:
        head = file.read(33)
    try:
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        samples = _SAMPLES[colour]
    except (struct.error, KeyError):
        raise damaged_image(path, "its header is cut off or no PNG's") from None
    if width == 0 or height == 0:
        raise damaged_image(path, f"its header says {height} x {width} pixels")
    announced, held = height * -(-width * bits * samples // 8), path.stat().st_size
    if announced > held * _DEFLATE_AT_BEST:
        raise damaged_image(
            path, f"its header says {height} x {width} pixels, and its {held} bytes cannot hold them all"
        )
    if colour == _INDEXED and not quiet:
        try:
            palette = next((body for name, body in _chunks(path.read_bytes()) if name == b"PLTE"), b"")
        except ValueError as error:
            raise damaged_image(path, str(error)) from error
        warn_of_palette(str(path), np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3))
    stored = np.dtype(np.uint16 if bits == 16 else np.uint8)
    return Slice((height, width), dtype_of(stored, samples, color_ids), height)


def _decode_png(data: bytes) -> NDArray[Any]:
    """Return a PNG as stored, (y, x) or (y, x, samples): indexes, not colours; 1, 2 and 4 bits not stretched."""
    bits, colour = data[24], data[25]
    if colour == _INDEXED:
        data = _as_grey(data)
    image = np.asarray(imagecodecs.png_decode(data))
    stretched = bits < 8 and colour in (_GREY, _INDEXED)
    return image // (255 // (2**bits - 1)) if stretched else image


def _as_grey(data: bytes) -> bytes:
    """Return the PNG without its palette: its indexes become grey of as many bits. PNG specification, 11.2.1."""
    parts = [_SIGNATURE]
    for name, body in _chunks(data):
        if name in (b"IHDR", b"IDAT", b"IEND"):
            kept = body[:9] + bytes([_GREY]) + body[10:] if name == b"IHDR" else body
            parts.append(struct.pack(">I", len(kept)) + name + kept + struct.pack(">I", zlib.crc32(name + kept)))
    return b"".join(parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and body of each chunk; raises ValueError for a wrong checksum."""
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(name + body)):
            raise ValueError(f"the checksum of its part {name.decode('latin-1')} is wrong")
        yield name, body
        at += 12 + length


def _tiff(path: Path, color_ids: ColorIds | None, *, quiet: bool = True) -> TiffStack:
    stack = TiffStack(path, color_ids, quiet=quiet)
    if stack.shape[0] != 1:
        raise SourceError(
            f"{path} holds {stack.shape[0]} planes, and a file of an image sequence holds one slice. If it is the complete "
            "volume, name the file; if each file is one cell, type --cells splitted."
        )
    if stack.times != 1:
        raise SourceError(
            f"{path} holds {stack.times} time points, and a file of an image sequence holds one slice. Name the file."
        )
    return stack
