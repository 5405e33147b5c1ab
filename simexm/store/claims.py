"""Claims: permission to write a result.

Each driver and its workers write through a claim, a folder in `scratch`. The next driver removes it, and so stops workers
that an earlier driver left behind.

On a disk a file is written inside that folder, synced, and renamed, so without the folder nothing can be written. In an
object store a put is atomic, and the claim is an object that is checked right before each put: a worker that pauses in the
milliseconds between can still put one late object.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from simexm.store.location import Location
from simexm.store.remote import Remote

_CLAIM = "claim"


def claim(scratch: Location) -> None:
    """Begin a claim; raises FileExistsError if an object store holds it already."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).create(uuid.uuid4().bytes)
    else:
        scratch.mkdir(parents=True)


def has_claim(scratch: Location) -> bool:
    """Whether a claim still exists."""
    return (scratch / _CLAIM).is_file() if isinstance(scratch, Remote) else scratch.is_dir()


def check_claim(scratch: Location) -> None:
    """Raise FileNotFoundError if a claim in an object store was removed."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).stat()


def retire_claims(folder: Location) -> None:
    """Remove all claims in a folder, with the files that killed workers left in them."""
    if isinstance(folder, Remote):
        folder.remove_tree()
        return
    for each in folder.iterdir() if folder.is_dir() else ():
        retired = each.with_name(f"{uuid.uuid4().hex}.old")
        each.rename(retired)  # atomic; removing file by file would race with workers that still write
        if retired.is_dir():
            shutil.rmtree(retired, ignore_errors=True)
        else:
            retired.unlink()


@contextlib.contextmanager
def workspace(scratch: Location) -> Iterator[Path]:
    """Yield a local folder for large temporary files; the caller removes them."""
    if isinstance(scratch, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            yield Path(folder)
    else:
        yield scratch
