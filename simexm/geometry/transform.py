"""Transforms from tissue to expanded tissue, both in nm from the corner of the specimen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, ClassVar

from simexm.geometry.grid import NmBox, Spacing

Points = tuple[Any, Any, Any]
"""Coordinates z, y, x of points, nm: three arrays of one shape, of NumPy or of a GPU's library."""

_STEEPER = 2.0
"""Times its scale by which a transform stretches or shrinks some place, at most."""
SLABS = 64
"""Layers of a box that `Transform.depth` checks, at most."""


@dataclass(frozen=True)
class Specimen:
    """What a deformation depends on beside its own settings; lengths are nm of tissue."""

    seed: int
    corner_nm: Spacing
    """Corner of the specimen, from the corner of the volume that it is cut from."""
    extent_nm: Spacing


class Transform(ABC):
    """Map from tissue to expanded tissue: invertible, continuous, and ascending along z at each y, x.

    A point's position depends on its own coordinates alone, not on other points of the array. Bounds are conservative, and
    the bound of a box lies within that of any larger box.
    """

    scale: Fraction
    """Nominal linear expansion. It converts pixel sizes and the lengths of linkers."""
    is_uniform: ClassVar[bool] = False
    """Whether coordinates are only multiplied by `scale`, so that each axis can be sampled by itself, exactly."""

    def interpolated_error_nm(self, apart_nm: float) -> float:
        """Error along an axis, nm of tissue, of `invert` interpolated by cubics between expanded points this far apart."""
        return math.inf

    @abstractmethod
    def apply(self, points_nm: Points) -> Points:
        """Move points of tissue to expanded tissue."""

    @abstractmethod
    def invert(self, points_nm: Points, near_nm: Points | None = None) -> Points:
        """Move points of expanded tissue back. A search begins at places of tissue that are near the result, if given."""

    @abstractmethod
    def bound(self, box: NmBox) -> NmBox:
        """Return a box of expanded tissue that holds all of a box of tissue."""

    @abstractmethod
    def bound_inverse(self, box: NmBox) -> NmBox:
        """Return a box of tissue that holds all points that move into a box of expanded tissue."""

    def rough(self) -> Transform:
        """Return the same transform with bounds that cost nothing, for plans: wider than those of almost all boxes."""
        return self

    def move(self, points_nm: Points) -> None:
        """Move points of tissue in place."""
        for old, new in zip(points_nm, self.apply(points_nm), strict=True):
            old[...] = new

    def lowest_z(self, z_nm: float, within: NmBox) -> float:
        """Return a lower bound of z after expansion, of the points of the box `within` at `z_nm` or above."""
        if z_nm == -math.inf:
            return z_nm
        return float(self.bound(_above(within, Fraction(z_nm))).start[0])

    def depth(self, depth_nm: Fraction | float, within: NmBox) -> Fraction | float:
        """Return the depth along z, after expansion, of a layer of this depth anywhere in the box `within`.

        It is measured from `lowest_z` of the layer's start.
        """
        first, extent = within.start[0], within.stop[0] - within.start[0]
        slabs = max(1, min(SLABS, math.floor(extent / Fraction(depth_nm)))) if depth_nm > 0 else SLABS
        thick = extent / slabs
        # a layer lies in two slabs
        starts = [_above(within, first + n * thick) for n in range(slabs)]
        ends = [NmBox(s.start, (min(s.start[0] + 2 * thick, s.stop[0]), *s.stop[1:])) for s in starts]
        return max(self.bound(e).stop[0] - self.bound(s).start[0] for s, e in zip(starts, ends, strict=True))

    def then(self, later: Transform) -> Transform:
        """Return this transform followed by another."""
        if IDENTITY in (self, later):
            return later if self == IDENTITY else self
        if self.is_uniform and later.is_uniform:
            return UniformExpansion(self.scale * later.scale)
        return Chain(self.scale * later.scale, self, later)


@dataclass(frozen=True)
class UniformExpansion(Transform):
    """Expansion by one factor, exact, about the corner of the specimen."""

    scale: Fraction
    is_uniform: ClassVar[bool] = True

    def apply(self, points_nm: Points) -> Points:
        """Multiply by the factor."""
        z, y, x = points_nm
        factor = float(self.scale)
        return z * factor, y * factor, x * factor

    def move(self, points_nm: Points) -> None:
        """Multiply by the factor, in place."""
        factor = float(self.scale)
        for axis in points_nm:
            axis *= factor

    def invert(self, points_nm: Points, near_nm: Points | None = None) -> Points:
        """Divide by the factor."""
        z, y, x = points_nm
        factor = float(self.scale)
        return z / factor, y / factor, x / factor

    def bound(self, box: NmBox) -> NmBox:
        """Expand the box."""
        return box.scaled(self.scale)

    def bound_inverse(self, box: NmBox) -> NmBox:
        """Shrink the box."""
        return box.scaled(1 / self.scale)

    def lowest_z(self, z_nm: float, within: NmBox) -> float:
        """Expand the position."""
        return z_nm * float(self.scale)

    def depth(self, depth_nm: Fraction | float, within: NmBox) -> Fraction | float:
        """Expand the depth."""
        return depth_nm * self.scale


@dataclass(frozen=True)
class Chain(Transform):
    """Two transforms, one after the other."""

    scale: Fraction
    earlier: Transform
    later: Transform

    def apply(self, points_nm: Points) -> Points:
        """Apply both, the earlier first."""
        return self.later.apply(self.earlier.apply(points_nm))

    def invert(self, points_nm: Points, near_nm: Points | None = None) -> Points:
        """Invert both, the later first."""
        between = None if near_nm is None else self.earlier.apply(near_nm)
        return self.earlier.invert(self.later.invert(points_nm, between), near_nm)

    def bound(self, box: NmBox) -> NmBox:
        """Bound the earlier's bound."""
        return self.later.bound(self.earlier.bound(box))

    def bound_inverse(self, box: NmBox) -> NmBox:
        """Bound in the reverse order."""
        return self.earlier.bound_inverse(self.later.bound_inverse(box))

    def interpolated_error_nm(self, apart_nm: float) -> float:
        """Add the errors of both: the later's is in the earlier's expanded nm, and what it inverts lies further apart."""
        later = self.later.interpolated_error_nm(apart_nm)
        return _STEEPER * (self.earlier.interpolated_error_nm(_STEEPER * apart_nm) + later / float(self.earlier.scale))

    def rough(self) -> Transform:
        """Chain the rough forms."""
        return Chain(self.scale, self.earlier.rough(), self.later.rough())


IDENTITY: Transform = UniformExpansion(Fraction(1))
"""No expansion."""


def compose(transforms: Iterable[Transform]) -> Transform:
    """Chain transforms in this order."""
    return reduce(Transform.then, transforms, IDENTITY)


def _above(box: NmBox, z_nm: Fraction) -> NmBox:
    """Return the part of a box at `z_nm` and above; its upper face if there is none."""
    _, y, x = box.start
    return NmBox((min(max(z_nm, box.start[0]), box.stop[0]), y, x), box.stop)
