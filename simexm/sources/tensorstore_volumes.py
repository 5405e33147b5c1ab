"""Volumes that TensorStore reads. N5 and precomputed store x, y, z; here all is z, y, x."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, triple
from simexm.sources.limits import refuse_absurd
from simexm.sources.stack import ORIGIN, PlanesByZ
from simexm.sources.state import FilesState, state_below, state_of_grid

FAULTS = (ValueError, OSError, RuntimeError, NotImplementedError)
"""Errors that TensorStore raises."""


class TensorStoreVolume(PlanesByZ):
    """A volume that TensorStore reads; obeys `simexm.sources.stack.Stack`.

    `store` is opened with the axes z, y, x in this order, each from 0. `size_doubt` is why the voxel size is unknown;
    see `simexm.sources.stack.size_and_origin`. The absence of the file `metadata` from the store's folder means that
    the volume is gone. Chunks are in the folder `chunks` below it. `grid` is the axis of each number in a chunk's name
    such as 3/0/2: 0, 1 or 2 (z, y, x), or None for an axis of length 1; None if chunks have other names.

    Raises SourceError if its shape or its chunks are absurd.
    """

    def __init__(
        self,
        where: str,
        store: Any,
        voxel_size_nm: Spacing | None,
        origin_nm: Spacing = ORIGIN,
        size_doubt: str | None = None,
        *,
        metadata: str,
        chunks: str = "",
        grid: Sequence[int | None] | None = None,
    ) -> None:
        self.where = where
        self._grid = grid
        self._store = store
        self._metadata = metadata
        base = store.kvstore.spec().to_json()
        self._folder = Path(base["path"]) / chunks if base["driver"] == "file" else None
        self.dtype: np.dtype[Any] = np.dtype(store.dtype.numpy_dtype)
        chunk = store.chunk_layout.read_chunk.shape or (1, 1, 1)
        refuse_absurd(where, store.shape, chunk, self.dtype.itemsize)
        self.shape: Triple = triple(store.shape)
        self.grain: Triple = triple(chunk)
        self.voxel_size_nm = voxel_size_nm
        self.origin_nm = origin_nm
        self.size_doubt = size_doubt

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x).

        Raises SourceError if a chunk cannot be decoded, and FileNotFoundError if the volume is gone, where TensorStore
        would read every chunk as never written.
        """
        try:
            found = self._stored(box)
            exists = self._store.kvstore.read(self._metadata).result().state == "value"
        except FAULTS as error:
            raise SourceError(
                f"{self.where}: voxels {list(box.start)} to {list(box.stop)} cannot be read, a chunk is damaged: "
                f"{short(error)}. Copy it again from where it came."
            ) from error
        if not exists:
            raise FileNotFoundError(errno.ENOENT, "its metadata are gone", self._metadata)
        return found

    def state(self, box: Box) -> FilesState | None:
        """Return the state of the files on a disk that hold a box, or of all files; None behind a URL."""
        if self._folder is None:
            return None
        if self._grid is None:
            return state_below(self.where, self._folder)
        parts = [range(a // n, -(-b // n)) for a, b, n in zip(box.start, box.stop, self.grain, strict=True)]
        return state_of_grid(self.where, self._folder, [range(1) if a is None else parts[a] for a in self._grid])

    def _stored(self, box: Box) -> NDArray[Any]:
        return np.ascontiguousarray(self._store[box.slices].read().result())


def open_store(ts: Any, where: str, spec: dict[str, Any]) -> Any:
    """Open a TensorStore spec for reading; raises SourceError if it cannot be opened."""
    try:
        return ts.open(spec, open=True, read=True).result()
    except FAULTS as error:
        raise SourceError(f"{where} cannot be read: {short(error)}. Check the path, or copy it again.") from error


def short(error: Exception) -> str:
    """Return TensorStore's message without the complete spec."""
    return str(error).partition(" [")[0]


def kvstore(path: str) -> Any:
    """Return the key-value store of a folder or URL for TensorStore."""
    if "://" in path:
        return path.rstrip("/") + "/"
    return {"driver": "file", "path": f"{Path(path).expanduser().resolve()}/"}
