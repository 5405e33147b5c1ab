"""TIFF stacks read band by band: any range of planes and rows, from several threads, without the rest in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError
from simexm.grid import Triple
from simexm.sources.base import neighbours


class TiffStack:
    """A stack of planes in a TIFF, BigTIFF, OME-TIFF or ImageJ file, of any compression that imagecodecs decodes.

    Opening checks that every plane is in the file; nothing is decoded before `read`, which threads may share.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    dtype
        Unsigned type that `read` returns; as wide as the stored one.
    rows
        Rows that are decoded together: a strip, a tile, 1 where the file is not compressed.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    SourceError
        If it is no TIFF, is cut off, or holds anything but one stack of integer planes.
    """

    shape: Triple
    dtype: np.dtype[Any]
    rows: int

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise SourceNotFoundError(f"{path} does not exist.{neighbours(path)}")
        if path.is_dir():
            raise SourceError(f"{path} is a folder; name one TIFF file that holds the whole stack.")
        with ExitStack() as stack:
            try:
                with _raising_logged_errors(path):
                    tif = stack.enter_context(tifffile.TiffFile(path))
                    all_series = tif.series
            except PermissionError as error:
                raise SourceError(f"{path} may not be read by you. Change its permissions, or name another.") from error
            except tifffile.TiffFileError as error:
                raise SourceError(f"{path} is not a TIFF file. Name one that holds the segmentation.") from error
            self._series = _only_series(path, all_series)
            self._stored_dtype, self.dtype = _label_dtype(path, self._series.dtype)
            self.shape = _stack_shape(path, self._series)
            self._handles: dict[str, int] = {}
            self._mapped: NDArray[Any] | None = None
            if self._series.dataoffset is not None:
                self._map_uncompressed(tif.byteorder)
            else:
                self._index_segments(stack)
            self._close = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close.close()

    def read(self, planes: range, rows: range) -> NDArray[np.unsignedinteger[Any]]:
        """Return some rows of some planes, (planes, rows, x).

        Raises
        ------
        SourceError
            If a page cannot be decoded, or holds a negative number.
        """
        if self._mapped is not None:
            stored = self._mapped[planes.start : planes.stop, rows.start : rows.stop]
            native = stored.astype(stored.dtype.newbyteorder("="))
        else:
            native = np.empty((len(planes), len(rows), self.shape[2]), self._stored_dtype)
            for plane in planes:
                self._decode(plane, rows, native[plane - planes.start])
        if native.dtype.kind == "i" and native.min() < 0:
            plane = planes[int(np.argmin(native.min(axis=(1, 2))))]
            raise SourceError(
                f"{self.path}, page {plane + 1}: the negative id {native.min()}; a cell's id is positive, and 0 is "
                "outside every cell. Write a copy with the ids renumbered, as an unsigned type."
            )
        return native.view(self.dtype)

    def _map_uncompressed(self, byteorder: str) -> None:
        offset = int(self._series.dataoffset)
        self.rows = 1
        expected = offset + int(np.prod(self.shape, dtype=object)) * self._stored_dtype.itemsize
        actual = self.path.stat().st_size
        if expected > actual:
            plane_bytes = self.shape[1] * self.shape[2] * self._stored_dtype.itemsize
            self._refuse_truncated((actual - offset) // plane_bytes)
        stored = self._stored_dtype.newbyteorder("<" if byteorder == "<" else ">")
        self._mapped = np.memmap(self.path, dtype=stored, mode="r", offset=offset, shape=self.shape)

    def _index_segments(self, stack: ExitStack) -> None:
        """Note where each strip or tile lies in a plane, and check that each is in its file."""
        pages = list(self._series.pages)
        if len(pages) != self.shape[0]:
            raise SourceError(
                f"{self.path} announces {self.shape[0]} planes and holds {len(pages)} pages, so planes would be "
                "missing. Write it again with one page a plane."
            )
        keyframe = self._series.keyframe
        segments = [keyframe.decode(None, i)[1:] for i in range(len(keyframe.dataoffsets))]
        self._segments = [(at[2], at[3], shape[1], shape[2]) for at, shape in segments]
        self.rows = self._segments[0][2]
        sizes: dict[str, int] = {}
        self._pages: list[tuple[Any, int]] = []
        for plane, page in enumerate(pages):
            if page is None:
                raise SourceError(f"{self.path}, page {plane + 1} is missing; a file of the set may be elsewhere.")
            name = page.parent.filehandle.path
            if name not in self._handles:
                self._handles[name] = os.open(name, os.O_RDONLY)
                stack.callback(os.close, self._handles[name])
                sizes[name] = os.fstat(self._handles[name]).st_size
            ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
            if len(page.dataoffsets) != len(self._segments) or max(ends) > sizes[name]:
                self._refuse_truncated(plane)
            self._pages.append((page, self._handles[name]))

    def _decode(self, plane: int, rows: range, out: NDArray[Any]) -> None:
        """Decode the segments of one plane that meet `rows` into `out` (rows, x)."""
        page, handle = self._pages[plane]
        for index, (top, left, height, width) in enumerate(self._segments):
            first, last = max(top, rows.start), min(top + height, rows.stop, self.shape[1])
            if first >= last:
                continue
            width = min(width, self.shape[2] - left)
            target = out[first - rows.start : last - rows.start, left : left + width]
            count = page.databytecounts[index]
            if count == 0:  # a sparse file leaves out tiles that hold nothing
                target[...] = page.keyframe.nodata
                continue
            try:
                data = os.pread(handle, count, page.dataoffsets[index])
                segment, _, _ = page.keyframe.decode(
                    data, index, jpegtables=page.jpegtables, jpegheader=page.keyframe.jpegheader
                )
                target[...] = segment[0, first - top : last - top, :width, 0]
            except Exception as error:  # each of some thirty codecs raises a type of its own
                raise SourceError(
                    f"{self.path}, page {plane + 1} of {self.shape[0]} (z = {plane}) is damaged and cannot be decoded, "
                    f"so its cells would be lost: {error}. Copy the file again from where it came."
                ) from error

    def _refuse_truncated(self, plane: int) -> None:
        raise SourceError(
            f"{self.path} ends in the middle of page {plane + 1} of {self.shape[0]} (z = {plane}), so the rest of the "
            "volume is missing. Copy the file again from where it came."
        )


def _only_series(path: Path, all_series: list[Any]) -> Any:
    if len(all_series) != 1:
        shapes = ", ".join("x".join(map(str, s.shape)) for s in all_series[:5])
        raise SourceError(
            f"{path} holds {len(all_series)} images of different shape or type ({shapes}), and a volume needs planes "
            "that are all alike. Save the segmentation as a stack of its own."
        )
    return all_series[0]


def _label_dtype(path: Path, dtype: np.dtype[Any] | None) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Native stored type, and the unsigned type of the same width."""
    if dtype is None or dtype.kind not in "iub":
        raise SourceError(
            f"{path} holds {dtype}, and ids are integers: with floats, neighbouring ids above 2^24 become one cell. "
            "Save the segmentation as an unsigned integer type."
        )
    return dtype.newbyteorder("="), np.dtype(f"u{dtype.itemsize}")


def _stack_shape(path: Path, series: Any) -> Triple:
    sizes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
    axes = "".join(axis for axis, _ in sizes)
    samples = series.keyframe.shaped
    if not axes.endswith("YX") or len(axes) > 3 or "S" in axes or (samples[0], samples[1], samples[4]) != (1, 1, 1):
        lengths = "x".join(str(n) for _, n in sizes)
        raise SourceError(
            f"{path} has the axes {axes} ({lengths}), and labels are a stack of grey-value planes, z y x. Save one "
            "channel and one time point, not as RGB."
        )
    z, y, x = [1] * (3 - len(sizes)) + [int(n) for _, n in sizes]
    return z, y, x


@contextmanager
def _raising_logged_errors(path: Path) -> Iterator[None]:
    """Turn what tifffile only logs about a damaged file, to go on with the pages that it found, into an error."""
    logger = logging.getLogger("tifffile")
    records: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if records:
        raise SourceError(
            f"{path} is damaged or cut off, and planes would be missing: {records[0]}. "
            "Copy the file again from where it came."
        )
