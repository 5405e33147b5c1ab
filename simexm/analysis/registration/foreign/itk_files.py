"""Transforms of ITK, and displacement fields as images of vectors (NRRD, MetaImage, NIfTI), read by SimpleITK.

ITK's transform maps a point of the fixed image to one of the moving image, as that of simexm does, but its axes and components
are x, y, z. Its space is that of patients (LPS): a file of another orientation is turned on reading, which would reverse axes of
images that know no patient, so it is refused. ITK names no unit; numbers are taken as um.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.foreign.content import Content, digest_of, refuse_not_finite
from simexm.analysis.registration.itk import affine_of, affine_to_itk, simpleitk
from simexm.analysis.registration.transform import Floats, Frame, identity, refuse_mirror
from simexm.errors import SpecError
from simexm.geometry.grid import three, triple

_HINT = "write it with SimpleITK.TransformToDisplacementField on the grid of the fixed volume, as a .nrrd"


def read_field(path: Path) -> Content:
    """Read an image of vectors; raises SpecError if it is none, or if its axes are turned."""
    itk = simpleitk()
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError as error:
        raise SpecError(f"{path} cannot be read: {_last_line(error)}; copy it again from where it came") from None
    displacement, frame = _field_of(itk, image, str(path))
    return Content(digest_of(path), identity(), displacement, frame)


def _field_of(itk: Any, image: Any, where: str) -> tuple[NDArray[np.float32], Frame]:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        raise SpecError(
            f"{where} holds {image.GetNumberOfComponentsPerPixel()} numbers for each pixel of an image with "
            f"{image.GetDimension()} axes; a displacement field of a volume holds 3, along x, y and z"
        )
    if not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6):
        raise SpecError(
            f"the axes of {where} are turned (direction {tuple(image.GetDirection())}), and volumes of simexm are not, so every "
            "vector would point elsewhere; write the field with the identity as direction"
        )
    spacing, first = (np.array(v[::-1]) for v in (image.GetSpacing(), image.GetOrigin()))
    vectors = itk.GetArrayViewFromImage(image)
    values = np.ascontiguousarray(np.moveaxis(vectors[..., ::-1], -1, 0), np.float32)
    refuse_not_finite(values, where)
    frame = Frame(triple(values.shape[1:]), three(map(float, spacing)), three(map(float, first - spacing / 2)))
    return values, frame


def read_transform(path: Path) -> Content:
    """Read a transform: linear ones one after the other, and before them at most one displacement field.

    Raises SpecError for any other.
    """
    itk = simpleitk()
    try:
        found = itk.ReadTransform(str(path))
    except RuntimeError as error:
        raise SpecError(f"{path} cannot be read as a transform of ITK: {_last_line(error)}") from None
    if found.GetDimension() != 3:
        raise SpecError(f"{path} is a transform of {found.GetDimension()} axes; give one of a volume")
    steps = _flat(itk, found)
    affine, displacement, frame = identity(), None, None
    for number, step in enumerate(steps):  # the last acts first
        if step.IsLinear():
            affine = _after(affine, affine_of(step))
        elif step.GetName() == "DisplacementFieldTransform" and number == len(steps) - 1:
            field = itk.DisplacementFieldTransform(step).GetDisplacementField()
            displacement, frame = _field_of(itk, field, str(path))
        else:
            raise SpecError(
                f"{path} holds a {step.GetName()} as step {len(steps) - number} of {len(steps)}; simexm reads linear maps, and "
                f"before them one displacement field; {_HINT}"
            )
    refuse_mirror(affine, str(path))
    return Content(digest_of(path), affine, displacement, frame)


def _flat(itk: Any, transform: Any) -> list[Any]:
    if transform.GetName() != "CompositeTransform":
        return [transform.Downcast()]
    composite = itk.CompositeTransform(transform)
    inner = (composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms()))
    return [step for one in inner for step in _flat(itk, one)]


def _after(later: Floats, earlier: Floats) -> Floats:
    return np.column_stack([later[:, :3] @ earlier[:, :3], later[:, :3] @ earlier[:, 3] + later[:, 3]])


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()


def write_affine(path: Path, affine: Floats) -> None:
    """Write an affine map (3, 4), um, z y x, as a text file of ITK."""
    part = path.with_suffix(".tfm") if path.suffix != ".tfm" else path  # by which SimpleITK knows the format
    simpleitk().WriteTransform(affine_to_itk(affine), str(part))
    if part != path:
        part.replace(path)


def write_field(path: Path, frame: Frame, planes: Callable[[int, int], NDArray[np.float32]], step: int) -> None:
    """Write displacements as a NRRD of vectors x, y, z, plane by plane.

    Parameters
    ----------
    path
        File to write.
    frame
        Grid of the displacements.
    planes
        Displacements (3, z, y, x), um, from one plane up to another.
    step
        Planes in memory at once.
    """
    z, y, x = frame.voxel_um
    header = (
        "NRRD0004",
        "# displacement from points of the fixed to points of the moving volume, um",
        "type: float",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: 3 {' '.join(map(str, reversed(frame.shape)))}",
        f"space directions: none ({x!r},0,0) (0,{y!r},0) (0,0,{z!r})",
        "kinds: vector domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: ({','.join(repr(float(v)) for v in reversed(frame.first_um))})",
    )
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n\n").encode())
        for start in range(0, frame.shape[0], step):
            part = planes(start, min(start + step, frame.shape[0]))
            file.write(np.ascontiguousarray(np.moveaxis(part[::-1], 0, -1), "<f4").tobytes())
