"""Refuse implausible sizes before anything else is planned."""

from __future__ import annotations

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Spacing
from simexm.sources.axes import implausible
from simexm.sources.words import words
from simexm.units import times


def refuse_size(voxel_size_nm: Spacing) -> None:
    """Raise SpecError if a voxel size (z, y, x) is implausible."""
    why = implausible(voxel_size_nm)
    if why:
        raise SpecError(f"the voxels of the source are {why}. {words().voxel_size}")


def refuse_single_pixel(geometry: Geometry) -> None:
    """Raise SpecError if the image would be a single pixel, as when micrometres were read as nanometres."""
    if geometry.shape != (1, 1, 1) or geometry.crop.size == 1:
        return
    shape = geometry.crop.shape
    extent = (n * s for n, s in zip(shape, geometry.voxel_nm, strict=True))
    raise SpecError(
        f"the image would be a single pixel of {times(geometry.pixel_tissue_nm)} nm of tissue before expansion (z y x), since "
        f"all {times(shape)} voxels together measure {times(extent)} nm: {times(geometry.voxel_nm)} nm each. Probably a unit "
        f"is wrong. {words().voxel_size} If it is right, use a larger crop or smaller pixels."
    )
