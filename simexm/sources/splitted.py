"""Cells stored as one volume each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.identity import digest_of
from simexm.sources.stack import PlanesByZ, Stack, cell_ids
from simexm.sources.state import FilesState
from simexm.units import times


class SharedValueError(SourceError):
    """Two files hold the same value, so values cannot be ids."""


@dataclass
class _Found:
    """Values found so far, in any order of boxes."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    file_of: dict[int, int] = field(default_factory=dict)  # number of the file by value
    value_of: dict[int, int] = field(default_factory=dict)  # value by number of the file
    overlapped: int = 0


@dataclass(frozen=True)
class SplittedCells(PlanesByZ):
    """A stack per cell; obeys `simexm.sources.stack.Stack`. Where cells overlap, the first file keeps the voxel."""

    where: str  # name in messages
    members: Sequence[Stack]  # the stacks, in natural order of their names, all of one shape
    numbered: bool = False  # ids are the numbers of the files, 1, 2, ..., as files share values; else voxel values
    found: _Found = field(default_factory=_Found)

    @property
    def shape(self) -> Triple:
        return self.members[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned dtype that holds every id."""
        if self.numbered:
            return np.min_scalar_type(len(self.members))
        return max((cell_ids(m, Box.of_shape(self.shape)).dtype for m in self.members), key=lambda d: d.itemsize)

    @property
    def grain(self) -> Triple:
        """The largest grain of all members, per axis."""
        z, y, x = np.max([m.grain for m in self.members], axis=0)
        return int(z), int(y), int(x)

    @property
    def voxel_size_nm(self) -> Spacing | None:
        """The members' voxel size; None if they differ."""
        first = self.members[0]
        alike = all((m.voxel_size_nm, m.origin_nm) == (first.voxel_size_nm, first.origin_nm) for m in self.members)
        return first.voxel_size_nm if alike else None

    @property
    def origin_nm(self) -> Spacing:
        """The first member's."""
        return self.members[0].origin_nm

    def state(self, box: Box) -> FilesState:
        """Return the state of the files of all cells."""
        states = [member.state(box) for member in self.members]
        return FilesState(
            self.where,
            sum(s.files for s in states if s),
            digest_of(*(s.names for s in states if s)),
            digest_of(*(s.times for s in states if s)),
        )

    def by_number(self) -> SplittedCells:
        """Return the same cells with the numbers of their files as ids."""
        return replace(self, numbered=True, found=_Found())

    def table(self) -> dict[int, str]:
        """Return the file of each id, if ids are numbers of files."""
        return {n + 1: Path(m.where).name for n, m in enumerate(self.members)} if self.numbered else {}

    def read(self, box: Box) -> NDArray[Any]:
        """Return the ids in a box, (z, y, x).

        Raises SharedValueError if two files hold the same value, unless ids are numbers of files, and SourceError if a
        file cannot be read or holds a negative value, or several values where ids are numbers of files.
        """
        out = np.zeros(box.shape, self.dtype)
        overlapped = 0
        for n, member in enumerate(self.members):
            data = cell_ids(member, Box.of_shape(self.shape)).read(box)
            lowest, highest, overlapping = _write_cell(data, out, n + 1 if self.numbered else 0)
            if highest:
                values = [int(v) for v in np.unique(data[data != 0])] if lowest < highest else [int(highest)]
                self._note(n, values)
            overlapped += int(overlapping)
        with self.found.lock:
            self.found.overlapped += overlapped
        return out

    def _note(self, n: int, values: list[int]) -> None:
        """Record a file's values; see `read` for what it raises."""
        name = self.members[n].where
        with self.found.lock:
            if self.numbered:
                first = self.found.value_of.setdefault(n, values[0])
                odd = [v for v in values if v != first]
                if odd:
                    raise SourceError(
                        f"{name} holds several values ({first}, {odd[0]}, ...) that other files hold, too, so it is unclear "
                        "which voxels are one cell. Write one value per file, or unique values for each cell."
                    )
                return
            for value in values:
                other = self.found.file_of.setdefault(value, n)
                if other != n:
                    raise SharedValueError(f"{self.members[other].where} and {name} both hold the value {value}")


def splitted(where: str, members: Sequence[Stack]) -> SplittedCells:
    """Join the stacks of single cells; raises SourceError if their shapes differ, or they hold no integers."""
    first = members[0]
    for member in members:
        if member.shape != first.shape:
            raise SourceError(
                f"{member.where} has the shape {times(member.shape)} (z y x), and {first.where} has "
                f"{times(first.shape)}; all cells need the shape of the volume. Export it again, or move it elsewhere if it "
                "is no cell."
            )
        cell_ids(member, Box.of_shape(member.shape))
    return SplittedCells(where, members)


@njit(cache=True, nogil=True)
def _write_cell(data, out, number):  # type: ignore[no-untyped-def]
    """Write a cell into the free voxels of `out` (z, y, x), as `number`, or as its values if that is 0.

    Returns its lowest and highest value (0 if it has none), and the number of voxels that another cell has.
    """
    zero = data.dtype.type(0)
    lowest = highest = zero
    overlapping = 0
    for z in range(data.shape[0]):
        for y in range(data.shape[1]):
            row = zero
            for x in range(data.shape[2]):  # most rows of most files are empty, and this loop runs in vectors
                row |= data[z, y, x]
            if row == zero:
                continue
            for x in range(data.shape[2]):
                value = data[z, y, x]
                if value == zero:
                    continue
                lowest = value if lowest == zero else min(lowest, value)
                highest = max(highest, value)
                cell = out.dtype.type(number) if number else out.dtype.type(value)
                if out[z, y, x] == 0:
                    out[z, y, x] = cell
                elif out[z, y, x] != cell:
                    overlapping += 1
    return lowest, highest, overlapping
