"""The landscape that a watershed floods: how deep a voxel lies in a cell, and how bright a membrane is.

Each function needs a halo around the voxels that it is wanted for, and gives them the same bits in an array of any extent.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple, three

Nm = tuple[float, float, float]
Image = NDArray[np.float32]
_SMOOTH, _LOCAL = 3.0, 2.0
"""Standard deviations at which the two Gaussian windows end."""
STEPS_PER_NM, _OFFSET = 64.0, 0.1234567
"""Distances are whole numbers of 1 / 64 nm, so that equal ones have equal bits; the offset keeps them off its steps."""


def reach(sigma_nm: float, voxel_nm: Nm, end: float) -> Triple:
    """Voxels along z, y, x that a Gaussian window of this deviation takes in."""
    return three(int(end * sigma_nm / v + 0.5) for v in voxel_nm)


def membrane_reach(smoothing_nm: float, local_nm: float, voxel_nm: Nm) -> Triple:
    """Voxels around a box that decide `membrane` in it."""
    one, other = reach(smoothing_nm, voxel_nm, _SMOOTH), reach(local_nm, voxel_nm, _LOCAL)
    return three(max(a, b) for a, b in zip(one, other, strict=True))


def membrane(image: NDArray[Any], smoothing_nm: float, local_nm: float, voxel_nm: Nm) -> Image:
    """Return m / (m + l), from 0 to 1, with m and l the image smoothed narrowly and widely; 0.5 is the local mean.

    Where both are 0 it is 0. Values below 0 count as 0.
    """
    values = np.maximum(np.asarray(image, np.float32), 0)
    near, wide = _smoothed(values, smoothing_nm, voxel_nm, _SMOOTH), _smoothed(values, local_nm, voxel_nm, _LOCAL)
    both = near + wide
    return np.asarray(np.divide(near, both, out=np.zeros_like(near), where=both > 0), np.float32)


def depth_reach(deepest_nm: float, rounding_nm: float, voxel_nm: Nm) -> Triple:
    """Voxels around a box that decide `depth_nm` in it."""
    edge = reach(rounding_nm, voxel_nm, _SMOOTH)
    return three(math.ceil(deepest_nm / v) + e for v, e in zip(voxel_nm, edge, strict=True))


def depth_nm(found: Image, threshold: float, deepest_nm: float, rounding_nm: float, voxel_nm: Nm) -> Image:
    """Depth of each voxel below the nearest membrane, smoothed; negative in membranes.

    Parameters
    ----------
    found
        What `membrane` returned.
    threshold
        Voxels above it are membrane.
    deepest_nm
        Larger depths count as this one.
    rounding_nm
        Deviation of the Gaussian that smooths the depths, so that a bump of a membrane makes no summit.
    """
    from scipy import ndimage  # late: it takes a while to load

    inside = found <= np.float32(threshold)
    if inside.all():
        distance = np.full(found.shape, deepest_nm)
    else:
        distance = np.minimum(ndimage.distance_transform_edt(inside, sampling=voxel_nm), deepest_nm)
    steps = np.floor(distance * STEPS_PER_NM + _OFFSET)
    bright = (np.float32(threshold) - found) * np.float32(_BRIGHT_NM * STEPS_PER_NM)
    return _smoothed(np.where(inside, steps, bright).astype(np.float32), rounding_nm, voxel_nm, _SMOOTH)


_BRIGHT_NM = 100.0
"""Depth that a membrane of value 1 has below one at a threshold of 0."""


def _smoothed(values: Image, sigma_nm: float, voxel_nm: Nm, end: float) -> Image:
    from scipy import ndimage

    out = values
    for axis, (sigma, radius) in enumerate(
        zip((sigma_nm / v for v in voxel_nm), reach(sigma_nm, voxel_nm, end), strict=True)
    ):
        if radius:
            out = ndimage.gaussian_filter1d(out, sigma, axis, mode="nearest", radius=radius)
    return np.asarray(out, np.float32)
