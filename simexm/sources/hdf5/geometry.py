"""Voxel size and position of an HDF5 data set, as programs that segment EM write them.

CREMI and Daisy (`resolution`, `offset`, `units`), funlib (`voxel_size`), ilastik (`axistags`, `axis_units`), PlantSeg and Fiji
(`element_size_um`), netCDF-4 and HDF5 (coordinates), BigDataViewer (an XML beside it), Imaris (`ExtMin0`, ...).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from simexm.geometry.grid import Spacing, Triple, exact, three
from simexm.sources.axes import nm_per
from simexm.sources.bdv import read_setup
from simexm.sources.hdf5.axes import attribute, axis_tags, scale_of, texts
from simexm.sources.stack import ORIGIN
from simexm.units import times

BDV = re.compile(r"t(\d+)/s(\d+)/(\d+)/cells")
IMARIS = re.compile(r"DataSet/ResolutionLevel \d+/TimePoint \d+/Channel \d+/Data")

_MICROMETRE = Fraction(1000)
_MOST_COORDINATES = 10**7
_UNEVEN = 1e-3
"""Tolerance of uneven coordinates, as a share of a step."""


@dataclass(frozen=True, slots=True)
class Place:
    """Position of voxels."""

    voxel_size_nm: Spacing | None = None  # z, y, x; None if unknown or ambiguous
    origin_nm: Spacing = ORIGIN  # lower corner of voxel (0, 0, 0)
    doubt: str | None = None  # why the metadata are not used, as a sentence without its end


class _DoubtError(Exception):
    """Metadata are no size or position; the text says why."""


def place_of(root: Any, data: Any, path: str, order: Triple) -> Place:
    """Return voxel size and position from a data set's metadata; `root` may link it from another file."""
    try:
        found = {by: place for by, place in _found(root, data, path, order) if place is not None}
        sizes = {place[0] for place in found.values()}
        if len(sizes) > 1:
            raise _DoubtError(", but ".join(f"{by} says {times(place[0])} nm" for by, place in found.items()))
        if not found:
            return Place()
        by, (size, _) = next(iter(found.items()))
        if min(size) <= 0:
            raise _DoubtError(f"{by} says {times(size)} nm, and a voxel has a positive size")
        return Place(size, next((begin for _, begin in found.values() if begin is not None), ORIGIN))
    except _DoubtError as doubt:
        return Place(doubt=str(doubt))


def imaris_shape(data: Any, order: Triple) -> Triple:
    """Return the voxels of an Imaris volume, z y x, whose data set is padded to complete chunks."""
    shape = [data.shape[a] for a in order]
    stated = [texts(attribute(data.parent, f"ImageSize{a}")) for a in "ZYX"]
    for i, words in enumerate(stated):
        text = "".join(words)
        if text.isascii() and text.isdigit() and 0 < int(text[:10]) <= shape[i]:
            shape[i] = int(text)
    return three(shape)


_Found = tuple[str, tuple[Spacing, Spacing | None] | None]


def _found(root: Any, data: Any, path: str, order: Triple) -> list[_Found]:
    """Return candidates of size and position, nm, with the names of their metadata."""
    bdv = BDV.fullmatch(path)
    if bdv:
        return [("the XML", _bdv(root, *map(int, bdv.groups())))]
    if IMARIS.fullmatch(path):
        return [("the group DataSetInfo/Image", _imaris(root, data, order))]
    node = data
    while True:
        places = [
            ("the attribute 'resolution'", _attributes(node, "resolution", data.ndim, order)),
            ("the attribute 'voxel_size'", _attributes(node, "voxel_size", data.ndim, order)),
            ("the attribute 'element_size_um'", _element_size(node, data.ndim, order)),
        ]
        if node == data:
            places += [("axistags", _axis_tags(data, order)), ("its coordinates", _coordinates(data, order))]
        if any(place is not None for _, place in places) or node.name == "/":
            return places
        node = node.parent


def _attributes(node: Any, key: str, ndim: int, order: Triple) -> tuple[Spacing, Spacing | None] | None:
    """Return size and offset, in nm unless `units` says otherwise."""
    size = _vector(node, key, ndim, order)
    if size is None:
        return None
    units = next((t for t in (texts(attribute(node, k)) for k in ("units", "unit") if k in node.attrs) if t), ["nm"])
    if len(units) == 1:
        words = re.split(r"[\s,;]+", units[0])
        units = words if len(words) in (3, ndim) else units * ndim
    nm = [nm_per(u) for u in _pick(units, ndim, order, f"the attribute 'units' of {key!r}")]
    if None in nm:
        shown_units = ", ".join(dict.fromkeys(units))
        raise _DoubtError(f"the attribute {key!r} is in {shown_units}, which is no known unit of length")
    begin = _vector(node, "offset", ndim, order)
    return _times(size, nm), None if begin is None else _times(begin, nm)


def _element_size(node: Any, ndim: int, order: Triple) -> tuple[Spacing, Spacing | None] | None:
    size = _vector(node, "element_size_um", ndim, order)
    if size is None:
        return None
    if list(order) != sorted(order) and len(set(size)) > 1:
        raise _DoubtError(
            "the attribute 'element_size_um' is z, y, x by definition, but the axes are stored in another order"
        )
    return _times(size, [_MICROMETRE] * 3), None


