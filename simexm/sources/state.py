"""Whether the files of a volume are still those that they were, without reading them: names, sizes and times.

All of them are looked at, but nothing is kept of each one but a bit. So what `simexm.sources.identity` does not see, which
opens a few thousand files at most, is seen here, though only between two looks at the same place.
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
"""Chunks of which it is kept, at most, which ones exist: 4 MiB."""
_Folder = tuple[Location, tuple[int, ...]]


@dataclass(frozen=True)
class FilesState:
    """The files of one volume, or of a part of it.

    Attributes
    ----------
    where
        What to call the volume in messages.
    files
        How many there are.
    names
        Digest of their names and sizes.
    times
        Digest of their names and times of the last change; in an object store, of their versions; in a ZIP file, of their
        checksums.
    written
        When the volume's metadata were written: in a copy at another time.
    listed
        Which chunk files exist; None where that was not asked for, or there are too many.
    """

    where: str = field(compare=False)
    files: int
    names: str
    times: str
    written: str = ""
    listed: ShardList | None = field(default=None, compare=False, repr=False)

    def to_mapping(self) -> dict[str, Any]:
        """What two looks have in common where nothing was changed, as plain data."""
        return {name: getattr(self, name) for name in ("files", "names", "times", "written")}


class _Sum:
    """Adds files up, in any order and in several threads."""

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
    """The state of some files of a disk.

    Raises
    ------
    OSError
        If one is gone.
    """
    total = _Sum()
    for file in files:
        about = file.stat()
        total.add(1, _digest(file.name, about.st_size), _digest(file.name, about.st_mtime_ns))
    return total.state(where)


def state_of_zip(where: str, path: Path) -> FilesState:
    """The state of the files in a ZIP file, by their checksums: a copy of it has the same, whenever it was made.

    Raises
    ------
    OSError
        If it is gone, or is no ZIP file any more.
    """
    total = _Sum()
    try:
        with zipfile.ZipFile(path) as archive:
            for file in archive.infolist():
                total.add(1, _digest(file.filename, file.file_size), _digest(file.filename, file.CRC))
    except zipfile.BadZipFile as error:
        raise OSError(errno.EIO, f"it is no ZIP file any more ({error})", str(path)) from error
    return total.state(where)


def state_below(where: str, folder: Path) -> FilesState:
    """The state of all files below a folder; those whose names begin with a dot do not count."""
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
    """The state of the chunk files of a Zarr array; None where nobody tells what is in its folder, as behind https://.

    Parameters
    ----------
    where
        What to call it in messages.
    array
        The array.
    ranges
        Positions of chunk files (of shards, where it is sharded) along each axis; others are not looked at.
    listing
        Whether to keep which ones exist.

    Raises
    ------
    OSError
        If the array is gone, or cannot be looked at.
    """
    from zarr.storage import ZipStore

    if isinstance(array.store, ZipStore):
        return state_of_zip(where, Path(array.store.path))
    folder = folder_of(array)
    if folder is None:
        return None
    metadata = folder / ("zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    about = metadata.stat()  # raises where the array is gone, of which an object store would list nothing
    few = listing and math.prod(map(len, ranges)) <= LISTED
    listed = ShardList.empty([r.start for r in ranges], [len(r) for r in ranges]) if few else None
    written = about.st_mtime if isinstance(folder, Remote) else about.st_mtime_ns
    return state_of_grid(where, folder, ranges, listed, str(written))


def state_of_grid(
    where: str, folder: Location, ranges: Sequence[range], listed: ShardList | None = None, written: str = ""
) -> FilesState:
    """The state of the files in a folder whose names are positions on a grid, such as c/0/1/2, 0/1/2 or 0.1.2.

    Parameters
    ----------
    where
        What to call it in messages.
    folder
        The folder.
    ranges
        Positions along each axis; others are not looked at.
    listed
        Receives those that exist.
    written
        What the state says of the metadata.
    """
    walk = _Walk(ranges, listed)
    walk.go([(folder, ())])
    return walk.total.state(where, written, listed)


class _Walk:
    """Goes through an array's folder, and leaves out what lies outside the ranges."""

    def __init__(self, ranges: Sequence[range], listed: ShardList | None) -> None:
        self.ranges, self.listed = ranges, listed
        self.total = _Sum()

    def go(self, folders: Iterable[_Folder]) -> None:
        """Look into folders, a few at a time, and into those below."""
        for below in in_parallel(self._look, folders, LISTERS):
            if below:
                self.go(below)

    def _look(self, at: _Folder) -> list[_Folder]:
        """Add the files of a folder up; returns the folders in it."""
        folder, key = at
        below: list[_Folder] = []
        files = names = times = 0

        def see(position: tuple[int, ...], size: int, stamp: str | int) -> None:
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
                    see(position, size, version)
        else:
            with os.scandir(folder) as entries:
                for entry in entries:
                    position = self._position(key, entry.name)
                    if position is not None and entry.is_dir():
                        below.append((Path(entry.path), position))
                    elif position is not None:
                        about = entry.stat()
                        see(position, about.st_size, about.st_mtime_ns)
        self.total.add(files, names, times)
        return below

    def _position(self, key: tuple[int, ...], name: str) -> tuple[int, ...] | None:
        """What a name adds to a position; None where it is no chunk's, or outside the ranges."""
        if not key and name == "c":
            return ()
        added = (
            (int(name),)
            if name.isascii() and name.isdecimal()
            else chunk_position(name if key else name.removeprefix("c."))
        )
        ranges = self.ranges[len(key) : len(key) + len(added)]
        inside = 0 < len(added) == len(ranges) and all(p in r for p, r in zip(added, ranges, strict=True))
        return (*key, *added) if inside else None


def _digest(name: Any, told: str | int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name} {told}".encode(), digest_size=16).digest())


def _raise(error: OSError) -> None:
    raise error
