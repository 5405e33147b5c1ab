"""A smooth transform that is not uniform, made of exact operations; and a stage by which a package would bring it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from simexm.geometry.grid import NmBox
from simexm.geometry.transform import Points, Specimen, Transform
from simexm.stages.expansion.moving import Moving
from simexm.stages.frames import NO_FRAME, Frame

MARGIN = Fraction(1, 1000)
"""More than rounding of coordinates can make, nm."""


@dataclass(frozen=True)
class Warp(Transform):
    """Tissue is pushed along y by up to `push_nm` about x = `middle_nm`, then along z about y, and then expanded."""

    scale: Fraction
    push_nm: int
    middle_nm: int
    width_nm: int

    def _push(self, at: Any) -> Any:
        t = (at - self.middle_nm) / self.width_nm
        return self.push_nm / (1.0 + t * t)

    def apply(self, points_nm: Points) -> Points:
        z, y, x = points_nm
        y = y + self._push(x)
        z = z + self._push(y)
        factor = float(self.scale)
        return z * factor, y * factor, x * factor

    def invert(self, points_nm: Points, near_nm: Points | None = None) -> Points:
        factor = float(self.scale)
        z, y, x = (axis / factor for axis in points_nm)
        return z - self._push(y), y - self._push(x), x

    def bound(self, box: NmBox) -> NmBox:
        z, y, x = box.stop
        whole = NmBox(box.start, (z + self.push_nm, y + self.push_nm, x))
        return whole.scaled(self.scale).grown((MARGIN,) * 3)

    def bound_inverse(self, box: NmBox) -> NmBox:
        tissue = box.scaled(1 / self.scale)
        z, y, x = tissue.start
        return NmBox((z - self.push_nm, y - self.push_nm, x), tissue.stop).grown((MARGIN,) * 3)


class Warped(Moving):
    """Expansion by 4 that is not even."""

    stage: Literal["warped"] = "warped"
    push_nm: int = 300

    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Warp:
        return Warp(Fraction(4), self.push_nm, 500, 400)
