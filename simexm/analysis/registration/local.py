"""The fit of one block, and of what surrounds it, beyond the transform it begins from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration import fit
from simexm.analysis.registration.coarse import Base
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.patchwork import EMPTY, FITTED, OUTSIDE, WORSE
from simexm.analysis.registration.sides import Opened
from simexm.analysis.registration.steps import Features
from simexm.analysis.registration.transform import Floats, Frame, Transform
from simexm.geometry.grid import Box, triple
from simexm.kernels.registration import fields, lattice, similarity

if TYPE_CHECKING:
    from simexm.analysis.registration.align import Blocks

Found = Mapping[str, NDArray[Any]]


def _without(state: int, before: float = np.nan, after: float = np.nan) -> Found:
    return {
        "state": np.array(state),
        "shift": np.zeros(3, np.float32),
        "before": np.array(before),
        "after": np.array(after),
    }


NOTHING = _without(EMPTY)
"""What is found in a block without signal."""


@dataclass(frozen=True)
class Place:
    """A block, and the box around it that is aligned with it."""

    core: Box
    wide: Box

    def of_core(self, values: NDArray[Any]) -> NDArray[Any]:
        """The block's part of an array (..., z, y, x) of the wide box."""
        return values[..., *self.core.relative_to(self.wide.start).slices]


def fit_block(fixed: Opened, moving: Opened, place: Place, base: Base, how: Blocks) -> Found:
    """Align a block.

    Returns
    -------
    mapping
        `state`; B-spline `coefficients` of the displacement beyond the base, um, if it is fitted; its mean `shift` in the block;
        and the correlations of the block's images `before` and `after`.
    """
    frame = fixed.frame.part(place.wide.start, place.wide.shape)
    crop, near = _crop(moving, frame, base, how.overlap // 2)
    if crop is None:
        return _without(OUTSIDE)
    one, other = fixed.picture(place.wide), moving.picture(crop)
    before, share = _correlation(one, other, near, place)
    if share < how.least_covered:
        return _without(OUTSIDE)
    if not np.isfinite(before):
        return _without(EMPTY)
    total = near
    own = np.zeros((3, *frame.shape), np.float32)
    for step in how.steps:
        find = fit.matched_near if isinstance(step, Features) else fit.deformation
        more = find(step, one, other, total)  # type: ignore[arg-type]
        moved = Transform(displacement=own, frame=frame).before(more, frame).displacement
        assert moved is not None
        own, _ = fields.unfold(moved, frame.voxel_um, how.least_jacobian)
        total = near.before(own, frame)
    after, _ = _correlation(one, other, total, place)
    if not after > before:
        return _without(WORSE, before, after)
    return {
        "state": np.array(FITTED),
        "shift": place.of_core(own).mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32),
        "before": np.array(before),
        "after": np.array(after),
        "coefficients": lattice.coefficients(own, place.wide.start),
    }


def _crop(moving: Opened, frame: Frame, base: Base, margin: int) -> tuple[Box | None, Transform]:
    """The box of the moving volume that a part of the fixed one needs, None for none; and the base there."""
    points = frame.centres()
    near = base.near(points)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for _, part in frame.slabs():
        at: Floats = moving.frame.voxels(near(part)).reshape(3, -1)
        low, high = np.minimum(low, at.min(axis=1)), np.maximum(high, at.max(axis=1))
    wanted = Box(triple(np.floor(low)), triple(np.ceil(high) + 1)).grown((margin + 1,) * 3).intersect(moving.whole)
    return (None if min(wanted.shape) < _THINNEST else wanted), near


_THINNEST = 2


def _correlation(fixed: Picture, moving: Picture, transform: Transform, place: Place) -> tuple[float, float]:
    """Correlation of the block's images, and the share of the block that the moving image covers."""
    image, where = pulled(moving, transform, fixed.frame)
    if fixed.mask is not None:
        where &= fixed.mask
    one, other, counted = (place.of_core(values) for values in (fixed.values, image, where))
    return similarity.correlation(one, other, counted), float(counted.mean())
