"""MRC volumes, whose header mrcfile reads. https://www.ccpem.ac.uk/mrc_format/mrc2014.php."""

from __future__ import annotations

import gzip
import struct
import warnings
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import SourceError
from simexm.geometry.grid import Spacing, Triple, three
from simexm.sources.axes import nm_per, spatial_order
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.tiff.mapped import MappedStack, damaged, is_gzip, skip

_HEADER = 1024
_DIGITS = 7  # of 32 bits
_IMOD, _SIGNED = 1146047817, 1
"""IMOD's stamp in the header, and its flag for signed bytes."""


def open_mrc(path: Path) -> MappedStack:
    """Open an MRC volume: axes by mapc, mapr and maps, size by the cell in angstroms, position by the origin.

    Programs that know no size write a voxel of 1 angstrom, so that counts as none.

    Raises SourceError if mrcfile is missing, the file is damaged, or it holds several volumes.
    """
    mrcfile = need("mrcfile", f"{path} is an MRC file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header is checked below
            with mrcfile.open(path, header_only=True) as opened:
                header = opened.header.copy()
        dtype = mrcfile.utils.data_dtype_from_header(header)
        shape = tuple(map(int, mrcfile.utils.data_shape_from_header(header)))
        offset = _HEADER + int(header.nsymbt)
    except Exception as error:  # mrcfile has no common error type
        raise damaged(path, str(error) or type(error).__name__) from error
    if len(shape) != 3:
        raise SourceError(f"{path} holds a stack of volumes, and labels are one. Save that one alone.")
    stamp, flags = struct.unpack_from(f"{'>' if header.nx.dtype.byteorder == '>' else '<'}2i", header.tobytes(), 152)
    if header.mode == 0 and stamp == _IMOD and not flags & _SIGNED:
        dtype = np.dtype(np.uint8)
    numbers = [int(header.maps), int(header.mapr), int(header.mapc)]
    names = ["xyz"[n - 1] if 1 <= n <= 3 else "" for n in numbers] if any(numbers) else list("zyx")
    order: Triple = spatial_order(str(path), names, shape)
    size = _size(header)
    with ExitStack() as stack:
        stream: Any = None
        if is_gzip(path):
            stream = stack.enter_context(gzip.open(path))
            skip(path, stream, offset)
        place = (size, _origin(header, size, imod=stamp == _IMOD))
        return MappedStack(path, dtype, shape, order, offset, place=place, unpacked=stream)


def _size(header: Any) -> Spacing | None:
    angstrom = nm_per("angstrom") or Fraction(0)
    lengths = []
    for axis in "zyx":
        cell, count = float(header.cella[axis]), int(header[f"m{axis}"])
        if not 0 < cell < float("inf") or count < 1:
            return None
        lengths.append(Fraction(f"{cell / count:.{_DIGITS}g}") * angstrom)
    z, y, x = lengths
    return None if z == y == x == angstrom else (z, y, x)


def _origin(header: Any, size: Spacing | None, *, imod: bool) -> Spacing:
    """Return the volume's origin (with IMOD's opposite sign), or the position by the indices of its first voxel."""
    if size is None:
        return ORIGIN
    origin = [float(header.origin[axis]) for axis in "zyx"]
    if any(origin) and np.isfinite(origin).all():
        sign = (nm_per("angstrom") or Fraction(0)) * (-1 if imod else 1)
        return three(Fraction(f"{o:.{_DIGITS}g}") * sign for o in origin)
    return three(int(header[f"n{axis}start"]) * s for axis, s in zip("zyx", size, strict=True))
