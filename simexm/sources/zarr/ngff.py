"""Axes, voxel size and position of an array from OME-Zarr metadata of any version (0.1 to 0.6).

https://ngff.openmicroscopy.org/0.5, /0.4, and RFC-5 for coordinate systems. A translation is the position of the first
element's centre, so the corner of the volume is half an element before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from simexm.errors import SourceError
from simexm.geometry.grid import Spacing, Triple, exact, three
from simexm.sources.axes import UNITS, Spatial, implausible, nm_per, seconds_per, space_and_time
from simexm.store.ngff import ome

_ORIGIN: Spacing = (Fraction(0), Fraction(0), Fraction(0))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Position of an array's voxels."""

    axes: Spatial  # positions of z, y and x among the array's axes
    voxel_size_nm: Spacing | None = None  # None if unknown
    origin_nm: Spacing = _ORIGIN  # lower corner of voxel (0, 0, 0)
    # why metadata have no usable voxel size, as the end of a sentence; None if they have none at all
    doubt: str | None = None
    time: int | None = None  # position of the time axis; None if there is one time point
    seconds_per_time: float | None = None  # seconds between time points; None if unknown

    def along(self, lengths: Sequence[int]) -> Triple:
        """Return lengths along z, y and x from those of all axes; 1 for a missing z."""
        return three(1 if i is None else lengths[i] for i in self.axes)


class UnclearError(ValueError):
    """Why a voxel size cannot be read from metadata."""


def label_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the label images that a labels group lists."""
    names = ome(attributes).get("labels", ())
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) else ()


def is_image(attributes: Mapping[str, Any]) -> bool:
    """Whether metadata describe an image: channels to display, and no labels."""
    found = ome(attributes)
    return "omero" in found and "image-label" not in found


def default_axes(where: str, ndim: int) -> str:
    """Return the names of axes of an array without names."""
    if not 3 <= ndim <= 5:
        raise SourceError(
            f"{where} has {ndim} axes, and labels need three: z, y, x. "
            + ("A single plane is not a volume." if ndim < 3 else "Name an array of fewer axes as the dataset.")
        )
    return "tczyx"[-ndim:]


def multiscale_geometry(where: str, attributes: Mapping[str, Any], dataset: str, shape: Sequence[int]) -> Geometry:
    """Return the geometry of one level (`dataset`) of a multiscale image, whose array has this shape.

    Raises SourceError if it is unclear which axes are z, y and x. An unreadable voxel size is no error, as the user may
    give it: `Geometry.doubt` says why.
    """
    scales = ome(attributes)["multiscales"][0]
    own = next(d for d in scales["datasets"] if str(d["path"]) == dataset)
    try:
        axes, steps = _axes_and_steps(scales, own)
    except UnclearError as error:
        raise SourceError(f"{where}: {error}. Correct the metadata, or write a copy in the order z, y, x.") from error
    axes = axes or list(default_axes(where, len(shape)))
    names = [str(a.get("name", "") if isinstance(a, Mapping) else a) for a in axes]
    spatial, time = space_and_time(where, names, shape)
    seconds = None if time is None else _seconds(axes, steps, time)
    try:
        size, begin = _place(axes, steps, spatial)
    except UnclearError as reason:
        return Geometry(spatial, doubt=str(reason), time=time, seconds_per_time=seconds)
    return Geometry(spatial, size, begin, time=time, seconds_per_time=seconds)


def pixel_geometry(
    where: str, attributes: Mapping[str, Any], dataset: str, shape: Sequence[int]
) -> tuple[Spacing, Spacing] | None:
    """Return pixel size and origin, nm, of a level without z axis, whose figures are those of y; None if they are unclear."""
    scales = ome(attributes)["multiscales"][0]
    own = next(d for d in scales["datasets"] if str(d["path"]) == dataset)
    try:
        axes, steps = _axes_and_steps(scales, own)
        names = [str(a.get("name", "") if _is_map(a) else a) for a in axes]
        _, y, x = space_and_time(where, names, shape)[0]
        return _place(axes, steps, (y, y, x))
    except UnclearError:
        return None


def _axes_and_steps(scales: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the axes of the coordinate system of positions, and the transformations to it.

    Up to 0.5 a multiscale has one list of axes, and its own transformations follow on the level's. From 0.6 on, a level's
    transformation leads to a coordinate system with its own axes. Those of the multiscale lead from there to others, and are
    used only if the first system's unit is no length (a pixel).
    """
    inner, outer = (_list(part.get("coordinateTransformations")) for part in (own, scales))
    systems = {str(s.get("name")): _list(s.get("axes")) for s in _list(scales.get("coordinateSystems")) if _is_map(s)}
    if not systems:
        return _list(scales.get("axes")), [*inner, *outer]
    reached = _end(inner[-1], "output") if inner and _is_map(inner[-1]) else ""
    if reached not in systems:
        if len(systems) > 1:
            raise UnclearError(
                f"it has the coordinate systems {', '.join(systems)}, and its level does not name one of them"
            )
        reached = next(iter(systems))
    if not _lengths(systems[reached]):
        for step in outer:
            further = systems.get(_end(step, "output"), []) if _is_map(step) and _end(step, "input") == reached else []
            if _lengths(further) and [_name(a) for a in further] == [_name(a) for a in systems[reached]]:
                return further, [*inner, step]
    return systems[reached], inner


