"""Refuse chunks that would decode to far more bytes than their array has, and fill the memory (decompression bombs).

Only the first and last bytes of a chunk are read, which hold its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from simexm.store.shards import zstd_size

_ENDS = 18
_MORE = 16
"""Largest ratio of decoded bytes to elements: filters make bytes of bits, and numbers of 64 bits of bytes."""
_LEAST = 2**20


def refuse_bombs(array: zarr.Array[Any], box: tuple[slice, ...]) -> None:
    """Check the chunks in a box (a slice along each axis), if they are files on a disk.

    Raises ValueError if a chunk would decode to more than 16 times its elements.
    """
    codec, after = _outermost(array)
    if codec is None or array.shards or not isinstance(array.store, LocalStore):
        return
    folder = array.store.root / array.path
    most = max(_LEAST, _MORE * math.prod(array.chunks) * array.dtype.itemsize)
    for key in _keys(array, box):
        size = packed_size(codec, *ends(folder / key, after))
        if size is not None and size > most:
            raise ValueError(
                f"chunk {key} would decode to {size} bytes, and it has {math.prod(array.chunks)} elements of "
                f"{array.dtype.itemsize}"
            )


def packed_size(codec: str, head: bytes, tail: bytes) -> int | None:
    """Return the decoded size in the header or trailer of a compressed chunk, bytes; None if it has none."""
    name = codec.removeprefix("numcodecs.")
    if name == "zstd":
        return zstd_size(head)
    if name == "blosc" and len(head) >= 16:
        return int.from_bytes(head[4:8], "little")
    if name == "lz4" and len(head) >= 4:
        return int.from_bytes(head[:4], "little")
    if name == "gzip" and head[:2] == b"\x1f\x8b":
        return int.from_bytes(tail[-4:], "little")
    return None


def ends(path: Path, after: int = 0) -> tuple[bytes, bytes]:
    """Return the first and last bytes of a file, without a trailer of `after` bytes; empty if there is no file."""
    try:
        with path.open("rb") as file:
            head = file.read(_ENDS)
            end = file.seek(0, 2) - after
            file.seek(max(0, end - _ENDS))
            return head, file.read(_ENDS)[: max(0, min(end, _ENDS))]
    except OSError:
        return b"", b""  # reading the chunk will report why


def _outermost(array: zarr.Array[Any]) -> tuple[str | None, int]:
    """Return the codec that was applied last, and the bytes of the checksum after it."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        return getattr(metadata.compressor, "codec_id", None), 0
    names = [codec.to_dict()["name"] for codec in metadata.codecs]
    after = 4 if names[-1] == "crc32c" else 0
    return names[-2 if after else -1], after


def _keys(array: zarr.Array[Any], box: tuple[slice, ...]) -> Iterator[str]:
    ranges = (range(s.start // c, -(-s.stop // c)) for s, c in zip(box, array.chunks, strict=True))
    metadata: Any = array.metadata
    return (metadata.encode_chunk_key(position) for position in product(*ranges))
