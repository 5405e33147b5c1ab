"""By what a stored volume is told from another of the same shape and type, without reading all of it.

Nothing here depends on where a volume stands or on when its files were written, so a project can be moved or copied.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

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
    Behind a URL chunks are not looked at: two volumes that ingest did not write and whose metadata are alike are taken
    for the same.

    Parameters
    ----------
    array
        The array. Its attributes do not count.
    ingested
        Digest in the attributes of the group that ingest wrote; None where it did not, or an early version did.
    """
    metadata = {k: v for k, v in array.metadata.to_dict().items() if k not in ("attributes", "consolidated_metadata")}
    found = hashlib.blake2b(json.dumps([metadata, ingested], sort_keys=True, default=repr).encode(), digest_size=16)
    store = array.store
    if isinstance(store, LocalStore):
        folder, budget = store.root / array.path, CONTENT_BYTES
        for path in islice(_files(folder), FILES):
            size = path.stat().st_size
            found.update(json.dumps([path.relative_to(folder).as_posix(), size]).encode())
            if budget:
                with path.open("rb") as file:
                    content = file.read(budget)
                found.update(content)
                budget -= len(content)
    return found.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """All chunk files below a folder in sorted order, listing no further than they are asked for."""
    with os.scandir(folder) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if e.name not in _METADATA)
    for name, is_folder in found:
        if is_folder:
            yield from _files(folder / name)
        else:
            yield folder / name
