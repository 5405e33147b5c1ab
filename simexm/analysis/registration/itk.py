"""Linear maps and demons by SimpleITK, on one thread, which its results then do not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm.analysis.registration.images import Image, Picture
from simexm.analysis.registration.steps import Deform, Level, Linear
from simexm.analysis.registration.transform import Floats, Frame
from simexm.errors import OutputError


def simpleitk() -> Any:
    """Import SimpleITK; raises OutputError without it."""
    try:
        import SimpleITK as itk  # late: it is an extra, and large
    except ImportError:
        raise OutputError(
            "aligning needs SimpleITK, which is not installed; type: pip install 'simexm[align]'"
        ) from None
    library: Any = itk
    library.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    library.ProcessObject.SetGlobalWarningDisplay(False)
    return library


def to_itk(values: NDArray[Any], frame: Frame) -> Any:
    """An array (z, y, x) as an image of SimpleITK, whose axes are x, y, z."""
    image = simpleitk().GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing([float(v) for v in reversed(frame.voxel_um)])
    image.SetOrigin([float(v) for v in reversed(frame.first_um)])
    return image


_MODELS = {"rigid": "Euler3DTransform", "similarity": "Similarity3DTransform", "affine": "AffineTransform"}


def linear(step: Linear, fixed: Picture, moving: Picture, start: Floats) -> Floats:
    """Improve a linear map, (3, 4); returns the start if the metric could not be improved.

    The step finds a map of its own, which is followed by the start.
    """
    itk = simpleitk()
    method = itk.ImageRegistrationMethod()
    if step.metric == "correlation":
        method.SetMetricAsCorrelation()
    elif step.metric == "local_correlation":
        method.SetMetricAsANTSNeighborhoodCorrelation(4)
    else:
        method.SetMetricAsMattesMutualInformation(32)
    if step.sampling < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(step.sampling, step.seed + 1)  # 0 would be the time of day
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, step.levels[0].iterations, 0.6, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetMovingInitialTransform(affine_to_itk(start))
    own = getattr(itk, _MODELS[step.step])(*((3,) if step.step == "affine" else ()))
    own.SetCenter([float(v) for v in reversed(fixed.frame.centre_um)])
    for level in step.levels:
        method.SetOptimizerAsRegularStepGradientDescent(
            float(max(fixed.frame.voxel_um)) * level.shrink / 2, 1e-4, level.iterations, 0.6, 1e-8
        )
        one, other = (_level(p, level) for p in (fixed, moving))
        if one.mask is not None:
            method.SetMetricFixedMask(to_itk(one.mask.astype(np.uint8), one.frame))
        if other.mask is not None:
            method.SetMetricMovingMask(to_itk(other.mask.astype(np.uint8), other.frame))
        method.SetInitialTransform(own, inPlace=True)
        before = method.MetricEvaluate(to_itk(one.values, one.frame), to_itk(other.values, other.frame))
        kept = own.GetParameters()
        try:
            method.Execute(to_itk(one.values, one.frame), to_itk(other.values, other.frame))
        except RuntimeError:  # such as no overlap left
            own.SetParameters(kept)
            continue
        if not method.GetMetricValue() <= before:
            own.SetParameters(kept)
    return _composed(start, affine_of(own))


def _level(picture: Picture, level: Level) -> Picture:
    small = picture.shrunk(level.shrink)
    if not level.smooth:
        return small
    return Picture(ndimage.gaussian_filter(small.values, level.smooth, mode="nearest"), small.frame, small.mask)


def affine_to_itk(affine: Floats) -> Any:
    """An affine map (3, 4) of z y x as a transform of SimpleITK, whose axes are x, y, z."""
    found = simpleitk().AffineTransform(3)
    found.SetMatrix(affine[::-1, 2::-1].ravel().tolist())
    found.SetTranslation(affine[::-1, 3].tolist())
    return found


def affine_of(transform: Any) -> Floats:
    """The affine map of a linear transform of SimpleITK, (3, 4)."""
    shift = np.array(transform.TransformPoint([0.0, 0.0, 0.0]))
    columns = [np.array(transform.TransformPoint(list(e))) - shift for e in np.eye(3)]
    return np.column_stack([np.array(columns).T[::-1, ::-1], shift[::-1]])


def _composed(later: Floats, earlier: Floats) -> Floats:
    linear_part = later[:, :3] @ earlier[:, :3]
    return np.column_stack([linear_part, later[:, :3] @ earlier[:, 3] + later[:, 3]])


def demons(step: Deform, fixed: Image, pulled: Image, frame: Frame) -> NDArray[np.float32]:
    """Displacement between two images on one grid, (3, z, y, x), um, on that grid."""
    itk = simpleitk()
    found: NDArray[Any] | None = None
    of: Frame = frame
    for level in step.levels:
        one, other = (_level(Picture(values, frame), level) for values in (fixed, pulled))
        method = itk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(level.iterations)
        method.SetSmoothDisplacementField(True)
        method.SetStandardDeviations(step.smooth_field)
        method.SetMaximumUpdateStepLength(step.largest_step)
        images = [to_itk(p.values, p.frame) for p in (one, other)]
        if found is None:
            vectors = method.Execute(*images)
        else:
            vectors = method.Execute(*images, to_itk_field(on_frame(found, of, one.frame), one.frame))
        found, of = np.moveaxis(itk.GetArrayFromImage(vectors)[..., ::-1], -1, 0), one.frame
    assert found is not None
    return on_frame(found, of, frame)


def on_frame(values: NDArray[Any], own: Frame, frame: Frame) -> NDArray[np.float32]:
    """A field (3, z, y, x) of the grid `own` on another, by cubic interpolation, and constant beyond its outer centres."""
    if own == frame:
        return np.ascontiguousarray(values, np.float32)
    last = np.asarray(own.shape).reshape(3, 1, 1, 1) - 1.0
    found = np.empty((len(values), *frame.shape), np.float32)
    splines = [ndimage.spline_filter(part, 3, mode="mirror") for part in values]
    for planes, points in frame.slabs():
        at = np.clip(own.voxels(points), 0, last)
        for part, spline in zip(found, splines, strict=True):
            ndimage.map_coordinates(spline, at, order=3, mode="mirror", prefilter=False, output=part[planes])
    return found


def like(image: Image, reference: Image, frame: Frame) -> Image:
    """An image with about the distribution of values of another on the same grid."""
    one, other = (to_itk(v, frame) for v in (image, reference))
    return np.asarray(simpleitk().GetArrayFromImage(simpleitk().HistogramMatching(one, other, 256, 15, True)))


def to_itk_field(field: NDArray[np.float32], frame: Frame) -> Any:
    """A displacement field (3, z, y, x) as an image of vectors x, y, z."""
    vectors = np.moveaxis(field[::-1], 0, -1).astype(np.float64)
    image = simpleitk().GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
    image.SetSpacing([float(v) for v in reversed(frame.voxel_um)])
    image.SetOrigin([float(v) for v in reversed(frame.first_um)])
    return image
