"""Cache folders of numba, CuPy and matplotlib: the usual ones, or a temporary one if these cannot be written.

Where neither the home folder nor the installation can be written (containers, cluster nodes, full disks), these libraries raise
or compile again in each process. Their environment variables are then set to a temporary folder; child processes inherit them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import NamedTuple

_PROBE_BYTES = 1 << 16


class _Cache(NamedTuple):
    """A library's cache: the environment variable of its folder, and the folders that the library tries without it, in order."""

    library: str
    variable: str
    usual: Callable[[Mapping[str, str]], list[str]]


def _user_caches(environment: Mapping[str, str]) -> str:
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    return environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def _numba(environment: Mapping[str, str]) -> list[str]:
    beside_the_code = os.path.join(os.path.dirname(__file__), "kernels", "emission", "__pycache__")
    return [beside_the_code, os.path.join(_user_caches(environment), "numba")]


def _matplotlib(environment: Mapping[str, str]) -> list[str]:
    if sys.platform == "darwin":
        return [os.path.expanduser("~/.matplotlib")]
    return [os.path.join(_user_caches(environment), "matplotlib")]


_CACHES = (
    _Cache("numba", "NUMBA_CACHE_DIR", _numba),
    _Cache("CuPy", "CUPY_CACHE_DIR", lambda _: [os.path.expanduser("~/.cupy/kernel_cache")]),
    _Cache("matplotlib", "MPLCONFIGDIR", _matplotlib),
)

_pending: list[str] = []


def redirect_unwritable() -> None:
    """Give each library whose cache cannot be written a temporary folder, with a warning in `pending_warnings`."""
    refused = {cache: why for cache in _CACHES if (why := _refusal(cache)) and find_spec(cache.library.lower())}
    if not refused:
        return
    folder = _temporary()
    names = " and ".join(cache.library for cache in refused)
    variables = " and ".join(cache.variable for cache in refused)
    why = next(iter(refused.values()))
    remedy = f"set {variables} to folders that you may write"
    if folder is None:
        os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
        _pending.append(
            f"{names} cannot write their caches ({why}), and no temporary folder is safe for them: each process compiles "
            f"everything again, which takes a minute or more; {remedy}, or TMPDIR to one of yours"
        )
        return
    for cache in refused:
        os.environ[cache.variable] = os.path.join(folder, cache.library.lower())
    _pending.append(
        f"{names} cannot write their caches ({why}): they use {folder}; if that is deleted, everything is compiled again, which "
        f"takes a minute or more; {remedy}"
    )


def pending_warnings() -> Iterator[str]:
    """Yield each warning of `redirect_unwritable` once."""
    while _pending:
        yield _pending.pop()


def _refusal(cache: _Cache) -> str:
    """The folder of a library's cache and why it cannot be written; empty if it can."""
    given = os.environ.get(cache.variable)
    usual = cache.usual(os.environ)
    if given and cache.library != "numba":  # numba falls back to the usual ones
        usual = []
    why = ""
    for folder in filter(None, [given, *usual]):
        refused = _unwritable(folder)
        if not refused:
            return ""
        why = f"{folder}: {refused}"
        if refused in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
            break  # numba would choose this one: it tests with an empty file
    return why


def _unwritable(folder: str) -> str:
    """Why a folder cannot be created or written to; empty if it can. Leaves nothing behind."""
    where = os.path.abspath(folder)
    while not os.path.lexists(where) and os.path.dirname(where) != where:
        where = os.path.dirname(where)
    probe = os.path.join(where, f".simexm-{os.getpid()}-{os.urandom(6).hex()}")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))  # a full disk still creates the file
        finally:
            os.close(descriptor)  # some network disks report errors only here
            os.unlink(probe)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _temporary() -> str | None:
    """A temporary folder that only this user can write, the same for all processes; None if there is none.

    Caches hold code that is run, so a folder that others could have written to is never used.
    """
    import tempfile

    try:
        parent = tempfile.gettempdir()
    except OSError:
        return None
    folder = os.path.join(parent, f"simexm-{os.geteuid()}")
    with contextlib.suppress(OSError):
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)  # whatever the umask says
    try:
        if _anyone_may_rename(parent):
            return None
        if not _is_private(folder):
            folder = tempfile.mkdtemp(prefix=f"simexm-{os.geteuid()}-")
            _remove_at_exit(folder)
    except OSError:
        return None
    return None if _unwritable(folder) else folder


def _is_private(folder: str) -> bool:
    """Whether a path is a folder of this user, and closed to all others."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _anyone_may_rename(parent: str) -> bool:
    """Whether other users may replace folders below `parent`: it is writable and lacks the sticky bit of /tmp."""
    mode = os.stat(parent).st_mode
    return bool(mode & 0o022) and not mode & stat.S_ISVTX


def _remove_at_exit(folder: str) -> None:
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
