"""List folders, check which of many files exist, and read ahead."""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from simexm.store.location import Location
from simexm.store.remote import Remote

LISTERS = READERS = 8
_A = TypeVar("_A")
_T = TypeVar("_T")


def scan(folder: Location) -> Iterator[tuple[str, int | None]]:
    """Name and size of each entry directly below a folder; the size of a folder is None."""
    if isinstance(folder, Remote):
        yield from folder.scan()
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, None if entry.is_dir() else entry.stat().st_size


def largest_file(folder: Location, sample: int = 256) -> int | None:
    """Bytes of the largest of some files below a folder; None if there are none, or the store does not list them."""
    if isinstance(folder, Remote) and not folder.can_list:
        return None
    return max(islice(_sizes(folder), sample), default=None)


def _sizes(folder: Location) -> Iterator[int]:
    for name, size in scan(folder):
        if size is None:
            yield from _sizes(folder / name)
        else:
            yield size


def read_begin(path: Location, count: int) -> bytes:
    """Read the first bytes of a file."""
    if isinstance(path, Remote):
        return path.read_ranges([(0, count)])[0]
    with path.open("rb") as file:
        return file.read(count)


def files_below(folder: Location) -> Iterator[Location]:
    """All files below a folder, in no stated order."""
    return folder.files() if isinstance(folder, Remote) else (p for p in folder.rglob("*") if p.is_file())


def links_below(folder: Location) -> Iterator[Path]:
    """All symbolic links below a folder, without following any; stores have none."""
    waiting = [] if isinstance(folder, Remote) else [folder]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))


def presence(*folders: Location) -> Callable[[str], bool]:
    """Return a function that checks whether a file below these folders exists.

    On a disk it asks for each file. An object store is listed once, and 64 bits of each name are stored: among ten million
    files, a missing one is overlooked once in 10^12 times.
    """
    remote = [f for f in folders if isinstance(f, Remote)]
    if not remote:
        return os.path.isfile

    def listed(folder: Remote) -> Any:
        return np.frombuffer(array.array("q", (hash(f.url) for f in folder.files())), np.int64)

    with ThreadPoolExecutor(LISTERS) as pool:
        found = np.sort(np.concatenate([np.zeros(0, np.int64), *pool.map(listed, remote)]))

    def is_there(name: str) -> bool:
        place = int(np.searchsorted(found, np.int64(hash(name))))
        return place < found.size and int(found[place]) == hash(name)

    return is_there


def read_ahead(read: Callable[[_A], _T], files: Iterable[_A], near: Location) -> Iterator[_T]:
    """Apply `read` to each file, in order; concurrently, a few at a time, if `near` is in a store."""
    return in_parallel(read, files, READERS) if isinstance(near, Remote) else map(read, files)


def in_parallel(work: Callable[[_A], _T], items: Iterable[_A], threads: int) -> Iterator[_T]:
    """Apply `work` to each item in threads, a few at a time; results are in order."""
    feed = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(feed, 4 * threads))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(feed, 1))


def on_disk(path: Location) -> Path:
    """Return the path of a file that never changes: on a disk itself, else a copy that lasts as long as this process."""
    if not isinstance(path, Remote):
        return path
    with _fetching:
        about = path.stat()
        name = hashlib.sha256(f"{path} {about.version}".encode()).hexdigest()
        copy = _copies() / name
        if not copy.exists():
            data = path.read_bytes()
            partial = copy.with_suffix(".partial")
            partial.write_bytes(data)
            partial.rename(copy)
    return copy


_fetching = threading.Lock()


@functools.cache
def _copies() -> Path:
    folder = tempfile.mkdtemp(prefix="simexm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
