"""Which chunks of an HDF5 data set were written, so that a lost chunk is not read as one that never was.

The index of chunks has no checksum in most files: after a flipped bit HDF5 does not find a chunk, and returns fill values.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.sources.hdf5.file import BROKEN
from simexm.units import times

MOST_CHUNKS = 2**28
_AT_ONCE = 2**16
_HEAD_BYTES = 2**16
"""A filter that cannot make a chunk smaller adds less than its size and this."""
_SHUFFLE, _FLETCHER32 = 2, 3


class Chunks:
    """The chunks that the index of a chunked data set lists; raises SourceError if it is damaged, or the shape is absurd.

    `written` is the number of written chunks, `count` that of the shape.
    """

    def __init__(self, where: str, data: Any) -> None:
        self._where = where
        self._chunk: tuple[int, ...] = data.chunks
        self._grid = tuple(-(-n // c) for n, c in zip(data.shape, self._chunk, strict=True))
        self.count = prod(self._grid)
        if self.count > MOST_CHUNKS:
            raise SourceError(
                f"{where} has the shape {times(data.shape)}, which takes {self.count} chunks of {times(self._chunk)}, and at "
                f"most {MOST_CHUNKS} can be read. Write a copy with larger chunks, or of the part that holds cells."
            )
        self._raw = prod(self._chunk) * data.id.get_type().get_size()
        self._sizes = _sizes(data, self._raw)
        self._is_written: NDArray[np.bool_] = np.zeros(self._grid, bool)
        self._listed: list[tuple[int, ...]] = []
        try:
            data.id.chunk_iter(self._note)
        except SourceError:
            raise
        except BROKEN as error:
            raise self._damaged(str(error)) from error
        self._mark()
        self.written = int(np.count_nonzero(self._is_written))

    def _note(self, chunk: Any) -> None:
        self._listed.append((*chunk.chunk_offset, chunk.filter_mask, chunk.size))
        if len(self._listed) == _AT_ONCE:
            self._mark()

    def _mark(self) -> None:
        """Mark the listed chunks as written; raises SourceError for an impossible one."""
        listed = np.array(self._listed, np.uint64).reshape(len(self._listed), len(self._grid) + 2)
        self._listed = []
        offset, mask, size = listed[:, :-2], listed[:, -2], listed[:, -1]
        chunk, grid = np.array(self._chunk, np.uint64), np.array(self._grid, np.uint64)
        at = offset // chunk
        wrong = ((at >= grid) | (at * chunk != offset)).any(axis=1) | (size > 2 * self._raw + _HEAD_BYTES)
        for left_out, stored in self._sizes.items():
            wrong |= (mask == left_out) & (size != stored) & (size != self._raw)
        index = np.ravel_multi_index(tuple(at[~wrong].astype(np.int64).T), self._grid)
        wrong[~wrong] |= self._is_written.ravel()[index]
        self._is_written.ravel()[index] = True
        twice = len(np.unique(index)) < len(index)
        if wrong.any() or twice:
            where = (
                f"at {offset[wrong][0].tolist()} with {size[wrong][0]} bytes" if wrong.any() else "twice in one place"
            )
            raise self._damaged(f"no chunk can be {where}")

    def check(self, data: Any, selected: tuple[slice | int, ...], values: NDArray[Any]) -> None:
        """Check that chunks which were read as fill values only are stored so.

        `values` were read at `selected`, a slice or index along each axis; indexed axes are gone. Raises SourceError if
        a written chunk is not found.
        """
        ends = [(s, s + 1) if isinstance(s, int) else (s.start, s.stop) for s in selected]
        values = values.reshape([b - a for a, b in ends])
        part = tuple(slice(a // c, -(-b // c)) for (a, b), c in zip(ends, self._chunk, strict=True))
        fill = data.fillvalue
        for at in np.argwhere(self._is_written[part]):
            offset = tuple(int((i + p.start) * c) for i, p, c in zip(at, part, self._chunk, strict=True))
            inside = tuple(
                slice(max(o - a, 0), o + c - a) for o, c, (a, _) in zip(offset, self._chunk, ends, strict=True)
            )
            if (values[inside] == fill).all():
                try:
                    data.id.read_direct_chunk(offset)
                except BROKEN as error:
                    raise self._damaged(f"the chunk at {list(offset)} is listed, but not found") from error

    def _damaged(self, why: str) -> SourceError:
        return SourceError(
            f"{self._where}: the index of its chunks is damaged: {why}. Copy the file again from where it came."
        )


def _sizes(data: Any, raw: int) -> dict[int, int]:
    """Return the stored bytes of a chunk by its mask of skipped filters, for masks without a compressing filter."""
    created = data.id.get_create_plist()
    codes = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    compressing = sum(1 << i for i, code in enumerate(codes) if code not in (_SHUFFLE, _FLETCHER32))
    sums = [i for i, code in enumerate(codes) if code == _FLETCHER32]
    masks = [m for m in range(1 << min(len(codes), 8)) if m & compressing == compressing]
    return {m: raw + 4 * sum(not m & 1 << i for i in sums) for m in masks}
