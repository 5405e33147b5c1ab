"""Transforms from tissue to expanded tissue, both in nm from the corner of the specimen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, ClassVar

from simexm.geometry.grid import NmBox

Points = tuple[Any, Any, Any]
"""Coordinates z, y, x of points, nm: three arrays of one shape, of NumPy or of a GPU's library."""

SLABS = 64
"""Layers of a box that `Transform.depth` looks at, at most."""


class Transform(ABC):
    """Where tissue lies after expansion: an invertible map, continuous, and ascending along z at each y, x.

    Points are moved one by one: the place of a point follows from its coordinates alone, whatever stands beside it in an
    array. Bounds are conservative, and the bound of a box lies within that of any larger box.

    Attributes
    ----------
    scale
        Nominal linear expansion. It converts pixel sizes and the lengths of linkers.
    is_uniform
        Whether coordinates are multiplied by `scale` and nothing else, so that an axis can be sampled by itself, exactly.
    """

    scale: Fraction
    is_uniform: ClassVar[bool] = False

    @abstractmethod
    def apply(self, points_nm: Points) -> Points:
        """Move points of tissue to expanded tissue."""

    @abstractmethod
    def invert(self, points_nm: Points) -> Points:
        """Move points of expanded tissue back."""

    @abstractmethod
    def bound(self, box: NmBox) -> NmBox:
        """A box of expanded tissue that holds all of a box of tissue."""

    @abstractmethod
    def bound_inverse(self, box: NmBox) -> NmBox:
        """A box of tissue that holds all that comes to lie in a box of expanded tissue."""

    def move(self, points_nm: Points) -> None:
        """Overwrite points of tissue with where they come to lie."""
        for old, new in zip(points_nm, self.apply(points_nm), strict=True):
            old[...] = new

    def lowest_z(self, z_nm: float, within: NmBox) -> float:
        """No point of the box `within` at `z_nm` or above comes to lie below this."""
        if z_nm == -math.inf:
            return z_nm
        return float(self.bound(_above(within, Fraction(z_nm))).start[0])

    def depth(self, depth_nm: Fraction | float, within: NmBox) -> Fraction | float:
        """How deep along z a layer of this depth, anywhere in the box `within`, lies after expansion.

        Measured from `lowest_z` of the layer's start.
        """
        first, whole = within.start[0], within.stop[0] - within.start[0]
        slabs = max(1, min(SLABS, math.floor(whole / Fraction(depth_nm)))) if depth_nm > 0 else SLABS
        thick = whole / slabs
        # a layer lies in two slabs
        starts = [_above(within, first + n * thick) for n in range(slabs)]
        ends = [NmBox(s.start, (min(s.start[0] + 2 * thick, s.stop[0]), *s.stop[1:])) for s in starts]
        return max(self.bound(e).stop[0] - self.bound(s).start[0] for s, e in zip(starts, ends, strict=True))

    def then(self, later: Transform) -> Transform:
        """The transform followed by another."""
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

    def invert(self, points_nm: Points) -> Points:
        """Divide by the factor."""
        z, y, x = points_nm
        factor = float(self.scale)
        return z / factor, y / factor, x / factor

    def bound(self, box: NmBox) -> NmBox:
        """The box itself, expanded."""
        return box.scaled(self.scale)

    def bound_inverse(self, box: NmBox) -> NmBox:
        """The box itself before expansion."""
        return box.scaled(1 / self.scale)

    def lowest_z(self, z_nm: float, within: NmBox) -> float:
        """The place itself, expanded."""
        return z_nm * float(self.scale)

    def depth(self, depth_nm: Fraction | float, within: NmBox) -> Fraction | float:
        """The depth itself, expanded."""
        return depth_nm * self.scale


@dataclass(frozen=True)
class Chain(Transform):
    """Two transforms, one after the other."""

    scale: Fraction
    earlier: Transform
    later: Transform

    def apply(self, points_nm: Points) -> Points:
        """Both, the earlier first."""
        return self.later.apply(self.earlier.apply(points_nm))

    def invert(self, points_nm: Points) -> Points:
        """Both, the later first."""
        return self.earlier.invert(self.later.invert(points_nm))

    def bound(self, box: NmBox) -> NmBox:
        """The bound of the earlier's bound."""
        return self.later.bound(self.earlier.bound(box))

    def bound_inverse(self, box: NmBox) -> NmBox:
        """The same the other way."""
        return self.earlier.bound_inverse(self.later.bound_inverse(box))


IDENTITY: Transform = UniformExpansion(Fraction(1))
"""Tissue as it is."""


def compose(transforms: Iterable[Transform]) -> Transform:
    """All of them, in this order."""
    return reduce(Transform.then, transforms, IDENTITY)


def _above(box: NmBox, z_nm: Fraction) -> NmBox:
    """The part of a box at `z_nm` and above; the last of it where none is."""
    _, y, x = box.start
    return NmBox((min(max(z_nm, box.start[0]), box.stop[0]), y, x), box.stop)
