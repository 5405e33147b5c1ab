"""Voxel sizes and positions in the XML files that BigDataViewer and BigStitcher write beside HDF5 and N5.

https://imagej.net/plugins/bdv, https://github.com/bigdataviewer/spimdata
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

from simexm.geometry.grid import Spacing, exact, exact3
from simexm.sources.axes import nm_per

_LARGEST_BYTES = 64 * 2**20
_MOST_FILES = 100


@dataclass(frozen=True, slots=True)
class Setup:
    """A view setup."""

    voxel_size_nm: Spacing | None  # z, y, x; None if unknown
    origin_nm: Spacing  # lower corner of voxel (0, 0, 0); 0 if the XML has no position in units of length
    doubt: str | None = None  # why the size is unknown, as the end of a sentence


_UNKNOWN = "BigDataViewer keeps it in the XML file"
_ZERO = exact3((0, 0, 0))


def read_setup(volume: Path, setup: int, timepoint: int = 0) -> Setup:
    """Read a view setup (0 in s00 and setup0) at a time point from the XML beside an HDF5 file or N5 container.

    The XML has the same stem, or is another one in the folder that names the volume.
    """
    roots = ((path, _root(path, volume)) for path in _candidates(volume))
    path, root = next(((path, root) for path, root in roots if root is not None), (None, None))
    if path is None or root is None:
        return Setup(None, _ZERO, f"{_UNKNOWN} beside it, {volume.with_suffix('.xml').name}, which is missing")
    own = next((s for s in root.iter("ViewSetup") if (s.findtext("id") or "").strip() == str(setup)), None)
    size = None if own is None else _numbers(own.findtext("voxelSize/size"), 3)
    if own is None or size is None or min(size) <= 0:
        return Setup(None, _ZERO, f"{path} has none for the setup {setup}")
    unit = (own.findtext("voxelSize/unit") or "").strip()
    nm = nm_per(unit)
    if nm is None:
        return Setup(None, _ZERO, f"{path} has it in {unit or 'no unit'!r}, which is no known unit of length")
    x, y, z = (s * nm for s in size)
    return Setup((z, y, x), _position(root, setup, timepoint, size, nm))


def _candidates(volume: Path) -> list[Path]:
    own = volume.with_suffix(".xml")
    others = sorted(volume.absolute().parent.glob("*.xml"))[:_MOST_FILES]
    return [own, *(p for p in others if p.name != own.name)]


def _root(path: Path, volume: Path) -> ElementTree.Element | None:
    """Return the XML's root; None if it was not written by BigDataViewer, or for another volume."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # never from BigDataViewer, and entities may grow without bound
            return None
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return None
    loader = root.find("SequenceDescription/ImageLoader")
    entries = [] if loader is None else [e for e in loader if e.tag in ("hdf5", "n5", "zarr")]
    named = [Path((e.text or "").strip()).name for e in entries]
    return root if named == [volume.name] else None


def _position(
    root: ElementTree.Element, setup: int, timepoint: int, size: tuple[Fraction, ...], nm: Fraction
) -> Spacing:
    """Return the lower corner of voxel (0, 0, 0), nm; 0 unless the registrations scale by the voxel size, thus are lengths."""
    shift, scale = [Fraction(0)] * 3, [Fraction(1)] * 3
    for view in root.iterfind("ViewRegistrations/ViewRegistration"):
        if (view.get("timepoint"), view.get("setup")) != (str(timepoint), str(setup)):
            continue
        for transform in reversed(view.findall("ViewTransform")):  # the last one is applied first
            affine = _numbers(transform.findtext("affine"), 12)
            if affine is None or any(affine[4 * i + j] for i in range(3) for j in range(3) if i != j):
                return _ZERO
            scale = [affine[5 * i] * s for i, s in enumerate(scale)]
            shift = [affine[5 * i] * s + affine[4 * i + 3] for i, s in enumerate(shift)]
    if tuple(scale) != size:
        return _ZERO
    x, y, z = ((at - s / 2) * nm for at, s in zip(shift, size, strict=True))  # shifts are voxel centres

    return z, y, x


def _numbers(text: str | None, count: int) -> tuple[Fraction, ...] | None:
    try:
        found = tuple(exact(float(word)) for word in (text or "").split()[: count + 1])
    except ValueError:
        return None
    return found if len(found) == count else None
