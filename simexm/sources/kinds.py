"""Find the format of a path from its content; only headers are read, and no heavy library is imported."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from shlex import quote
from typing import Literal
from zipfile import BadZipFile, ZipFile, is_zipfile

from simexm.errors import SourceError, SourceNotFoundError
from simexm.sources.base import neighbours
from simexm.sources.limits import METADATA_BYTES, read_json, refuse_large
from simexm.store.location import is_url, usable

Kind = Literal[
    "TIFF", "sequence", "cells", "Zarr", "N5", "precomputed", "HDF5", "WKW", "WEBKNOSSOS", "NPY", "NRRD", "NIfTI", "MRC",
    "phantom",
]  # fmt: skip

PNG, BMP, JPEG, TIFF = "PNG", "BMP", "JPEG", "TIFF"
_MAGIC: dict[str, tuple[bytes, ...]] = {
    PNG: (b"\x89PNG\r\n\x1a\n",),
    BMP: (b"BM",),
    JPEG: (b"\xff\xd8\xff",),
    TIFF: (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_HEAD = 352
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, *(2**n for n in range(9, 21)))  # after a user block, such as MATLAB's
_ZIP_BYTES, _ZIP_RATIO = 2**30, 100
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
_JUNK = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
DESCRIPTIONS: dict[Kind, str] = {
    "TIFF": "is a TIFF file",
    "sequence": "is an image sequence",
    "cells": "is a folder of one volume per cell",
    "Zarr": "is a Zarr",
    "N5": "is an N5 container",
    "precomputed": "is a Neuroglancer precomputed volume",
    "HDF5": "is an HDF5 file",
    "WKW": "is a WEBKNOSSOS layer in WKW",
    "WEBKNOSSOS": "is a WEBKNOSSOS dataset",
    "NPY": "is a NumPy array",
    "NRRD": "is a NRRD file",
    "NIfTI": "is a NIfTI file",
    "MRC": "is an MRC file",
    "phantom": "describes a phantom",
}


def kind_of(path: str) -> Kind:
    """Return the format of a path, glob or URL.

    Raises SourceNotFoundError if nothing exists there, and SourceError if it cannot be read.
    """
    usable(path)
    if is_url(path):
        return "precomputed" if path.startswith("precomputed://") else "Zarr"
    local = Path(path).expanduser()
    if is_glob(path):
        return _kind_of_files(path, files_of(path))
    if local.exists() and not (local.is_file() or local.is_dir()):
        raise SourceError(f"{path} is a pipe or a device, which has no random access. Name a file or a folder.")
    if hdf5_parts(path) is not None:
        return "HDF5"
    if not local.exists():
        raise SourceNotFoundError(f"{path} does not exist.{neighbours(local)}")
    if local.is_dir():
        return _kind_of_folder(path, local)
    kind = image_kind(local)
    if kind == TIFF:
        return "TIFF"
    if kind is not None:
        raise SourceError(
            f"{path} is a {kind} of one slice, and a volume is many. Name the folder of slices: {local.parent}"
        )
    volume = _one_file(local)
    if volume is not None:
        return volume
    if local.suffix == ".npz":
        raise SourceError(
            f"{path} is an archive of NumPy arrays. Save the segmentation alone: "
            f"numpy.save('ids.npy', numpy.load('{path}')[NAME])"
        )
    if is_zipfile(local):
        if zip_root(local) is None:
            raise SourceError(
                f"{path} is a ZIP file without a Zarr in it (zarr.json, .zarray, .zgroup). Unpack it: unzip {quote(path)}"
            )
        return "Zarr"
    if local.stat().st_size == 0:
        raise SourceError(f"{path} is an empty file. Copy it again from where it came.")
    _refuse_older(local)
    raise SourceError(
        f"{path} is a file, but neither TIFF nor HDF5, nor of NumPy, NRRD, NIfTI or MRC. Name one of these, a folder of slices "
        "(PNG, BMP, TIFF), or the folder of a Zarr, N5 or precomputed volume."
    )


def zip_root(path: Path) -> str | None:
    """Return the folder of the Zarr in a ZIP file, "" for its top; None if there is none.

    Raises SourceError if the file is damaged, or an entry would unpack to more than any chunk has.
    """
    try:
        with ZipFile(path) as file:
            entries = file.infolist()
    except (OSError, BadZipFile) as error:
        raise SourceError(f"{path} is damaged: {error}. Copy it again from where it came.") from error
    for each in entries:
        if each.filename.rpartition("/")[2] in (*_ZARR_FILES, ".zattrs"):
            refuse_large(f"{path}/{each.filename}", each.file_size)
        if each.file_size > max(_ZIP_BYTES, _ZIP_RATIO * each.compress_size):
            raise SourceError(
                f"{path}: {each.filename} has {each.compress_size} bytes and would unpack to {each.file_size}, more than any "
                "chunk, and fill the memory. Check where the file comes from."
            )
    folders = [each.filename.rpartition("/")[0] for each in entries if each.filename.rpartition("/")[2] in _ZARR_FILES]
    return min(folders, key=lambda name: (name.count("/") + bool(name), name), default=None)


def _one_file(path: Path) -> Kind | None:
    """Return NumPy, NRRD, NIfTI or MRC by a file's first bytes, also inside gzip, phantom by its name; None for any other."""
    if path.suffix in (".yaml", ".yml"):
        return "phantom"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as unpacked:
                head = unpacked.read(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}. Copy it again from where it came.") from error
    if head.startswith(b"\x93NUMPY") and path.suffix != ".gz":
        return "NPY"
    if head.startswith(b"NRRD00") and path.suffix != ".gz":
        return "NRRD"
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return "NIfTI"
    return "MRC" if head[208:212] == b"MAP " else None


