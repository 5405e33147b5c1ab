"""Labels that are in memory already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.grid import Box, Spacing, Triple, exact3
from simexm.sources.whole_numbers import WHOLE, NotWholeError, whole_numbers


class ArrayVolume:
    """A NumPy array as a source of labels; obeys `simexm.sources.base.LabelSource`.

    Parameters
    ----------
    labels
        Cell ids, (z, y, x), unsigned, or signed without negative values, or bool, or whole numbers stored as floats; 0 is
        outside every cell.
    voxel_size_nm
        z, y, x, nm of tissue.
    regions
        Masks of further regions, of the same shape.

    Raises
    ------
    SourceError
        If the labels are no whole numbers, not three-dimensional, or empty, or a voxel has no size.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        voxel_size_nm: tuple[float | Fraction, float | Fraction, float | Fraction],
        regions: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 3 or labels.size == 0:
            raise SourceError(
                f"labels must be an array of axes z, y, x with at least one voxel, not of shape {labels.shape}"
            )
        if labels.dtype in WHOLE:
            try:
                labels = whole_numbers(labels)
            except NotWholeError as error:
                raise SourceError(f"labels, plane {error.plane}: {error}") from error
        if labels.dtype.kind not in "ui" and labels.dtype != np.bool_:
            raise SourceError(
                f"labels are {labels.dtype}, but ids are whole numbers: a rounded id is another cell. "
                "Convert them, for example with labels.astype('uint64')"
            )
        if labels.dtype.kind == "i" and labels.min() < 0:
            raise SourceError(f"labels go down to {labels.min()}; ids start at 1, with 0 for outside. Renumber them")
        if not all(0 < s < math.inf for s in voxel_size_nm):
            raise SourceError(
                f"voxel_size_nm {tuple(map(float, voxel_size_nm))}: a voxel has a positive size along z, y and x, in nm"
            )
        unsigned = np.dtype(f"u{labels.dtype.itemsize}")
        self._labels = labels.astype(unsigned, copy=False)
        self._regions = {name: np.asarray(mask) != 0 for name, mask in (regions or {}).items()}
        for name, mask in self._regions.items():
            if mask.shape != labels.shape:
                raise SourceError(
                    f"region {name!r} has the shape {mask.shape}, the labels {labels.shape}; they must agree"
                )
        self.voxel_size_nm: Spacing = exact3(voxel_size_nm)
        self.origin_nm: Spacing = exact3((0, 0, 0))

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        z, y, x = self._labels.shape
        return z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned integer type of the ids."""
        return self._labels.dtype

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names that `read_region` knows."""
        return tuple(self._regions)

    @property
    def coarser(self) -> tuple[()]:
        """No copies."""
        return ()

    @property
    def identity(self) -> str:
        """Shape and type only: what is in memory is not resumed."""
        return f"array {self.shape} {self.dtype.name} {self.region_names}"

    def read(self, box: Box) -> NDArray[np.unsignedinteger[Any]]:
        """Ids in a box, (z, y, x)."""
        return self._labels[box.slices]

    def read_region(self, name: str, box: Box) -> NDArray[np.bool_]:
        """Where region `name` is, (z, y, x)."""
        return self._regions[name][box.slices]
