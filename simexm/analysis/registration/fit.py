"""Find the transform between two volumes in memory, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration import itk
from simexm.analysis.registration.images import Picture, local_contrast, mass_centre, pulled
from simexm.analysis.registration.linear_algebra import one_thread
from simexm.analysis.registration.steps import Centre, Deform, Features, Linear, Random, Step
from simexm.analysis.registration.transform import Floats, Frame, Transform, affine_at, inverted
from simexm.errors import RunError
from simexm.geometry.grid import three, triple
from simexm.kernels.registration import features, fields, similarity
from simexm.kernels.registration.scattered import SmoothDisplacement


@dataclass(frozen=True)
class Report:
    """What a step did: correlation of the images after it, CPU seconds, and a remark."""

    step: str
    correlation: float
    seconds: float
    remark: str


def fit(fixed: Picture, moving: Picture, steps: Sequence[Step], start: Transform) -> tuple[Transform, list[Report]]:
    """Run the steps; the displacement, if any, is on the grid of the fixed volume and free of folds.

    Raises RunError if a step fails.
    """
    found = start
    reports = [Report("start", _correlation(fixed, moving, found), 0.0, "")]
    for step in steps:
        began = time.process_time()
        if isinstance(step, Centre):
            found, remark = _centred(step, fixed, moving), ""
        elif isinstance(step, Random):
            found, remark = _searched(step, fixed, moving, found)
        elif isinstance(step, Features):
            found, remark = _matched(step, fixed, moving)
        elif isinstance(step, Linear):
            found, remark = found.with_affine(itk.linear(step, fixed, moving, found.affine)), ""
        else:
            found, remark = _deformed(step, fixed, moving, found)
        seconds = time.process_time() - began
        reports.append(Report(step.step, _correlation(fixed, moving, found), seconds, remark))
    return found, reports


def _correlation(fixed: Picture, moving: Picture, transform: Transform) -> float:
    image, where = pulled(moving, transform, fixed.frame)
    if fixed.mask is not None:
        where &= fixed.mask
    return similarity.correlation(fixed.values, image, where)


def _centred(step: Centre, fixed: Picture, moving: Picture) -> Transform:
    one, other = (mass_centre(p) if step.of == "mass" else p.frame.centre_um for p in (fixed, moving))
    return Transform(np.column_stack([np.eye(3), other - one]))


_COVERED = 0.2
"""Least share of the fixed volume that the moving one must cover for a random motion to be compared."""


def _searched(step: Random, fixed: Picture, moving: Picture, start: Transform) -> tuple[Transform, str]:
    spacing = step.spacing_um or max(float(fixed.frame.extent_um.max()) / 64, *fixed.frame.voxel_um)
    one, other = fixed.resampled(spacing), moving.resampled(spacing)
    random = np.random.Generator(np.random.Philox(step.seed))
    reach = np.full(3, step.shift_um) if step.shift_um else fixed.frame.extent_um / 4
    best, best_value = start, _comparable(one, other, start)
    for _ in range(step.trials):
        shift = random.uniform(-1, 1, 3) * reach
        turn = _rotation(np.radians(random.uniform(-1, 1, 3) * step.rotation_deg))
        centre = fixed.frame.centre_um
        motion = np.column_stack([turn, centre - turn @ centre + shift])
        tried = start.with_affine(np.column_stack([start.affine[:, :3] @ turn, affine_at(start.affine, motion[:, 3])]))
        value = _comparable(one, other, tried)
        if value > best_value:
            best, best_value = tried, value
    return best, f"{step.trials} motions"


def _comparable(fixed: Picture, moving: Picture, transform: Transform) -> float:
    image, where = pulled(moving, transform, fixed.frame)
    if fixed.mask is not None:
        where &= fixed.mask
    value = similarity.correlation(fixed.values, image, where) if where.mean() >= _COVERED else -1.0
    return value if np.isfinite(value) else -1.0


def _rotation(angles: NDArray[np.float64]) -> Floats:
    """Rotation about z, then y, then x, by angles in radians, acting on z y x."""
    found = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        found = turn @ found
    return found


_TOLERANCE, _LENGTH = 6.0, 16.0
"""Defaults of `Features`, in voxels of its spacing."""


@one_thread()
def _matched(step: Features, fixed: Picture, moving: Picture) -> tuple[Transform, str]:
    spacing = step.spacing_um or max(*fixed.frame.voxel_um, *moving.frame.voxel_um)
    tolerance = step.tolerance_um or _TOLERANCE * spacing
    points, images = _matches(step, fixed.resampled(spacing), moving.resampled(spacing))
    found = features.ransac(points, images, tolerance, step.trials, step.strain, step.seed)
    agree = 0 if found is None else int(found[1].sum())
    if found is None or agree < step.least_matches:
        raise RunError(
            f"features: {len(points)} spots of both volumes match and {agree} of them agree, fewer than least_matches "
            f"({step.least_matches}), so the transform would be a guess; try another spacing_um, other radii, a lower "
            "correlation, or begin with `step: random`"
        )
    affine, agreeing = found
    points, images = points[agreeing], images[agreeing]
    if step.model in ("rigid", "similarity"):
        affine = features.fit_similarity(points, images, scaled=step.model == "similarity")
    remark = f"{agree} of {len(agreeing)} matches agree"
    if step.model != "smooth":
        return Transform(affine), remark
    left = affine_at(inverted(affine), images.T).T - points
    smooth = SmoothDisplacement(points, left, step.length_um or _LENGTH * spacing, step.noise * spacing)
    displacement, folded = fields.unfold(_spread(smooth, fixed.frame, spacing), fixed.frame.voxel_um, _LEAST)
    return Transform(affine, displacement, fixed.frame), f"{remark}; {folded} cells unfolded"


@one_thread()
def matched_near(step: Features, fixed: Picture, moving: Picture, before: Transform) -> NDArray[np.float32]:
    """The smooth displacement (3, z, y, x), um, that `before` lacks, through matches that lie within the tolerance of it.

    It is 0 if there are fewer than `least_matches`.
    """
    spacing = step.spacing_um or max(fixed.frame.voxel_um)
    image, where = pulled(moving, before, fixed.frame)
    points, images = _matches(step, fixed.resampled(spacing), Picture(image, fixed.frame, where).resampled(spacing))
    near = np.linalg.norm(images - points, axis=1) <= (step.tolerance_um or _TOLERANCE * spacing)
    if near.sum() < step.least_matches:
        return np.zeros((3, *fixed.frame.shape), np.float32)
    points, left = points[near], (images - points)[near]
    smooth = SmoothDisplacement(points, left, step.length_um or _LENGTH * spacing, step.noise * spacing)
    return _spread(smooth, fixed.frame, spacing)


_LEAST = 0.1
_STRIDE = 5
"""Voxels of the features' spacing between the nodes on which the smooth displacement is computed; cubic between."""