def _axis_tags(data: Any, order: Triple) -> tuple[Spacing, Spacing | None] | None:
    """Return the size of ilastik, in axistags with units in axis_units."""
    tags = axis_tags(data)
    try:
        units = json.loads((texts(attribute(data, "axis_units")) or ["{}"])[0])
        spatial = [tags[a] for a in order]
        sizes = [_number(t.get("resolution", 0)) for t in spatial]
        nm = [nm_per(str(units.get(t["key"], ""))) for t in spatial]
    except (ValueError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    if None in nm or None in sizes or 0 in sizes:
        return None  # the default, 0, is no size
    z, y, x = (s for s in sizes if s is not None)
    return _times((z, y, x), nm), None


def _coordinates(data: Any, order: Triple) -> tuple[Spacing, Spacing | None] | None:
    """Return size and position from dimension scales, which hold the coordinates of voxel centres."""
    axes = [_axis_coordinates(scale_of(data, a), data.shape[a]) for a in order]
    if any(a is None for a in axes):
        return None
    z, y, x = (a for a in axes if a is not None)
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def _axis_coordinates(scale: Any, length: int) -> tuple[Fraction, Fraction] | None:
    """Return step and begin of an axis, nm; None if the scale has no numbers or no unit of length."""
    if scale is None or scale.shape != (length,) or scale.dtype.kind not in "iuf":
        return None
    if not 2 <= length <= _MOST_COORDINATES:
        return None
    nm = nm_per((texts(attribute(scale, "units")) or [""])[0])
    if nm is None:
        return None
    stored = scale[()]
    values = stored.astype(np.float64)
    name = f"the coordinate {scale.name!r}"
    if not np.isfinite(values).all():
        raise _DoubtError(f"{name} is not finite")
    first, step = float(values[0]), float(values[-1] - values[0]) / (length - 1)
    off = np.abs(first + step * np.arange(length) - values).max()
    if step <= 0 or off > _UNEVEN * step:
        raise _DoubtError(f"{name} does not go up in equal steps")
    noise = 4 * float(np.finfo(scale.dtype if scale.dtype.kind == "f" else np.float64).eps) * np.abs(values).max()
    step = next((s for s in (float(f"{step:.{n}g}") for n in (3, 6, 9)) if abs(s - step) * length <= noise), step)
    size = exact(step) * nm
    return size, exact(str(stored[0])) * nm - size / 2


def _bdv(root: Any, timepoint: int, setup: int, level: int) -> tuple[Spacing, Spacing | None]:
    found = read_setup(Path(root.filename), setup, timepoint)
    if found.voxel_size_nm is None:
        raise _DoubtError(found.doubt or "")
    level_sizes = f"s{setup:02d}/resolutions"
    try:
        factors = [exact(v) for v in root[level_sizes][level].tolist()[::-1]]
        size = _times(found.voxel_size_nm, factors)
    except (KeyError, ValueError, TypeError, OSError, IndexError) as error:
        raise _DoubtError(f"the data set {level_sizes} does not have the resolution of the level {level}") from error
    return size, found.origin_nm


def _imaris(root: Any, data: Any, order: Triple) -> tuple[Spacing, Spacing | None]:
    image = root.get("DataSetInfo/Image")
    info = {} if image is None else {k: "".join(texts(v)) for k, v in image.attrs.items()}
    unit = info.get("Unit", "um")
    nm = nm_per(unit)
    if nm is None:
        raise _DoubtError(f"its extent is in {unit!r}, which is no known unit of length")
    try:
        low = [exact(float(info[f"ExtMin{i}"])) * nm for i in (2, 1, 0)]
        high = [exact(float(info[f"ExtMax{i}"])) * nm for i in (2, 1, 0)]
    except (KeyError, ValueError) as error:
        raise _DoubtError("the group DataSetInfo/Image has no complete extent (ExtMin0, ExtMax0, ...)") from error
    return three((b - a) / n for a, b, n in zip(low, high, imaris_shape(data, order), strict=True)), three(low)


def _vector(node: Any, key: str, ndim: int, order: Triple) -> Spacing | None:
    """Return an attribute's numbers along z, y, x; None if there is no such attribute.

    They are in the order of all axes or of the spatial ones; a single number is used for each axis.
    """
    value = attribute(node, key)
    if value is None:
        return None
    by = f"the attribute {key!r}"
    numbers = [_number(v) for v in np.ravel(value)]
    if None in numbers:
        raise _DoubtError(f"{by} is {np.ravel(value).tolist()}, and these are no lengths")
    return three(_pick([n for n in numbers if n is not None] * (3 if len(numbers) == 1 else 1), ndim, order, by))


def _pick(values: Sequence[Any], ndim: int, order: Triple, by: str) -> list[Any]:
    if len(values) == ndim:
        return [values[a] for a in order]
    if len(values) == 3:
        return [values[sorted(order).index(a)] for a in order]
    raise _DoubtError(f"{by} has {len(values)} values, and there are three axes")


def _number(value: Any) -> Fraction | None:
    """Return a number as it was typed (float32's 0.004 is 4 / 1000); None for anything else."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return exact(str(value)) if math.isfinite(value) else None


def _times(values: Sequence[Fraction], by: Sequence[Fraction | None]) -> Spacing:
    return three(v * (b or 0) for v, b in zip(values, by, strict=True))
