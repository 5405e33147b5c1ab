"""TIFF stacks read box by box, from several threads, without the rest in memory."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError
from simexm.grid import Box, Spacing, Triple
from simexm.sources.base import neighbours
from simexm.sources.stack import ORIGIN
from simexm.sources.state import FilesState, state_of_files

_JPEG = frozenset({6, 7, 34892, 33007})
"""TIFF's compressions by JPEG; lossless JPEG, of more than 12 bits, is among them."""


_DEFLATE = frozenset({8, 32946})


class TiffStack:
    """A stack of planes in a TIFF, BigTIFF, OME-TIFF or ImageJ file, of any lossless compression that imagecodecs decodes.

    Obeys `simexm.sources.stack.Stack`. Opening checks that every plane is in the file; nothing is decoded before `read`.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    SourceError
        If it is no TIFF, is cut off, or holds anything but one stack of grey-value planes.
    """

    voxel_size_nm: Spacing | None = None  # what TIFF tags say of it is the screen's resolution as often as not
    origin_nm: Spacing = ORIGIN

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        if not path.exists():
            raise SourceNotFoundError(f"{path} does not exist.{neighbours(path)}")
        if path.is_dir():
            raise SourceError(f"{path} is a folder; name one TIFF file that holds the whole stack.")
        try:
            with _raising_logged_errors(path), tifffile.TiffFile(path) as tif:
                series = _only_series(path, tif.series)
                if series.dtype is None:
                    raise SourceError(f"{path} holds numbers of an unknown type. Save it as an unsigned integer type.")
                self.dtype: np.dtype[Any] = series.dtype.newbyteorder("=")
                self.shape = _stack_shape(path, series)
                _refuse_lossy(path, series.keyframe)
                if series.dataoffset is None:
                    self._offset = None
                    self._index_segments(series)
                else:
                    self._offset = int(series.dataoffset)
                    self._stored_dtype = self.dtype.newbyteorder("<" if tif.byteorder == "<" else ">")
                    self._check_uncompressed()
        except PermissionError as error:
            raise SourceError(f"{path} may not be read by you. Change its permissions, or name another.") from error
        except tifffile.TiffFileError as error:
            raise SourceError(f"{path} is not a TIFF file. Name one that holds the segmentation.") from error

    @property
    def grain(self) -> Triple:
        """A strip or a row of tiles; a row of voxels where the file is not compressed."""
        return 1, 1 if self._offset is not None else self._segments[0][2], self.shape[2]

    def plane(self, z: int) -> str:
        """The file and the page."""
        return f"{self.path}, page {z + 1}"

    def state(self, box: Box) -> FilesState:
        """How the file, or all files of a set, are."""
        files = [self.path] if self._offset is not None else [Path(name) for name in self._files]
        return state_of_files(str(self.path), files)

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x); raises SourceError if a page cannot be decoded."""
        if self._offset is not None:
            mapped = np.memmap(self.path, self._stored_dtype, "r", self._offset, self.shape)
            return np.array(mapped[box.slices], self.dtype)
        out = np.empty(box.shape, self.dtype)
        with ExitStack() as stack:
            handles: dict[int, int] = {}
            for z in range(box.start[0], box.stop[0]):
                file = int(self._file_of[z])
                if file not in handles:
                    handles[file] = os.open(self._files[file], os.O_RDONLY)
                    stack.callback(os.close, handles[file])
                self._decode(z, handles[file], box, out[z - box.start[0]])
        return out

    def _check_uncompressed(self) -> None:
        expected = (self._offset or 0) + math.prod(self.shape) * self.dtype.itemsize
        actual = self.path.stat().st_size
        if expected > actual:
            self._refuse_truncated((actual - (self._offset or 0)) // (math.prod(self.shape[1:]) * self.dtype.itemsize))

    def _index_segments(self, series: Any) -> None:
        """Note where each strip or tile lies in a plane and in its file, and check that it is there."""
        pages = list(series.pages)
        if len(pages) != self.shape[0]:
            raise SourceError(
                f"{self.path} announces {self.shape[0]} planes and holds {len(pages)} pages, so planes would be "
                "missing. Write it again with one page a plane."
            )
        keyframe = self._keyframe = series.keyframe
        segments = [keyframe.decode(None, i)[1:] for i in range(len(keyframe.dataoffsets))]
        self._inflate = _straight(keyframe, self.dtype)
        self._segments = [(at[2], at[3], shape[1], shape[2]) for at, shape in segments]
        self._at = np.zeros((2, len(pages), len(segments)), np.int64)
        self._file_of = np.zeros(len(pages), np.int32)
        self._tables: dict[int, bytes] = {}
        sizes: dict[str, int] = {}
        for plane, page in enumerate(pages):
            if page is None:
                raise SourceError(f"{self.path}, page {plane + 1} is missing; a file of the set may be elsewhere.")
            name = page.parent.filehandle.path
            if name not in sizes:
                sizes[name] = os.stat(name).st_size
            ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
            if len(page.dataoffsets) != len(segments) or max(ends) > sizes[name]:
                self._refuse_truncated(plane)
            self._at[:, plane] = page.dataoffsets, page.databytecounts
            self._file_of[plane] = list(sizes).index(name)
            if page.jpegtables is not None:
                self._tables[plane] = page.jpegtables
        self._files = list(sizes)

    def _decode(self, plane: int, handle: int, box: Box, out: NDArray[Any]) -> None:
        """Decode the segments of one plane that meet `box` into `out` (y, x)."""
        (_, y0, x0), (_, y1, x1) = box.start, box.stop
        for index, (top, left, height, width) in enumerate(self._segments):
            y, x = max(top, y0), max(left, x0)
            y_end, x_end = min(top + height, y1), min(left + width, x1)
            if y >= y_end or x >= x_end:
                continue
            target = out[y - y0 : y_end - y0, x - x0 : x_end - x0]
            offset, count = map(int, self._at[:, plane, index])
            if count == 0:  # a sparse file leaves out tiles that hold nothing
                target[...] = self._keyframe.nodata
                continue
            try:
                data = os.pread(handle, count, offset)
                if self._inflate is not None and target.shape == (height, width) and target.flags.c_contiguous:
                    if len(self._inflate(data, out=target.view(np.uint8).reshape(-1))) != target.nbytes:
                        raise ValueError(f"its data end before {height} rows")
                    continue
                segment, _, _ = self._keyframe.decode(
                    data, index, jpegtables=self._tables.get(plane), jpegheader=self._keyframe.jpegheader
                )
                target[...] = segment[0, y - top : y_end - top, x - left : x_end - left, 0]
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
    """The one stack of the file; pages that were appended one by one are a series each, and a stack if they are all alike."""
    first = all_series[0]
    if len(all_series) > 1 and len({(s.shape, s.axes, s.keyframe.hash) for s in all_series}) == 1 and len(first) == 1:
        pages = [series.pages[0] for series in all_series]
        return tifffile.TiffPageSeries(pages, (len(pages), *first.shape), first.dtype, f"Q{first.axes}")
    if len(all_series) != 1:
        shapes = ", ".join("x".join(map(str, s.shape)) for s in all_series[:5])
        raise SourceError(
            f"{path} holds {len(all_series)} images of different shape or type ({shapes}), and a volume needs planes "
            "that are all alike. Save the segmentation as a stack of its own."
        )
    return all_series[0]


def _straight(keyframe: Any, dtype: np.dtype[Any]) -> Any:
    """What decompresses a strip right into its rows, where that is all there is to do; None where it is not."""
    plain = keyframe.predictor == 1 and keyframe.fillorder == 1 and keyframe.bitspersample == 8 * dtype.itemsize
    native = dtype.itemsize == 1 or keyframe.parent.byteorder == ("<" if sys.byteorder == "little" else ">")
    if plain and native and int(keyframe.compression) in _DEFLATE:
        return tifffile.TIFF.DECOMPRESSORS[int(keyframe.compression)]
    return None


def _refuse_lossy(path: Path, keyframe: Any) -> None:
    if int(keyframe.compression) in _JPEG and keyframe.bitspersample <= 12:
        raise SourceError(
            f"{path} is compressed by JPEG, which changes values near edges: ids would turn into others. Save the "
            "segmentation again from its source with LZW, Deflate or no compression."
        )


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
