"""One driver at a time for one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simexm.errors import OutputError

# What file systems answer that know no advisory locks; exclusive creation and the process table must do there.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block, and remove it afterwards.

    The file names host, process and time. The kernel's advisory lock on it ends with its holder, however that ends, so
    that the lock of a dead process of this host is taken over, by one only of several that try at once.

    Raises
    ------
    OutputError
        Another driver holds the lock, or one on another host held it last, which cannot be seen from here; or the file
        cannot be written.
    """
    try:
        descriptor = _take(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Choose another --output, or mend that") from error
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def _take(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor, fresh = _open(path)
        try:
            advisory = _flock(descriptor, path)
            if not _same_file(descriptor, path):  # its holder removed it between our open and our lock
                os.close(descriptor)
                continue
            owner = {} if fresh else _read(descriptor)
            if owner and not _is_gone(owner, advisory):
                raise _held(path, owner)
            _write(descriptor)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _flock(descriptor: int, path: Path) -> bool:
    """Take the advisory lock. False if the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(path, _read(descriptor)) from None
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return False
    return True


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644), False


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)
    os.fsync(descriptor)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_gone(owner: dict[str, Any], advisory: bool) -> bool:
    """True if the owner was a process of this host and has ended, which holding its advisory lock proves."""
    if owner.get("host") != socket.gethostname():
        return False
    if advisory:
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError):
        return False
    return False


def _held(path: Path, owner: dict[str, Any]) -> OutputError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    if owner.get("host", socket.gethostname()) == socket.gethostname():
        return OutputError(
            f"{path} is held by {who}: two runs into one output would do all work twice. "
            f"Wait for it, or end it with: kill {owner.get('pid', '<pid>')}"
        )
    return OutputError(
        f"{path} is held by {who}, and whether that still runs cannot be seen from {socket.gethostname()}: "
        f"two runs into one output would do all work twice. If it has ended, type: rm '{path}'"
    )
