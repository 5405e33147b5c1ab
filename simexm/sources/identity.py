"""Digest of a stored volume that distinguishes it from others of the same shape and type, without reading all of it.

It does not depend on paths or times of files, so a project can be moved or copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any
from zipfile import ZipFile

import zarr
from zarr.storage import ZipStore

from simexm.store.listing import read_ahead, read_begin, scan
from simexm.store.location import Location, folder_of

FILES = 4096
CONTENT_BYTES = 64 * 2**20
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


def digest_of(*parts: str) -> str:
    """Return one digest of several texts, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def array_identity(array: zarr.Array[Any], ingested: str | None) -> str:
    """Return the digest of an array's metadata without attributes, of its chunk files, and of `ingested`.

    The last is the digest that ingest stored in the group's attributes; None if it has none. Of the first 4096 chunk
    files (by sorted path), names and sizes count, and up to 64 MiB of bytes in all. A change that keeps these (a later
    chunk, edited in place, of the same size) is not noticed. Web servers (https://) do not list folders, so chunks
    there do not count: two volumes that ingest did not write are equal if their metadata are.
    """
    metadata = {k: v for k, v in array.metadata.to_dict().items() if k not in ("attributes", "consolidated_metadata")}
    found = hashlib.blake2b(json.dumps([metadata, ingested], sort_keys=True, default=repr).encode(), digest_size=16)
    folder = folder_of(array)
    if folder is not None:
        names = ((path.relative_to(folder).as_posix(), size) for path, size in islice(_files(folder), FILES))
        for name, size, content in read_ahead(partial(_begin, folder), _shared(names), folder):
            found.update(json.dumps([name, size]).encode())
            found.update(content)
    if isinstance(array.store, ZipStore):
        with ZipFile(array.store.path) as file:
            chunks = sorted(
                (i.filename, i.file_size, i.CRC) for i in file.infolist() if i.filename.startswith(array.path)
            )
        begin = len(array.path)  # leaves out the folder inside the ZIP file
        found.update(json.dumps([(name[begin:], size, crc) for name, size, crc in chunks]).encode())
    return found.hexdigest()


def _shared(files: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and number of bytes to digest of each file."""
    budget = CONTENT_BYTES
    for name, size in files:
        share = min(size, budget)
        yield name, size, share
        budget -= share


def _begin(folder: Location, file: tuple[str, int, int]) -> tuple[str, int, bytes]:
    """Return name, size and the bytes to digest."""
    name, size, share = file
    return name, size, read_begin(folder / name, share) if share else b""


def _files(folder: Location) -> Iterator[tuple[Location, int]]:
    """Yield chunk files below a folder and their sizes, in sorted order; folders are listed when they are reached."""
    for name, size in sorted(scan(folder), key=lambda entry: entry[0]):
        if name in _METADATA:
            continue
        if size is None:
            yield from _files(folder / name)
        else:
            yield folder / name, size
