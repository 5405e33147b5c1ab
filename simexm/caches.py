"""Folders in which numba, CuPy and matplotlib keep what they compiled or looked up: theirs, or a temporary one.

Where the home folder and the installation cannot be written, as in containers and on the nodes of clusters, or where a disk
is full, these libraries raise or do all their work anew in each process. Their folders are then set, by the variables that
they know, to one in the temporary folder, which the processes started from this one inherit.
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
    """A library's cache.

    Attributes
    ----------
    library
        Its name.
    variable
        The environment variable that says where the cache is.
    usual
        Folders that the library tries without the variable, in this order; only numba has several.
    """

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


def _cupy(environment: Mapping[str, str]) -> list[str]:
    return [os.path.expanduser("~/.cupy/kernel_cache")]


def _matplotlib(environment: Mapping[str, str]) -> list[str]:
    if sys.platform == "darwin":
        return [os.path.expanduser("~/.matplotlib")]
    return [os.path.join(_user_caches(environment), "matplotlib")]


_CACHES = (
    _Cache("numba", "NUMBA_CACHE_DIR", _numba),
    _Cache("CuPy", "CUPY_CACHE_DIR", _cupy),
    _Cache("matplotlib", "MPLCONFIGDIR", _matplotlib),
)

_untold: list[str] = []


def settle() -> None:
    """Give each library whose cache cannot be written a folder that can; `untold` says so once."""
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
        _untold.append(
            f"{names} cannot write their caches ({why}), and there is no temporary folder that is safe for them: each process "
            f"compiles all anew, which takes a minute or more; {remedy}, or TMPDIR to one of yours"
        )
        return
    for cache in refused:
        os.environ[cache.variable] = os.path.join(folder, cache.library.lower())
    _untold.append(
        f"{names} cannot write their caches ({why}): {folder} takes them, and where that is not kept all is compiled anew each "
        f"time, which takes a minute or more; {remedy}"
    )


def untold() -> Iterator[str]:
    """What `settle` found and nobody was told yet."""
    while _untold:
        yield _untold.pop()


def _refusal(cache: _Cache) -> str:
    """Why a library cannot write its cache, with the folder; empty where it can."""
    given = os.environ.get(cache.variable)
    usual = cache.usual(os.environ)
    if given and cache.library != "numba":  # which goes on to the usual ones where it cannot use what is given
        usual = []
    why = ""
    for folder in filter(None, [given, *usual]):
        refused = _unwritable(folder)
        if not refused:
            return ""
        why = f"{folder}: {refused}"
        if _is_full(refused):
            break  # numba would stop at this one, for it asks for a file without bytes
    return why


def _is_full(refused: str) -> bool:
    return refused in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def _unwritable(folder: str) -> str:
    """Why no file can be put into a folder, or a folder not be made; empty where it can. Leaves nothing behind."""
    where = os.path.abspath(folder)
    while not os.path.lexists(where) and os.path.dirname(where) != where:
        where = os.path.dirname(where)
    probe = os.path.join(where, f".simexm-{os.getpid()}-{os.urandom(6).hex()}")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))  # a full disk gives a file, but no room in it
        finally:
            os.close(descriptor)  # which is where some network disks tell
            os.unlink(probe)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _temporary() -> str | None:
    """A folder in the temporary one that only this user can use, kept from one process to the next; None if there is none.

    What lies in a cache is run, so one that somebody else could have put something into is never taken.
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
    """Whether a folder is one, this user's, and closed to all others."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _anyone_may_rename(parent: str) -> bool:
    """Whether other users may put folders of theirs in place of what lies in a folder: without the sticky bit of /tmp."""
    mode = os.stat(parent).st_mode
    return bool(mode & 0o022) and not mode & stat.S_ISVTX


def _remove_at_exit(folder: str) -> None:
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
