"""Find the volume among the pages of a TIFF, and its layout in them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Triple
from simexm.sources.logged import logged

_PLANES = "ZQI"
"""Names of axes that are read as planes: z, and unknown ones."""
_SERIES = ("T", *(f"T{axis}" for axis in _PLANES), *(f"{axis}T" for axis in _PLANES))
_AXIS_NAMES = {"C": "channels"}
_MOST_PLANES = 10**7
_WHITE_IS_0, _PALETTE = 0, 3


@dataclass(frozen=True)
class Layout:
    """Layout of a volume in its pages."""

    shape: Triple  # voxels along z, y, x
    times: int  # number of time points
    steps: tuple[int, int]  # pages from one time point to the next, and from one plane to the next
    separate: int  # samples per pixel: in separate planes, or side by side. One of them is 1
    together: int
    dtype: np.dtype[Any]  # dtype of a sample, native

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.separate * self.together

    @property
    def pages(self) -> int:
        """Planes at all time points."""
        return self.times * self.shape[0]

    @property
    def stored(self) -> tuple[int, int, int, int, int]:
        """Shape in the file: pages, separate, y, x, together."""
        _, y, x = self.shape
        return self.pages, self.separate, y, x, self.together

    @property
    def nbytes(self) -> int:
        """Bytes of one plane."""
        return self.shape[1] * self.shape[2] * self.samples * self.dtype.itemsize


def only_series(path: Path, all_series: list[Any]) -> Any:
    """Return the only stack of a file, without thumbnails and coarser levels.

    Pages that were appended one by one are a series each, and together a stack if they are all alike.

    Raises SourceError if there is none, or more than one.
    """
    full_size = [s for s in all_series if not s.keyframe.is_reduced] or all_series
    if not full_size:
        raise SourceError(f"{path} holds no image. Copy the file again from where it came, or name another.")
    first = full_size[0]
    if len(full_size) > 1 and len({(s.shape, s.axes, s.keyframe.hash) for s in full_size}) == 1 and len(first) == 1:
        pages = [series.pages[0] for series in full_size]
        return tifffile.TiffPageSeries(pages, (len(pages), *first.shape), first.dtype, f"Q{first.axes}")
    if len(full_size) != 1:
        shapes = ", ".join("x".join(map(str, s.shape)) for s in full_size[:5])
        raise SourceError(
            f"{path} holds {len(full_size)} images of different shape or type ({shapes}), and all planes of a volume are alike. "
            "Save the segmentation as a separate stack."
        )
    return first


def layout_of(path: Path, series: Any) -> Layout:
    """Return the layout of a series.

    Raises SourceError if it is not planes along z, at one or several time points, or is empty, or of an unknown dtype.
    Warns if its planes are named channels or time points, which may be meant or not.
    """
    if series.dtype is None:
        raise SourceError(f"{path} holds numbers of an unknown type. Save it as an unsigned integer type.")
    separate, depth, *_, together = series.keyframe.shaped
    if 0 in series.shape or 0 in series.keyframe.shaped:
        raise SourceError(f"{path} is empty: its planes have the shape {'x'.join(map(str, series.shape))}.")
    axes = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if a in "YX" or (n > 1 and a != "S")]
    names = "".join(a for a, _ in axes)
    lead = names.removesuffix("YX")
    if not names.endswith("YX") or not (len(lead) <= 1 or lead in _SERIES) or depth != 1:
        raise SourceError(
            f"{path} has the axes {names} ({'x'.join(str(n) for _, n in axes)}), and labels are a stack of planes, z y x, at "
            "one or several time points. Save one channel as such a stack."
        )
    dtype = series.dtype.newbyteorder("=")
    if lead in _SERIES:
        return _series(path, axes, (int(separate), int(together), dtype))
    if names[0] not in _PLANES and len(names) == 3:
        what = _AXIS_NAMES.get(names[0], f"the axis {names[0]}")
        warnings.warn(
            f"{path} says that its {axes[0][1]} planes are {what} (as some programs write for a stack in z); they are read as "
            "planes along z. If they are not, save the right one alone",
            SimexmWarning,
            stacklevel=4,
        )
    z, y, x = [1] * (3 - len(axes)) + [int(n) for _, n in axes]
    return Layout((z, y, x), 1, (z, 1), int(separate), int(together), dtype)


def _series(path: Path, axes: list[tuple[str, int]], pixel: tuple[int, int, np.dtype[Any]]) -> Layout:
    """Return the layout of pages along time, and along z if there is such an axis."""
    (*lead, y, x), names = [int(n) for _, n in axes], [a for a, _ in axes]
    at = names.index("T")
    times, depth = lead[at], lead[1 - at] if len(lead) == 2 else 1
    if len(lead) == 1:
        warnings.warn(
            f"{path} says that its {times} planes are points in time, so each is a volume of one plane. If they are planes "
            "along z (as some programs write for a stack in z), save it as a stack of slices",
            SimexmWarning,
            stacklevel=5,
        )
    return Layout((depth, y, x), times, (depth, 1) if at == 0 else (1, times), *pixel)


def refuse_missing_planes(path: Path, tif: Any, planes: int) -> None:
    """Raise SourceError if ImageJ's description announces more planes than there are."""
    announced = (tif.imagej_metadata or {}).get("images", 0) if tif.is_imagej else 0
    if isinstance(announced, int) and announced > planes:
        raise _damaged(path, f"it announces {announced} planes and holds {planes}")


def palette_of(page: Any) -> NDArray[Any]:
    """Return the colours in which a page shows its numbers, (numbers, 3), 8 bits; by default, rising greys."""
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    if page.photometric == _PALETTE and page.colormap is not None:
        colours: NDArray[Any] = np.asarray(page.colormap)
        return (colours >> 8 if colours.dtype.itemsize > 1 else colours).T
    return greys[::-1] if page.photometric == _WHITE_IS_0 else greys


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a TIFF with tifffile.

    Raises SourceError if it is no TIFF, or damaged, even if tifffile only logs the damage and goes on with the pages
    that it found.
    """
    try:
        with logged("tifffile") as records, tifffile.TiffFile(path) as tif:
            _refuse_absurd(path, tif)
            yield tif
    except (SourceError, SimexmWarning):
        raise
    except PermissionError as error:
        raise SourceError(f"{path} may not be read. Change its permissions, or name another.") from error
    except tifffile.TiffFileError as error:
        raise SourceError(f"{path} is not a TIFF file, or damaged: {error}. Copy it again, or name another.") from error
    except Exception as error:  # wrong headers make tifffile raise anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if records:
        raise _damaged(path, records[0])


def _refuse_absurd(path: Path, tif: Any) -> None:
    """Raise SourceError for OME-XML of so many planes that their list would fill the memory."""
    xml = (tif.ome_metadata if tif.is_ome else None) or ""
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    counts = re.findall(r"\bSize[ZCT]=[\"']([0-9]{1,30})[\"']", found[0]) if found else []
    if math.prod(map(int, counts)) > _MOST_PLANES:
        raise _damaged(path, f"its metadata announce {math.prod(map(int, counts)):.0e} planes")


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(
        f"{path} is damaged or cut off, and planes would be missing: {why}. Copy the file again from where it came."
    )
