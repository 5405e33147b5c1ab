"""Check that an HDF5 data set is complete: HDF5 silently returns fill values for missing parts."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from simexm.errors import SourceError
from simexm.sources.hdf5.chunks import Chunks
from simexm.sources.hdf5.file import BROKEN, linked_file, opened
from simexm.units import size, times

LARGEST_CHUNK = 4 * 2**30
"""Largest chunk, bytes, as it is decoded at once: HDF5 itself allowed no larger one up to version 1.14."""

_LOSSLESS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 307: "bzip2", 32000: "lzf", 32001: "blosc"}
_LOSSLESS |= {32004: "lz4", 32008: "bitshuffle", 32015: "zstd", 32026: "blosc2"}
_SCALE_OFFSET, _OTHERS = 6, {32013: "zfp", 32017: "SZ", 32019: "JPEG", 32024: "SZ3", 32028: "SPERR"}
_DEEPEST = 8


@dataclass(slots=True)
class Stored:
    """Files and chunks of a data set."""

    others: set[Path] = field(default_factory=set)  # other files that it reads
    chunks: Chunks | None = None  # the written chunks; None if it is not chunked
    seen: set[tuple[Path | None, str]] = field(default_factory=set)  # files and data sets that were checked


def check_stored(h5py: Any, where: str, data: Any) -> Stored:
    """Check that a data set can be read completely.

    Raises SourceError if a filter is missing or may change numbers, a chunk is too large to decode, the index of chunks
    is damaged, a file of the data set is missing, or nothing was ever written.
    """
    stored = Stored()
    stored.chunks = _check(h5py, where, data, 0, stored)
    return stored


def _check(h5py: Any, where: str, data: Any, depth: int, stored: Stored) -> Chunks | None:
    created = data.id.get_create_plist()
    if created.get_external_count():
        name = created.get_external(0)[0]
        raise SourceError(
            f"{where} stores its numbers outside the file, in {name.decode(errors='replace')}, whose missing parts HDF5 would "
            "return as 0. Write a copy that holds them: h5repack -l CONTI IN OUT"
        )
    if data.is_virtual:
        _check_sources(h5py, where, data, depth, stored)
        return None
    _check_filters(h5py, where, created, data.dtype)
    itemsize = data.id.get_type().get_size()
    chunk_bytes = prod(data.chunks or ()) * itemsize
    if data.chunks and chunk_bytes > LARGEST_CHUNK:
        raise SourceError(
            f"{where} has chunks of {times(data.chunks)}, each {size(chunk_bytes)}, "
            "and a chunk is decoded at once. Write a copy with smaller ones: h5repack -l CHUNK=64x64x64 IN OUT"
        )
    if data.id.get_storage_size() == 0:
        raise SourceError(f"{where}: nothing was ever written into it, so it has no cells. Is this the segmentation?")
    if not data.chunks:
        return None
    chunks = Chunks(where, data)
    if data.fillvalue != 0 and chunks.written < chunks.count:
        raise SourceError(
            f"{where}: {chunks.written} of {chunks.count} chunks were written, and HDF5 would return the others as the id "
            f"{data.fillvalue}. Finish the file, or write a copy with 0 there."
        )
    return chunks


def _check_filters(h5py: Any, where: str, created: Any, dtype: Any) -> None:
    for i in range(created.get_nfilters()):
        code, _, values, stored_name = created.get_filter(i)
        name = _LOSSLESS.get(code) or _OTHERS.get(code) or stored_name.decode(errors="replace") or "an unknown filter"
        exact = code in _LOSSLESS or (code == _SCALE_OFFSET and dtype.kind in "iu" and values[1:2] == (0,))
        if not exact:
            raise SourceError(
                f"{where} is compressed by {name} (HDF5 filter {code}), which may change numbers, and a changed id is another "
                "cell. Name the segmentation before compression, or a losslessly compressed copy."
            )
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError, OSError, RuntimeError):
                importlib.import_module("hdf5plugin")  # registers its filters
        if not h5py.h5z.filter_avail(code):
            raise SourceError(
                f"{where} is compressed by {name} (HDF5 filter {code}), which is not installed. Type: pip install "
                "hdf5plugin, or on a machine that reads it: h5repack -f GZIP=1 IN OUT"
            )


def _check_sources(h5py: Any, where: str, data: Any, depth: int, stored: Stored) -> None:
    """Check all data sets that a virtual one reads."""
    if depth >= _DEEPEST:
        raise SourceError(
            f"{where} is a virtual data set of virtual ones, over {_DEEPEST} deep. Write a copy with h5repack."
        )
    file, fill = Path(data.file.filename), data.fillvalue
    if fill != 0 and sum(s.vspace.get_select_npoints() for s in data.virtual_sources()) < data.size:
        raise SourceError(
            f"{where} has gaps between its parts, which HDF5 would return as the id {fill}. Write a copy with 0 there."
        )
    for source in data.virtual_sources():
        name, inside = source.file_name, source.dset_name
        if "%b" in name or "%b" in inside:
            raise SourceError(
                f"{where} is a virtual data set of any number of files ({name}), and a missing one would count as 0. Write a "
                "copy that holds all: h5repack -l CHUNK=64x64x64 IN OUT"
            )
        place = file if name == "." else linked_file(file, name)
        if (place, inside) in stored.seen:
            continue
        stored.seen.add((place, inside))
        if place is None:
            raise SourceError(
                f"{where} reads other files, and {name} is missing; its voxels would count as 0. Put it beside {file.name}."
            )
        if name != ".":
            stored.others.add(place)
        with opened(h5py, place) as root:
            part = _part(h5py, root, inside)
            if part is None or not _covers(h5py, part, source):
                raise SourceError(
                    f"{where} reads other data sets, and {inside!r} in {place} is missing, or smaller than it says; its voxels "
                    "would count as 0. Copy both files again from where they came."
                )
            _check(h5py, f"{place}/{inside.strip('/')}", part, depth + 1, stored)


def _part(h5py: Any, root: Any, inside: str) -> Any:
    try:
        found = root[inside]
    except BROKEN:
        return None
    return found if isinstance(found, h5py.Dataset) else None


def _covers(h5py: Any, part: Any, source: Any) -> bool:
    """Whether a data set has all the voxels that a virtual one reads, also where that grows with it."""
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return bool(part.size == source.vspace.get_select_npoints())
    try:
        last = source.src_space.get_select_bounds()[1]
    except BROKEN:
        return True
    return len(last) == len(part.shape) and all(a < n for a, n in zip(last, part.shape, strict=True))
