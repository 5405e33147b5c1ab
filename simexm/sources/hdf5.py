"""A data set in an HDF5 file, such as CREMI's (https://cremi.org): axes z, y, x, `resolution` and `offset` in nm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError
from simexm.grid import Box, Spacing, Triple, exact3
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.state import FilesState, state_of_files

CREMI = "volumes/labels/neuron_ids"


class Hdf5Stack:
    """A data set (z, y, x); obeys `simexm.sources.stack.Stack`.

    Parameters
    ----------
    file
        The HDF5 file.
    dataset
        The data set's name; None for CREMI's neuron ids, or the only volume in the file.

    Raises
    ------
    SourceError
        If h5py is missing, the file is damaged, or it is not known which data set is meant.
    """

    def __init__(self, file: Path, dataset: str | None) -> None:
        self._file = file
        h5py = need("h5py", f"{file} is an HDF5 file")
        try:
            with h5py.File(file, "r") as opened:
                data = _choose(h5py, file, opened, dataset)
                self._name = data.name
                self.where = f"{file}{data.name}"
                self.shape: Triple = tuple(map(int, data.shape))  # type: ignore[assignment]
                self.dtype: np.dtype[Any] = data.dtype.newbyteorder("=")
                self.grain: Triple = data.chunks or (1, 1, self.shape[2])
                resolution, offset = data.attrs.get("resolution"), data.attrs.get("offset")
                self._parts = _parts(file, data)
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(f"{file} is damaged or cut off: {error}. Copy it again from where it came.") from error
        size, begin = _nm(resolution), _nm(offset)
        self.voxel_size_nm: Spacing | None = size if size and min(size) > 0 else None
        self.origin_nm: Spacing = begin or ORIGIN

    def plane(self, z: int) -> str:
        """The data set and the plane."""
        return f"{self.where}, z = {z}"

    def state(self, box: Box) -> FilesState:
        """How the file is, and those that a virtual data set is put together from."""
        return state_of_files(self.where, [self._file, *self._parts])

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x); raises SourceError if a chunk cannot be decoded."""
        h5py = need("h5py", f"{self._file} is an HDF5 file")
        try:
            with h5py.File(self._file, "r") as opened:
                return np.ascontiguousarray(opened[self._name][box.slices], self.dtype)
        except (OSError, KeyError) as error:
            raise SourceError(
                f"{self.where}: voxels {list(box.start)} to {list(box.stop)} cannot be read: {error}. If a filter is "
                "missing, write a copy with h5repack -f GZIP=1; otherwise copy the file again from where it came."
            ) from error


def _choose(h5py: Any, file: Path, opened: Any, name: str | None) -> Any:
    volumes: list[str] = []

    def note(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 3 and 0 not in node.shape:
            volumes.append(path)

    opened.visititems(note)
    told = f"It holds the volumes {', '.join(volumes[:20])}." if volumes else "It holds no volume of three axes."
    if name is None:
        name = CREMI if CREMI in volumes else volumes[0] if len(volumes) == 1 else None
        if name is None:
            raise SourceError(
                f"{file}: it is not known which data set holds the labels. {told} Name one: --dataset NAME"
            )
    name = name.strip("/")
    if name not in opened:
        raise SourceNotFoundError(f"{file} holds no {name!r}. {told}")
    if name not in volumes:
        raise SourceError(f"{file}/{name} is no volume of three axes z, y, x. {told}")
    return opened[name]


def _parts(file: Path, data: Any) -> list[Path]:
    """Files that a virtual data set is put together from: HDF5 takes what is in one that is missing for fill values.

    Raises
    ------
    SourceNotFoundError
        If one is missing.
    """
    found = []
    for name in sorted({source.file_name for source in data.virtual_sources()} - {"."} if data.is_virtual else ()):
        places = [p for p in (file.parent / name, Path(name)) if p.is_file()]
        if not places and "%" not in name:  # such a name stands for a series of files of unknown length
            raise SourceNotFoundError(
                f"{file}{data.name} is put together from other files, of which {name} is missing, so its voxels would be 0. "
                f"Copy it to {file.parent}."
            )
        found += places[:1]
    return found


def _nm(values: Any) -> Spacing | None:
    """An attribute's three lengths; None for anything else."""
    numbers = np.ravel(values).tolist() if values is not None else []
    if len(numbers) != 3 or not all(isinstance(n, int | float) and np.isfinite(n) for n in numbers):
        return None
    z, y, x = numbers
    return exact3((z, y, x))