def ingest_command(path: str, kind: Kind) -> str:
    """Return the command that ingests a path, and how to use its result, as the end of a message."""
    local = Path(path)
    named = (local.parent if is_glob(path) else local).with_suffix("").name
    name = f"{named or 'labels'}.zarr"
    more = " --cells splitted" if kind == "cells" else ""
    size = "" if kind in ("N5", "precomputed", "HDF5", "WKW", "WEBKNOSSOS") else " --voxel-size Z Y X (nm)"
    return f"simexm ingest {quote(path)} -o {name}{more}{size}, then name {name} as the source."


def image_kind(path: Path) -> str | None:
    """Return PNG, BMP, JPEG or TIFF by a file's first bytes; None for any other."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    return next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)


def is_glob(path: str) -> bool:
    """Whether a path has wildcards and does not exist literally."""
    return has_magic(path) and not Path(path).expanduser().exists()


def files_of(path: str) -> list[Path]:
    """List a folder or a glob in natural order (slice_2 before slice_10), without hidden files and Thumbs.db."""
    local = Path(path).expanduser()
    found: Iterator[Path] = map(Path, glob(str(local))) if is_glob(path) else local.iterdir()
    names = [p for p in found if not p.name.startswith((".", "__MACOSX")) and p.name.lower() not in _JUNK]
    if is_glob(path) and not names:
        raise SourceNotFoundError(f"{path}: no file matches. Quote it: '{path}', and check with `ls {path}`.")
    return sorted(names, key=lambda p: (natural(p.name), p.name))


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Return a key that sorts numbers inside names by their value."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(zip(parts[::2], [*map(int, parts[1::2]), -1], strict=True))


def hdf5_parts(path: str) -> tuple[Path, str] | None:
    """Split a path into an HDF5 file and the dataset inside it ("" for none); None if there is no such file."""
    local = Path(path).expanduser()
    for file in (local, *local.parents):
        if file.is_file():
            try:
                with file.open("rb") as f:
                    found = any(f.seek(at) == at and f.read(8) == _HDF5_MAGIC for at in _HDF5_STARTS)
            except OSError as error:
                raise SourceError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from error
            return (file, local.relative_to(file).as_posix().removeprefix(".")) if found else None
    return None


def _refuse_older(file: Path) -> None:
    """Raise SourceError with the conversion to type for a file of a format before HDF5."""
    with file.open("rb") as f:
        head = f.read(8)
    if head.startswith(b"MATLAB 5"):
        raise SourceError(
            f"{file} is a MATLAB file of before version 7.3. Type in MATLAB, with the name of the volume for V: "
            f"load('{file.name}'); save('labels.mat', 'V', '-v7.3')"
        )
    if head.startswith((b"CDF\1", b"CDF\2", b"CDF\5")):
        raise SourceError(f"{file} is a netCDF-3 file. Type: nccopy -k netCDF-4 {quote(str(file))} labels.nc")


def _kind_of_folder(path: str, folder: Path) -> Kind:
    if "dataLayers" in _json(folder / "datasource-properties.json"):
        return "WEBKNOSSOS"
    if (folder / "header.wkw").is_file():
        return "WKW"
    if any((folder / name).is_file() for name in _ZARR_FILES):
        return "Zarr"
    if "scales" in _json(folder / "info"):
        return "precomputed"
    attributes = _json(folder / "attributes.json")
    if {"n5", "dimensions"} & attributes.keys() or folder.suffix == ".n5" or any(folder.glob("*/attributes.json")):
        return "N5"
    if _is_layer(folder.resolve()):
        return "WEBKNOSSOS"
    for name in ("info", "attributes.json", "datasource-properties.json"):
        read_json(folder / name)  # raises for one that cannot be read
    return _kind_of_files(path, files_of(path))


def _is_layer(folder: Path) -> bool:
    """Whether the parent folder is a WEBKNOSSOS dataset with a layer of this name."""
    layers = _json(folder.parent / "datasource-properties.json").get("dataLayers")
    names = [layer.get("name") for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    return folder.name in names


def _kind_of_files(path: str, found: list[Path]) -> Kind:
    inside = [p.name for p in found if p.suffix == ".zarr"]
    if inside:
        raise SourceError(f"{path} is not a Zarr. It holds {', '.join(inside[:5])}: name one of these.")
    if any(p.is_file() and image_kind(p) is not None for p in found):
        return "sequence"
    if any(p.is_dir() and any(q.is_file() and image_kind(q) is not None for q in files_of(str(p))) for p in found):
        return "cells"
    raise SourceError(
        f"{path} holds no labels: it has no zarr.json, .zarray or .zgroup (Zarr), attributes.json (N5) or info "
        "(precomputed), and no slices (PNG, BMP, TIFF)."
    )


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text()) if path.stat().st_size <= METADATA_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
