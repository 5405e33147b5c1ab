"""A volume kept as one file a slice, or several that are its tiles."""

from __future__ import annotations

import re
import warnings
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.sources.colours import ColorIds
from simexm.sources.kinds import files_of, image_kind
from simexm.sources.slices import Slice, look_at, read_slice
from simexm.sources.state import FilesState, state_of_files
from simexm.sources.tiff.mosaic import slices_of
from simexm.units import times

_SHOWN = 5


class SliceSequence:
    """A folder, or a glob, of one file a slice, or of its tiles, in natural order; obeys `simexm.sources.stack.Stack`.

    Opening reads every header; nothing is decoded before `read`.

    Parameters
    ----------
    path
        The folder or glob.
    color_ids
        How ids are packed into colours; None where only grey is read.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    SourceError
        If a slice or a tile is missing, or of another size or type than the first, or no slice of numbers.
    """

    def __init__(self, path: str, color_ids: ColorIds | None = None) -> None:
        self.where = path
        self._color_ids = color_ids
        files = files_of(path)
        odd = [p.name for p in files if p.is_dir() or image_kind(p) is None]
        if odd:
            suffix = next(p.suffix for p in files if p.name not in odd)
            raise SourceError(
                f"{path} holds slices and what is none ({', '.join(odd[:_SHOWN])}), so a damaged slice might be left "
                f"out. Move it elsewhere, or name the slices by a glob: '{files[0].parent}/*{suffix}'. (If each "
                "file or folder is one cell, type --cells splitted.)"
            )
        self._slices, grid = slices_of(files)
        refuse_gaps([Path(first.parent, name) for name, (first, *_) in self._slices.items()])
        self._files = list(self._slices.values())
        first = [look_at(file, color_ids, quiet=n > 0) for n, file in enumerate(self._files[0])]
        self._tiles = grid.boxes(self._files[0], [tile.shape for tile in first])
        sizes = set()
        for tiles in self._files:
            for file, like, its in zip(tiles, first, self._files[0], strict=True):
                found = look_at(file, color_ids) if file is not its else like
                _refuse_other(file, found, its, like, first[0])
                sizes.add(found.voxel_size_nm)
        self.dtype: np.dtype[Any] = first[0].dtype
        _, y, x = self._tiles[-1].stop
        self.shape: Triple = (len(self._files), y, x)
        self.grain: Triple = (1, first[0].rows, x)
        self.voxel_size_nm: Spacing | None = first[0].voxel_size_nm if len(sizes) == 1 else None
        self.origin_nm: Spacing = first[0].origin_nm

    def plane(self, z: int) -> str:
        """The slice's file, or that of its first tile."""
        return str(self._files[z][0])

    def state(self, box: Box) -> FilesState:
        """How the slices of a box are."""
        return state_of_files(self.where, [file for tiles in self._files[box.start[0] : box.stop[0]] for file in tiles])

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x); raises SourceError if a slice cannot be decoded."""
        out = np.empty(box.shape, self.dtype)
        flat = Box((0, *box.start[1:]), (1, *box.stop[1:]))
        for z in range(box.start[0], box.stop[0]):
            for file, tile in zip(self._files[z], self._tiles, strict=True):
                here = tile.intersect(flat)
                if not here.is_empty:
                    _, y, x = here.relative_to(flat.start).slices
                    out[z - box.start[0], y, x] = read_slice(file, here.relative_to(tile.start), self._color_ids)
        return out


def _refuse_other(file: Path, found: Slice, first: Path, like: Slice, very_first: Slice) -> None:
    """Refuse a slice or tile that is not like the one in its place in the first slice."""
    if found.shape != like.shape:
        raise SourceError(
            f"{file} has {times(found.shape)} pixels (y x), and {first.name} has {times(like.shape)}; the slices of a volume "
            "are all alike. Export it again, or move it elsewhere if it is no slice."
        )
    if found.dtype != very_first.dtype:
        raise SourceError(
            f"{file} holds {found.dtype}, and {first.name} holds {very_first.dtype}; the slices of a volume are all alike. "
            "Export them all again as one type."
        )


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
        f"the order {first.name}, {files[1].name}, ..., {last.name}, each file a plane. Number them if that is wrong; where "
        "several are tiles or channels of one slice, join them, or name one of each by a glob"
    )


def _name(names: list[list[str]], at: int, number: int) -> str:
    """What a missing file would be called: its number as wide as the others'."""
    width = min(len(name[at]) for name in names)
    return "".join([*names[0][:at], str(number).zfill(width), *names[0][at + 1 :]])


def _warn(message: str) -> None:
    warnings.warn(message, SimexmWarning, stacklevel=4)
