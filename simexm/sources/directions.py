"""Where the axes of a medical image point, and what that means for z, y, x (NRRD, NIfTI)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from simexm.errors import SimexmWarning
from simexm.geometry.grid import Spacing, Triple, triple
from simexm.sources.stack import ORIGIN

_ASKEW = 1e-3
"""Share of a voxel by which its axis may be off the axis of the coordinates, as rounding leaves it."""
_MILLIMETRE = Fraction(10**6)


@dataclass(frozen=True)
class Placed:
    """What directions say of a volume.

    Attributes
    ----------
    order
        Positions of z, y and x among the three axes.
    voxel_size_nm
        None where no unit is told, or the size is the one that programs write that know none: 1 mm.
    origin_nm
        Where the volume begins; 0 where that cannot be told.
    """

    order: Triple
    voxel_size_nm: Spacing | None
    origin_nm: Spacing


def placed(
    where: str,
    steps: Sequence[Sequence[float]],
    centre: Sequence[float] | None,
    nm: Sequence[Fraction] | None,
    digits: int,
) -> Placed:
    """Read the directions of three axes.

    Parameters
    ----------
    where
        What to call the file.
    steps
        For each axis, the step from one voxel to the next, along x, y, z.
    centre
        Position of the first voxel's centre along x, y, z; None where it is not told.
    nm
        Nanometres in the unit of x, y, z; None where that is not told.
    digits
        Significant digits of the numbers; what lies beyond is rounding.

    Warns
    -----
    SimexmWarning
        If the axes are askew to the coordinates, or run backwards, so that the position is not read.
    """
    matrix = np.array(steps, float).T  # (x y z, axis)
    lengths = np.sqrt((matrix**2).sum(axis=0))
    along = np.argmax(abs(matrix), axis=0)
    if not np.isfinite(matrix).all() or not lengths.all():
        return Placed((2, 1, 0), None, ORIGIN)
    straight = (
        sorted(along) == [0, 1, 2] and (abs(matrix).sum(axis=0) - abs(matrix).max(axis=0) < _ASKEW * lengths).all()
    )
    axis_of = [int(np.flatnonzero(along == w)[0]) for w in range(3)] if straight else [0, 1, 2]  # of x, y, z
    order = triple(reversed(axis_of))
    size = None
    if nm is not None:
        exact = [Fraction(f"{lengths[a]:.{digits}g}") * n for a, n in zip(axis_of, nm, strict=True)]
        size = None if exact == [_MILLIMETRE] * 3 else (exact[2], exact[1], exact[0])
    if size is None or nm is None or centre is None:
        return Placed(order, size, ORIGIN)
    signs = [int(np.sign(matrix[w, a])) for w, a in enumerate(axis_of)]
    if signs == [-1, -1, 1]:  # x to the right and y to the front, in a file whose program had them to the left and back
        signs, centre = [1, 1, 1], [-centre[0], -centre[1], centre[2]]
    if not straight or signs != [1, 1, 1]:
        how = "lie askew to" if not straight else "run against"
        warnings.warn(
            f"{where}: its axes {how} its coordinates; voxels keep their order, and the position is not read, so the "
            "volume begins at 0",
            SimexmWarning,
            stacklevel=4,
        )
        return Placed(order, size, ORIGIN)
    x, y, z = (Fraction(f"{c:.{digits}g}") * n for c, n in zip(centre, nm, strict=True))
    return Placed(order, size, (z - size[0] / 2, y - size[1] / 2, x - size[2] / 2))
