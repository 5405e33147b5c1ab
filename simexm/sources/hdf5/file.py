"""Open an HDF5 file for reading, and find the volume in it."""

from __future__ import annotations

import fcntl
import posixpath
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simexm.errors import SourceError, SourceNotFoundError
from simexm.units import times

CREMI = "volumes/labels/neuron_ids"
BROKEN = (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError)
"""Errors that h5py raises for unreadable files or parts."""

_COARSER = re.compile(r"(?:DataSet/ResolutionLevel [1-9]\d*/.*/Data|t\d+/s\d+/[1-9]\d*/cells)$")
"""The downsampled copies that Imaris and BigDataViewer store beside the finest volume."""
_DEEPEST, _MOST_OBJECTS, _MOST_LINKS, _MOST_LISTED = 64, 20_000, 16, 20
_LONGEST_NAME = 200
_COPY_AGAIN = "Copy it again from where it came."


@contextmanager
def opened(h5py: Any, file: Path) -> Iterator[Any]:
    """Open a file for reading, without a lock: reading needs none, and some file systems have none.

    Raises SourceError if it is not readable, is being written, or is damaged.
    """
    try:
        root = _open(h5py, file)
    except OSError as error:
        raise _why_not(file, error) from error
    with root:
        yield root


def _open(h5py: Any, file: Path) -> Any:
    try:
        return h5py.File(file, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(file, "r")  # this process has it open, with a lock


def _why_not(file: Path, error: OSError) -> SourceError:
    message = str(error)
    if isinstance(error, PermissionError):
        return SourceError(f"{file} cannot be read: {error.strerror or message}. Check its permissions.")
    if "already open for" in message:
        return SourceError(
            f"{file} is marked as open for writing: another program has it open, or was killed before it closed it, so it "
            "may be incomplete. Close it there. If no program has it open, copy it and type: h5clear -s COPY"
        )
    if being_written(file):
        return SourceError(
            f"{file} cannot be read while another program has it open for writing: {message}. Close it there, then try again."
        )
    if "unable to lock" in message:
        return SourceError(f"{file} cannot be locked: {message}. Type: export HDF5_USE_FILE_LOCKING=FALSE")
    return SourceError(f"{file} is damaged or cut off: {message}. {_COPY_AGAIN}")


def being_written(file: Path) -> bool:
    """Whether another program holds the lock with which HDF5 writes; False where files cannot be locked."""
    try:
        with file.open("rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def choose(h5py: Any, file: Path, root: Any, name: str | None) -> tuple[str, Any]:
    """Return path and data set of a volume.

    `name` is a data set, or a group with a single volume; None for CREMI's neuron ids, or the only volume in the file.
    Downsampled copies of Imaris and BigDataViewer do not count. Raises SourceNotFoundError if there is no such name, and
    SourceError if it is not a volume, a link is broken, or it is unclear which volume is meant.
    """
    if name is None:
        try:
            cremi = root.get(CREMI)
        except BROKEN:
            cremi = None
        if isinstance(cremi, h5py.Dataset) and why_no_volume(cremi) is None:
            return CREMI, cremi
        node, path = root, ""
    else:
        path = posixpath.normpath(name.strip("/"))
        node = _follow(h5py, file, root, path)
    if isinstance(node, h5py.Dataset):
        why = why_no_volume(node)
        if why is not None:
            raise SourceError(f"{file}/{path} is no volume: {why}. {_describe_volumes(h5py, file, root)}")
        return path, node
    found = [(inside, data) for inside, data in _volumes(h5py, file, node, path) if why_no_volume(data) is None]
    finest = [(inside, data) for inside, data in found if not _COARSER.search(inside)]
    if len(finest) != 1:
        where, listed = f"{file}/{path}".removesuffix("/"), _describe_volumes(h5py, file, node, path)
        why = "it is unclear which data set holds the labels" if found else "there are no labels in it"
        raise SourceError(f"{where}: {why}. {listed}{' Name one: --dataset NAME' * bool(found)}")
    return finest[0]


def why_no_volume(data: Any) -> str | None:
    """Return why a data set is no volume of numbers, as the end of a sentence; None if it is one."""
    try:
        shape, kind, dtype = data.shape, data.dtype.kind, data.dtype
    except BROKEN as error:
        return f"its shape and type cannot be read ({error})"
    if kind not in "iufb":
        what = {"O": "text or references", "S": "text", "V": "records"}.get(kind, str(dtype))
        return f"it holds {what}, and ids are integers"
    if shape is None or 0 in shape:
        return "it is empty"
    if len(shape) < 3:
        return f"it has {len(shape)} axes, and a volume has three, z, y, x"
    return None


def _follow(h5py: Any, file: Path, root: Any, path: str) -> Any:
    """Return the node at a path; raises if a link is broken."""
    node, rest, links = root, path.split("/"), 0
    while rest:
        part = rest.pop(0)
        link = None
        if isinstance(node, h5py.Group):
            with suppress(*BROKEN):
                link = node.get(part, getlink=True)
        if link is None:
            what = f"{path!r} is a link to nothing" if links else f"it holds no {path!r}"
            raise SourceNotFoundError(f"{file}: {what}. {_describe_volumes(h5py, file, root)}")
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > _MOST_LINKS:
                raise SourceError(f"{file}: {path!r} is a circular link. {_describe_volumes(h5py, file, root)}")
            node = node.file["/"] if link.path.startswith("/") else node
            rest = [p for p in link.path.split("/") if p not in ("", ".")] + rest
            continue
        if isinstance(link, h5py.ExternalLink) and linked_file(Path(node.file.filename), link.filename) is None:
            raise SourceError(
                f"{file}: {path!r} is a link to the file {link.filename}, which is missing. Put it beside {file.name}."
            )
        try:
            node = node[part]
        except BROKEN as error:
            raise SourceError(f"{file}: {path!r} cannot be opened: {error}. {_COPY_AGAIN}") from error
    return node


def shown(name: str) -> str:
    """Return a name from a file for a message: in one line, not too long."""
    return "".join(c if c.isprintable() else "?" for c in name)[:_LONGEST_NAME]


def linked_file(file: Path, name: str) -> Path | None:
    """Return the file of a link, searched as by HDF5; None if there is no such regular file."""
    tried = (Path(name), file.parent / name, file.parent / Path(name).name)
    return next((p for p in tried if p.is_file()), None)


def _volumes(h5py: Any, file: Path, top: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and data set of each with at least three axes below a group, once, also through links.

    Raises SourceError if a part of the file cannot be read or it holds too much, so that a volume might be overlooked.
    """
    waiting, linked, seen = deque([(path, top, 0)]), deque[tuple[str, Any, str, Any, int]](), {hash(top.id)}
    while waiting or linked:  # links last: a volume keeps its own name
        nodes: list[tuple[str, Any, int]] = []
        if waiting:
            group_path, group, depth = waiting.popleft()
            names = _names(file, group_path, group)
            if len(seen) + len(names) > _MOST_OBJECTS:
                raise SourceError(
                    f"{file} holds over {_MOST_OBJECTS} objects, too many to search. Name one: --dataset NAME"
                )
            for name in names:
                inside = f"{group_path}/{name}".lstrip("/")
                try:
                    link = group.get(name, getlink=True)
                    if isinstance(link, h5py.HardLink):
                        nodes.append((inside, group[name], depth + 1))
                    else:
                        linked.append((inside, group, name, link, depth + 1))
                except BROKEN as error:
                    raise SourceError(f"{file}/{inside} is damaged: {error}. {_COPY_AGAIN}") from error
        else:
            inside, group, name, link, depth = linked.popleft()
            away = isinstance(link, h5py.ExternalLink)
            if not away or linked_file(Path(group.file.filename), link.filename) is not None:
                with suppress(*BROKEN):  # a broken link
                    nodes.append((inside, group[name], depth))
        for inside, node, depth in nodes:
            if hash(node.id) in seen:
                continue
            seen.add(hash(node.id))
            if isinstance(node, h5py.Group) and depth <= _DEEPEST:
                waiting.append((inside, node, depth))
            elif isinstance(node, h5py.Dataset) and len(node.shape or ()) >= 3:
                yield inside, node


def _names(file: Path, path: str, group: Any) -> list[str]:
    try:
        return [name for name in group if isinstance(name, str)]  # names that are no UTF-8 cannot be typed
    except BROKEN as error:
        raise SourceError(f"{file}/{path} is damaged: {error}. {_COPY_AGAIN}") from error


def _describe_volumes(h5py: Any, file: Path, top: Any, path: str = "") -> str:
    found: list[str] = []
    try:
        for name, data in _volumes(h5py, file, top, path):
            if why_no_volume(data) is None:
                found.append(f"{shown(name)} ({times(data.shape)} {data.dtype})")
            if len(found) > _MOST_LISTED:
                break
    except SourceError as error:
        if not found:
            return str(error)
    if not found:
        return "It holds no volume of numbers with three axes or more."
    return f"It holds the volumes {', '.join(found[:_MOST_LISTED])}{' and more' * (len(found) > _MOST_LISTED)}."
