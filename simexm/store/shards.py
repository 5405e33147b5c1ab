"""Whole shards of Zarr v3 arrays: their bytes, and putting them in place in one step.

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
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Stored:
    """What is on disk for one shard: its size in bytes (0: no file) and the checksum of its bytes."""

    nbytes: int
    checksum: str


EMPTY = Stored(0, "")
_PIECE_BYTES = 1 << 22


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
    if not data:
        out[...] = 0
        return
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    size = 16 * math.prod(counts)
    footer, told = data[-4 - size : -4], data[-4:]
    if len(footer) != size or google_crc32c.value(footer).to_bytes(4, "little") != told:
        raise ValueError("the index of a shard does not match its checksum")
    index = np.frombuffer(footer, "<u8").reshape(*counts, 2)
    ranges = (range(a // c, -(-(a + n) // c)) for a, n, c in zip(start, out.shape, chunk, strict=True))
    for position in itertools.product(*ranges):
        first = [p * c - a for p, c, a in zip(position, chunk, start, strict=True)]
        into = tuple(slice(max(f, 0), f + c) for f, c in zip(first, chunk, strict=True))
        offset, length = map(int, index[position])
        if offset == _ABSENT:
            out[into] = 0
            continue
        try:
            decoded = _zstd.decode(data[offset : offset + length])
            part = np.frombuffer(decoded, out.dtype.newbyteorder("<")).reshape(chunk)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"chunk {position} of a shard cannot be decoded: {error}") from error
        here = tuple(slice(max(-f, 0), n - f) for f, n in zip(first, out.shape, strict=True))
        out[into] = part[here]


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A folder whose files appear, change and vanish whole.

    Attributes
    ----------
    root
        The folder.
    scratch
        An existing folder on the same file system, outside `root`, for files that are being written: a killed writer
        leaves its leftovers there, and never a foreign file inside a Zarr group. Whoever takes this folder away keeps
        all who still hold its name from writing, removing included.
    """

    root: Path
    scratch: Path

    def put(self, key: str, data: bytes) -> Stored:
        """Replace the file `key` (a path below the root) by `data` in one step and on the disk; b"" removes it."""
        path = self.root / key
        if not data:
            remove(path, self.scratch)
            return EMPTY
        with writing(path, self.scratch) as partial:
            partial.write_bytes(data)
        return Stored(len(data), checksum(data))


@contextlib.contextmanager
def writing(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield a name in `scratch` for a file that is to be written, which becomes `path` if all goes well and else vanishes."""
    with becoming(path, scratch / f"{uuid.uuid4().hex}.partial") as partial:
        yield partial


@contextlib.contextmanager
def becoming(path: Path, partial: Path) -> Iterator[Path]:
    """The same with a name of the caller's, which is yielded."""
    try:
        yield partial
        publish(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def remove(path: Path, scratch: Path) -> None:
    """Remove a file, if it is there, by way of `scratch`: so whoever has lost that folder removes nothing."""
    if path.exists():
        gone = scratch / f"{uuid.uuid4().hex}.partial"
        os.replace(path, gone)
        _sync(path.parent)
        gone.unlink()


def publish(partial: Path, path: Path) -> None:
    """Give a finished file its name, in one step that survives a power cut; file and folder are on the disk afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(data: bytes) -> str:
    """The checksum by which the journal knows a file's bytes."""
    return _checksum(google_crc32c.value(data))


def measure(path: Path) -> Stored:
    """Size and checksum of what is on the disk, read in pieces; `EMPTY` where there is no file."""
    size = crc = 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                size += len(piece)
                crc = google_crc32c.extend(crc, piece)
    except FileNotFoundError:
        return EMPTY
    return Stored(size, _checksum(crc))


def _checksum(crc: int) -> str:
    return f"crc32c:{crc:08x}"
