"""NIfTI volumes, NAME.nii or NAME.nii.gz; nibabel reads the header. https://nifti.nimh.nih.gov/nifti-1."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import SourceError
from simexm.sources.axes import nm_per
from simexm.sources.directions import place_by_directions
from simexm.sources.logged import logged
from simexm.sources.needs import need
from simexm.sources.tiff.mapped import MappedStack, damaged, is_gzip, skip
from simexm.units import times

_DIGITS = 7  # of 32 bits
_SECOND = {540, int.from_bytes((540).to_bytes(4, "big"), "little")}
"""Size of NIfTI-2's header, with which it begins, in either byte order."""


def open_nifti(path: Path) -> MappedStack:
    """Open a NIfTI volume; axes, size and position come from its affine transformation.

    Raises SourceError if nibabel is missing, the file is damaged, or it holds scaled values, colours, or several
    volumes.
    """
    nibabel = need("nibabel", f"{path} is a NIfTI file")
    opener: Any = gzip.open if is_gzip(path) else open
    try:
        with logged("nibabel.global"), opener(path, "rb") as file:  # nibabel logs what it repairs
            second = int.from_bytes(file.read(4), "little") in _SECOND
            file.seek(0)
            header: Any = (nibabel.Nifti2Header if second else nibabel.Nifti1Header).from_fileobj(file)
        shape = tuple(map(int, header.get_data_shape()))
        dtype = np.dtype(header.get_data_dtype())
        offset = int(header.get_data_offset())
        slope, inter = (d if n is None else float(n) for n, d in zip(header.get_slope_inter(), (1.0, 0.0), strict=True))
        placed = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
        affine = np.asarray(header.get_best_affine(), float)
        unit = header.get_xyzt_units()[0]
        zooms = [float(z) for z in header.get_zooms()[:3]]
    except Exception as error:  # nibabel has no common error type
        raise damaged(path, str(error) or type(error).__name__) from error
    if dtype.names is not None:
        raise SourceError(
            f"{path} holds colours, and labels are one number per voxel. Save the label map, not its picture."
        )
    if (slope, inter) != (1, 0):
        raise SourceError(
            f"{path} holds scaled values ({slope:g} times the stored number plus {inter:g}), and ids are plain integers. "
            "Save the label map in an unsigned integer type."
        )
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise SourceError(
            f"{path} has the shape {times(shape)} (x y z ...), and labels are one volume. Save that one alone."
        )
    per = nm_per(unit)
    steps, centre = (affine[:3, :3].T, affine[:3, 3].tolist()) if placed else (np.diag(zooms), None)
    found = place_by_directions(str(path), steps.tolist(), centre, None if per is None else [per] * 3, _DIGITS)
    last = len(shape) - 1  # the first axis runs fastest
    z, y, x = (last - a for a in found.order)
    stream: Any = None
    if opener is not open:
        stream = gzip.open(path)  # noqa: SIM115, closed below
        skip(path, stream, offset)
    try:
        place = (found.voxel_size_nm, found.origin_nm)
        return MappedStack(path, dtype, shape[::-1], (z, y, x), offset, place=place, unpacked=stream)
    finally:
        if stream is not None:
            stream.close()
