"""Order, size and position of axes from the directions of a medical image (NRRD, NIfTI)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from simexm.errors import SimexmWarning
from simexm.geometry.grid import Spacing, Triple, triple
from simexm.sources.stack import ORIGIN

_OBLIQUE = 1e-3
"""Tolerance for rounding: how far an axis may be off the axis of the coordinates, in voxels."""
_MILLIMETRE = Fraction(10**6)


@dataclass(frozen=True)
class Placement:
    """Order of axes, voxel size and position."""

    order: Triple  # positions of z, y and x among the axes
    voxel_size_nm: Spacing | None  # None if there is no unit, or the size is 1 mm, which programs write that know none
    origin_nm: Spacing  # lower corner of the volume; 0 if unknown


def place_by_directions(
    where: str,
    steps: Sequence[Sequence[float]],
    centre: Sequence[float] | None,
    nm: Sequence[Fraction] | None,
    digits: int,
) -> Placement:
    """Return the placement of three axes.

    `steps` are those from one voxel to the next, for each axis, along x, y, z; `centre` is the position of the first
    voxel's centre along x, y, z, None if unknown; `nm` are the nanometres in the unit of x, y, z, None if unknown; the
    numbers have `digits` significant digits, and the rest is rounding.

    Warns if the axes are oblique to the coordinates or run backwards, and the position is ignored.
    """
    matrix = np.array(steps, float).T  # (x y z, axis)
    lengths = np.sqrt((matrix**2).sum(axis=0))
    along = np.argmax(abs(matrix), axis=0)
    if not np.isfinite(matrix).all() or not lengths.all():
        return Placement((2, 1, 0), None, ORIGIN)
    off_axis = abs(matrix).sum(axis=0) - abs(matrix).max(axis=0)
    straight = sorted(along) == [0, 1, 2] and (off_axis < _OBLIQUE * lengths).all()
    axis_of = [int(np.flatnonzero(along == w)[0]) for w in range(3)] if straight else [0, 1, 2]  # of x, y, z
    order = triple(reversed(axis_of))
    size = None
    if nm is not None:
        exact = [Fraction(f"{lengths[a]:.{digits}g}") * n for a, n in zip(axis_of, nm, strict=True)]
        size = None if exact == [_MILLIMETRE] * 3 else (exact[2], exact[1], exact[0])
    if size is None or nm is None or centre is None:
        return Placement(order, size, ORIGIN)
    signs = [int(np.sign(matrix[w, a])) for w, a in enumerate(axis_of)]
    if signs == [-1, -1, 1]:  # x to the right and y to the front, in a file whose program had them to the left and back
        signs, centre = [1, 1, 1], [-centre[0], -centre[1], centre[2]]
    if not straight or signs != [1, 1, 1]:
        how = "are oblique to" if not straight else "run against"
        warnings.warn(
            f"{where}: its axes {how} its coordinates; voxels keep their order, and the position is not read, so the volume "
            "begins at 0",
            SimexmWarning,
            stacklevel=4,
        )
        return Placement(order, size, ORIGIN)
    x, y, z = (Fraction(f"{c:.{digits}g}") * n for c, n in zip(centre, nm, strict=True))
    return Placement(order, size, (z - size[0] / 2, y - size[1] / 2, x - size[2] / 2))
