"""Voxel size and position of a TIFF: from OME-XML, the description of ImageJ or tifffile, or a Zeiss LSM.

Resolution tags alone are ignored: they are often those of a screen, and have no distance of planes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from simexm.geometry.grid import Spacing, three
from simexm.sources.axes import nm_per, seconds_per
from simexm.sources.stack import ORIGIN

_Place = tuple[Spacing | None, Spacing]
"""Voxel size, nm, or None; position of the corner of voxel (0, 0, 0), nm."""
_UNKNOWN: _Place = (None, ORIGIN)
_CENTIMETRE = 3
_ENDLESS = 1e30


def size_and_origin_of(tif: Any) -> _Place:
    """Return voxel size and origin of the first image of an opened `tifffile.TiffFile`."""
    for found in _candidates(tif):
        if found[0] is not None:
            return found
    return _UNKNOWN


def _candidates(tif: Any) -> Iterator[_Place]:
    """Yield the place from each description of a file, the best first."""
    if tif.is_ome:
        yield _of_ome(tif.ome_metadata or "")
    if tif.is_imagej:
        yield _of_imagej(tif.imagej_metadata or {}, tif.pages.first)
    if tif.is_lsm:
        lsm = tif.lsm_metadata or {}
        yield _positive(_length(lsm.get(f"VoxelSize{a}"), "m") for a in "ZYX"), ORIGIN
    if tif.is_shaped:
        yield _of_shaped((tif.shaped_metadata or [{}])[0], tif.pages.first)


def seconds_per_time_of(tif: Any) -> float | None:
    """Return the seconds between time points of an opened `tifffile.TiffFile`; None if unknown."""
    intervals: list[tuple[Any, str]] = []
    if tif.is_ome:
        pixels, _ = _pixels(tif.ome_metadata or "")
        about = {} if pixels is None else pixels.attrib
        intervals.append((about.get("TimeIncrement"), about.get("TimeIncrementUnit", "s")))
    if tif.is_imagej:
        intervals.append(((tif.imagej_metadata or {}).get("finterval"), "s"))
    if tif.is_lsm:
        intervals.append(((tif.lsm_metadata or {}).get("TimeIntervall"), "s"))
    for value, unit in intervals:
        per = seconds_per(unit)
        with contextlib.suppress(TypeError, ValueError):
            if per is not None and 0 < float(value) < _ENDLESS:
                return float(Fraction(str(value)) * per)
    return None


def _pixels(xml: str) -> tuple[ElementTree.Element | None, str]:
    """Return the first image's Pixels in OME-XML, if any, and the namespace."""
    try:
        root = ElementTree.fromstring(xml.encode())
    except (ElementTree.ParseError, ValueError):
        return None, ""
    space = root.tag.rpartition("OME")[0]
    return root.find(f"{space}Image/{space}Pixels"), space


def _of_ome(xml: str) -> _Place:
    """Return the place by PhysicalSize and the position of the first plane (of its first pixel's centre).

    https://docs.openmicroscopy.org/ome-model/latest/: the default unit of a size is the micrometre, a position has none.
    """
    pixels, space = _pixels(xml)
    if pixels is None:
        return _UNKNOWN
    attributes: Mapping[str, str] = pixels.attrib
    sizes = ((attributes.get(f"PhysicalSize{a}"), attributes.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX")
    size = _positive(_length(value, unit) for value, unit in sizes)
    planes = (p.attrib for p in pixels.findall(f"{space}Plane"))
    first = next((p for p in planes if all(p.get(f"The{a}", "0") == "0" for a in "ZCT")), {})
    at = [_length(first.get(f"Position{a}"), first.get(f"Position{a}Unit")) for a in "ZYX"]
    return size, _begin(size, at)


def _of_imagej(description: Mapping[str, Any], page: Any) -> _Place:
    """Return the place by spacing and unit of the description; resolution tags have this unit, whatever they say."""
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), str(description.get("unit", "")))
    units = [str(description.get(f"{a}unit", unit)) for a in "zy"] + [unit]
    across = [_pixel(page, a) for a in "YX"]
    size = _positive(_length(v, u) for v, u in zip([description.get("spacing"), *across], units, strict=True))
    if size is None:
        return _UNKNOWN
    offsets = (_length(description.get(f"{a}origin", 0), "nm") or 0 for a in "zyx")  # in voxels: any unit will do
    return size, three(-s * offset for s, offset in zip(size, offsets, strict=True))


def _of_shaped(description: Mapping[str, Any], page: Any) -> _Place:
    """Return the place given to tifffile.imwrite(metadata={"spacing": ..., "unit": ...}, resolution=...)."""
    unit = str(description.get("unit", ""))
    of_tags = "cm" if page.resolutionunit == _CENTIMETRE else unit if page.resolutionunit == 1 else ""
    across = (_length(_pixel(page, a), of_tags) for a in "YX")
    return _positive([_length(description.get("spacing"), unit), *across]), ORIGIN


def _pixel(page: Any, axis: str) -> Fraction | None:
    """Return the pixel size in the unit of the resolution tags, to nine digits, as two numbers of 32 bits hold."""
    tag = page.tags.get(f"{axis}Resolution")
    if tag is None or 0 in tag.value:
        return None
    above, below = tag.value
    return Fraction(f"{below / above:.9g}")


def _length(value: Any, unit: str | None) -> Fraction | None:
    """Return a length, nm; None if it is no number or has no unit of length."""
    per = nm_per(unit)
    try:
        if not abs(float(value)) < _ENDLESS:  # 1e999999999 as an exact number would fill the memory
            return None
        number = Fraction(str(value))
    except (TypeError, ValueError):
        return None
    return None if per is None else number * per


def _positive(lengths: Any) -> Spacing | None:
    z, y, x = lengths
    return None if None in (z, y, x) or min(z, y, x) <= 0 else (z, y, x)


def _begin(size: Spacing | None, centres: list[Fraction | None]) -> Spacing:
    """Return the corner of a voxel from its centre; 0 if unknown."""
    if size is None or None in centres:
        return ORIGIN
    return three(c - s / 2 for c, s in zip(centres, size, strict=True) if c is not None)
