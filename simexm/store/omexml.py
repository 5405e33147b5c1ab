"""Write the OME-XML of a collection of images, which the layout "bioformats2raw" of OME-Zarr requires.

https://ngff.openmicroscopy.org/0.5/#bf2raw and https://docs.openmicroscopy.org/ome-model/latest/ome-xml
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from simexm.geometry.grid import Triple
from simexm.version import __version__

METADATA = "OME/METADATA.ome.xml"
"""Path of the file below a collection's root."""
_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_TYPES = {"float32": "float", "float64": "double", "uint64": "double"}
"""OME's names of data types, where they differ from NumPy's; it has no 64-bit integers."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Series:
    """One image of a collection."""

    path: str  # of its group below the root
    name: str
    shape: Triple
    dtype: str  # NumPy's name
    pixel_um: tuple[float, float, float]  # z, y, x, of tissue before expansion
    channels: tuple[tuple[str, str], ...]  # name and colour, RRGGBB, of each


def collection_xml(images: Sequence[Series]) -> bytes:
    """Return an `Image` element for each image, in order, with metadata only.

    An image's ID ends in its path, where napari-ome-zarr looks for it.
    """
    root = ElementTree.Element(
        "OME",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{_NAMESPACE} {_NAMESPACE}/ome.xsd",
            "Creator": f"simexm {__version__}",
        },
    )
    for n, image in enumerate(images):
        _add(root, n, image)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(root: ElementTree.Element, n: int, image: Series) -> None:
    element = ElementTree.SubElement(root, "Image", ID=f"Image:{image.path}", Name=xml_text(image.name))
    sizes = {f"Size{a}": str(s) for a, s in zip("ZYX", image.shape, strict=True)}
    physical = {f"PhysicalSize{a}": repr(s) for a, s in zip("ZYX", image.pixel_um, strict=True)}
    pixels = ElementTree.SubElement(
        element,
        "Pixels",
        ID=f"Pixels:{n}",
        DimensionOrder="XYZCT",
        Type=_TYPES.get(image.dtype, image.dtype),
        SizeC=str(len(image.channels)),
        SizeT="1",
        attrib={**sizes, **physical},
    )
    for c, (name, color) in enumerate(image.channels):
        about = {"Name": xml_text(name), "SamplesPerPixel": "1", "Color": str(signed_rgba(color))}
        ElementTree.SubElement(pixels, "Channel", ID=f"Channel:{n}:{c}", attrib=about)
    ElementTree.SubElement(pixels, "MetadataOnly")


def xml_text(text: str) -> str:
    """Replace control characters, which XML cannot hold."""
    return _CONTROL.sub("\ufffd", text)


def signed_rgba(color: str) -> int:
    """Convert RRGGBB to the signed 32-bit RGBA of OME, opaque."""
    return int.from_bytes(bytes.fromhex(color + "FF"), "big", signed=True)
