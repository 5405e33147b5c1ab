"""Inputs of synapses: cells, junctions, and what else is known about the tissue, each by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.stored_table import StoredTable
from simexm.analysis.volume import Volume, same_grid
from simexm.errors import OutputError
from simexm.geometry.grid import Box, Triple, triple
from simexm.geometry.roi import box_of
from simexm.store.location import Location

CELLS, JUNCTIONS, TRUTH = "cells", "junctions", "truth"
MASKS = ("vesicles", "presynaptic", "postsynaptic", "symmetric", "asymmetric")
VALUES = ("compartment", "cell_type", "spine_heads")
NAMES = (*MASKS, *VALUES, TRUTH)


@dataclass(frozen=True)
class Named:
    """An input with what it is."""

    name: str
    what: Volume | StoredTable

    @property
    def places(self) -> list[Location]:
        """Where it is stored."""
        return self.what.places


def named(one: Any, number: int) -> tuple[str, Any]:
    """Name and path of an input: the first two are cells and junctions, further ones are given as NAME=PATH."""
    if number < 2:
        return (CELLS, JUNCTIONS)[number], one
    name, equals, path = str(one).partition("=")
    if not equals or name not in NAMES:
        raise OutputError(
            f"{one} is the input number {number + 1}, and it is unknown what it is; type NAME=PATH, where NAME is one of "
            f"{', '.join(NAMES)}"
        )
    return name, path


@dataclass(frozen=True)
class Volumes:
    """Volumes with equal voxels, read box by box in the voxels of the cells."""

    cells: Volume
    others: Mapping[str, Volume]
    whole: Box
    """Their common part, within the region of interest."""
    shifts: Mapping[str, Triple]
    """Where a voxel of the cells lies in each other volume, less where it lies in the cells."""

    @classmethod
    def of(cls, inputs: Sequence[Named], roi: str | None) -> Volumes:
        """Find the common part; raises SpecError if voxels differ in size or do not coincide."""
        found = {one.name: one.what for one in inputs if isinstance(one.what, Volume)}
        cells = found.pop(CELLS)
        whole, shifts = box_of(roi, cells.shape, cells.where), {}
        for name, volume in found.items():
            start, there, shape = same_grid(cells, volume)
            whole = whole.intersect(Box.at(start, shape))
            shifts[name] = triple(b - a for a, b in zip(start, there, strict=True))
        if whole.is_empty:
            raise OutputError(
                f"{cells.where} and {', '.join(v.where for v in found.values())} have no voxel in common; choose another --roi"
            )
        return cls(cells, found, whole, shifts)

    def reader(self, name: str, content: Any) -> Callable[[Box], NDArray[Any]]:
        """Return the function that reads a box of a volume; see `Volume.numbers`."""
        read, shift = self.others[name].numbers(content), self.shifts[name]
        return lambda box: read(box.shifted(shift))

    def within(self, name: str) -> Box:
        """The common part in the voxels of a volume."""
        return self.whole.shifted(self.shifts[name])


def bits_of(masks: Sequence[Callable[[Box], NDArray[Any]]], box: Box) -> NDArray[np.uint8]:
    """Read masks into the bits of one array."""
    bits = np.zeros(box.shape, np.uint8)
    for n, read in enumerate(masks):
        bits |= np.where(read(box) != 0, np.uint8(1 << n), np.uint8(0))
    return bits
