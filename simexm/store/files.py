"""Write and remove files atomically, on a disk or in an object store; see also `claims`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from simexm.store.claims import check_claim
from simexm.store.location import Location
from simexm.store.remote import Remote

_PIECE_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Stored:
    """Size in bytes and checksum of a stored file; 0 bytes: no file."""

    nbytes: int
    checksum: str


EMPTY = Stored(0, "")


@dataclass(frozen=True, slots=True)
class Files:
    """A folder whose files are written and removed atomically."""

    root: Location
    scratch: Location
    """The writer's claim, outside `root`. On a disk it is an existing folder of the same file system, where files are
    written before they are renamed; leftovers of a killed writer stay there, never inside a Zarr group. Without it
    nothing can be written or removed."""

    def put(self, key: str, data: bytes) -> Stored:
        """Replace the file `key` (a path below the root) by `data`, atomically and durably; b"" removes it."""
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
    """Yield a path on a disk to write; it becomes `path` at the end, and is removed after an error.

    With `new` the file must not exist. Object stores check that; on a disk the claim suffices.
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
    """Yield a path on a disk for a file that needs neither claim nor atomicity; in a store, it is uploaded at the end."""
    if isinstance(path, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            yield Path(folder) / path.name
            path.upload(Path(folder) / path.name)
    else:
        yield path


@contextlib.contextmanager
def becoming(path: Path, partial: Path) -> Iterator[Path]:
    """Yield `partial` to write; rename it to `path` at the end, and remove it after an error."""
    try:
        yield partial
        publish(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            error.filename = str(path)  # of a full disk there is no name, and users do not know the partial one
        raise


def remove(path: Location, scratch: Location) -> None:
    """Remove a file, if it exists, through the claim: a writer that lost its claim removes nothing."""
    if isinstance(path, Remote):
        check_claim(scratch)
        path.unlink(missing_ok=True)
        return
    if not path.exists():
        return
    gone = _on_disk(scratch) / f"{uuid.uuid4().hex}.partial"
    os.replace(path, gone)
    _sync(path.parent)
    gone.unlink()


def publish(partial: Path, path: Path) -> None:
    """Rename a finished file atomically; file and folder are synced, so that it survives a power cut."""
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
    """Append text to a file with one writer. An object is rewritten each time, so use it rarely."""
    if isinstance(path, Remote):
        before = path.read_bytes() if path.is_file() else b""
        path.put(before + text.encode())
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _on_disk(folder: Location) -> Path:
    if isinstance(folder, Remote):
        raise TypeError(f"{folder} is in a store, but the claim for files on a disk must be on that disk")
    return folder


def checksum(data: bytes) -> str:
    """Checksum of bytes, as the journal stores it."""
    return _checksum(google_crc32c.value(data))


def measure(path: Location) -> Stored:
    """Size and checksum of a file, which is read in pieces from a disk; `EMPTY` if it is missing."""
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


def remove_all(files: Sequence[Location]) -> None:
    """Remove files of one folder; in a store with one request for many."""
    if files and isinstance(files[0], Remote):
        files[0].remove_keys([str(f) for f in files])
        return
    for file in files:
        file.unlink()


def remove_tree(path: Location, *, ignore_errors: bool = False) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    with contextlib.suppress(*((OSError,) if ignore_errors else ())):
        if isinstance(path, Remote):
            path.remove_tree()
            path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=ignore_errors)
        else:
            path.unlink(missing_ok=True)
