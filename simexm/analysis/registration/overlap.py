"""Checks, before any work, that volumes and transforms meet in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from simexm.analysis.registration.steps import Step
from simexm.analysis.registration.transform import Floats, Frame, StoredTransform
from simexm.errors import SpecError
from simexm.kernels.registration import warp

_PLACES = 12
"""Places along each axis that are looked up."""
_ALIKE = 1e-3
_SEEKING = ("centre", "features", "random")
"""Steps that need no overlap to begin with."""


def refuse_apart(
    steps: Sequence[Step], fixed: Frame, moving: Frame, start: Callable[[Floats], Floats], started: bool
) -> None:
    """Raise SpecError if the first step begins where no part of the fixed volume lies in the moving one.

    `start` puts points (3, n), um, of the fixed volume into the moving one; `started` tells whether the user gave it.
    """
    first = steps[0].step if steps else "deform"  # of the blocks
    if first in _SEEKING:
        return
    ends = [np.linspace(0, n - 1, min(n, _PLACES)) for n in fixed.shape]
    at = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    points = fixed.first_um[:, None] + at * np.asarray(fixed.voxel_um)[:, None]
    if warp.inside(moving.shape, moving.voxels(start(points))).any():
        return
    places = " and ".join(
        f"from {_um(f.corner_um)} to {_um(np.asarray(f.corner_um) + f.extent_um)}" for f in (fixed, moving)
    )
    why = (
        "and the start puts nothing of the fixed one into the moving one" if started else "so nothing of them overlaps"
    )
    raise SpecError(
        f"the fixed and the moving volume reach {places} um (z, y, x), {why}: {first} would have nothing to compare; "
        f"{'correct the start' if started else 'correct their positions'}, or begin with the step features or centre"
    )


def _um(values: Sequence[float] | Floats) -> str:
    return "(" + ", ".join(f"{float(v):.4g}" for v in values) + ")"


def refuse_unlinked(transforms: Sequence[StoredTransform]) -> None:
    """Raise SpecError if the moving volume of a transform is not as large as the fixed one of the next."""
    for one, other in pairwise(transforms):
        if one.moving is None or other.frame is None:
            continue
        if not np.allclose(one.moving.extent_um, other.frame.extent_um, rtol=_ALIKE):
            ends, begins = _um(one.moving.extent_um), _um(other.frame.extent_um)
            raise SpecError(
                f"{one.path} ends in a moving volume of {ends} um, and {other.path} begins in a fixed volume of {begins} um, so "
                "one does not go on where the other ends; name transforms in their order from fixed to moving"
            )
