"""Files that appear, change and vanish whole, in a folder of a disk or of an object store.

Whoever writes holds a claim: a folder of his own in `scratch`. The next driver takes it away, and with it the power to
write of every worker that an earlier one left.

On a disk a file is written inside that folder, synced, and renamed, so that without the folder nothing can be written at
all. In an object store a put is atomic by itself, and the claim is an object that is looked for right before each put: a
worker that falls asleep in the milliseconds between the two can still put one late object.
"""

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
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np

from simexm.store.remote import Remote

Location = Path
"""A file or folder, on a disk or behind a URL: a Path or a Remote, which type checkers take for one."""

LISTERS = READERS = 8
_A = TypeVar("_A")
_T = TypeVar("_T")
_PIECE_BYTES = 1 << 22
_CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one shard or table: its size in bytes (0: no file) and the checksum of its bytes."""

    nbytes: int
    checksum: str


EMPTY = Stored(0, "")


def is_url(named: str) -> bool:
    """Whether a text is a URL and no path."""
    return "://" in named


def location(named: str | os.PathLike[str] | Remote) -> Location:
    """The file or folder that a user named; links are followed.

    Raises
    ------
    SpecError
        If nothing can be found at a URL of this kind.
    """
    if isinstance(named, Remote):
        return named
    text = os.fspath(named)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if is_url(text):
        return Remote.at(text)
    return Path(os.path.expanduser(text)).resolve()


def from_text(named: str) -> Location:
    """The file or folder that `str` told."""
    return Remote(named) if is_url(named) else Path(named)


@dataclass(frozen=True, slots=True)
class Files:
    """A folder whose files appear, change and vanish whole.

    Attributes
    ----------
    root
        The folder.
    scratch
        The writer's claim, outside `root`: on a disk an existing folder of the same file system, for files that are being
        written. A killed writer leaves its leftovers there, and never a foreign file inside a Zarr group. Whoever takes it
        away keeps all who still hold its name from writing, removing included.
    """

    root: Location
    scratch: Location

    def put(self, key: str, data: bytes) -> Stored:
        """Replace the file `key` (a path below the root) by `data` in one step and for good; b"" removes it."""
        path = self.root / key
        if not data:
            remove(path, self.scratch)
            return EMPTY
        if isinstance(path, Remote):
            check_claim(self.scratch)
            path.put(data)
        else:
            with writing(path, self.scratch) as partial:
                partial.write_bytes(data)
        return Stored(len(data), checksum(data))


@contextlib.contextmanager
def writing(path: Location, scratch: Location, *, new: bool = False) -> Iterator[Path]:
    """Yield a name for a file that is to be written, which becomes `path` if all goes well and else vanishes.

    With `new` there must be no such file yet. Object stores look; on a disk the claim suffices.
    """
    if isinstance(path, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            partial = Path(folder) / path.name
            yield partial
            check_claim(scratch)
            path.upload(partial, new=new)
        return
    with becoming(path, _on_disk(scratch) / f"{uuid.uuid4().hex}.partial") as partial:
        yield partial


@contextlib.contextmanager
def outgoing(path: Location) -> Iterator[Path]:
    """Yield a name on a disk for a file that needs no claim and may be seen in pieces: `path`, or what is sent there."""
    if isinstance(path, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            yield Path(folder) / path.name
            path.upload(Path(folder) / path.name)
    else:
        yield path


@contextlib.contextmanager
def becoming(path: Path, partial: Path) -> Iterator[Path]:
    """The same on a disk, with a name of the caller's, which is yielded."""
    try:
        yield partial
        publish(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def remove(path: Location, scratch: Location) -> None:
    """Remove a file, if it is there, by way of the claim: so whoever has lost that removes nothing."""
    if not path.exists():
        return
    if isinstance(path, Remote):
        check_claim(scratch)
        path.unlink(missing_ok=True)
        return
    gone = _on_disk(scratch) / f"{uuid.uuid4().hex}.partial"
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


def append(path: Location, text: str) -> None:
    """Add text to a file's end, of which there is one writer; an object is written anew, so only for what is rare."""
    if isinstance(path, Remote):
        before = path.read_bytes() if path.is_file() else b""
        path.put(before + text.encode())
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


# ---------------------------------------------------------------- claims


def claim(scratch: Location) -> None:
    """Begin a claim; raises FileExistsError where an object store holds it already."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).create(uuid.uuid4().bytes)
    else:
        scratch.mkdir(parents=True)


def has_claim(scratch: Location) -> bool:
    """Whether a claim was not taken away."""
    return (scratch / _CLAIM).is_file() if isinstance(scratch, Remote) else scratch.is_dir()


def check_claim(scratch: Location) -> None:
    """Raise FileNotFoundError if a claim in an object store was taken away."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).stat()


def retire_claims(folder: Location) -> None:
    """Take all claims in a folder away, with what killed workers left in them."""
    if isinstance(folder, Remote):
        folder.remove_tree()
        return
    for each in folder.iterdir() if folder.is_dir() else ():
        retired = each.with_name(f"{uuid.uuid4().hex}.old")
        each.rename(retired)  # in one step, where removing file by file would race with whoever still writes
        if retired.is_dir():
            shutil.rmtree(retired, ignore_errors=True)
        else:
            retired.unlink()


@contextlib.contextmanager
def workspace(scratch: Location) -> Iterator[Path]:
    """Yield a folder of this machine's for large files that are needed for a while; its user removes them."""
    if isinstance(scratch, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            yield Path(folder)
    else:
        yield scratch


def _on_disk(folder: Location) -> Path:
    if isinstance(folder, Remote):
        raise TypeError(f"{folder} is on no disk, and files on a disk have their claim there")
    return folder


# ---------------------------------------------------------------- looking and removing


def checksum(data: bytes) -> str:
    """The checksum by which the journal knows a file's bytes."""
    return _checksum(google_crc32c.value(data))


def measure(path: Location) -> Stored:
    """Size and checksum of what is stored, on a disk read in pieces; `EMPTY` where there is no file."""
    size = crc = 0
    try:
        if isinstance(path, Remote):
            data = path.read_bytes()
            return Stored(len(data), checksum(data))
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                size += len(piece)
                crc = google_crc32c.extend(crc, piece)
    except FileNotFoundError:
        return EMPTY
    return Stored(size, _checksum(crc))


def _checksum(crc: int) -> str:
    return f"crc32c:{crc:08x}"


def remove_tree(path: Location, *, ignore_errors: bool = False) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    with contextlib.suppress(*((OSError,) if ignore_errors else ())):
        if isinstance(path, Remote):
            path.remove_tree()
            path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=ignore_errors)
        else:
            path.unlink(missing_ok=True)


def files_below(folder: Location) -> Iterator[Location]:
    """All files below a folder, in no stated order."""
    if isinstance(folder, Remote):
        yield from folder.files()
    else:
        yield from (p for p in folder.rglob("*") if p.is_file())


def scan(folder: Location) -> Iterator[tuple[str, int | None]]:
    """Names right below a folder; of files the size, of folders None."""
    if isinstance(folder, Remote):
        yield from folder.scan()
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, None if entry.is_dir() else entry.stat().st_size


def read_begin(path: Location, count: int) -> bytes:
    """The first bytes of a file."""
    if isinstance(path, Remote):
        return path.read_ranges([(0, count)])[0]
    with path.open("rb") as file:
        return file.read(count)


def presence(*folders: Location) -> Callable[[str], bool]:
    """What tells whether a file below these folders is there.

    A disk is asked for each. An object store is listed once, and of each name 64 bits are kept: so of ten million files one
    that is gone is overlooked once in a million million times.
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


def folder_of(array: Any) -> Location | None:
    """Where a Zarr array's chunks are, if it is on a disk or in a store that can be listed."""
    from zarr.storage import FsspecStore, LocalStore

    store = array.store
    if isinstance(store, LocalStore):
        return store.root / array.path
    if isinstance(store, FsspecStore):
        folder = Remote(store.fs.unstrip_protocol(store.path)) / array.path
        return folder if folder.can_list else None
    return None


def read_ahead(read: Callable[[_A], _T], files: Iterable[_A], near: Location) -> Iterator[_T]:
    """What `read` makes of each file, in order: one after the other where `near` is on a disk, else a few at a time."""
    if not isinstance(near, Remote):
        yield from map(read, files)
        return
    yield from in_parallel(read, files, READERS)


def in_parallel(work: Callable[[_A], _T], items: Iterable[_A], threads: int) -> Iterator[_T]:
    """What `work` makes of each item, in order, a few at a time."""
    feed = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(feed, 4 * threads))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(feed, 1))


def on_disk(path: Location) -> Path:
    """A file that never changes, on a disk: itself, or a copy that lasts as long as this process."""
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


def zarr_store(root: Location) -> Any:
    """What Zarr takes to read a group or an array."""
    if not isinstance(root, Remote):
        return root
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(root.url, storage_options={"use_listings_cache": False}, read_only=True)
