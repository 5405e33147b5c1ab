"""Align two arrays in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration import fit
from simexm.analysis.registration.align import Align
from simexm.analysis.registration.images import Picture
from simexm.analysis.registration.measures import alignment_measures
from simexm.analysis.registration.overlap import refuse_apart
from simexm.analysis.registration.sides import FEWEST, UmSize
from simexm.analysis.registration.steps import order_fault
from simexm.analysis.registration.transform import Frame, Transform
from simexm.errors import SpecError
from simexm.geometry.grid import three
from simexm.kernels.registration import warp


@dataclass(frozen=True)
class Aligned:
    """An alignment in memory.

    Attributes
    ----------
    image
        The moving image on the grid of the fixed one, (z, y, x), in its data type; 0 or the nearest voxel outside.
    transform
        Called with points of the fixed volume, (3, ...), um, it returns those of the moving one.
    steps
        What each step did.
    scores
        Scores that need no truth, by name and subset; see `MEASURED`.
    """

    image: NDArray[Any]
    transform: Transform
    steps: tuple[fit.Report, ...]
    scores: Mapping[tuple[str, str], float]


def align(
    fixed: NDArray[Any],
    moving: NDArray[Any],
    settings: Align | None = None,
    *,
    voxel_um: UmSize,
    moving_voxel_um: UmSize | None = None,
    fixed_mask: NDArray[Any] | None = None,
    moving_mask: NDArray[Any] | None = None,
    start: Transform | None = None,
) -> Aligned:
    """Align two arrays, (z, y, x), in this process; nothing is stored.

    Parameters
    ----------
    fixed, moving
        Images.
    settings
        Steps and interpolation; by default those of `Align()`. Its paths are not used.
    voxel_um, moving_voxel_um
        Size of a voxel of each, z, y, x, um; the moving one has by default the fixed one's. Both begin at 0.
    fixed_mask, moving_mask
        Voxels that count, of the images' shapes; None for all.
    start
        Transform to begin from.

    Raises
    ------
    SpecError
        If the arrays, masks or steps do not fit each other.
    RunError
        If a step fails.
    """
    chosen = settings or Align()
    if start is not None and (fault := order_fault(chosen.steps, True)):
        raise SpecError(fault)
    pictures = []
    for name, image, mask, voxel in (
        ("fixed", fixed, fixed_mask, voxel_um),
        ("moving", moving, moving_mask, moving_voxel_um or voxel_um),
    ):
        if image.ndim != 3 or min(image.shape) < FEWEST:
            raise SpecError(
                f"the {name} image has the shape {image.shape}; give (z, y, x) of at least {FEWEST} voxels along each axis"
            )
        if mask is not None and mask.shape != image.shape:
            raise SpecError(f"the {name} mask has the shape {mask.shape}, and its image {image.shape}; they must agree")
        if min(voxel) <= 0 or not np.isfinite(voxel).all():
            raise SpecError(f"the {name} image has voxels of {voxel} um; give three positive numbers, z, y, x")
        if not np.isfinite(image).all() or image.min() == image.max():
            raise SpecError(f"the {name} image holds one value only, NaN or infinity, so nothing can be aligned")
        frame = Frame(three(image.shape), voxel)
        pictures.append(Picture(image.astype(np.float32), frame, None if mask is None else mask != 0))
    frames = (pictures[0].frame, pictures[1].frame)
    refuse_apart(chosen.steps, *frames, start or Transform(), start is not None)
    found, reports = fit.fit(pictures[0], pictures[1], chosen.steps, (start or Transform()).on(frames[0]))
    at = pictures[1].frame.voxels(found(pictures[0].frame.centres()))
    values = warp.image_at(moving, at, 1 if chosen.interpolation == "linear" else 3)
    if chosen.outside == "zero":
        values = np.where(warp.inside(moving.shape, at), values, 0)
    measures = alignment_measures(pictures[0], pictures[1], found)
    return Aligned(warp.as_type(values, moving.dtype), found, tuple(reports), measures)
