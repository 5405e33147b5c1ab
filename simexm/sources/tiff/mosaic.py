"""Slices stored as tiles, one file each, as VAST exports them: NAME_s000_Y1_X1.png."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from pathlib import Path

from simexm.errors import SourceError
from simexm.geometry.grid import Box

_NUMBER = r"[_-]?([0-9]+)(?![0-9])"
_ROWS_FIRST = re.compile(rf"(?<![a-z])(?:y|tr|row){_NUMBER}[_.-]*(?:x|tc|col){_NUMBER}", re.IGNORECASE)
_COLUMNS_FIRST = re.compile(rf"(?<![a-z])(?:x|tc|col){_NUMBER}[_.-]*(?:y|tr|row){_NUMBER}", re.IGNORECASE)
_AMBIGUOUS = re.compile(rf"(?<![a-z])r{_NUMBER}[_.-]*c{_NUMBER}", re.IGNORECASE)


@dataclass(frozen=True)
class Grid:
    """Numbers of the rows and columns of tiles, in ascending order."""

    rows: tuple[int, ...] = (0,)
    columns: tuple[int, ...] = (0,)

    def boxes(self, files: Sequence[Path], shapes: Sequence[tuple[int, int]]) -> list[Box]:
        """Return the box of each tile in its slice (one plane; y, x), from their pixels along y, x, row by row.

        Raises SourceError if tiles of a row differ in height or those of a column in width, or a complete row or column
        is missing.
        """
        count = len(self.columns)
        heights = [shapes[n * count][0] for n in range(len(self.rows))]
        widths = [shape[1] for shape in shapes[:count]]
        for file, shape, (height, width) in zip(files, shapes, product(heights, widths), strict=True):
            if shape != (height, width):
                raise SourceError(
                    f"{file} has {shape[0]} x {shape[1]} pixels (y x), and the other tiles leave {height} x {width}; tiles "
                    "of a slice must fit together. Export them again."
                )
        tops, lefts = ([0, *accumulate(n)] for n in (heights, widths))
        for name, numbers, begins in (("rows", self.rows, tops), ("columns", self.columns, lefts)):
            counting = all(b - a == 1 for a, b in pairwise(numbers))
            if not counting and any(n != at for n, at in zip(numbers, begins, strict=False)):  # numbers may be pixels
                raise SourceError(
                    f"{files[0].parent}: the {name} of tiles are numbered {', '.join(map(str, numbers[:9]))}, so some are "
                    "missing, and the rest would be in the wrong place. Copy them again."
                )
        return [
            Box((0, tops[r], lefts[c]), (1, tops[r + 1], lefts[c + 1]))
            for r, c in product(range(len(self.rows)), range(count))
        ]


def slices_of(files: Sequence[Path]) -> tuple[dict[str, list[Path]], Grid]:
    """Return the files of each slice, row by row, by the slice's name without the tile's numbers, and their grid.

    Files whose names have no numbers of tiles, or all the same, are a slice each.

    Raises SourceError if a slice lacks a tile, or it is unclear whether its files are tiles.
    """
    each = {p.name: [p] for p in files}
    ambiguous = {m.groups() for p in files if (m := _AMBIGUOUS.search(p.name))}
    if len(ambiguous) > 1 and len({_AMBIGUOUS.sub("", p.name) for p in files}) < len(files):
        raise SourceError(
            f"{files[0].parent}: several files have the same slice number ({files[0].name}, {files[1].name}), and it is "
            "unclear whether r and c are rows and columns of tiles, or rounds and channels. Rename tiles to ..._Y1_X1, or "
            "name the files of one channel by a glob."
        )
    found = [_tile(p.name) for p in files]
    tiles = [t for t in found if t is not None]
    if len(tiles) < len(files) or len({(r, c) for r, c, _ in tiles}) == 1:
        return each, Grid()
    grid = Grid(tuple(sorted({r for r, _, _ in tiles})), tuple(sorted({c for _, c, _ in tiles})))
    slices: dict[str, dict[tuple[int, int], Path]] = {}
    for (row, column, name), file in zip(tiles, files, strict=True):
        slices.setdefault(name, {})[row, column] = file
    for name, its in slices.items():
        lacking = [f"row {r}, column {c}" for r, c in product(grid.rows, grid.columns) if (r, c) not in its]
        if lacking:
            raise SourceError(
                f"{files[0].parent}: the slice {name} lacks the tile {lacking[0]}"
                + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
                + ", so its cells would be missing. Copy it again. (If these are no tiles, rename the files.)"
            )
    return {name: [its[at] for at in product(grid.rows, grid.columns)] for name, its in slices.items()}, grid


def _tile(name: str) -> tuple[int, int, str] | None:
    """Return row, column, and the name without them; None if it has none."""
    if match := _ROWS_FIRST.search(name):
        row, column = match.groups()
    elif match := _COLUMNS_FIRST.search(name):
        column, row = match.groups()
    else:
        return None
    return int(row), int(column), name[: match.start()] + name[match.end() :]
