"""Axes, voxel size and position in attributes of plain arrays: xarray, funlib and Daisy, ilastik, COSEM, Paintera.

Lists are in the order of the array's axes, but `element_size_um` is always z y x. An `offset` is the corner of the first
voxel, the `translate` of COSEM its centre.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from simexm.errors import SourceError
from simexm.geometry.grid import Spacing, three
from simexm.sources.axes import nm_per
from simexm.sources.zarr.ngff import UnclearError, checked_size, numbers

_SCALE = re.compile(r"s?[1-9]\d*")
_NAMES = ("_ARRAY_DIMENSIONS", "axis_names", "axes", "axistags", "dimension_names")
_PLACEHOLDER = re.compile(r"(phony_)?dim_?\d+|axis_?\d+|d\d+|")
Place = tuple[Spacing, Spacing]
"""Voxel size and origin, nm, z y x."""


def axis_names(where: str, attributes: Mapping[str, Any], stored: Sequence[str | None] | None) -> list[str] | None:
    """Return the names of an array's axes; None if unnamed. Raises SourceError if two attributes disagree.

    `stored` are names in the array's own metadata (Zarr v3).
    """
    found: dict[str, list[str]] = {}
    transform = attributes.get("transform")
    cosem = transform.get("axes") if isinstance(transform, Mapping) else None
    for key, value in (("dimension_names", stored), ("transform", cosem), *((k, attributes.get(k)) for k in _NAMES)):
        names = _listed(value)
        if names and not all(_PLACEHOLDER.fullmatch(n) for n in names):
            found.setdefault(key, names)
    different = {tuple(n.removesuffix("^").lower() for n in names): key for key, names in found.items()}
    if len(different) > 1:
        said = " and ".join(f"{key} says {', '.join(names)}" for names, key in different.items())
        raise SourceError(
            f"{where}: {said}, so it is unclear which axes are z, y and x. Correct the attribute that is wrong."
        )
    return list(next(iter(different))) if different else None


def place(
    attributes: Mapping[str, Any],
    axes: Sequence[str],
    factors: Sequence[Any] = (1, 1, 1),
    *,
    reversed_pixels: bool = False,
) -> Place | None:
    """Return voxel size and origin from attributes; None if they have no size.

    The attributes are those of an array, or of the group of its scales; `axes` are the names of the array's axes, z, y
    and x among them. Along those, in their own order, the array is coarser by `factors` than the attributes say. With
    `reversed_pixels`, `pixelResolution` is in reversed order of axes, as Java programs write it for a Zarr array.

    Raises UnclearError if the size is impossible, or not in units of length.
    """
    cosem = _transform(attributes.get("transform"))
    if cosem is not None:
        return cosem
    if reversed_pixels and "pixelResolution" in attributes and "element_size_um" not in attributes:
        axes = axes[::-1]
    space = [a for a in axes if a in tuple("zyx")]
    order = [space.index(a) for a in "zyx"]
    found = _size(attributes, len(axes), [i for i, a in enumerate(axes) if a in tuple("zyx")])
    if found is None:
        return None
    key, size, per = found
    size = [s * f for s, f in zip(size, numbers("downsamplingFactors", factors, 3), strict=True)]
    offset = attributes.get("offset")
    begin = [Fraction(0)] * 3 if offset is None else numbers("offset", _spatial(offset, len(axes), axes), 3)
    if key == "element_size_um":
        return checked_size(size), three(begin[i] * per[0] for i in order)
    return checked_size([size[i] for i in order]), three(begin[i] * per[i] for i in order)


def place_of(
    name: str,
    attributes: Mapping[str, Any],
    group: Mapping[str, Any],
    axes: Sequence[str],
    *,
    reversed_pixels: bool = False,
) -> Place | None:
    """Return voxel size and origin from an array's attributes, or from those of the group of its scales; see `place`.

    A group describes its finest scale; for a coarser one, `downsamplingFactors` of the array are needed.
    """
    found = place(attributes, axes, reversed_pixels=reversed_pixels)
    factors = attributes.get("downsamplingFactors")
    if found is not None or (factors is None and _SCALE.fullmatch(name)):
        return found
    return place(group, axes, (1, 1, 1) if factors is None else factors, reversed_pixels=reversed_pixels)


def _size(
    attributes: Mapping[str, Any], ndim: int, spatial: Sequence[int]
) -> tuple[str, list[Fraction], list[Fraction]] | None:
    """Return the attribute that holds the size, the size in nm in its own order, and nm per unit along each axis."""
    if "element_size_um" in attributes:
        size = [n * 1000 for n in numbers("element_size_um", attributes["element_size_um"], 3)]
        return "element_size_um", size, [Fraction(1000)] * 3
    pixel = attributes.get("pixelResolution")
    if isinstance(pixel, Mapping):
        key, values, units = "pixelResolution", pixel.get("dimensions"), pixel.get("unit")
    else:
        key = next((k for k in ("voxel_size", "resolution", "pixelResolution") if k in attributes), "")
        values, units = attributes.get(key), attributes.get("units", attributes.get("unit"))
    if values is None:
        return None
    if key == "voxel_size" and attributes.get("resolution", values) != values:
        raise UnclearError(
            f"its voxel_size {values} and its resolution {attributes['resolution']} contradict each other"
        )
    values = [values[i] for i in spatial] if isinstance(values, list) and len(values) == ndim else values
    listed = units if isinstance(units, list) else [units] * 3
    listed = [listed[i] for i in spatial] if len(listed) == ndim else listed
    per = [Fraction(1) if unit is None else nm_per(str(unit)) for unit in listed]
    if len(per) != 3 or None in per:
        raise UnclearError(f"{key} {values} has the units {units}, which are no known units of length")
    nm = [n for n in per if n is not None]
    return key, [v * n for v, n in zip(numbers(key, values, 3), nm, strict=True)], nm


def _transform(transform: Any) -> Place | None:
    """Return voxel size and origin of COSEM's transform, which has axes of its own (https://github.com/janelia-cosem/schemas)."""
    if not isinstance(transform, Mapping) or "scale" not in transform:
        return None
    axes = [a.lower() for a in _listed(transform.get("axes"))]
    if sorted(a for a in axes if a in tuple("zyx")) != ["x", "y", "z"]:
        raise UnclearError(f"its transform has the axes {', '.join(axes) or '(none)'}, and needs z, y and x once each")
    at = [axes.index(a) for a in "zyx"]
    units = _listed(transform.get("units")) or [str(transform.get("units") or "nm")] * len(axes)
    per = [nm_per(units[i]) if i < len(units) else None for i in at]
    if None in per:
        raise UnclearError(f"its transform has the units {units}, which are no known units of length")
    scale = numbers("transform.scale", transform["scale"], len(axes))
    shift = numbers("transform.translate", transform.get("translate") or [0] * len(axes), len(axes))
    size = [scale[i] * n for i, n in zip(at, per, strict=True) if n is not None]
    centre = [shift[i] * n for i, n in zip(at, per, strict=True) if n is not None]
    return checked_size(size), three(c - s / 2 for c, s in zip(centre, size, strict=True))


def _spatial(values: Any, ndim: int, axes: Sequence[str]) -> Any:
    if isinstance(values, list) and len(values) == ndim:
        return [v for v, a in zip(values, axes, strict=True) if a in tuple("zyx")]
    return values


def _listed(value: Any) -> list[str]:
    """Return names from a list, from ilastik's axistags, or from their JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    if isinstance(value, Mapping):
        value = [a.get("key") for a in value.get("axes", ()) if isinstance(a, Mapping)]
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [str((n.get("name") if isinstance(n, Mapping) else n) or "").strip() for n in value]
