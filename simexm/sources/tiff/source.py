"""TIFF stacks read box by box, from several threads, without the rest in memory."""

from __future__ import annotations

import copy
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.base import neighbours
from simexm.sources.colours import ColorIds, dtype_of, merge_samples, warn_of_palette
from simexm.sources.lossless import needs_proof, refuse_lossy
from simexm.sources.state import FilesState, state_of_files
from simexm.sources.tiff.layout import layout_of, only_series, opened, palette_of, refuse_missing_planes
from simexm.sources.tiff.sizes import seconds_per_time_of, size_and_origin_of
from simexm.sources.times import refuse_time

_DEFLATE = frozenset({8, 32946})


class TiffStack:
    """A stack of planes in a TIFF, BigTIFF, OME-TIFF, ImageJ or LSM file, of any lossless compression that imagecodecs decodes.

    Obeys `simexm.sources.stack.Stack` and `TimeSeries`. Opening checks that the file has every plane, but decodes none.
    Raises SourceNotFoundError if there is no such file, and SourceError if it is no TIFF, is cut off or lossy, or does
    not hold one stack of planes at each time point. Warns if it has a palette, or shows 0 as white.
    """

    def __init__(self, path: Path, color_ids: ColorIds | None = None, *, quiet: bool = False) -> None:
        self.path = path
        self.where = str(path)
        self._color_ids = color_ids
        if not path.exists():
            raise SourceNotFoundError(f"{path} does not exist.{neighbours(path)}")
        if path.is_dir():
            raise SourceError(f"{path} is a folder; name one TIFF file that holds the complete stack.")
        with opened(path) as tif:
            series = only_series(path, tif.series)
            self._layout = layout_of(path, series)
            refuse_missing_planes(path, tif, self._layout.pages)
            self.shape: Triple = self._layout.shape
            self.dtype: np.dtype[Any] = dtype_of(self._layout.dtype, self._layout.samples, color_ids)
            self.voxel_size_nm: Spacing | None
            self.origin_nm: Spacing
            self.voxel_size_nm, self.origin_nm = size_and_origin_of(tif)
            self.times = self._layout.times
            self.seconds_per_time = seconds_per_time_of(tif) if self.times > 1 else None
            self._time = 0
            if series.dataoffset is None:
                self._offset = None
                self._index_segments(series)
            else:
                self._offset = int(series.dataoffset)
                self._stored_dtype = self._layout.dtype.newbyteorder("<" if tif.byteorder == "<" else ">")
                self._check_uncompressed()
            palette = palette_of(series.keyframe)
        if not quiet:
            warn_of_palette(self.where, palette)

    def at(self, time: int) -> Self:
        """Return the stack at one time point; raises SourceError if there is no such one."""
        refuse_time(self.where, time, self.times)
        found = copy.copy(self)
        if self.times > 1:
            found._time, found.times, found.seconds_per_time = time, 1, None
        return found

    def _page(self, z: int) -> int:
        """Return the number of a plane's page."""
        per_time, per_plane = self._layout.steps
        return self._time * per_time + z * per_plane

    @property
    def grain(self) -> Triple:
        """A strip or a row of tiles; a row of voxels of an uncompressed file."""
        return 1, 1 if self._offset is not None else self._segments[0][3], self.shape[2]

    def plane(self, z: int) -> str:
        """Return the file and the page."""
        return f"{self.path}, page {self._page(z) + 1}"

    def state(self, box: Box) -> FilesState:
        """Return the state of the file, or of all files of a set."""
        files = [self.path] if self._offset is not None else [Path(name) for name in self._files]
        return state_of_files(str(self.path), files)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x).

        Raises SourceError if a page cannot be decoded, or is in colour without `color_ids`.
        """
        if self._offset is not None:
            mapped = np.memmap(self.path, self._stored_dtype, "r", self._offset, self._layout.stored)
            _, rows, columns = box.slices
            pages = slice(self._page(box.start[0]), self._page(box.stop[0] - 1) + 1, self._layout.steps[1])
            return self._numbers(box, np.array(mapped[pages, :, rows, columns, :], self._layout.dtype))
        out = np.empty((box.shape[0], self._layout.separate, *box.shape[1:], self._layout.together), self._layout.dtype)
        with ExitStack() as stack:
            handles: dict[int, int] = {}
            for z in range(box.start[0], box.stop[0]):
                page = self._page(z)
                file = int(self._file_of[page])
                if file not in handles:
                    handles[file] = os.open(self._files[file], os.O_RDONLY)
                    stack.callback(os.close, handles[file])
                self._decode(page, handles[file], box, out[z - box.start[0]])
        return self._numbers(box, out)

    def _numbers(self, box: Box, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return one number per voxel from stored samples, (z, separate, y, x, together)."""
        if self._layout.samples == 1:
            return pixels[:, 0, ..., 0]
        pixels = np.moveaxis(pixels, 1, -1)[..., 0, :] if self._layout.separate > 1 else pixels[:, 0]
        first = box.start[0]
        return np.stack([merge_samples(self.plane(first + i), p, self._color_ids) for i, p in enumerate(pixels)])

    def _check_uncompressed(self) -> None:
        expected = (self._offset or 0) + self._layout.pages * self._layout.nbytes
        actual = self.path.stat().st_size
        if expected > actual:
            self._refuse_truncated(max(actual - (self._offset or 0), 0) // self._layout.nbytes)

    def _index_segments(self, series: Any) -> None:
        """Index strips or tiles by their place in a plane and in a file, and check that files hold them."""
        pages = list(series.pages)
        if len(pages) != self._layout.pages:
            raise SourceError(
                f"{self.path} announces {self._layout.pages} planes and holds {len(pages)} pages, so planes would be missing. "
                "Write it again with one page per plane."
            )
        keyframe = self._keyframe = series.keyframe
        self._compression = int(keyframe.compression)
        self._refuse_lossy_keyframe(keyframe)
        try:
            segments = [keyframe.decode(None, i)[1:] for i in range(len(keyframe.dataoffsets))]
        except (ValueError, NotImplementedError) as error:
            raise SourceError(
                f"{self.path} cannot be decoded: {error}. Save it again with LZW, Deflate or no compression."
            ) from error
        if not segments:
            self._refuse_truncated(0)
        self._inflate = _direct_inflate(keyframe, self._layout.dtype)
        self._segments = [(at[0], at[2], at[3], shape[1], shape[2]) for at, shape in segments]
        self._segments_at = np.zeros((2, len(pages), len(segments)), np.int64)
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
            self._segments_at[:, plane] = page.dataoffsets, page.databytecounts
            self._file_of[plane] = list(sizes).index(name)
            if page.jpegtables is not None:
                self._tables[plane] = page.jpegtables
        self._files = list(sizes)

    def _refuse_lossy_keyframe(self, keyframe: Any) -> None:
        """Raise SourceError for lossy compression, judged by the first strip or tile."""
        first = next(((o, n) for o, n in zip(keyframe.dataoffsets, keyframe.databytecounts, strict=False) if n), None)
        data = b""
        if needs_proof(self._compression) and first is not None:
            with open(keyframe.parent.filehandle.path, "rb") as file:
                file.seek(first[0])
                data = file.read(first[1])
        refuse_lossy(self.where, self._compression, data)

    def _decode(self, page: int, handle: int, box: Box, out: NDArray[Any]) -> None:
        """Decode the segments of one page in `box` into `out` (separate, y, x, together)."""
        (_, y0, x0), (_, y1, x1) = box.start, box.stop
        for index, (sample, top, left, height, width) in enumerate(self._segments):
            y, x = max(top, y0), max(left, x0)
            y_end, x_end = min(top + height, y1), min(left + width, x1)
            if y >= y_end or x >= x_end:
                continue
            target = out[sample, y - y0 : y_end - y0, x - x0 : x_end - x0]
            offset, count = map(int, self._segments_at[:, page, index])
            if count == 0:  # a tile of a sparse file
                target[...] = self._keyframe.nodata
                continue
            try:
                data = os.pread(handle, count, offset)
                if self._inflate is not None and target.shape[:2] == (height, width) and target.flags.c_contiguous:
                    if len(self._inflate(data, out=target.view(np.uint8).reshape(-1))) != target.nbytes:
                        raise ValueError(f"its data end before {height} rows")
                    continue
                if needs_proof(self._compression):
                    refuse_lossy(f"{self.path}, page {page + 1}", self._compression, data)
                segment, _, _ = self._keyframe.decode(
                    data, index, jpegtables=self._tables.get(page), jpegheader=self._keyframe.jpegheader
                )
                target[...] = segment[0, y - top : y_end - top, x - left : x_end - left]
            except SourceError:
                raise
            except Exception as error:  # each codec has its own error type
                raise SourceError(
                    f"{self.path}, page {page + 1} of {self._layout.pages} {self._place(page)} is damaged and cannot be "
                    f"decoded, so its cells would be lost: {error}. Copy the file again from where it came."
                ) from error

    def _place(self, page: int) -> str:
        """Return the plane of a page, in brackets."""
        if self._layout.times == 1:
            return f"(z = {page})"
        per_time, per_plane = self._layout.steps
        time, z = divmod(page, per_time) if per_plane == 1 else divmod(page, per_plane)[::-1]
        return f"(t = {time}, z = {z})"

    def _refuse_truncated(self, plane: int) -> None:
        raise SourceError(
            f"{self.path} ends in the middle of page {plane + 1} of {self._layout.pages} {self._place(plane)}, so the rest of "
            "the volume is missing. Copy the file again from where it came."
        )


def _direct_inflate(keyframe: Any, dtype: np.dtype[Any]) -> Any:
    """Return the function that decompresses a strip into its rows; None if further steps are needed."""
    plain = keyframe.predictor == 1 and keyframe.fillorder == 1 and keyframe.bitspersample == 8 * dtype.itemsize
    native = dtype.itemsize == 1 or keyframe.parent.byteorder == ("<" if sys.byteorder == "little" else ">")
    if plain and native and int(keyframe.compression) in _DEFLATE:
        return tifffile.TIFF.DECOMPRESSORS[int(keyframe.compression)]
    return None
