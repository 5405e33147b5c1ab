"""Transforms in the files of other programs.

Coordinates in them are um, in the axes of the images that the transform relates; those of ITK and NRRD are x, y, z.
"""

from __future__ import annotations

from pathlib import Path

from simexm.analysis.registration.foreign import itk_files, ome_zarr, text
from simexm.analysis.registration.foreign.content import Content

FIELDS = (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz")
TRANSFORMS = (".tfm", ".h5", ".hdf5", ".mat")
_ITK_TEXT = b"#Insight Transform File"


def read(path: Path) -> Content | None:
    """Read a file or folder with a transform; None if there is no such file, or the folder holds none of OME-Zarr.

    Raises SpecError for a file that holds no transform, and OutputError if a library is missing.
    """
    if path.is_dir():
        return ome_zarr.read(path)
    if not path.is_file():
        return None
    name = path.name.lower()
    if name.endswith(FIELDS):
        return itk_files.read_field(path)
    with path.open("rb") as file:
        is_itk = file.read(len(_ITK_TEXT)) == _ITK_TEXT
    return itk_files.read_transform(path) if is_itk or name.endswith(TRANSFORMS) else text.read(path)
