"""Encode and decode complete shards of Zarr v3 arrays; `simexm.store.files` writes their bytes atomically.

zarr-python writes a shard through its event loop with one thread a chunk, and does not fsync. Here the calling thread
encodes it, and the file is absent, old or new whenever a process is killed.

Format: "sharding_indexed" of the Zarr v3 core codecs (ZEP 2), index at the end with its crc32c, chunks in C order,
little-endian, Zstd. All-zero chunks are left out, and an all-zero shard has no file.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.store.location import Location
from simexm.store.remote import Remote
from simexm.timing import moved

# Against levels 2 to 5, level 1 needs half the time or less; counts take at most 4 % more space, labels 15 %.
ZSTD_LEVEL = 1
_ABSENT = 2**64 - 1
_ZSTD_HEAD = 18
_zstd = Zstd(level=ZSTD_LEVEL)


class Encoder:
    """Encode one shard, some chunks at a time; `chunk` divides `shard`."""

    def __init__(self, shard: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shard, self._chunk = shard, chunk
        self._index = np.full((*(s // c for s, c in zip(shard, chunk, strict=True)), 2), _ABSENT, dtype="<u8")
        self._buffer = np.zeros(chunk, dtype.newbyteorder("<"))  # reused for all chunks: it stays in the CPU's cache
        self._parts: list[bytes] = []
        self._offset = 0

    def add(self, start: tuple[int, ...], data: NDArray[np.generic]) -> None:
        """Encode the chunks of a box that begins at a chunk's start and ends at a chunk's or the array's end."""
        chunk, buffer = self._chunk, self._buffer
        if any(a % c or a + n > s for a, n, s, c in zip(start, data.shape, self._shard, chunk, strict=True)):
            raise ValueError(f"{data.shape} at {start} are no chunks of {chunk} in a shard of {self._shard}")
        counts = (range(-(-n // c)) for n, c in zip(data.shape, chunk, strict=True))
        for position in itertools.product(*counts):
            part = data[tuple(slice(p * c, (p + 1) * c) for p, c in zip(position, chunk, strict=True))]
            if part.shape != chunk:
                buffer[...] = 0
            buffer[tuple(map(slice, part.shape))] = part
            # Compared as bits, since -0.0 and NaN are no fill values; mostly the first element decides.
            bits = buffer.view(f"u{buffer.itemsize}").ravel()
            if not bits[0] and not bits.any():
                continue
            encoded = bytes(_zstd.encode(buffer))
            at = tuple(a // c + p for a, c, p in zip(start, chunk, position, strict=True))
            self._index[at] = self._offset, len(encoded)
            self._offset += len(encoded)
            self._parts.append(encoded)

    def to_bytes(self) -> bytes:
        """Return the shard's bytes; b"" if every element is zero."""
        if not self._parts:
            return b""
        footer = self._index.tobytes()
        return b"".join([*self._parts, footer, google_crc32c.value(footer).to_bytes(4, "little")])


def encode_shard(data: NDArray[np.generic], shard: tuple[int, ...], chunk: tuple[int, ...]) -> bytes:
    """Encode one shard; b"" if every element is zero. `data` is smaller than `shard` where the array ends inside it."""
    encoder = Encoder(shard, chunk, data.dtype)
    encoder.add((0,) * data.ndim, data)
    return encoder.to_bytes()


class Ranges:
    """Fetch ranges of bytes of a shard in a store; raises FileNotFoundError if the shard is missing."""

    def __init__(self, path: Remote) -> None:
        self._path = path
        (self._tail,) = path.read_ranges([(-TAIL_BYTES, 0)])

    def last(self, count: int) -> bytes:
        """Return the last bytes."""
        if count <= len(self._tail) or len(self._tail) < TAIL_BYTES:
            return self._tail[-count:]
        return self._path.read_ranges([(-count, 0)])[0]

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length); neighbours share a request, and requests run concurrently."""
        requests: list[list[int]] = []  # start and stop
        for offset, length in sorted(ranges):
            if requests and offset - requests[-1][1] <= GAP_BYTES:
                requests[-1][1] = max(requests[-1][1], offset + length)
            else:
                requests.append([offset, offset + length])
        pieces = self._path.read_ranges([(a, b) for a, b in requests]) if requests else []
        starts = [a for a, _ in requests]
        found = []
        for offset, length in ranges:
            n = bisect.bisect_right(starts, offset) - 1
            found.append(pieces[n][offset - starts[n] : offset - starts[n] + length])
        return found


TAIL_BYTES = 1 << 14
"""Fetched first, since most indices are shorter."""
GAP_BYTES = 1 << 18
"""Gap between two ranges up to which one request fetches both."""


@contextlib.contextmanager
def opened_shard(path: Location) -> Iterator[bytes | mmap.mmap | Ranges]:
    """Open a shard so that only the bytes used are read; b"" if the file is missing.

    A missing file means zeros only while the array exists; callers must check that (see `simexm.store.reading`).
    """
    if isinstance(path, Remote):
        try:
            found: bytes | Ranges = Ranges(path)
        except FileNotFoundError:
            found = b""
        yield found
        return
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield b""
        return
    with file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def zstd_size(head: bytes) -> int | None:
    """Decoded size that a Zstd frame states in its first 18 bytes (RFC 8878, 3.1.1), if any."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    kind, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    count = (single, 2, 4, 8)[kind]
    begin = 5 + (1 - single) + (0, 1, 2, 4)[dictionary]
    value = int.from_bytes(head[begin : begin + count], "little")
    return value + 256 * (count == 2) if count else None


def decode_shard(
    data: bytes | mmap.mmap | Ranges,
    shard: tuple[int, ...],
    chunk: tuple[int, ...],
    start: tuple[int, ...],
    out: NDArray[Any],
) -> None:
    """Decode a box of one shard into `out`, which has the array's data type; b"" is a shard of zeros.

    `start` is the box's first element, counted in the shard. zarr-python with the same codecs takes five times as long, on one
    core however many there are. Raises ValueError if the index or a chunk is damaged.
    """
    if not data:
        out[...] = 0
        return
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    size = 16 * math.prod(counts)
    end = data.last(size + 4) if isinstance(data, Ranges) else data[-4 - size :]
    footer, checksum = end[:-4], end[-4:]
    if len(footer) != size or google_crc32c.value(footer).to_bytes(4, "little") != checksum:
        raise ValueError("the index of a shard does not match its checksum")
    index = np.frombuffer(footer, "<u8").reshape(*counts, 2)
    ranges = (range(a // c, -(-(a + n) // c)) for a, n, c in zip(start, out.shape, chunk, strict=True))
    inside: dict[tuple[int, ...], tuple[tuple[slice, ...], tuple[slice, ...]]] = {}
    for position in itertools.product(*ranges):
        first = [p * c - a for p, c, a in zip(position, chunk, start, strict=True)]
        into = tuple(slice(max(f, 0), f + c) for f, c in zip(first, chunk, strict=True))
        if index[position][0] == _ABSENT:
            out[into] = 0
        else:
            inside[position] = into, tuple(slice(max(-f, 0), n - f) for f, n in zip(first, out.shape, strict=True))
    nbytes = math.prod(chunk) * out.dtype.itemsize
    places = [(int(index[p][0]), int(index[p][1])) for p in inside]
    moved(read=size + 4 + sum(n for _, n in places))
    encoded = data.fetch(places) if isinstance(data, Ranges) else (data[a : a + n] for a, n in places)
    for (position, (into, inner)), chunk_bytes in zip(inside.items(), encoded, strict=True):
        try:
            decodes_to = zstd_size(chunk_bytes[:_ZSTD_HEAD])
            if decodes_to is not None and decodes_to != nbytes:
                raise ValueError(f"it would decode to {decodes_to} bytes instead of {nbytes}")
            decoded = _zstd.decode(chunk_bytes)
            part = np.frombuffer(decoded, out.dtype.newbyteorder("<")).reshape(chunk)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"chunk {position} of a shard cannot be decoded: {error}") from error
        out[into] = part[inner]
