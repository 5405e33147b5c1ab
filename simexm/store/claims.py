"""Claims: who may write.

Whoever writes holds a claim: a folder of his own in `scratch`. The next driver takes it away, and with it the power to
write of every worker that an earlier one left.

On a disk a file is written inside that folder, synced, and renamed, so that without the folder nothing can be written at
all. In an object store a put is atomic by itself, and the claim is an object that is looked for right before each put: a
worker that falls asleep in the milliseconds between the two can still put one late object.
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
    """Begin a claim; raises FileExistsError where an object store holds it already."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).create(uuid.uuid4().bytes)
    else:
        scratch.mkdir(parents=True)


def has_claim(scratch: Location) -> bool:
    """Whether a claim was not taken away."""
    return (scratch / _CLAIM).is_file() if isinstance(scratch, Remote) else scratch.is_dir()


def check_claim(scratch: Location) -> None:
    """Raise FileNotFoundError if a claim in an object store was taken away."""
    if isinstance(scratch, Remote):
        (scratch / _CLAIM).stat()


def retire_claims(folder: Location) -> None:
    """Take all claims in a folder away, with what killed workers left in them."""
    if isinstance(folder, Remote):
        folder.remove_tree()
        return
    for each in folder.iterdir() if folder.is_dir() else ():
        retired = each.with_name(f"{uuid.uuid4().hex}.old")
        each.rename(retired)  # in one step, where removing file by file would race with whoever still writes
        if retired.is_dir():
            shutil.rmtree(retired, ignore_errors=True)
        else:
            retired.unlink()


@contextlib.contextmanager
def workspace(scratch: Location) -> Iterator[Path]:
    """Yield a folder of this machine's for large files that are needed for a while; its user removes them."""
    if isinstance(scratch, Remote):
        with tempfile.TemporaryDirectory(prefix="simexm-") as folder:
            yield Path(folder)
    else:
        yield scratch
