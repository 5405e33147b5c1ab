"""State of the files of a volume (names, sizes and times), by which a change is noticed without reading them.

All files count, at a bit of memory each. `simexm.sources.identity` opens a few thousand files at most, so changes elsewhere
are noticed only here, and only between two listings of one place.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import threading
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simexm.store.listing import LISTERS, in_parallel
from simexm.store.location import Location, folder_of
from simexm.store.remote import Remote
from simexm.store.shard_list import ShardList, chunk_position

LISTED = 1 << 25
"""Most chunks whose existence is recorded, one by one: 4 MiB."""
_Folder = tuple[Location, tuple[int, ...]]


@dataclass(frozen=True)
class FilesState:
    """State of the files of one volume, or of a part of it."""

    where: str = field(compare=False)  # name of the volume in messages
    files: int  # number of files
    names: str  # digest of their names and sizes
    # digest of names and times of the last change, versions in an object store, or checksums in a ZIP file
    times: str
    written: str = ""  # time of writing of the volume's metadata, which differs in a copy
    # which chunk files exist; None if not asked for, or too many
    listed: ShardList | None = field(default=None, compare=False, repr=False)

    def to_mapping(self) -> dict[str, Any]:
        """Return what stays equal while nothing is changed, as plain data."""
        return {name: getattr(self, name) for name in ("files", "names", "times", "written")}


class _Sum:
    """Sum of digests of files, in any order and from several threads."""

    def __init__(self) -> None:
        self.files = self.names = self.times = 0
        self.lock = threading.Lock()

    def add(self, files: int, names: int, times: int) -> None:
        with self.lock:
            self.files += files
            self.names = (self.names + names) % 2**128
            self.times = (self.times + times) % 2**128

    def state(self, where: str, written: str = "", listed: ShardList | None = None) -> FilesState:
        return FilesState(where, self.files, f"{self.names:032x}", f"{self.times:032x}", written, listed)


def state_of_files(where: str, files: Iterable[Path]) -> FilesState:
    """Return the state of files on a disk; raises OSError if one is missing."""
    total = _Sum()
    for file in files:
        about = file.stat()
        total.add(1, _digest(file.name, about.st_size), _digest(file.name, about.st_mtime_ns))
    return total.state(where)


def state_of_zip(where: str, path: Path) -> FilesState:
    """Return the state of the files in a ZIP file by their checksums, which a copy keeps.

    Raises OSError if it is missing, or no longer a ZIP file.
    """
    total = _Sum()
    try:
        with zipfile.ZipFile(path) as archive:
            for file in archive.infolist():
                total.add(1, _digest(file.filename, file.file_size), _digest(file.filename, file.CRC))
    except zipfile.BadZipFile as error:
        raise OSError(errno.EIO, f"it is no longer a ZIP file ({error})", str(path)) from error
    return total.state(where)


def state_below(where: str, folder: Path) -> FilesState:
    """Return the state of all files below a folder, except hidden ones."""
    total = _Sum()
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                about = os.stat(os.path.join(parent, name))
                key = os.path.relpath(os.path.join(parent, name), folder)
                total.add(1, _digest(key, about.st_size), _digest(key, about.st_mtime_ns))
    return total.state(where)


def state_of_chunks(where: str, array: Any, ranges: Sequence[range], *, listing: bool) -> FilesState | None:
    """Return the state of the chunk files of a Zarr array; None if its folder cannot be listed, as behind https://.

    Only files (shards, if it is sharded) at positions in `ranges` along each axis count; `listing` records which exist.
    Raises OSError if the array is missing, or cannot be listed.
    """
    from zarr.storage import ZipStore

    if isinstance(array.store, ZipStore):
        return state_of_zip(where, Path(array.store.path))
    folder = folder_of(array)
    if folder is None:
        return None
    metadata = folder / ("zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    about = metadata.stat()  # raises if the array is missing, where an object store would list nothing
    few = listing and math.prod(map(len, ranges)) <= LISTED
    listed = ShardList.empty([r.start for r in ranges], [len(r) for r in ranges]) if few else None
    written = about.st_mtime if isinstance(folder, Remote) else about.st_mtime_ns
    return state_of_grid(where, folder, ranges, listed, str(written))


def state_of_grid(
    where: str, folder: Location, ranges: Sequence[range], listed: ShardList | None = None, written: str = ""
) -> FilesState:
    """Return the state of the files in a folder whose names are positions on a grid: c/0/1/2, 0/1/2 or 0.1.2.

    Only positions in `ranges` along each axis count; `listed` receives those that exist.
    """
    walk = _Walk(ranges, listed)
    walk.go([(folder, ())])
    return walk.total.state(where, written, listed)


class _Walk:
    """Walk through an array's folder, within the ranges."""

    def __init__(self, ranges: Sequence[range], listed: ShardList | None) -> None:
        self.ranges, self.listed = ranges, listed
        self.total = _Sum()

    def go(self, folders: Iterable[_Folder]) -> None:
        """List folders, a few at a time, and those below."""
        for below in in_parallel(self._list, folders, LISTERS):
            if below:
                self.go(below)

    def _list(self, at: _Folder) -> list[_Folder]:
        """Count the files of a folder; return the folders in it."""
        folder, key = at
        below: list[_Folder] = []
        files = names = times = 0

        def count(position: tuple[int, ...], size: int, stamp: str | int) -> None:
            nonlocal files, names, times
            if len(position) == len(self.ranges):
                files, names, times = files + 1, names + _digest(position, size), times + _digest(position, stamp)
                if self.listed is not None:
                    with self.total.lock:
                        self.listed.add(position)

        if isinstance(folder, Remote):
            for name, size, version in folder.entries():
                position = self._position(key, name)
                if position is not None and size is None:
                    below.append((folder / name, position))
                elif position is not None and size is not None:
                    count(position, size, version)
        else:
            with os.scandir(folder) as entries:
                for entry in entries:
                    position = self._position(key, entry.name)
                    if position is not None and entry.is_dir():
                        below.append((Path(entry.path), position))
                    elif position is not None:
                        about = entry.stat()
                        count(position, about.st_size, about.st_mtime_ns)
        self.total.add(files, names, times)
        return below

    def _position(self, key: tuple[int, ...], name: str) -> tuple[int, ...] | None:
        """Extend a position by a file name; None if it is no chunk's, or outside the ranges."""
        if not key and name == "c":
            return ()
        number = name.isascii() and name.isdecimal()
        added = (int(name),) if number else chunk_position(name if key else name.removeprefix("c."))
        ranges = self.ranges[len(key) : len(key) + len(added)]
        inside = 0 < len(added) == len(ranges) and all(p in r for p, r in zip(added, ranges, strict=True))
        return (*key, *added) if inside else None


def _digest(name: Any, value: str | int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name} {value}".encode(), digest_size=16).digest())


def _raise(error: OSError) -> None:
    raise error
