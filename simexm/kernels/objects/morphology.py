"""Erosion, dilation, opening and closing of masks by balls whose radius is given in nm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple, three

_ROUNDING = 1 + 1e-9
"""Distances are square roots: one that is equal to the radius may come out larger in its last bits."""


def reach(radius_nm: float, voxel_nm: tuple[float, float, float]) -> Triple:
    """Voxels along z, y, x within a radius."""
    return three(math.floor(radius_nm * _ROUNDING / v) for v in voxel_nm)


def eroded(mask: NDArray[np.bool_], radius_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Keep the voxels whose centre lies further than the radius from the centres of all voxels outside the mask.

    Nothing is eroded from the ends of the array.
    """
    if not radius_nm or mask.all():
        return mask
    return _distance(mask, voxel_nm) > radius_nm * _ROUNDING


def dilated(mask: NDArray[np.bool_], radius_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Add the voxels whose centre lies within the radius of the centre of a voxel of the mask."""
    if not radius_nm or not mask.any():
        return mask
    found: NDArray[np.bool_] = _distance(~mask, voxel_nm) <= radius_nm * _ROUNDING
    return found


def opened(mask: NDArray[np.bool_], radius_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Remove what is narrower than a ball: erosion, then dilation."""
    return dilated(eroded(mask, radius_nm, voxel_nm), radius_nm, voxel_nm)


def closed(mask: NDArray[np.bool_], radius_nm: float, voxel_nm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Fill what is narrower than a ball: dilation, then erosion."""
    return eroded(dilated(mask, radius_nm, voxel_nm), radius_nm, voxel_nm)


def _distance(mask: NDArray[np.bool_], voxel_nm: tuple[float, float, float]) -> NDArray[Any]:
    from scipy import ndimage  # late: it takes a while to load

    found: NDArray[Any] = ndimage.distance_transform_edt(mask, sampling=voxel_nm)
    return found
