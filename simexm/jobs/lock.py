"""One driver at a time for one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simexm.errors import OutputError
from simexm.jobs.lock_owner import BEAT_S, STALE_S, beating, held, machine, me, owner_in, perhaps_held
from simexm.jobs.object_lock import object_lock
from simexm.store.location import Location
from simexm.store.remote import Remote

_SETTLE_S = 1.0
# Errors of file systems without advisory locks, where exclusive creation and the heartbeat must suffice.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def lock(path: Location) -> Iterator[None]:
    """Hold the lock `path` for the length of the block, and remove it afterwards.

    In an object store it is an object: see `simexm.jobs.object_lock`. On a disk it is a file that names host and process,
    with a heartbeat: its holder touches it every `BEAT_S` seconds. A holder is dead if, on its own machine, the kernel's
    advisory lock on the file has ended, or, seen from another machine, where such locks may be invisible, the file was
    not touched for `STALE_S` seconds by the file system's clock. Then the lock is taken over; if several drivers try, one
    gets it. Raises OutputError if another driver holds the lock or may still hold it, or the file cannot be written.
    """
    if isinstance(path, Remote):
        with object_lock(path):
            yield
        return
    try:
        descriptor = _take(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Fix that, or choose another --output") from error
    try:
        with beating(_beat, descriptor):
            yield
    finally:
        with contextlib.suppress(OSError):  # not to hide what the block raised; closing the file ends the lock anyway
            if _same_file(descriptor, path):
                path.unlink()
        os.close(descriptor)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):  # the disk may be unreachable for a while
            os.utime(descriptor)


def _take(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor, fresh = _open(path)
        try:
            advisory = _flock(descriptor, path, _SETTLE_S if fresh else 0.0)
            if not _same_file(descriptor, path):  # its holder removed it between our open and our lock
                os.close(descriptor)
                continue
            owner = {} if fresh else _read(descriptor)
            ended = fresh or (advisory and owner.get("machine") == machine())
            if not ended:
                age_s = _age_s(descriptor, path)
                if age_s < STALE_S:
                    raise perhaps_held(path, owner, age_s)
            _write(descriptor)
            if not ended:  # others may take it over at the same moment: the last to write holds it
                time.sleep(_SETTLE_S)
                if not _same_file(descriptor, path) or _read(descriptor) != me():
                    raise held(path, _read(descriptor))
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _flock(descriptor: int, path: Path, patience_s: float) -> bool:
    """Take the advisory lock; False if the file system has none.

    The creator of the file waits up to `patience_s`, since others may read it before it is locked.
    """
    until_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise held(path, _read(descriptor)) from None
            time.sleep(0.001)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            return False


def _open(path: Path) -> tuple[int, bool]:
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # removed by its holder meanwhile
                return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), False  # a link is not followed


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _age_s(descriptor: int, path: Path) -> float:
    """Return the seconds since the lock was touched, by the file system's clock."""
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - os.fstat(descriptor).st_mtime


def _write(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me()).encode() + b"\n", 0)
    os.fsync(descriptor)


def _read(descriptor: int) -> dict[str, Any]:
    return owner_in(os.pread(descriptor, 4096, 0))