NO_DEPTH = "it has no z axis, so the thickness of its planes is unknown"


def _seconds(axes: Sequence[Any], steps: Sequence[Any], time: int) -> float | None:
    """Return the seconds between time points; None if unknown or in an unknown unit."""
    unit = axes[time].get("unit") if _is_map(axes[time]) else None
    per = seconds_per(str(unit or ""))
    try:
        scales = [by[time] for kind, by in _flat(steps, len(axes)) if kind == "scale"]
    except UnclearError:
        return None
    found = math.prod(scales)
    return float(found * per) if per is not None and scales and found > 0 else None


def _place(axes: Sequence[Any], steps: Sequence[Any], spatial: Spatial) -> tuple[Spacing, Spacing]:
    """Return voxel size and origin, nm, z y x; raises UnclearError."""
    z, y, x = spatial
    if z is None:
        raise UnclearError(NO_DEPTH)
    positions = (z, y, x)
    scale, shift = [Fraction(1)] * len(axes), [Fraction(0)] * len(axes)
    scaled = False
    for kind, by in _flat(steps, len(axes)):
        if kind == "scale":
            scaled = True
            scale = [s * v for s, v in zip(scale, by, strict=True)]
            shift = [s * v for s, v in zip(shift, by, strict=True)]
        else:
            shift = [s + v for s, v in zip(shift, by, strict=True)]
    if not scaled:
        raise UnclearError("its metadata have no scale")
    nm = []
    for i in positions:
        unit = axes[i].get("unit") if _is_map(axes[i]) else None
        if not unit:
            raise UnclearError(f"its axis {_name(axes[i])} has no unit")
        per = nm_per(str(unit))
        if per is None:
            raise UnclearError(f"the unit {unit!r} is no known unit of length ({', '.join(UNITS)})")
        nm.append(per)
    size = [scale[i] * n for i, n in zip(positions, nm, strict=True)]
    return checked_size(size), three(shift[i] * n - s / 2 for i, n, s in zip(positions, nm, size, strict=True))


def checked_size(size: Sequence[Fraction]) -> Spacing:
    """Return a voxel size from metadata, nm, z y x; raises UnclearError if it is implausible."""
    wrong = implausible(size)
    if wrong:
        raise UnclearError(f"the metadata have a voxel size of {wrong}")
    return three(size)


def _flat(steps: Sequence[Any], ndim: int) -> Iterator[tuple[str, list[Fraction]]]:
    """Yield scales and translations in the order in which they apply, also those inside a sequence."""
    for step in steps:
        kind = step.get("type") if _is_map(step) else None
        if kind == "identity":
            continue
        if kind == "sequence":
            yield from _flat(_list(step.get("transformations")), ndim)
            continue
        if kind not in ("scale", "translation"):
            raise UnclearError(
                f"its coordinate transformation of type {kind!r} is not supported (scale, translation, sequence and identity "
                "are): volumes cannot be rotated or sheared"
            )
        yield kind, numbers(kind, step.get(kind), ndim)


def numbers(key: str, values: Any, count: int) -> list[Fraction]:
    """Return so many numbers of an attribute, exactly; raises UnclearError for anything else."""
    try:
        found = [exact(v) for v in values]
    except (TypeError, ValueError):
        found = []
    if len(found) != count:
        raise UnclearError(f"its {key} {values!r} cannot be read as {count} numbers")
    return found


def _end(step: Mapping[str, Any], side: str) -> str:
    """Return the name of the input or output coordinate system of a transformation, a text or a mapping."""
    end = step.get(side)
    return str(end.get("name") or end.get("path") or "") if isinstance(end, Mapping) else str(end or "")


def _lengths(axes: Sequence[Any]) -> bool:
    """Whether there are spatial axes, all in units of length."""
    units = [a.get("unit") for a in axes if _is_map(a) and _name(a).lower() in tuple("zyx")]
    return bool(units) and all(nm_per(str(u or "")) for u in units)


def _name(axis: Any) -> str:
    return str(axis.get("name", "")) if _is_map(axis) else str(axis)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)
