"""Files and folders that a user names: paths on a disk, or URLs."""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import Any

from simexm.errors import OutputError, SpecError
from simexm.store.remote import Remote

Location = Path
"""A file or folder on a disk or behind a URL: a Path, or a Remote, which type checkers accept as a Path."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")


def is_url(named: str) -> bool:
    """Whether a text is a URL, not a path."""
    return "://" in named


def usable(named: Any) -> str:
    """Return a path or URL as text; raises SpecError if no file can have this name."""
    if not isinstance(named, str | os.PathLike) or not isinstance(os.fspath(named), str):
        raise SpecError(f"a path or URL is expected, not {reprlib.repr(named)}; give it as text")
    text = os.fspath(named)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if not text or b"\0" in encoded:
        raise SpecError(f"{text!r} cannot be the name of a file or folder; type it again")
    try:
        text.encode()
    except UnicodeEncodeError:  # names inside results, in Zarr, Parquet and metadata, are UTF-8
        raise SpecError(
            f"{encoded!r} is not UTF-8, as names inside results must be: rename it, or choose another name; if the shell "
            "shows it correctly, type the command with PYTHONUTF8=1"
        ) from None
    if len(encoded) > _LONGEST or any(len(part) > _LONGEST_PART for part in encoded.split(b"/")):
        raise SpecError(f"{reprlib.repr(text)} is too long for the name of a file; type it again")
    if os.path.expanduser(text).startswith("~"):
        raise SpecError(
            f"{text} is the home folder of a user who does not exist; for a file of this name type ./{text}"
        )
    return text


_LONGEST, _LONGEST_PART = 4095, 255


def location(named: str | os.PathLike[str] | Remote) -> Location:
    """Return the file or folder that a user named; links are followed. Raises SpecError if it is no valid name or URL."""
    if isinstance(named, Remote):
        return named
    text = usable(named)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if is_url(text):
        if not text.partition("://")[2].strip("/"):
            raise SpecError(f"{text} names no bucket or server; type the whole URL, such as s3://bucket/NAME.zarr")
        return Remote.at(text)
    if _URL.match(text):
        whole = text.replace(":/", "://", 1)
        raise SpecError(f"{text} is a URL that lost a slash, as in a pathlib.Path; give it as text: {whole}")
    try:
        return Path(os.path.expanduser(text)).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle are a RuntimeError before Python 3.13
        why = getattr(error, "strerror", None) or "its symbolic links form a circle"
        raise SpecError(f"{text} cannot be used as a path: {why}; name another file or folder") from None


def from_text(named: str) -> Location:
    """Return the location whose `str` is `named`."""
    return Remote(named) if is_url(named) else Path(named)


def with_ending(path: Path, ending: str) -> Path:
    """Replace a path's ending, such as ".png"; if it has no name, name a file in that folder."""
    return path.with_name(f"{path.stem}{ending}") if path.name else path / f"out{ending}"


def refuse_url(named: str | os.PathLike[str]) -> None:
    """Raise OutputError for a URL where a path is needed, also one that lost a slash in a `Path`."""
    if _URL.match(os.fspath(named)):
        raise OutputError(f"{os.fspath(named)} is a URL, and this is written to a disk; name a path")


def zarr_store(root: Location) -> Any:
    """Return a store for Zarr to read from."""
    if not isinstance(root, Remote):
        return root
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(root.url, storage_options={"use_listings_cache": False}, read_only=True)


def folder_of(array: Any) -> Location | None:
    """Folder of a Zarr array, if it is on a disk or in a store that can be listed."""
    from zarr.storage import FsspecStore, LocalStore, WrapperStore

    store = array.store
    while isinstance(store, WrapperStore):
        store = store._store
    if isinstance(store, LocalStore):
        return Path(store.root / array.path)
    if isinstance(store, FsspecStore):
        folder = Remote(store.fs.unstrip_protocol(store.path)) / array.path
        return folder if folder.can_list else None
    return None
