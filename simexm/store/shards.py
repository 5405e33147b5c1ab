"""Whole shards of Zarr v3 arrays, as bytes; `simexm.store.files` puts them in place in one step.

zarr-python rewrites a shard through its event loop and one thread a chunk and does not fsync. Here a block of data
becomes the bytes of one shard in the calling thread, and the bytes become a file that is either absent, the former one
or the new one, whatever is killed when.

Format: "sharding_indexed" of the Zarr v3 core codecs (ZEP 2), index at the end with its crc32c, chunks in C order,
little-endian, Zstd; all-zero chunks are left out, and an all-zero shard has no file.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

# Level 1 stores Poisson counts within 4 % of the size of levels 2 to 5 at half their time or less, labels within 15 %.
ZSTD_LEVEL = 1
_ABSENT = 2**64 - 1
_zstd = Zstd(level=ZSTD_LEVEL)


def encode_shard(data: NDArray[np.generic], shard: tuple[int, ...], chunk: tuple[int, ...]) -> bytes:
    """Return the bytes of one shard, none (b"") where every element is zero.

    Parameters
    ----------
    data
        The shard's elements; an axis is shorter than `shard` where the array ends inside the shard.
    shard
        Elements of a shard along each axis.
    chunk
        Elements of a chunk along each axis; divides `shard`.
    """
    if any(n > s for n, s in zip(data.shape, shard, strict=True)):
        raise ValueError(f"data of shape {data.shape} is larger than a shard of {shard}")
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    stored_dtype = data.dtype.newbyteorder("<")
    index = np.full((*counts, 2), _ABSENT, dtype="<u8")
    parts: list[bytes] = []
    offset = 0
    for position in itertools.product(*(range(n) for n in counts)):
        part = data[tuple(slice(p * c, (p + 1) * c) for p, c in zip(position, chunk, strict=True))]
        if part.size == 0:
            continue
        if part.shape != chunk:
            part = np.pad(part, [(0, c - n) for n, c in zip(part.shape, chunk, strict=True)])
        part = np.ascontiguousarray(part, dtype=stored_dtype)
        # Compared as bits: -0.0 and NaN are no fill values.
        if not part.view(f"u{part.itemsize}").max():
            continue
        encoded = bytes(_zstd.encode(part))
        index[position] = offset, len(encoded)
        offset += len(encoded)
        parts.append(encoded)
    if not parts:
        return b""
    footer = index.tobytes()
    return b"".join([*parts, footer, google_crc32c.value(footer).to_bytes(4, "little")])


@contextlib.contextmanager
def opened_shard(path: Path) -> Iterator[bytes | mmap.mmap]:
    """A shard's bytes, of which only those that are looked at are read; b"" where there is no file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except FileNotFoundError:
        yield b""


def decode_shard(
    data: bytes | mmap.mmap, shard: tuple[int, ...], chunk: tuple[int, ...], start: tuple[int, ...], out: NDArray[Any]
) -> None:
    """Take a box out of the bytes of one shard; b"" stands for a shard of zeros.

    zarr-python needs five times as long for it, on one core however many there are.

    Parameters
    ----------
    data
        What `encode_shard` made, or zarr-python with the same codecs.
    shard, chunk
        Elements along each axis.
    start
        First element of the box, counted in the shard.
    out
        Receives the box, of the array's data type.

    Raises
    ------
    ValueError
        If the index or a chunk is damaged.
    """
    out[...] = 0
    if not data:
        return
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    size = 16 * math.prod(counts)
    footer, told = data[-4 - size : -4], data[-4:]
    if len(footer) != size or google_crc32c.value(footer).to_bytes(4, "little") != told:
        raise ValueError("the index of a shard does not match its checksum")
    index = np.frombuffer(footer, "<u8").reshape(*counts, 2)
    ranges = (range(a // c, -(-(a + n) // c)) for a, n, c in zip(start, out.shape, chunk, strict=True))
    for position in itertools.product(*ranges):
        offset, length = map(int, index[position])
        if offset == _ABSENT:
            continue
        try:
            decoded = _zstd.decode(data[offset : offset + length])
            part = np.frombuffer(decoded, out.dtype.newbyteorder("<")).reshape(chunk)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"chunk {position} of a shard cannot be decoded: {error}") from error
        first = [p * c - a for p, c, a in zip(position, chunk, start, strict=True)]
        into = tuple(slice(max(f, 0), f + c) for f, c in zip(first, chunk, strict=True))
        here = tuple(slice(max(-f, 0), n - f) for f, n in zip(first, out.shape, strict=True))
        out[into] = part[here]