def _matches(step: Features, fixed: Picture, moving: Picture) -> tuple[Floats, Floats]:
    places, cubes = [], []
    for picture in (fixed, moving):
        found = features.blobs(picture.values, step.radii, step.most, picture.mask)
        cut, rows = features.patches(picture.values, found, step.half)
        places.append(picture.frame.first_um + found[rows] * np.asarray(picture.frame.voxel_um))
        cubes.append(cut)
    one, other, _ = features.matches(cubes[0], cubes[1], step.correlation)
    return places[0][one], places[1][other]


def _spread(smooth: SmoothDisplacement, frame: Frame, spacing: float) -> NDArray[np.float32]:
    stride = _STRIDE * spacing
    shape = np.ceil(frame.extent_um / stride).astype(int) + 3
    corner = frame.centre_um - shape * stride / 2
    coarse = Frame(triple(shape), (stride,) * 3, three(map(float, corner)))
    nodes = coarse.centres().reshape(3, -1).T
    values = smooth.at(nodes).T.reshape(3, *coarse.shape).astype(np.float32)
    return itk.on_frame(values, coarse, frame)


def deformation(step: Deform, fixed: Picture, moving: Picture, before: Transform) -> NDArray[np.float32]:
    """The displacement (3, z, y, x), um, that `before` lacks, on the grid of the fixed image; it may fold."""
    image, where = pulled(moving, before, fixed.frame)
    if fixed.mask is not None:
        where &= fixed.mask
    one, other = fixed.values, image
    if step.contrast == "local":
        one, other = (local_contrast(v, where, step.contrast_voxels) for v in (one, image))
    elif step.contrast == "histogram":
        other = itk.like(image, one, fixed.frame)
    return itk.demons(step, one, np.where(where, other, one), fixed.frame)  # equal images pull nowhere


def _deformed(step: Deform, fixed: Picture, moving: Picture, before: Transform) -> tuple[Transform, str]:
    found = before.before(deformation(step, fixed, moving, before), fixed.frame)
    assert found.displacement is not None
    displacement, folded = fields.unfold(found.displacement, fixed.frame.voxel_um, step.least_jacobian)
    return Transform(before.affine, displacement, fixed.frame), f"{folded} cells unfolded"
