"""Convert label images of a result to stacks of ids: one of all cells, or one for each cell."""

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
"""Files written in one pass; more cells take further passes."""

WIDEST = {Format.TIFF: 64, Format.OME_TIFF: 32, Format.PNG: 16, Format.GIF: 8}
"""Bits of an id that a format can hold."""

EXACT_IN_FIJI = 1 << 24
"""Fiji converts 32-bit integers to floats, which are exact up to here."""


@dataclass(frozen=True)
class Labels:
    """One or several label images, overlaid."""

    image: Image
    names: tuple[str, ...]  # of label images; where several hold an id at a pixel, it is the same

    def planes(self, dtype: np.dtype[np.unsignedinteger] | None = None) -> Iterator[Plane]:
        """Read ids, plane by plane, converted to `dtype` if given."""
        arrays = [self.image.result.array(self.image.level, f"labels/{name}") for name in self.names]
        convert = None if dtype is None else (lambda ids: ids.astype(dtype))
        for planes in zip(*(read_planes(a, None, len(arrays), convert) for a in arrays), strict=True):
            yield planes[0] if len(planes) == 1 else np.maximum.reduce(planes)

    @cached_property
    def largest(self) -> int:
        """The largest id, as the run recorded it, else found in one pass."""
        recorded = [self.image.result.largest(f"labels/{name}") for name in self.names if self.image.level == 0]
        if recorded and all(recorded):
            return int(max(top for (top,) in filter(None, recorded)))
        return int(largest(self.planes))

    @cached_property
    def ids(self) -> NDArray[np.unsignedinteger]:
        """All ids but 0 in ascending order, found in one pass."""
        found: NDArray[Any] = np.zeros(0, np.uint8)
        for plane in self.planes():
            found = np.union1d(found, plane)
        ids: NDArray[np.unsignedinteger] = found[found != 0]
        return ids


def all_cells(labels: Labels, path: Path, form: Format) -> Job:
    """Return one stack of all ids; raises OutputError if the format cannot hold the largest."""
    dtype = _dtype(labels, labels.largest, form)
    head = labels.image.head(dtype, [_shown(labels)], " ".join(labels.names), labels=True)
    return single(path, head, lambda: labels.planes(dtype))


def cell_by_cell(labels: Labels, folder: Path, form: Format) -> list[Job]:
    """Return a stack for each cell, `folder`/ID, with the cell's id inside and 0 elsewhere; each job is one pass.

    Raises OutputError if the format cannot hold the largest id.
    """
    ids = labels.ids
    if ids.size == 0:
        warnings.warn(
            f"{_paths(labels)} holds no cell, so nothing is written to {folder}; raise cell_fraction, or crop elsewhere",
            SimexmWarning,
            stacklevel=2,
        )
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
    """Yield each cell's part of a plane."""
    present = set(np.unique(plane).tolist())
    nothing = np.zeros(plane.shape, dtype)
    for cell in ids:
        yield (plane == cell) * dtype.type(cell) if cell in present else nothing


def fits(labels: Labels, form: Format) -> bool:
    """Whether a format can hold the largest id."""
    return labels.largest < 1 << WIDEST[form]


def warn_of_fiji(labels: Sequence[Labels], form: Format) -> None:
    """Warn once of ids that Fiji cannot show exactly."""
    wide = [a for a in labels if form in (Format.TIFF, Format.OME_TIFF) and a.largest > EXACT_IN_FIJI]
    if not wide:
        return
    worst = max(wide, key=lambda each: each.largest)
    if worst.largest >= 1 << 32:
        fault = "takes 64 bits, and Fiji opens no such TIFF"
    else:
        fault = f"is above {EXACT_IN_FIJI}, up to which Fiji shows 32-bit ids exactly: neighbours may look alike there"
    warnings.warn(
        f"the largest id of {_paths(worst)}, {worst.largest}, {fault}; read it with tifffile or napari, or renumber the "
        "cells of the source from 1",
        SimexmWarning,
        stacklevel=3,
    )


def _dtype(labels: Labels, top: int, form: Format) -> np.dtype[np.unsignedinteger]:
    """Return the smallest data type that holds the id `top`."""
    bits = next(b for b in (8, 16, 32, 64) if top < 1 << b)
    if bits > WIDEST[form]:
        other = Format.TIFF if bits == 64 or form is Format.OME_TIFF else Format.OME_TIFF
        raise OutputError(
            f"{_paths(labels)} holds id {top}, but {form} holds ids up to {2 ** WIDEST[form] - 1}, so cells would be "
            f"confused. Type --format {other} for labels."
        )
    return np.dtype(f"uint{bits}")


def _shown(labels: Labels) -> Channel:
    return Channel("+".join(labels.names), "FFFFFF", (0.0, float(max(labels.largest, 1))))


def _paths(labels: Labels) -> str:
    return " and ".join(f"labels/{name}" for name in labels.names)
