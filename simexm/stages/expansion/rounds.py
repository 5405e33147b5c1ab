"""Settings of a displacement, and of how the gel lies in a round of imaging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field as Bound
from pydantic import model_validator

from simexm.geometry.grid import Box, Spacing, three, triple
from simexm.settings import Frozen
from simexm.stages.expansion.deformation import NO_CHANGE, Matrix
from simexm.stages.expansion.field import Scale

AXES = "zyx"
MOST_STEPS = 12
Stretch = Annotated[float, Bound(ge=0.5, le=2)]
Slope = Annotated[float, Bound(ge=-0.5, le=0.5)]
Rms = Annotated[float, Bound(ge=0, le=1e6)]
Shear = Literal["zy", "zx", "yz", "yx", "xz", "xy"]
Shift = Annotated[float, Bound(ge=-1e5, le=1e5)]
Angle = Annotated[float, Bound(ge=-30, le=30)]
Length = Annotated[float, Bound(ge=0, le=1e6)]
Place = tuple[Length, Length, Length]


class Displacement(Frozen):
    """One scale of a smooth random displacement of the tissue.

    Attributes
    ----------
    rms_nm
        Standard deviation along each axis, nm of tissue: one number, or z, y, x.
    correlation_um
        Distance at which displacements are correlated by 1 / e, um of tissue.
    """

    rms_nm: Rms | tuple[Rms, Rms, Rms]
    correlation_um: float = Bound(ge=0.05, le=1e5)

    @property
    def scale(self) -> Scale:
        """The same, in nm."""
        rms = self.rms_nm if isinstance(self.rms_nm, tuple) else (self.rms_nm,) * 3
        return Scale(three(rms), 1e3 * self.correlation_um)


def refuse_folds(scales: Sequence[Scale]) -> None:
    """Raise ValueError for a scale whose displacement might fold the tissue."""
    for scale in scales:
        if scale.steps > MOST_STEPS:
            rms, correlation = max(scale.rms_nm), scale.correlation_nm / 1e3
            raise ValueError(
                f"a displacement of {rms:.3g} nm rms that is correlated over only {correlation:.3g} um would fold the tissue "
                "over itself, and a pixel would have no one place in it; give at most "
                f"{rms * (MOST_STEPS / scale.steps) ** 0.5:.3g} nm, or a longer correlation"
            )


class Round(Frozen):
    """How the gel lies in a round of imaging, relative to how it was expanded. Lengths are those of tissue.

    Attributes
    ----------
    shift_um
        Shift along z, y, x.
    rotation_deg
        Rotation about the axes z, y, x through the middle of the specimen, in this order. A positive angle about z turns
        y towards x.
    stretch
        Further swelling along z, y, x; it precedes the rotation.
    displacement
        Smooth random displacement that only this round has, as a sum of scales.
    left
        Share of the dyes that are still there: others were bleached or washed out. What is lost in one round is lost in
        all that have less. Of dyes that change with each round, such as those of barcodes, too.
    missing_um
        Boxes of tissue that this round lacks, as pairs of corners z, y, x, um, from the corner of the specimen: what was
        lost, or a crack. They emit nothing, and are 0 in label images.
    """

    shift_um: tuple[Shift, Shift, Shift] = (0.0, 0.0, 0.0)
    rotation_deg: tuple[Angle, Angle, Angle] = (0.0, 0.0, 0.0)
    stretch: tuple[Stretch, Stretch, Stretch] = (1.0, 1.0, 1.0)
    displacement: tuple[Displacement, ...] = Bound(default=(), max_length=16)
    left: float = Bound(default=1.0, gt=0, le=1)
    missing_um: tuple[tuple[Place, Place], ...] = Bound(default=(), max_length=100)

    @model_validator(mode="after")
    def _boxes(self) -> Self:
        for low, high in self.missing_um:
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise ValueError(
                    f"missing_um has a box from {low} to {high}, which is empty; give its lower corner first, z y x, um"
                )
        return self

    @model_validator(mode="after")
    def _no_fold(self) -> Self:
        refuse_folds(self.scales)
        return self

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Scales of the displacement."""
        return tuple(s.scale for s in self.displacement if max(s.scale.rms_nm) > 0)

    @property
    def shift_nm(self) -> tuple[float, float, float]:
        """Shift, nm of tissue."""
        return three(1e3 * s for s in self.shift_um)

    @property
    def linear(self) -> Matrix:
        """Rotation after stretch, rows and columns z, y, x."""
        found = [[v * self.stretch[j] for j, v in enumerate(row)] for row in NO_CHANGE]
        for axis, degrees in enumerate(self.rotation_deg):
            if degrees:
                found = _product(_rotation(axis, degrees), found)
        return three((row[0], row[1], row[2]) for row in found)

    @property
    def moves(self) -> bool:
        """Whether the gel lies otherwise than it was expanded."""
        return self.linear != NO_CHANGE or bool(self.scales) or any(self.shift_um)

    def missing(self, voxel_nm: Spacing) -> list[Box]:
        """Voxels that the round lacks, from the corner of the specimen: those with their centre in a box."""
        return [
            Box(
                *(
                    triple(math.ceil(1e3 * v / float(n) - 0.5) for v, n in zip(corner, voxel_nm, strict=True))
                    for corner in box
                )
            )
            for box in self.missing_um
        ]


def _rotation(axis: int, degrees: float) -> list[list[float]]:
    """Rotation about an axis, rows and columns z, y, x."""
    # rounded to what all machines agree on: cosines of different libraries differ in their last bits
    angle = math.radians(degrees)
    c, s = round(math.cos(angle), 12), round(math.sin(angle), 12)
    found = [list(row) for row in NO_CHANGE]
    a, b = (axis + 1) % 3, (axis + 2) % 3
    found[a][a], found[a][b], found[b][a], found[b][b] = c, -s, s, c
    return found


def _product(one: list[list[float]], two: list[list[float]]) -> list[list[float]]:
    return [[sum(row[k] * two[k][j] for k in range(3)) for j in range(3)] for row in one]
