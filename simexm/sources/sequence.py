"""A volume stored as one file per slice, or per tile of a slice."""

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
from simexm.sources.slices import Slice, read_header, read_slice
from simexm.sources.state import FilesState, state_of_files
from simexm.sources.tiff.mosaic import slices_of
from simexm.units import times

_SHOWN = 5


class SliceSequence:
    """A folder or glob of slices or their tiles, in natural order; obeys `simexm.sources.stack.Stack`.

    Opening reads every header; nothing is decoded before `read`. Raises SourceNotFoundError if no file matches, and
    SourceError if a slice or tile is missing, or differs in size or dtype from the first, or holds no ids.
    """

    def __init__(self, path: str, color_ids: ColorIds | None = None) -> None:
        self.where = path
        self._color_ids = color_ids
        files = files_of(path)
        odd = [p.name for p in files if p.is_dir() or image_kind(p) is None]
        if odd:
            suffix = next(p.suffix for p in files if p.name not in odd)
            raise SourceError(
                f"{path} holds slices and other files ({', '.join(odd[:_SHOWN])}), so a damaged slice might be left out. Move "
                f"them elsewhere, or name the slices by a glob: '{files[0].parent}/*{suffix}'. (If each file or folder is one "
                "cell, type --cells splitted.)"
            )
        self._slices, grid = slices_of(files)
        refuse_gaps([Path(first.parent, name) for name, (first, *_) in self._slices.items()])
        self._files = list(self._slices.values())
        first = [read_header(file, color_ids, quiet=n > 0) for n, file in enumerate(self._files[0])]
        self._tiles = grid.boxes(self._files[0], [tile.shape for tile in first])
        sizes = set()
        for tiles in self._files:
            for file, like, its in zip(tiles, first, self._files[0], strict=True):
                found = read_header(file, color_ids) if file is not its else like
                _refuse_other(file, found, its, like, first[0])
                sizes.add(found.voxel_size_nm)
        self.dtype: np.dtype[Any] = first[0].dtype
        _, y, x = self._tiles[-1].stop
        self.shape: Triple = (len(self._files), y, x)
        self.grain: Triple = (1, first[0].rows, x)
        self.voxel_size_nm: Spacing | None = first[0].voxel_size_nm if len(sizes) == 1 else None
        self.origin_nm: Spacing = first[0].origin_nm

    def plane(self, z: int) -> str:
        """Return the slice's file, or that of its first tile."""
        return str(self._files[z][0])

    def state(self, box: Box) -> FilesState:
        """Return the state of the slices of a box."""
        return state_of_files(self.where, [file for tiles in self._files[box.start[0] : box.stop[0]] for file in tiles])

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers in a box, (z, y, x); raises SourceError if a slice cannot be decoded."""
        out = np.empty(box.shape, self.dtype)
        flat = Box((0, *box.start[1:]), (1, *box.stop[1:]))
        for z in range(box.start[0], box.stop[0]):
            for file, tile in zip(self._files[z], self._tiles, strict=True):
                part = tile.intersect(flat)
                if not part.is_empty:
                    _, y, x = part.relative_to(flat.start).slices
                    out[z - box.start[0], y, x] = read_slice(file, part.relative_to(tile.start), self._color_ids)
        return out


def _refuse_other(file: Path, found: Slice, first: Path, like: Slice, very_first: Slice) -> None:
    """Raise SourceError if a slice or tile differs in size or dtype from the one in its place in the first slice."""
    if found.shape != like.shape:
        raise SourceError(
            f"{file} has {times(found.shape)} pixels (y x), and {first.name} has {times(like.shape)}; all slices of a volume "
            "have one size. Export it again, or move it elsewhere if it is no slice."
        )
    if found.dtype != very_first.dtype:
        raise SourceError(
            f"{file} holds {found.dtype}, and {first.name} holds {very_first.dtype}; all slices of a volume have one type. "
            "Export them all again as one type."
        )


def refuse_gaps(files: list[Path]) -> None:
    """Check the numbers in file names of slices, in natural order.

    Raises SourceError if names count up by one number and slices are missing, or two have the same number. Warns if
    names do not count up, so that a missing slice would go unnoticed, or count in larger steps.
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
                f"{files[same]} and {files[same + 1].name} have the same number, so it is unclear which is the slice. Move one "
                "elsewhere."
            )
        step = min(steps)
        missing = (numbers[-1] - numbers[0]) // step + 1 - len(files)
        if all(s % step == 0 for s in steps) and missing < len(files):  # else the number is not that of a slice
            if missing:
                known = set(numbers)
                absent = (n for n in range(numbers[0], numbers[-1], step) if n not in known)
                shown = [_name(names, at, n) for n in islice(absent, _SHOWN)]
                raise SourceError(
                    f"{first.parent}: between {first.name} and {last.name} slices are missing ({missing}), so all later ones "
                    f"would be in the wrong place: {', '.join(shown)}{' ...' if missing > _SHOWN else ''}. Copy them again, "
                    "or rename the rest."
                )
            if step > 1:
                _warn(
                    f"{first.parent}: the slices' numbers go in steps of {step} ({first.name}, {files[1].name}, ...), and "
                    "each is read as the neighbour of the one before. If slices are missing, copy them again"
                )
            return
    _warn(
        f"{first.parent}: the slices' names do not count up, so a missing one would go unnoticed; they are read in the order "
        f"{first.name}, {files[1].name}, ..., {last.name}, each file as a plane. Number them if that is wrong; join tiles or "
        "channels of one slice, or name one of each by a glob"
    )


def _name(names: list[list[str]], at: int, number: int) -> str:
    """Return the name of a missing file, its number padded like the others."""
    width = min(len(name[at]) for name in names)
    return "".join([*names[0][:at], str(number).zfill(width), *names[0][at + 1 :]])


def _warn(message: str) -> None:
    warnings.warn(message, SimexmWarning, stacklevel=4)
