"""Labels in memory."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, exact3, three
from simexm.names import REGION_RULE, is_region
from simexm.sources.axes import voxel_sizes
from simexm.sources.fields import Field, check_kind, class_of, with_classes
from simexm.sources.state import FilesState
from simexm.sources.times import refuse_time
from simexm.sources.whole_numbers import WHOLE, NotWholeError, whole_numbers
from simexm.store.shard_list import ShardList


class ArrayVolume:
    """A NumPy array as a `simexm.sources.base.LabelSource`.

    The labels are unsigned, signed without negative values, bool, or integers stored as floats; 0 is outside. Their
    axes are "zyx", "tzyx" (time series) or "tyx" (time series of single planes). The voxel size is in nm of tissue, z,
    y, x. `regions` are masks of the labels' shape, `fields` further fields and their arrays; both lack the time axis if
    they do not change. `time` is the only time point to keep, counted from 0; None keeps all.

    Raises SourceError if the labels are not integers, do not have these axes or are empty, the voxel size is not
    positive, or the time point does not exist.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        voxel_size_nm: tuple[float | Fraction, float | Fraction, float | Fraction],
        regions: Mapping[str, NDArray[Any]] | None = None,
        fields: Sequence[tuple[Field, NDArray[Any]]] = (),
        *,
        axes: str = "zyx",
        time: int | None = None,
        seconds_per_time: float | None = None,
    ) -> None:
        if axes not in _AXES:
            raise SourceError(f"the axes of the labels are {axes!r}; give one of {', '.join(_AXES)}")
        refuse_masked(labels, "labels")
        try:
            labels = np.asarray(labels)
        except (TypeError, ValueError) as error:  # rows of different lengths
            raise SourceError(f"labels cannot be made an array of axes {', '.join(axes)}: {error}") from None
        if labels.ndim != len(axes) or labels.size == 0:
            series = "; axes='tzyx' makes the first axis time" if axes == "zyx" and labels.ndim == 4 else ""
            raise SourceError(
                f"labels must be an array of axes {', '.join(axes)} with at least one voxel, not of shape {labels.shape}{series}"
            )
        if axes == "tyx":
            labels = labels[:, None]
        elif axes == "zyx":
            labels = labels[None]
        if labels.dtype in WHOLE:
            try:
                labels = whole_numbers(labels[0])[None] if axes == "zyx" else whole_numbers(labels)
            except NotWholeError as error:
                raise SourceError(f"labels, {_FIRST_AXIS[axes]} {error.plane}: {error}") from error
        if labels.dtype.kind not in "ui" and labels.dtype != np.bool_:
            raise SourceError(
                f"labels are {labels.dtype}, but ids are integers: a rounded id is another cell. "
                "Convert them, for example with labels.astype('uint64')"
            )
        if labels.dtype.kind == "i" and labels.min() < 0:
            raise SourceError(f"labels go down to {labels.min()}; ids start at 1, with 0 for outside. Renumber them")
        self.voxel_size_nm: Spacing = voxel_sizes(voxel_size_nm)
        unsigned = np.dtype(f"u{labels.dtype.itemsize}")
        chosen = slice(None)
        if time is not None:
            refuse_time("the array of labels", time, len(labels))
            chosen = slice(time, time + 1)
        self._labels: NDArray[np.unsignedinteger[Any]] = labels[chosen].astype(unsigned, copy=False)
        self.seconds_per_time = seconds_per_time if self.times > 1 else None
        shapes = dict.fromkeys(
            (labels.shape[1:], tuple(n for n, a in zip(labels.shape, "tzyx", strict=True) if a in axes))
        )
        self._arrays = {
            name: _with_time(_checked_mask(name, mask, shapes), labels.shape)[chosen]
            for name, mask in _checked_items(regions)
        }
        stored = {name: Field(name, "mask", "bool") for name in self._arrays}
        for field, array in fields:
            if field.name in self._arrays:
                raise SourceError(f"there are two fields {field.name!r}; give one of them another name")
            self._arrays[field.name] = _with_time(_checked_values(field, array, shapes), labels.shape)[chosen]
            stored[field.name] = replace(field, dtype=self._arrays[field.name].dtype.name)
        self.fields: Mapping[str, Field] = with_classes(stored)
        self.origin_nm: Spacing = exact3((0, 0, 0))

    @property
    def shape(self) -> Triple:
        return three(self._labels.shape[1:])

    @property
    def times(self) -> int:
        return len(self._labels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._labels.dtype

    @property
    def coarser(self) -> tuple[()]:
        return ()

    @property
    def identity(self) -> str:
        """Shape and type only: runs in memory are not resumed."""
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

    def read(self, box: Box, time: int = 0) -> NDArray[np.unsignedinteger[Any]]:
        """Ids in a box at a time point, (z, y, x)."""
        return np.asarray(self._labels[time][box.slices])

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Values of a field in a box at a time point, (z, y, x)."""
        field, number = class_of(name, self.fields) or (name, None)
        values: NDArray[Any] = self._arrays[field][time][box.slices]
        return values if number is None else np.asarray(values == number)

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Nothing: the labels are in memory already."""
        return 0


_AXES = ("zyx", "tzyx", "tyx")
_FIRST_AXIS = {"zyx": "plane", "tzyx": "time point", "tyx": "time point"}


def refuse_masked(array: Any, what: str) -> None:
    """Refuse a masked array, whose mask NumPy would drop silently."""
    if isinstance(array, np.ma.MaskedArray):
        raise SourceError(
            f"{what} are a masked array, and ids under the mask are undefined; type {what}.filled(0) to set them to 0, or "
            f"{what}.data to ignore the mask"
        )


def _checked_items(regions: Any) -> list[tuple[str, Any]]:
    if regions is None:
        return []
    if not isinstance(regions, Mapping) or not all(isinstance(name, str) for name in regions):
        raise SourceError(
            f"regions {reprlib.repr(regions)}: names of masks are text; give a mapping, such as {{'synapse': mask}}"
        )
    for name in regions:
        if not is_region(name):
            raise SourceError(f"the region's name {name!a} becomes part of paths; {REGION_RULE}")
    return list(regions.items())


def _with_time(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a field as (t, z, y, x), repeated at all time points if it has no time axis."""
    t, z, y, x = shape
    return values.reshape(shape) if values.size == t * z * y * x else np.broadcast_to(values, shape)


def _checked_mask(name: str, mask: Any, shapes: Collection[tuple[int, ...]]) -> NDArray[np.bool_]:
    refuse_masked(mask, f"voxels of the region {name!r}")
    found = np.asarray(mask)
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise SourceError(
            f"the region {name!r} holds {found.dtype}, and a mask is 0 outside the region and another number inside; convert "
            "it, for example with mask.astype(bool)"
        )
    _refuse_shape(f"region {name!r}", found.shape, shapes)
    return np.asarray(found != 0)


def _refuse_shape(what: str, shape: tuple[int, ...], shapes: Collection[tuple[int, ...]]) -> None:
    if shape not in shapes:
        raise SourceError(f"{what} has the shape {shape}, the labels {' or '.join(map(str, shapes))}; they must agree")


def _checked_values(field: Field, values: Any, shapes: Collection[tuple[int, ...]]) -> NDArray[Any]:
    if not is_region(field.name):
        raise SourceError(f"the field's name {field.name!a} becomes part of paths; {REGION_RULE}")
    if field.kind == "mask":
        return _checked_mask(field.name, values, shapes)
    refuse_masked(values, f"values of the field {field.name!r}")
    found = np.asarray(values)
    check_kind(f"the field {field.name!r}", field.kind, found.dtype)
    _refuse_shape(f"the field {field.name!r}", found.shape, shapes)
    return found
