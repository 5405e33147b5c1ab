"""Write files and folders of images atomically: under a partial name, renamed when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simexm.errors import DiskError, OutputError, SimexmError
from simexm.store.files import becoming

IMAGES = "image_*.png"
"""All files of a folder of images."""
RECORDING = ("[0-9]*.avi", "timeStamps.csv", "metaData.json")
"""All files of a folder of a miniscope's recording."""


def partial_of(path: Path) -> Path:
    """Name of a file while it is written."""
    return path.with_name(path.name + ".partial")


def being_written(partial: Path, path: Path) -> OutputError:
    """Return the error for an output whose partial file or folder exists."""
    return OutputError(
        f"{partial} exists: {path.name} is being written now, or its writer was killed. If none is running, "
        f"remove it: rm -r {partial}"
    )


def refuse_missing_folder(path: Path) -> None:
    """Raise OutputError if there is no folder to write a file to."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}; type: mkdir -p {path.parent}")


def refuse(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise OutputError if a path exists, or with `overwrite` if it is not of the kind that would replace it."""
    for path in paths:
        partial = partial_of(path)
        if os.path.lexists(partial):
            raise being_written(partial, path)
        if not os.path.lexists(path):
            continue
        if not overwrite:
            raise OutputError(f"{path} exists and would be lost. Choose another name, or replace it with --overwrite.")
        if path.is_dir() if path.suffix else not (_only(path, IMAGES) or _only(path, *RECORDING)):
            kind = "a file" if path.suffix else f"a folder of {IMAGES} or of a recording alone"
            raise OutputError(f"{path} is not {kind}, so it is not replaced. Choose another name, or move it away.")


def _only(path: Path, *patterns: str) -> bool:
    """Whether a folder holds only files of these names."""
    if not path.is_dir() or path.is_symlink():
        return False
    return all(p.is_file() and any(p.match(pattern) for pattern in patterns) for p in path.iterdir())


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write; rename it to `path` at the end, and remove it after an error."""
    partial = partial_of(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with becoming(path, partial):
            yield partial


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Do the same for a folder of images."""
    partial = partial_of(path)
    with _disk_errors(path):
        partial.mkdir(parents=True)
        try:
            yield partial
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Raise errors of the system as DiskError."""
    try:
        yield
    except SimexmError:
        raise
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}. Nothing of it was stored, but files finished before remain. "
            "Free some space, or choose another folder."
        ) from error
