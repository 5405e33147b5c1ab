"""Labels that are in memory already."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, exact3
from simexm.names import REGION_RULE, is_region
from simexm.sources.axes import voxel_sizes
from simexm.sources.fields import Field, check_kind, class_of, with_classes
from simexm.sources.state import FilesState
from simexm.sources.whole_numbers import WHOLE, NotWholeError, whole_numbers
from simexm.store.shard_list import ShardList


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
    fields
        Further fields: what each is, and its array, of the same shape.

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
        fields: Sequence[tuple[Field, NDArray[Any]]] = (),
    ) -> None:
        refuse_masked(labels, "labels")
        try:
            labels = np.asarray(labels)
        except (TypeError, ValueError) as error:  # such as rows of different lengths
            raise SourceError(f"labels cannot be made an array of axes z, y, x: {error}") from None
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
        self.voxel_size_nm: Spacing = voxel_sizes(voxel_size_nm)
        unsigned = np.dtype(f"u{labels.dtype.itemsize}")
        self._labels = labels.astype(unsigned, copy=False)
        self._arrays = {name: _region(name, mask, labels.shape) for name, mask in _items(regions)}
        stored = {name: Field(name, "mask", "bool") for name in self._arrays}
        for field, array in fields:
            if field.name in self._arrays:
                raise SourceError(f"there are two fields {field.name!r}; give one of them another name")
            self._arrays[field.name] = _field(field, array, labels.shape)
            stored[field.name] = replace(field, dtype=self._arrays[field.name].dtype.name)
        self.fields: Mapping[str, Field] = with_classes(stored)
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
    def coarser(self) -> tuple[()]:
        """No copies."""
        return ()

    @property
    def identity(self) -> str:
        """Shape and type only: what is in memory is not resumed."""
        return f"array {self.shape} {self.dtype.name} {tuple(self.fields)}"

    def state(self, box: Box, masks: Sequence[str]) -> dict[str, FilesState]:
        """No files."""
        return {}

    def expecting(self, listed: Mapping[str, ShardList]) -> ArrayVolume:
        """Return itself."""
        return self

    def any(self) -> bool:
        """Whether there is a cell."""
        return bool(self._labels.any())

    def read(self, box: Box) -> NDArray[np.unsignedinteger[Any]]:
        """Ids in a box, (z, y, x)."""
        return self._labels[box.slices]

    def read_field(self, name: str, box: Box) -> NDArray[Any]:
        """Values of a field in a box, (z, y, x)."""
        found = class_of(name, self.fields)
        if found is not None:
            return self._arrays[found[0]][box.slices] == found[1]
        return self._arrays[name][box.slices]

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Nothing: the labels are in memory already."""
        return 0


def refuse_masked(array: Any, what: str) -> None:
    """Refuse a masked array, whose mask NumPy would drop without a word."""
    if isinstance(array, np.ma.MaskedArray):
        raise SourceError(
            f"{what} are a masked array, and it is not known what is meant where the mask hides a voxel; type "
            f"{what}.filled(0) to have nothing there, or {what}.data to do without the mask"
        )


def _items(regions: Any) -> list[tuple[str, Any]]:
    if regions is None:
        return []
    if not isinstance(regions, Mapping) or not all(isinstance(name, str) for name in regions):
        raise SourceError(
            f"regions {reprlib.repr(regions)}: masks go by names, which are text; give a mapping, such as {{'synapse': mask}}"
        )
    for name in regions:
        if not is_region(name):
            raise SourceError(f"the region's name {name!a} becomes part of paths; {REGION_RULE}")
    return list(regions.items())


def _region(name: str, mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    refuse_masked(mask, f"voxels of the region {name!r}")
    found = np.asarray(mask)
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise SourceError(
            f"the region {name!r} holds {found.dtype}, and a mask is 0 outside the region and another number inside; convert it, "
            "for example with mask.astype(bool)"
        )
    if found.shape != shape:
        raise SourceError(f"region {name!r} has the shape {found.shape}, the labels {shape}; they must agree")
    return found != 0


def _field(field: Field, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if not is_region(field.name):
        raise SourceError(f"the field's name {field.name!a} becomes part of paths; {REGION_RULE}")
    if field.kind == "mask":
        return _region(field.name, values, shape)
    refuse_masked(values, f"values of the field {field.name!r}")
    found = np.asarray(values)
    check_kind(f"the field {field.name!r}", field.kind, found.dtype)
    if found.shape != shape:
        raise SourceError(f"the field {field.name!r} has the shape {found.shape}, the labels {shape}; they must agree")
    return found
