"""By what a stored volume is told from another of the same shape and type, without reading all of it.

Nothing here depends on where a volume stands or on when its files were written, so a project can be moved or copied.
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
    """One digest of several texts; 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def array_identity(array: zarr.Array[Any], ingested: str | None) -> str:
    """Digest of an array's metadata, of the digest that ingest left, and of its chunk files.

    Of chunk files the first 4096 count, in the order of their sorted paths: their names, their sizes, and their bytes
    up to 64 MiB in all. A change that keeps all of these (a later chunk, edited in place, of the same size) is not seen.
    Web servers (https://) do not tell what is in a folder, so there chunks are not looked at: two volumes that ingest did
    not write and whose metadata are alike are taken for the same.

    Parameters
    ----------
    array
        The array. Its attributes do not count.
    ingested
        Digest in the attributes of the group that ingest wrote; None where it did not, or an early version did.
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
        begin = len(array.path)  # so that the folder in which it was packed does not count
        found.update(json.dumps([(name[begin:], size, crc) for name, size, crc in chunks]).encode())
    return found.hexdigest()


def _shared(files: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Name, size, and how many bytes count, of each file."""
    budget = CONTENT_BYTES
    for name, size in files:
        share = min(size, budget)
        yield name, size, share
        budget -= share


def _begin(folder: Location, file: tuple[str, int, int]) -> tuple[str, int, bytes]:
    """Name, size, and the bytes that count."""
    name, size, share = file
    return name, size, read_begin(folder / name, share) if share else b""


def _files(folder: Location) -> Iterator[tuple[Location, int]]:
    """All chunk files below a folder and their sizes, in sorted order, listing no further than they are asked for."""
    for name, size in sorted(scan(folder), key=lambda entry: entry[0]):
        if name in _METADATA:
            continue
        if size is None:
            yield from _files(folder / name)
        else:
            yield folder / name, size
