"""Label images of a result as stacks of ids: all cells in one, or a stack for each cell."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError, SimexmWarning
from simexm.export.formats import Format
from simexm.export.images import Image
from simexm.export.stack import Channel, Job, Plane, Target, largest, read_planes, single

OPEN_FILES = 128
"""Files that are written side by side; more cells take further passes."""

WIDEST = {Format.TIFF: 64, Format.OME_TIFF: 32, Format.PNG: 16, Format.GIF: 8}
"""Bits of an id that a format holds."""

EXACT_IN_FIJI = 1 << 24
"""Fiji turns 32-bit whole numbers into floats, which count one by one up to here."""


@dataclass(frozen=True)
class Labels:
    """One or several label images, laid over each other.

    Attributes
    ----------
    image
        The image that they belong to.
    names
        Of the label images. Where several hold an id at a pixel it is the same one.
    """

    image: Image
    names: tuple[str, ...]

    def planes(self, dtype: np.dtype[np.unsignedinteger] | None = None) -> Iterator[Plane]:
        """Ids, plane by plane; as `dtype`, which must hold them, where that is given."""
        arrays = [self.image.result.array(self.image.level, f"labels/{name}") for name in self.names]
        convert = None if dtype is None else (lambda ids: ids.astype(dtype))
        for planes in zip(*(read_planes(a, None, len(arrays), convert) for a in arrays), strict=True):
            yield planes[0] if len(planes) == 1 else np.maximum.reduce(planes)

    @cached_property
    def largest(self) -> int:
        """The largest id: what the run noted, else found in one pass."""
        noted = [self.image.result.largest(f"labels/{name}") for name in self.names if self.image.level == 0]
        return int(max(top for (top,) in filter(None, noted)) if noted and all(noted) else largest(self.planes))

    @cached_property
    def ids(self) -> NDArray[np.unsignedinteger]:
        """All ids in ascending order, without 0, found in one pass."""
        found: NDArray[Any] = np.zeros(0, np.uint8)
        for plane in self.planes():
            found = np.union1d(found, plane)
        ids: NDArray[np.unsignedinteger] = found[found != 0]
        return ids


def all_cells(labels: Labels, path: Path, form: Format) -> Job:
    """One stack of all ids.

    Raises
    ------
    OutputError
        If the format cannot hold the largest id.
    """
    dtype = _dtype(labels, labels.largest, form)
    head = labels.image.head(dtype, [_shown(labels)], " ".join(labels.names), labels=True)
    return single(path, head, lambda: labels.planes(dtype))


def cell_by_cell(labels: Labels, folder: Path, form: Format) -> list[Job]:
    """One stack for each cell, `folder`/ID, with the cell's id where it is and 0 elsewhere, some cells in each pass.

    Raises
    ------
    OutputError
        If the format cannot hold the largest id.
    """
    ids = labels.ids
    if ids.size == 0:
        told = (
            f"no cell is in {_told(labels)}, so nothing is written to {folder}; raise cell_fraction, or crop elsewhere"
        )
        warnings.warn(told, SimexmWarning, stacklevel=2)
        return []
    dtype = _dtype(labels, int(ids[-1]), form)

    def job(some: Sequence[int]) -> Job:
        targets = []
        for cell in some:
            shown = Channel(str(cell), "FFFFFF", (0.0, float(cell)))
            head = labels.image.head(dtype, [shown], f"{' '.join(labels.names)} {cell}", labels=True)
            targets.append(Target(folder / str(cell), head))
        return Job(tuple(targets), lambda: (_cells(plane, some, dtype) for plane in labels.planes()))

    numbers = ids.tolist()
    return [job(numbers[i : i + OPEN_FILES]) for i in range(0, len(numbers), OPEN_FILES)]


def _cells(plane: Plane, ids: Sequence[int], dtype: np.dtype[np.unsignedinteger]) -> Iterator[Plane]:
    """Each cell's part of a plane."""
    present = set(np.unique(plane).tolist())
    nothing = np.zeros(plane.shape, dtype)
    for cell in ids:
        yield (plane == cell) * dtype.type(cell) if cell in present else nothing


def fits(labels: Labels, form: Format) -> bool:
    """Whether a format can hold the largest id."""
    return labels.largest < 1 << WIDEST[form]


def warn_of_fiji(labels: Sequence[Labels], form: Format) -> None:
    """Tell, once, of ids that Fiji does not show exactly."""
    wide = [a for a in labels if form in (Format.TIFF, Format.OME_TIFF) and a.largest > EXACT_IN_FIJI]
    if wide:
        worst = max(wide, key=lambda each: each.largest)
        if worst.largest >= 1 << 32:
            fault = "takes 64 bits, and Fiji opens no such TIFF"
        else:
            fault = (
                f"is beyond {EXACT_IN_FIJI}, up to which Fiji tells 32-bit ids apart: neighbours may look alike there"
            )
        warnings.warn(
            f"the largest id of {_told(worst)}, {worst.largest}, {fault}; read it with tifffile or napari, or number the "
            "cells of the source anew from 1",
            SimexmWarning,
            stacklevel=3,
        )


def _dtype(labels: Labels, top: int, form: Format) -> np.dtype[np.unsignedinteger]:
    """The smallest data type that holds the largest id."""
    bits = next(b for b in (8, 16, 32, 64) if top < 1 << b)
    if bits > WIDEST[form]:
        other = Format.TIFF if bits == 64 or form is Format.OME_TIFF else Format.OME_TIFF
        raise OutputError(
            f"{_told(labels)} holds id {top}, but {form} holds ids up to {2 ** WIDEST[form] - 1}, so cells would be taken for "
            f"others. Type --format {other} for labels."
        )
    return np.dtype(f"uint{bits}")


def _shown(labels: Labels) -> Channel:
    return Channel("+".join(labels.names), "FFFFFF", (0.0, float(max(labels.largest, 1))))


def _told(labels: Labels) -> str:
    return " and ".join(f"labels/{name}" for name in labels.names)
