"""Axes, voxel size and position of an array, from OME-Zarr metadata of any version (0.1 to 0.5).

https://ngff.openmicroscopy.org/0.5 and /0.4. A translation is the position of the first element's centre, so the
volume begins half an element before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from simexm.errors import SourceError
from simexm.grid import Spacing, Triple, exact, exact3
from simexm.sources.axes import UNITS, nm_per
from simexm.sources.words import words


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of an array are.

    Attributes
    ----------
    axes
        Positions of z, y and x among the array's axes.
    voxel_size_nm
        None where nothing says how large a voxel is.
    origin_nm
        Where voxel (0, 0, 0) begins.
    """

    axes: Triple
    voxel_size_nm: Spacing | None
    origin_nm: Spacing


def ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The OME metadata among a group's attributes, which 0.5 keeps under "ome" and older versions at the top."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def datasets(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of a multiscale group's levels, full resolution first; none where the group is not a multiscale image."""
    try:
        return tuple(str(d["path"]) for d in ome(attributes)["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):
        return ()


def label_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the label images that a labels group lists."""
    names = ome(attributes).get("labels", ())
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) else ()


def plain_geometry(where: str, names: Sequence[str | None] | None, ndim: int) -> Geometry:
    """Geometry of an array without OME metadata, whose axes may have names."""
    named = [n or "" for n in names] if names and any(names) else list(_default_axes(where, ndim))
    zero = Fraction(0)
    return Geometry(_spatial(where, named), None, (zero, zero, zero))


def multiscale_geometry(where: str, attributes: Mapping[str, Any], dataset: str, ndim: int) -> Geometry:
    """Geometry of one level of a multiscale image.

    Parameters
    ----------
    where
        What to call the image in messages.
    attributes
        Attributes of the multiscale group.
    dataset
        Path of the level.
    ndim
        Axes of the level's array.

    Raises
    ------
    SourceError
        If the axes are not z, y, x (others leading), or a length has a unit that is no length. A voxel size that is
        not told (no scale, no unit) is no error here.
    """
    scales = ome(attributes)["multiscales"][0]
    axes = scales.get("axes") or list(_default_axes(where, ndim))
    names = [str(a.get("name", "") if isinstance(a, Mapping) else a) for a in axes]
    if len(names) != ndim:
        raise SourceError(
            f"{where}: the metadata names {len(names)} axes, {''.join(names)}, but the array has {ndim}, so it is "
            "not known which are z, y and x. Correct the metadata, or name the array itself as dataset of a copy."
        )
    spatial = _spatial(where, names)
    units = [str(axes[i].get("unit") or "") if isinstance(axes[i], Mapping) else "" for i in spatial]
    own = next(d for d in scales["datasets"] if str(d["path"]) == dataset)
    scale, shift = [Fraction(1)] * ndim, [Fraction(0)] * ndim
    scaled = False
    for transform in [*own.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())]:
        kind = transform.get("type")
        values = transform.get(kind)
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or not isinstance(values, Sequence) or len(values) != ndim:
            raise SourceError(
                f"{where}: a coordinate transformation of type {kind!r} with {values!r} for {ndim} axes cannot be "
                f"read, so the voxel size is not known. {words().voxel_size}"
            )
        by = [exact(v) for v in values]
        if kind == "scale":
            scaled = True
            scale = [s * v for s, v in zip(scale, by, strict=True)]
            shift = [s * v for s, v in zip(shift, by, strict=True)]
        else:
            shift = [s + v for s, v in zip(shift, by, strict=True)]
    zero = Fraction(0)
    if not scaled or not all(units):
        return Geometry(spatial, None, (zero, zero, zero))
    lengths = [nm_per(u) for u in units]
    if None in lengths:
        raise SourceError(
            f"{where}: the unit {units[lengths.index(None)]!r} is not a length that is known here ({', '.join(UNITS)}). "
            f"{words().voxel_size}"
        )
    nm = [length for length in lengths if length is not None]
    size = [scale[i] * n for i, n in zip(spatial, nm, strict=True)]
    if min(size) <= 0:
        raise SourceError(
            f"{where}: the metadata gives a voxel size of {[float(s) for s in size]} nm, and no voxel has that. "
            f"{words().voxel_size}"
        )
    begin = [shift[i] * n - s / 2 for i, n, s in zip(spatial, nm, size, strict=True)]
    return Geometry(spatial, _spacing(size), _spacing(begin))


def _default_axes(where: str, ndim: int) -> str:
    if not 3 <= ndim <= 5:
        raise SourceError(
            f"{where} has {ndim} axes, and labels need three: z, y, x. "
            + ("A single plane is no volume." if ndim < 3 else "Name an array of fewer axes as the dataset.")
        )
    return "tczyx"[-ndim:]


def _spatial(where: str, names: Sequence[str]) -> Triple:
    lower = [n.lower() for n in names]
    if sorted(n for n in lower if n in ("z", "y", "x")) != ["x", "y", "z"] or lower[-3:] != ["z", "y", "x"]:
        raise SourceError(
            f"{where} has the axes {', '.join(names) or 'of no name'}, and labels need z, y, x last and in this order; "
            "otherwise planes and rows would be mixed up. Write a transposed copy."
        )
    n = len(names)
    return n - 3, n - 2, n - 1


def _spacing(values: Sequence[Fraction]) -> Spacing:
    z, y, x = values
    return exact3((z, y, x))
