"""Files that appear, change and vanish whole, in a folder of a disk or of an object store; see also `claims`."""

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
    """What is stored of one shard or table: its size in bytes (0: no file) and the checksum of its bytes."""

    nbytes: int
    checksum: str


EMPTY = Stored(0, "")


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
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            error.filename = str(path)  # a full disk names no file, and nobody knows the partial one
        raise


def remove(path: Location, scratch: Location) -> None:
    """Remove a file, if it is there, by way of the claim: so whoever has lost that removes nothing."""
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


def _on_disk(folder: Location) -> Path:
    if isinstance(folder, Remote):
        raise TypeError(f"{folder} is on no disk, and files on a disk have their claim there")
    return folder


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


def remove_all(files: Sequence[Location]) -> None:
    """Remove some files of one folder; in a store with one request for many."""
    if files and isinstance(files[0], Remote):
        files[0].remove_keys([str(f) for f in files])
        return
    for file in files:
        file.unlink()


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
