"""One driver at a time for one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from simexm.errors import OutputError

BEAT_S = 10.0  # how often a holder touches its lock
STALE_S = 90.0  # untouched for so long, a lock's holder is dead; network file systems show a touch up to a minute late
_SETTLE_S = 1.0
# What file systems answer that know no advisory locks; exclusive creation and the beat must do there.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block, and remove it afterwards.

    The file names host and process, and its holder touches it every `BEAT_S` seconds. A dead holder is known by one of
    two signs. On its own machine the kernel's advisory lock on the file has ended, however the process ended. From another
    machine, to which a file system may not show such locks, its file has not been touched for `STALE_S` seconds, by the
    file system's clock. Then the lock is taken over, by one only of several that try at once.

    Raises
    ------
    OutputError
        Another driver holds the lock, or may do so still; or the file cannot be written.
    """
    try:
        descriptor = _take(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Choose another --output, or mend that") from error
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(descriptor, ended), name="simexm-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with contextlib.suppress(FileNotFoundError):
            if _same_file(descriptor, path):
                path.unlink()
        os.close(descriptor)


@dataclass(frozen=True)
class Holder:
    """Who holds, or held, a lock.

    Attributes
    ----------
    host, pid
        Its machine and process.
    alive
        Whether it lives: on its own machine as the processes there tell, from elsewhere by its last sign of life.
    """

    host: str
    pid: int
    alive: bool


def holder(path: Path) -> Holder | None:
    """Who holds the lock, by looking alone; None where there is none."""
    try:
        owner, touched_s = json.loads(path.read_text()), path.stat().st_mtime
        host, pid = str(owner["host"]), int(owner["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if (host, owner.get("machine")) != (socket.gethostname(), _machine()):
        return Holder(host, pid, time.time() - touched_s < STALE_S)
    try:
        return Holder(host, pid, psutil.Process(pid).create_time() < touched_s + 1.0)  # or another got its number
    except psutil.Error:
        return Holder(host, pid, False)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):  # a disk that is away for a while
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
            ended = fresh or (advisory and owner.get("machine") == _machine())
            if not ended:
                age_s = _age_s(descriptor, path)
                if age_s < STALE_S:
                    raise _perhaps_held(path, owner, age_s)
            _write(descriptor)
            if not ended:  # others may have come to the same end at this moment: the last to write has it
                time.sleep(_SETTLE_S)
                if not _same_file(descriptor, path) or _read(descriptor) != _me():
                    raise _held(path, _read(descriptor))
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _flock(descriptor: int, path: Path, patience_s: float) -> bool:
    """Take the advisory lock. False if the file system has none.

    Whoever made the file has some patience, since others may look into it before it is locked.
    """
    until_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise _held(path, _read(descriptor)) from None
            time.sleep(0.001)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            return False


def _open(path: Path) -> tuple[int, bool]:
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # its holder removed it just now
                return os.open(path, os.O_RDWR), False


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _age_s(descriptor: int, path: Path) -> float:
    """Seconds since the lock was touched, by the file system's clock, which need not be this machine's."""
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - os.fstat(descriptor).st_mtime


def _machine() -> str:
    """This machine since it was started; containers on it share its kernel, and so its advisory locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}


def _write(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_me()).encode() + b"\n", 0)
    os.fsync(descriptor)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _held(path: Path, owner: dict[str, Any]) -> OutputError:
    return OutputError(
        f"{path} is held by {_who(owner)}: two runs into one output would do all work twice. Wait for it, or end it there "
        f"with: kill {owner.get('pid', '<pid>')}"
    )


def _perhaps_held(path: Path, owner: dict[str, Any], age_s: float) -> OutputError:
    return OutputError(
        f"{path} is held by {_who(owner)}, which gave a sign of life {max(0.0, age_s):.0f} s ago: two runs into one output "
        f"would do all work twice. Wait for it, or end it there; if it is dead, type the same command again in "
        f"{STALE_S - age_s:.0f} s"
    )


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
