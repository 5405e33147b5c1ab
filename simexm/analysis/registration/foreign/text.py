"""Affine maps as text: three rows of four numbers, um, z y x."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simexm.analysis.registration.foreign.content import Content
from simexm.analysis.registration.transform import Floats, refuse_mirror
from simexm.errors import SpecError


def read(path: Path) -> Content:
    """Read a file with 3 or 4 rows of 4 numbers; raises SpecError for anything else."""
    try:
        found = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{path} cannot be read as an affine map: {error}; give 3 rows of 4 numbers, um, z y x, or a transform of ITK "
            "(.tfm), a field (.nrrd, .mha, .nii), or an OME-Zarr"
        ) from None
    if found.shape not in ((3, 4), (4, 4)) or not np.isfinite(found).all():
        raise SpecError(
            f"{path} holds numbers of the shape {found.shape}; an affine map is 3 rows of 4 numbers, um, z y x"
        )
    if found.shape == (4, 4) and not np.array_equal(found[3], [0, 0, 0, 1]):
        raise SpecError(
            f"the last row of {path} is {found[3].tolist()}, and that of an affine map is 0 0 0 1; correct it"
        )
    refuse_mirror(found[:3], str(path))
    return Content(str(found[:3].tolist()), found[:3])


def write(path: Path, affine: Floats) -> None:
    """Write an affine map (3, 4)."""
    np.savetxt(path, affine, header="affine map from the fixed to the moving volume, um, z y x", fmt="%.17g")
