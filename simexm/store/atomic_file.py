"""Files and folders of images that have their name only when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simexm.errors import DiskError, OutputError, SimexmError
from simexm.store.files import becoming

IMAGES = "image_*.png"
"""What a folder of images holds, and nothing else."""


def partial_of(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(path.name + ".partial")


def refuse(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse what stands in the way, before anything is written.

    Raises
    ------
    OutputError
        If a path exists, and with `overwrite` if it is not such a thing as would be written there.
    """
    for path in paths:
        partial = partial_of(path)
        if os.path.lexists(partial):
            raise OutputError(
                f"{partial} exists: {path.name} is being written now, or its writer was killed. If none is running, "
                f"remove it: rm -r {partial}"
            )
        if not os.path.lexists(path):
            continue
        if not overwrite:
            raise OutputError(f"{path} exists and would be lost. Choose another name, or replace it with --overwrite.")
        if path.is_dir() if path.suffix else not _only_images(path):
            raise OutputError(
                f"{path} is not such a thing as would be written there, so it is not replaced. Choose another name, or "
                "move it away."
            )


def _only_images(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and all(p.is_file() and p.match(IMAGES) for p in path.iterdir())


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; it gets its name if all went well, and is removed if not."""
    partial = partial_of(path)
    with _readable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with becoming(path, partial):
            yield partial


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder of images."""
    partial = partial_of(path)
    with _readable(path):
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
def _readable(path: Path) -> Iterator[None]:
    """Errors of the system as one message."""
    try:
        yield
    except SimexmError:
        raise
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}. Nothing of it was kept, but files that "
            "were finished before are. Free some space, or choose another folder."
        ) from error
