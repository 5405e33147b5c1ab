"""Write TIFF stacks for ImageJ, and OME-TIFF.

Planes of images are written uncompressed and contiguous, as ImageJ's virtual stacks need them. Files that may pass 4 GB are
BigTIFF, which Fiji opens through Bio-Formats.
https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import tifffile

from simexm.export.stack import Head, Plane
from simexm.geometry.grid import exact
from simexm.store.atomic_file import atomic_file
from simexm.store.omexml import signed_rgba, xml_text
from simexm.version import __version__

CLASSIC_LIMIT = 1 << 32
"""Largest TIFF file with 32-bit offsets, bytes."""


@contextmanager
def write_tiff(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that adds the next plane to a stack with ImageJ's description.

    It holds the spacing in micrometres of tissue before expansion, the origin in pixels, and the display window.
    """
    # ImageJ's origin is the position of the coordinate 0, in pixels from the first pixel's corner.
    origin: dict[str, Any] = {
        f"{axis}origin": float(Fraction(1, 2) - exact(at) / exact(size))
        for axis, at, size in zip("zyx", head.centre_um, head.voxel_um, strict=True)
        if 2 * exact(at) != exact(size) and not (head.moves and axis == "z")
    }
    if head.moves and head.frame_s is not None:
        origin |= {"finterval": head.frame_s, "fps": 1 / head.frame_s, "tunit": "s"}
    shown: dict[str, Any] = {} if head.rgb else dict(zip(("min", "max"), head.channels[0].window, strict=True))
    spacing: dict[str, Any] = {} if head.moves else {"spacing": head.voxel_um[0]}
    text = tifffile.imagej_description(
        (*head.shape, 3) if head.rgb else head.shape,
        axes=("T" if head.moves else "Z") + ("YXS" if head.rgb else "YX"),
        rgb=head.rgb,
        unit="micron",
        **spacing,
        expansion_factor=head.expansion,
        **origin,
        **shown,
    )
    with _pages(path, head, text.encode()) as add:
        yield add


@contextmanager
def write_ome_tiff(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that adds the next plane to an OME-TIFF: all planes, or frames, of the first channel, then of the next."""
    with _pages(path, head, ome_xml(head).encode()) as add:
        yield add


def ome_xml(head: Head) -> str:
    """Return OME-XML with sizes and positions in micrometres of tissue before expansion; expanded sizes are annotated."""
    channels = len(head.channels)
    sizes = dict(zip("ZYX", head.voxel_um, strict=True))
    expanded = {f"ExpandedSize{a}_um": repr(s * head.expansion) for a, s in sizes.items()}
    identity = uuid.uuid5(uuid.NAMESPACE_OID, repr(head))  # a random one would change the bytes each time
    xml = tifffile.OmeXml(UUID=str(identity), Creator=f"simexm {__version__}")
    xml.addimage(
        head.dtype,
        (channels, *head.shape),
        (head.count, 1, 1, *head.shape[1:], 1),
        axes="CTYX" if head.moves else "CZYX",
        Name=xml_text(head.name),
        Description=(
            f"Physical sizes are of the tissue before its expansion by {head.expansion:g}; the expanded sizes are annotated."
        ),
        **{f"PhysicalSize{a}": s for a, s in sizes.items()},
        **({"TimeIncrement": head.frame_s, "TimeIncrementUnit": "s"} if head.frame_s is not None else {}),
        Plane=_positions(head),
        Channel={"Name": [c.name for c in head.channels], "Color": [signed_rgba(c.color) for c in head.channels]},
        MapAnnotation={"ExpansionFactor": repr(head.expansion), **expanded},
    )
    return str(xml.tostring(declaration=True))


def _positions(head: Head) -> dict[str, list[float | str]]:
    """Return the position of each plane: that of its first pixel's centre."""
    z, y, x = head.centre_um
    along = range(head.shape[0])
    depths = [z if head.moves else float(exact(z) + k * exact(head.voxel_um[0])) for k in along]
    positions: dict[str, list[float | str]] = {
        "PositionX": [x] * head.count,
        "PositionY": [y] * head.count,
        "PositionZ": [*depths * (head.count // head.shape[0])],
    }
    positions |= {f"{name}Unit": ["µm"] * head.count for name in positions}
    if head.moves:
        times: list[float | str] = [*head.times_s * (head.count // head.shape[0])]
        positions |= {"DeltaT": times, "DeltaTUnit": ["s"] * head.count}
    return positions


def needs_bigtiff(head: Head) -> bool:
    """Whether the file may pass 4 GB."""
    per_page = head.plane_bytes + head.plane_bytes // 1024 + 4096  # with offsets of strips, and tags
    return head.count * per_page + (1 << 20) > CLASSIC_LIMIT


@contextmanager
def _pages(path: Path, head: Head, description: bytes) -> Iterator[Callable[[Plane], None]]:
    _, y, x = head.voxel_um
    first: dict[str, Any] = {"description": description}
    common: dict[str, Any] = {
        "metadata": None,
        "photometric": "rgb" if head.rgb else "minisblack",
        "planarconfig": "contig" if head.rgb else None,
        "software": f"simexm {__version__}",
        "resolution": (1 / x, 1 / y),
        "resolutionunit": "NONE",  # so that ImageJ uses the description's
    }
    with atomic_file(path) as partial, tifffile.TiffWriter(partial, bigtiff=needs_bigtiff(head), ome=False) as tif:

        def add(plane: Plane) -> None:
            tif.write(plane, contiguous=True, **first, **common)
            first.clear()

        def add_deflated(plane: Plane) -> None:
            rows = strip_rows(head)
            strips = (plane[row : row + rows] for row in range(0, plane.shape[0], rows))
            same: dict[str, Any] = {
                "shape": plane.shape,
                "dtype": plane.dtype,
                "rowsperstrip": rows,
                "compression": "zlib",
            }
            tif.write((_deflated(strip) for strip in strips), maxworkers=1, **same, **first, **common)
            first.clear()

        yield add_deflated if head.labels else add  # ids compress a hundredfold, noisy counts hardly


def strip_rows(head: Head) -> int:
    """Rows of a compressed strip: about 64 KiB, and at most 64 strips a plane."""
    rows = head.shape[1]
    return max(min(rows, (1 << 16) * rows // head.plane_bytes), -(-rows // 64))


def _deflated(strip: Plane) -> bytes:
    if not strip.any():  # most strips of one cell: compressing each again would take several times as long
        return _deflated_zeros(strip.nbytes)
    return bytes(imagecodecs.deflate_encode(strip.tobytes()))


@lru_cache(maxsize=4)
def _deflated_zeros(count: int) -> bytes:
    return bytes(imagecodecs.deflate_encode(bytes(count)))
