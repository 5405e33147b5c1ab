"""A volume in one file of uncompressed numbers, which is mapped into memory."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, triple
from simexm.sources.stack import ORIGIN, PlanesByZ
from simexm.sources.state import FilesState, state_of_files
from simexm.units import size, times

_STEP = 1 << 20


class MappedStack(PlanesByZ):
    """Uncompressed numbers in a file; obeys `simexm.sources.stack.Stack`.

    `path` is the mapped file, and its name in messages; its numbers of `dtype`, with their byte order, begin at byte
    `offset`. `stored` is the length of each axis, the slowest first; `order` are the positions of z, y and x among
    these, and all others have length 1. `place` holds voxel size and origin, nm, as in `Stack`. `unpacked` is for a
    compressed file: a stream of its numbers from `offset` on, which is copied to a temporary file.

    Raises SourceError if the file ends before its last number or is empty, or a disk is too small for the temporary
    file.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        stored: Sequence[int],
        order: Triple,
        offset: int = 0,
        *,
        place: tuple[Spacing | None, Spacing] = (None, ORIGIN),
        unpacked: Any = None,
    ) -> None:
        self.where = str(path)
        self._stored_dtype, self._stored, self._order, self._offset = dtype, tuple(map(int, stored)), order, offset
        self.shape: Triple = triple(self._stored[a] for a in order)
        self.dtype: np.dtype[Any] = dtype.newbyteorder("=")
        self.grain: Triple = (1, 1, self.shape[2] if order[2] == len(self._stored) - 1 else 1)
        self.voxel_size_nm, self.origin_nm = place
        if min(self._stored) < 1:
            raise SourceError(f"{path} is empty: its shape is {times(self._stored)}.")
        nbytes = math.prod(self._stored) * dtype.itemsize
        self._file: Path | IO[bytes] = path
        if unpacked is not None:
            self._file, self._offset = _unpack(path, unpacked, nbytes), 0
            weakref.finalize(self, self._file.close)
        elif self._offset + nbytes > path.stat().st_size:
            raise _cut_off(path, nbytes, max(path.stat().st_size - self._offset, 0))

    def state(self, box: Box) -> FilesState:
        """Return the state of the file."""
        return state_of_files(self.where, [Path(self.where)])

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x)."""
        mapped = np.memmap(self._file, self._stored_dtype, "r", self._offset, self._stored)
        others = [a for a in range(len(self._stored)) if a not in self._order]
        where: tuple[Any, ...] = (*box.slices, *[0] * len(others))
        part = mapped.transpose(*self._order, *others)[where]
        return np.array(part, self.dtype, order="C")


def three_axes(where: str, shape: Sequence[int]) -> Triple:
    """Return the positions of z, y, x among unnamed axes: the three that remain without those of length 1 at either end.

    Raises SourceError if more or fewer remain.
    """
    axes = list(range(len(shape)))
    while len(axes) > 3 and 1 in (shape[axes[0]], shape[axes[-1]]):
        axes.pop(0 if shape[axes[0]] == 1 else -1)
    if len(axes) != 3:
        raise SourceError(
            f"{where} has the shape {times(shape) or 'of a single number'}, and a volume has three axes, z, y, x. "
            "Save it as such an array."
        )
    return triple(axes)


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def skip(path: Path, stream: Any, offset: int) -> None:
    """Seek in a stream that is being unpacked; raises SourceError if it is damaged."""
    try:
        stream.seek(offset)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error


def damaged(path: Path, why: object) -> SourceError:
    """Return the error for a file that cannot be read."""
    return SourceError(f"{path} is damaged or cut off: {why}. Copy it again from where it came.")


def _cut_off(path: Path, wanted: int, found: int) -> SourceError:
    return damaged(path, f"of {wanted} bytes of numbers there are {found}")


def _unpack(path: Path, stream: Any, nbytes: int) -> IO[bytes]:
    """Copy at most `nbytes` to a temporary file without a name, which vanishes with the stack."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise SourceError(
            f"{path} is compressed, and its {size(nbytes)} must be unpacked to be read in parts, but {folder} has only "
            f"{size(free)} left. Set TMPDIR to a folder with more, or save it without compression."
        )
    file = tempfile.TemporaryFile(prefix="simexm-")  # noqa: SIM115, open as long as the stack is
    left = nbytes
    try:
        while left and (data := stream.read(min(_STEP, left))):
            file.write(data)
            left -= len(data)
        file.flush()
    except OSError as error:
        file.close()
        if error.errno is not None:
            raise SourceError(
                f"{path} cannot be unpacked to {folder}: {error.strerror}. Set TMPDIR to another."
            ) from error
        raise damaged(path, error) from error
    except Exception as error:  # each decompressor has its own error type
        file.close()
        raise damaged(path, error) from error
    if left:
        file.close()
        raise _cut_off(path, nbytes, nbytes - left)
    return file
