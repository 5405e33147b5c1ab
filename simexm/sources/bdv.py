"""BigDataViewer: the XML beside an N5 or HDF5 container, which alone tells the unit of its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from simexm.grid import Spacing, exact
from simexm.sources.axes import nm_per
from simexm.sources.limits import METADATA_BYTES
from simexm.sources.ngff import UnclearError, checked_size

_LOADERS = ("n5", "hdf5", "zarr")


def voxel_size(container: Path, setup: int) -> Spacing | None:
    """Size of a voxel, nm, z y x, that the XML of a BigDataViewer container tells.

    Parameters
    ----------
    container
        The N5 folder or HDF5 file.
    setup
        Number of the view setup: 0 for setup0 and s00.

    Returns
    -------
    Spacing or None
        None where no XML beside the container names it, or none tells this setup's size.

    Raises
    ------
    UnclearError
        If its unit is no length.
    """
    for root in _documents(container):
        for each in root.iterfind(".//ViewSetup"):
            text, unit = each.findtext("voxelSize/size"), each.findtext("voxelSize/unit")
            if (each.findtext("id") or "").strip() != str(setup) or text is None:
                continue
            per = nm_per(unit)
            if per is None:
                raise UnclearError(f"the XML beside it has the unit {unit!r}, which is not a length that is known here")
            try:
                x, y, z = (exact(v) * per for v in text.split())
            except ValueError:
                raise UnclearError(f"the XML beside it tells the size {text!r}, which is not x y z") from None
            return checked_size((z, y, x))
    return None


def _documents(container: Path) -> Iterator[ElementTree.Element]:
    """The XML files beside a container that name it as their data."""
    for path in sorted(container.parent.glob("*.xml")):
        try:
            if path.stat().st_size > METADATA_BYTES:
                continue
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError):
            continue
        loader = root.find(".//ImageLoader")
        named = (
            {(loader.findtext(kind) or "").strip().rstrip("/") for kind in _LOADERS} if loader is not None else set()
        )
        if {Path(n).name for n in named if n} & {container.name}:
            yield root
