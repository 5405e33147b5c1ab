"""Transforms one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from simexm.analysis.registration.transform import Floats, Frame, StoredTransform


class Chain:
    """Transforms one after the other, each read only near the points."""

    def __init__(self, transforms: Sequence[StoredTransform], inverse: bool, tolerance_um: float) -> None:
        self.transforms, self.inverse, self.tolerance_um = tuple(transforms), inverse, tolerance_um

    def to_moving(self, points: Floats) -> Floats:
        """Points of the moving side for points (3, ...), um, of the fixed one."""
        for each in self.transforms:
            points = each.near(points)(points)
        return points

    def to_fixed(self, points: Floats) -> Floats:
        """Points of the fixed side for points (3, ...), um, of the moving one; NaN where the iteration does not converge."""
        flat = points.reshape(3, -1)
        for each in reversed(self.transforms):
            flat = each.whole.inverse(flat, self.tolerance_um)
        return flat.reshape(points.shape)

    @property
    def look_up(self) -> Callable[[Floats], Floats]:
        """From points of the output to where they are looked up in the volume."""
        return self.to_fixed if self.inverse else self.to_moving

    @property
    def field_bytes(self) -> int:
        """Memory of the displacements that are held whole: those of files, and all for an inverse."""
        held = sum(t.held_bytes for t in self.transforms)
        return held + (sum(24 * math.prod(t.frame.shape) for t in self.transforms if t.frame) if self.inverse else 0)

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of each transform, by its name."""
        return {f"transform {n}": t.identity for n, t in enumerate(self.transforms, 1)}

    @property
    def frame(self) -> Frame | None:
        """Grid of the output's side, if the transforms know it."""
        return self.transforms[-1].moving if self.inverse else self.transforms[0].frame
