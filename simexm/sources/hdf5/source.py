"""A volume in an HDF5 file, of CREMI, ilastik, Daisy, PlantSeg, BigDataViewer, Imaris, netCDF-4, MATLAB 7.3 or others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Box, Spacing, Triple, triple
from simexm.sources.hdf5.axes import attribute, order_of
from simexm.sources.hdf5.file import BROKEN, being_written, choose, opened, shown
from simexm.sources.hdf5.geometry import BDV, IMARIS, imaris_shape, place_of
from simexm.sources.hdf5.stored import check_stored
from simexm.sources.needs import need
from simexm.sources.stack import PlanesByZ
from simexm.sources.state import FilesState, state_of_files

_LONGEST_RUN = 4096


class Hdf5Stack(PlanesByZ):
    """A data set of axes z, y, x in any stored order; obeys `simexm.sources.stack.Stack`.

    `dataset` names it, or a group with a single volume; None for CREMI's neuron ids, or the only volume. Raises
    SourceError if h5py is missing, the file is damaged or incomplete, or it is unclear which data set or axis is meant.
    Warns if another program has the file open for writing, or a MATLAB array is read as a stack of images.
    """

    def __init__(self, file: Path, dataset: str | None) -> None:
        self._file = file
        h5py = need("h5py", f"{file} is an HDF5 file")
        self._state = _state(file)
        with opened(h5py, file) as root:
            try:
                self._open(h5py, root, dataset)
            except BROKEN as error:
                if isinstance(error, SourceError):
                    raise
                raise SourceError(f"{file} is damaged: {error}. Copy it again from where it came.") from error
        if being_written(file):
            warnings.warn(
                f"{file} is open for writing in another program, and what that has not written yet is missing. If it is not "
                "finished, close it there and read it again",
                SimexmWarning,
                stacklevel=3,
            )

    def _open(self, h5py: Any, root: Any, dataset: str | None) -> None:
        self._path, data = choose(h5py, self._file, root, dataset)
        self.where = f"{self._file}/{shown(self._path)}"
        self._stored = check_stored(h5py, self.where, data)
        self._order = order_of(self.where, data)
        self._missing = _missing_value(self.where, data)
        place = place_of(root, data, self._path, self._order)
        self.voxel_size_nm: Spacing | None = place.voxel_size_nm
        self.origin_nm: Spacing = place.origin_nm
        self.size_doubt = place.doubt
        stored = data.dtype.newbyteorder("=")
        # BigDataViewer's 16 bits are unsigned, though typed as signed for Java
        self.dtype: np.dtype[Any] = np.dtype("u2") if BDV.fullmatch(self._path) and stored == "i2" else stored
        self.shape: Triple = triple(data.shape[a] for a in self._order)
        if IMARIS.fullmatch(self._path):
            self.shape = imaris_shape(data, self._order)
        last = data.ndim - 1
        runs = (*[1] * last, data.shape[last] if self._order[2] == last else min(data.shape[last], _LONGEST_RUN))
        self.grain: Triple = triple((data.chunks or runs)[a] for a in self._order)

    def state(self, box: Box) -> FilesState:
        """Return the state of the file, and of those that a virtual data set reads."""
        return state_of_files(self.where, [self._file, *sorted(self._stored.others)])

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x); raises SourceError if a chunk cannot be decoded."""
        h5py = need("h5py", f"{self._file} is an HDF5 file")
        by_axis = dict(zip(self._order, box.slices, strict=True))
        try:
            with opened(h5py, self._file) as root:
                data = root[self._path]
                part = tuple(by_axis.get(a, 0) for a in range(data.ndim))
                stored = data[part]
                if self._stored.chunks is not None:
                    self._stored.chunks.check(data, part, stored)
        except (*BROKEN, MemoryError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{self.where}: voxels {list(box.start)} to {list(box.stop)} cannot be read: {error}. Copy the file again from "
                "where it came."
            ) from error
        self._check_unchanged()
        rank = sorted(self._order)
        array = np.ascontiguousarray(stored.transpose([rank.index(a) for a in self._order]))
        if self._missing is not None and (array == self._missing).any():
            raise SourceError(
                f"{self.where}: voxels between {list(box.start)} and {list(box.stop)} hold {self._missing}, which stands for a "
                "missing value (_FillValue). Write a copy with 0 where there is no cell."
            )
        return array.astype(self.dtype, copy=False)

    def _check_unchanged(self) -> None:
        gone = [p for p in self._stored.others if not p.is_file()]
        if gone:
            raise SourceError(
                f"{self.where}: {gone[0]}, which holds a part of it, is no longer there. Restore it, and start again."
            )
        if _state(self._file) != self._state:
            raise SourceError(
                f"{self._file} was changed while it was read, so its parts may not match. Start again when it is finished."
            )


def _state(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise SourceError(
            f"{file} cannot be read: {error.strerror}. Check that it exists, and its permissions."
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _missing_value(where: str, data: Any) -> Any:
    """Return netCDF's number for a missing value; None if it is 0 or there is none. Raises SourceError for scaled numbers."""
    for name, plain in (("scale_factor", 1), ("add_offset", 0)):
        value = attribute(data, name)
        if value is not None and not np.array_equal(np.ravel(value), [plain]):
            raise SourceError(
                f"{where} has the attribute {name!r} ({np.ravel(value).tolist()}): its numbers are scaled values of an "
                "image, not ids. Name the segmentation, or write a copy without it."
            )
    for name in ("_FillValue", "missing_value"):
        value = attribute(data, name)
        if value is not None and np.size(value) == 1 and np.ravel(value)[0] != 0:
            return np.ravel(value)[0]
    netcdf = "_Netcdf4Coordinates" in data.attrs or "_Netcdf4Dimid" in data.attrs
    # netCDF has no default for one and two bytes
    return data.fillvalue if netcdf and data.dtype.itemsize >= 4 and data.fillvalue != 0 else None
