"""Voxel size and position that a TIFF tells: in OME-XML, in ImageJ's or tifffile's description, by a Zeiss LSM.

Resolution tags alone count for nothing: they are the screen's as often as not, and tell no distance of planes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from simexm.geometry.grid import Spacing
from simexm.sources.axes import nm_per, seconds_per
from simexm.sources.stack import ORIGIN

Placed = tuple[Spacing | None, Spacing]
"""Size of a voxel, nm, or None where it is not told; where voxel (0, 0, 0) begins, nm."""
_UNKNOWN: Placed = (None, ORIGIN)
_CENTIMETRE = 3
_ENDLESS = 1e30


def size_and_origin_of(tif: Any) -> Placed:
    """What an opened `tifffile.TiffFile` tells of its first image."""
    for found in _told_by(tif):
        if found[0] is not None:
            return found
    return _UNKNOWN


def _told_by(tif: Any) -> Iterator[Placed]:
    """All that is told, the best first; many files have several descriptions."""
    if tif.is_ome:
        yield _of_ome(tif.ome_metadata or "")
    if tif.is_imagej:
        yield _of_imagej(tif.imagej_metadata or {}, tif.pages.first)
    if tif.is_lsm:
        told = tif.lsm_metadata or {}
        yield _positive(_length(told.get(f"VoxelSize{a}"), "m") for a in "ZYX"), ORIGIN
    if tif.is_shaped:
        yield _of_shaped((tif.shaped_metadata or [{}])[0], tif.pages.first)


def seconds_per_time_of(tif: Any) -> float | None:
    """Seconds between two time points of an opened `tifffile.TiffFile`; None where nothing tells them."""
    told: list[tuple[Any, str]] = []
    if tif.is_ome:
        pixels, _ = _pixels(tif.ome_metadata or "")
        about = {} if pixels is None else pixels.attrib
        told.append((about.get("TimeIncrement"), about.get("TimeIncrementUnit", "s")))
    if tif.is_imagej:
        told.append(((tif.imagej_metadata or {}).get("finterval"), "s"))
    if tif.is_lsm:
        told.append(((tif.lsm_metadata or {}).get("TimeIntervall"), "s"))
    for value, unit in told:
        per = seconds_per(unit)
        with contextlib.suppress(TypeError, ValueError):
            if per is not None and 0 < float(value) < _ENDLESS:
                return float(Fraction(str(value)) * per)
    return None


def _pixels(xml: str) -> tuple[ElementTree.Element | None, str]:
    """The first image's Pixels in OME-XML, None where there is none, and the namespace."""
    try:
        root = ElementTree.fromstring(xml.encode())
    except (ElementTree.ParseError, ValueError):
        return None, ""
    space = root.tag.rpartition("OME")[0]
    return root.find(f"{space}Image/{space}Pixels"), space


def _of_ome(xml: str) -> Placed:
    """PhysicalSize and the position of the first plane, which is that of its first pixel's centre.

    https://docs.openmicroscopy.org/ome-model/latest/: without a unit, a size is in micrometres, and a position in none.
    """
    pixels, space = _pixels(xml)
    if pixels is None:
        return _UNKNOWN
    told: Mapping[str, str] = pixels.attrib
    size = _positive(_length(told.get(f"PhysicalSize{a}"), told.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX")
    planes = (p.attrib for p in pixels.findall(f"{space}Plane"))
    first = next((p for p in planes if all(p.get(f"The{a}", "0") == "0" for a in "ZCT")), {})
    at = [_length(first.get(f"Position{a}"), first.get(f"Position{a}Unit")) for a in "ZYX"]
    return size, _begin(size, at)


def _of_imagej(told: Mapping[str, Any], page: Any) -> Placed:
    """Distance of planes and unit in the description; the resolution tags are in this unit, whatever they say theirs is."""
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), str(told.get("unit", "")))
    units = [str(told.get(f"{a}unit", unit)) for a in "zy"] + [unit]
    across = [_pixel(page, a) for a in "YX"]
    size = _positive(_length(v, u) for v, u in zip([told.get("spacing"), *across], units, strict=True))
    if size is None:
        return _UNKNOWN
    begin = [
        -s * (_length(told.get(f"{a}origin", 0), "nm") or 0) for a, s in zip("zyx", size, strict=True)
    ]  # in voxels, and 0 there
    return size, (begin[0], begin[1], begin[2])


def _of_shaped(told: Mapping[str, Any], page: Any) -> Placed:
    """What was given to tifffile.imwrite(metadata={"spacing": ..., "unit": ...}, resolution=...)."""
    unit = str(told.get("unit", ""))
    of_tags = "cm" if page.resolutionunit == _CENTIMETRE else unit if page.resolutionunit == 1 else ""
    across = (_length(_pixel(page, a), of_tags) for a in "YX")
    return _positive([_length(told.get("spacing"), unit), *across]), ORIGIN


def _pixel(page: Any, axis: str) -> Fraction | None:
    """Size of a pixel in the unit of the resolution tags, to the nine digits that two numbers of 32 bits hold."""
    tag = page.tags.get(f"{axis}Resolution")
    if tag is None or 0 in tag.value:
        return None
    above, below = tag.value
    return Fraction(f"{below / above:.9g}")


def _length(value: Any, unit: str | None) -> Fraction | None:
    """A length, nm; None where it is no number or has no unit of length."""
    per = nm_per(unit)
    try:
        if not abs(float(value)) < _ENDLESS:  # before it is exact, for 1e999999999 would fill the memory
            return None
        number = Fraction(str(value))
    except (TypeError, ValueError):
        return None
    return None if per is None else number * per


def _positive(lengths: Any) -> Spacing | None:
    z, y, x = lengths
    return None if None in (z, y, x) or min(z, y, x) <= 0 else (z, y, x)


def _begin(size: Spacing | None, centres: list[Fraction | None]) -> Spacing:
    """Where a voxel begins whose centre is there; 0 where that is not told."""
    if size is None or None in centres:
        return ORIGIN
    z, y, x = (c - s / 2 for c, s in zip(centres, size, strict=True) if c is not None)
    return z, y, x
