"""A volume kept as one file a slice."""

from __future__ import annotations

import re
import warnings
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError
from simexm.grid import Box, Spacing, Triple
from simexm.sources.kinds import files_of, image_kind
from simexm.sources.slices import look_at, read_slice
from simexm.sources.stack import ORIGIN
from simexm.sources.state import FilesState, state_of_files

_SHOWN = 5


class SliceSequence:
    """A folder, or a glob, of one file a slice, in natural order; obeys `simexm.sources.stack.Stack`.

    Opening reads every header; nothing is decoded before `read`.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    SourceError
        If a slice is missing, or of another size or type than the first, or no slice of numbers.
    """

    voxel_size_nm: Spacing | None = None
    origin_nm: Spacing = ORIGIN

    def __init__(self, path: str) -> None:
        self.where = path
        self._files = files_of(path)
        odd = [p.name for p in self._files if p.is_dir() or image_kind(p) is None]
        if odd:
            suffix = next(p.suffix for p in self._files if p.name not in odd)
            raise SourceError(
                f"{path} holds slices and what is none ({', '.join(odd[:_SHOWN])}), so a damaged slice might be left "
                f"out. Move it elsewhere, or name the slices by a glob: '{self._files[0].parent}/*{suffix}'. (If each "
                "file or folder is one cell, type --cells splitted.)"
            )
        refuse_gaps(self._files)
        first = look_at(self._files[0])
        for file in self._files[1:]:
            found = look_at(file)
            if found.shape != first.shape:
                raise SourceError(
                    f"{file} has {_times(found.shape)} pixels (y x), and {self._files[0].name} has "
                    f"{_times(first.shape)}; the slices of a volume are all alike. Export it again, or move it elsewhere "
                    "if it is no slice."
                )
            if found.dtype != first.dtype:
                raise SourceError(
                    f"{file} holds {found.dtype}, and {self._files[0].name} holds {first.dtype}; the slices of a volume "
                    "are all alike. Export them all again as one type."
                )
        self.dtype: np.dtype[Any] = first.dtype
        self.shape: Triple = (len(self._files), *first.shape)
        self.grain: Triple = (1, first.rows, first.shape[1])

    def plane(self, z: int) -> str:
        """The slice's file."""
        return str(self._files[z])

    def state(self, box: Box) -> FilesState:
        """How the slices of a box are."""
        return state_of_files(self.where, self._files[box.start[0] : box.stop[0]])

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x); raises SourceError if a slice cannot be decoded."""
        out = np.empty(box.shape, self.dtype)
        for z in range(box.start[0], box.stop[0]):
            out[z - box.start[0]] = read_slice(self._files[z], box)
        return out


def refuse_gaps(files: list[Path]) -> None:
    """Check the numbers in the names of slices, which are in natural order.

    Raises
    ------
    SourceError
        If the names count up by one number and some are missing, or two have the same number.

    Warns
    -----
    SimexmWarning
        If the names do not count up, so that a missing slice would not be noticed, or if they count in larger steps.
    """
    if len(files) < 2:
        return
    names = [re.split(r"([0-9]+)", p.name) for p in files]
    varying = [n for n in range(max(map(len, names))) if len({name[n] if n < len(name) else "" for name in names}) > 1]
    first, last = files[0], files[-1]
    if len(varying) == 1 and varying[0] % 2 == 1:
        at = varying[0]
        numbers = [int(name[at]) for name in names]
        steps = [b - a for a, b in pairwise(numbers)]
        if 0 in steps:
            same = steps.index(0)
            raise SourceError(
                f"{files[same]} and {files[same + 1].name} have the same number, and it is not known which is the slice. "
                "Move one elsewhere."
            )
        step = min(steps)
        missing = (numbers[-1] - numbers[0]) // step + 1 - len(files)
        if all(s % step == 0 for s in steps) and missing < len(files):  # else the numbers mean something else
            if missing:
                known = set(numbers)
                absent = (n for n in range(numbers[0], numbers[-1], step) if n not in known)
                told = [_name(names, at, n) for n in islice(absent, _SHOWN)]
                raise SourceError(
                    f"{first.parent}: between {first.name} and {last.name} slices are missing ({missing}), so all "
                    f"further ones would lie in the wrong place: {', '.join(told)}{' ...' if missing > _SHOWN else ''}. "
                    "Copy them again, or rename the rest."
                )
            if step > 1:
                _warn(
                    f"{first.parent}: the slices' numbers go in steps of {step} ({first.name}, {files[1].name}, ...); "
                    "each is taken for the neighbour of the one before. If slices are missing, copy them again"
                )
            return
    _warn(
        f"{first.parent}: the slices' names do not count up, so a missing one would not be noticed; they are taken in "
        f"the order {first.name}, {files[1].name}, ..., {last.name}. Number them if that is wrong"
    )


def _name(names: list[list[str]], at: int, number: int) -> str:
    """What a missing file would be called: its number as wide as the others'."""
    width = min(len(name[at]) for name in names)
    return "".join([*names[0][:at], str(number).zfill(width), *names[0][at + 1 :]])


def _warn(message: str) -> None:
    warnings.warn(message, SimexmWarning, stacklevel=4)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
