"""A transform whose value is known in closed form, on anisotropic voxels; its field is linear along each axis, so no grid loses any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.align import Align
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.steps import Random
from simexm.analysis.registration.transform import Frame, affine_at
from simexm.result.result import Result

Floats = NDArray[np.float64]
FRAME = Frame((10, 12, 16), (2.0, 1.0, 0.5))
SHIFTED = Frame((10, 12, 16), (2.0, 1.0, 0.5), (5.0, -3.0, 7.0))
AFFINE = np.array([[1.02, 0.03, 0.0, 0.4], [-0.01, 0.97, 0.02, -0.7], [0.0, 0.04, 1.01, 1.1]])


def displaced(points: Floats) -> Floats:
    """Displacement (3, ...), um, different along each axis."""
    z, y, x = points
    return np.stack([0.5 + 0.05 * z - 0.004 * y * x, -1.0 + 0.1 * x + 0.003 * z * y, 1.6 - 0.06 * y + 0.02 * z])


def truth(points: Floats) -> Floats:
    """Place in the moving volume, um."""
    moved = points + displaced(points)
    return affine_at(AFFINE, moved)


def places(frame: Frame, number: int = 200) -> Floats:
    """Random places between the outer centres of voxels, (3, n), um."""
    random = np.random.default_rng(1)
    size = np.asarray(frame.voxel_um) * (np.asarray(frame.shape) - 1)
    return np.asarray(frame.first_um[:, None] + random.uniform(0, 1, (3, number)) * size[:, None])


def vectors(itk: Any, frame: Frame, field: Floats) -> Any:
    """A field (3, z, y, x) as SimpleITK's image of vectors x, y, z."""
    image = itk.GetImageFromArray(np.stack([field[2], field[1], field[0]], axis=-1), isVector=True)
    image.SetSpacing(frame.voxel_um[::-1])
    image.SetOrigin([float(v) for v in frame.first_um[::-1]])
    return image


def composite(itk: Any, frame: Frame) -> Any:
    """The transform as one of SimpleITK: the affine map after the displacement."""
    field = itk.DisplacementFieldTransform(vectors(itk, frame, displaced(frame.centres())))
    affine = itk.AffineTransform(3)
    affine.SetMatrix(AFFINE[::-1, 2::-1].ravel())
    affine.SetTranslation(AFFINE[::-1, 3])
    return itk.CompositeTransform([affine, field])


def align_known(itk: Any, folder: Path, grid: Frame = FRAME) -> Result:
    """A stored alignment with this transform: it is the start, on any grid, and one motion of a nanometre finds nothing better."""
    itk.WriteTransform(composite(itk, grid), str(folder / "start.h5"))
    random = np.random.default_rng(0)
    for name in ("fixed", "moving"):
        np.save(folder / f"{name}.npy", random.integers(0, 1000, FRAME.shape).astype(np.uint16))
    side = Side(voxel_um=FRAME.voxel_um)
    steps = (Random(trials=1, shift_um=1e-3, rotation_deg=0),)
    settings = Align(steps=steps, start=str(folder / "start.h5"), fixed=side, moving=side)
    return settings.run(folder / "fixed.npy", folder / "moving.npy", output=folder / "known.zarr", quiet=True)
