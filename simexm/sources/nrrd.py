"""NRRD volumes; pynrrd reads the header. https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import SourceError
from simexm.geometry.grid import Triple, three, triple
from simexm.sources.axes import nm_per, spatial_order
from simexm.sources.directions import Placement, place_by_directions
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.tiff.mapped import MappedStack, damaged, three_axes
from simexm.units import times

_DIGITS = 12  # in the text of a header, and in a double
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_UNPACK: Mapping[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}


def open_nrrd(path: Path) -> MappedStack:
    """Open a NRRD volume; axes, size and position come from space directions and origin, or from labels and spacings.

    Raises SourceError if pynrrd is missing, the file is damaged, its data are in another file or text, or it is not one
    volume.
    """
    nrrd = need("nrrd", f"{path} is a NRRD file")
    try:
        with path.open("rb") as file:
            header = nrrd.read_header(file)
            offset = file.tell()
        sizes = tuple(map(int, header["sizes"]))
        encoding, kind = str(header["encoding"]).lower(), str(header["type"])
        skip = int(header.get("byte skip", header.get("byteskip", 0)))
        lines = int(header.get("line skip", header.get("lineskip", 0)))
    except SourceError:
        raise
    except Exception as error:  # a broken line makes pynrrd raise anything
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if "data file" in header or "datafile" in header:
        raise SourceError(f"{path} is a header without its data file. Save both as one file, NAME.nrrd.")
    if kind not in _TYPE_OF or lines or (encoding != "raw" and (encoding not in _UNPACK or skip)):
        raise SourceError(
            f"{path} holds numbers of type {kind}, encoded as {encoding}"
            + (", after lines or bytes to skip" if lines or skip else "")
            + ", which is not supported. Save it with the encoding raw or gzip."
        )
    endian = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    dtype = np.dtype(endian + _TYPE_OF[kind])
    found = _placed(path, header, sizes)
    if encoding == "raw":
        nbytes = int(np.prod(sizes, dtype=object)) * dtype.itemsize
        offset = path.stat().st_size - nbytes if skip == -1 else offset + skip
        if offset < 0:
            raise damaged(path, "it is smaller than its numbers")
    last = len(sizes) - 1  # the first axis runs fastest
    order = triple(last - a for a in found.order)
    with ExitStack() as stack:
        stream: Any = None
        if encoding != "raw":
            raw = stack.enter_context(path.open("rb"))
            raw.seek(offset)
            stream = stack.enter_context(_UNPACK[encoding](raw))
        place = (found.voxel_size_nm, found.origin_nm)
        return MappedStack(path, dtype, sizes[::-1], order, offset, place=place, unpacked=stream)


def _placed(path: Path, header: Mapping[str, Any], sizes: tuple[int, ...]) -> Placement:
    """Return the placement by space directions, or by spacings; `order` is among all axes of the file."""
    directions = header.get("space directions")
    if directions is None:
        return _spaced(path, header, sizes)
    if len(directions) != len(sizes):
        raise damaged(path, f"it has {len(sizes)} sizes and {len(directions)} directions")
    steps = [np.full(3, np.nan) if d is None else np.asarray(d, float) for d in directions]
    spatial = [a for a, step in enumerate(steps) if step.shape == (3,) and np.isfinite(step).all()]
    other = [a for a in range(len(sizes)) if a not in spatial and sizes[a] != 1]
    if len(spatial) != 3 or other:
        raise SourceError(
            f"{path} has the sizes {times(sizes)}, of which {len(spatial)} are spatial axes; labels are one number per voxel "
            "of a volume. Save the label map alone."
        )
    units = [nm_per(str(u).strip('"')) for u in header.get("space units", ())]
    nm = [u for u in units if u is not None]
    origin = header.get("space origin")
    found = place_by_directions(
        str(path),
        [steps[a].tolist() for a in spatial],
        None if origin is None else np.asarray(origin, float).tolist(),
        nm if len(nm) == 3 else None,
        _DIGITS,
    )
    return Placement(triple(spatial[a] for a in found.order), found.voxel_size_nm, found.origin_nm)


def _spaced(path: Path, header: Mapping[str, Any], sizes: tuple[int, ...]) -> Placement:
    """Return the placement by labels of axes (or their order) and spacings."""
    labels = [str(n).strip('"').lower() for n in header.get("labels", ())]
    order: Triple
    if all(axis in labels for axis in "zyx"):
        order = spatial_order(str(path), labels, sizes)
    else:
        z, y, x = three_axes(str(path), sizes)
        order = (x, y, z)
    spacings, units = header.get("spacings"), header.get("units", ())
    if spacings is None or len(spacings) != len(sizes) or len(units) != len(sizes):
        return Placement(order, None, ORIGIN)
    lengths = []
    for axis in order:
        per, spacing = nm_per(str(units[axis]).strip('"')), abs(float(spacings[axis]))
        if per is None or not 0 < spacing < float("inf"):
            return Placement(order, None, ORIGIN)
        lengths.append(Fraction(f"{spacing:.{_DIGITS}g}") * per)
    return Placement(order, three(lengths), ORIGIN)
