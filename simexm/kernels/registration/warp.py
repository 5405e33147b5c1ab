"""Images and label images at any coordinates of their voxels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Outside = Literal["zero", "nearest"]
SPLINE_MARGIN = 16
"""Voxels around a crop in which a cubic spline's filter settles to 1e-9 of a difference at the border."""


def inside(shape: tuple[int, ...], voxels: Floats) -> NDArray[np.bool_]:
    """Whether coordinates (3, ...), counted from the centre of the first voxel, lie in a volume's voxels."""
    size = np.array(shape).reshape(3, *(1,) * (voxels.ndim - 1))
    return np.asarray(np.all((voxels >= -0.5) & (voxels < size - 0.5), axis=0))


def image_at(image: NDArray[Any], voxels: Floats, order: Literal[1, 3]) -> Floats:
    """Values of an image by linear (`order` 1) or cubic (3) interpolation; beyond the outer centres those of the border."""
    flat = voxels.reshape(3, -1)
    found = ndimage.map_coordinates(image, flat, order=order, mode="nearest", output=np.float64)
    return np.asarray(found.reshape(voxels.shape[1:]), np.float64)


def labels_at(labels: NDArray[Any], voxels: Floats) -> NDArray[Any]:
    """Ids of the voxels in which coordinates lie, unchanged; beyond the border those of the nearest voxel."""
    where = [np.clip(np.floor(v + 0.5), 0, n - 1).astype(np.intp) for v, n in zip(voxels, labels.shape, strict=True)]
    return np.asarray(labels[tuple(where)])


def as_type(values: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values as a data type: integers rounded to the nearest, and limited to what the type holds."""
    if dtype.kind not in "ui":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
