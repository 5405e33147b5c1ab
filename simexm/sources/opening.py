"""Open any volume that `ingest` reads, by its format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

from simexm.errors import SourceError, SpecError
from simexm.sources.colours import ColorIds
from simexm.sources.kinds import files_of, hdf5_parts, is_glob, kind_of
from simexm.sources.stack import Stack, times_of

Cells = Literal["merged", "splitted"]
_ONE_FILE = {"NPY": "open_npy", "NRRD": "open_nrrd", "NIfTI": "open_nifti", "MRC": "open_mrc"}
_WITH_DATASETS = ("Zarr", "N5", "precomputed", "HDF5", "WEBKNOSSOS", "phantom")


def open_stack(
    path: str, *, cells: Cells = "merged", dataset: str | None = None, color_ids: ColorIds | None = None
) -> Stack:
    """Open a volume: a file, folder, glob or URL; after an HDF5 file, the path of a data set inside it.

    `cells` is "merged" for one volume of all cells, "splitted" for a folder, or glob, of one TIFF stack or folder of
    slices per cell. `dataset` is the volume of a Zarr, N5 or HDF5, or the scale of a precomputed volume. `color_ids` is
    how ids are packed into the colours of TIFFs and image sequences; None reads only grey.

    Raises SourceNotFoundError if nothing exists at the path, SourceError if it cannot be read or has another form than
    `cells` says, and SpecError if a data set is named for a format without data sets.
    """
    if cells == "splitted":
        return _splitted(path, dataset, color_ids)
    kind = kind_of(path)
    if dataset is not None and kind not in _WITH_DATASETS:
        raise SpecError(
            f"{path} has no data sets inside it, so --dataset {dataset} cannot be found there. Leave it out."
        )
    # imported when needed: each format has libraries of its own
    if kind == "TIFF":
        from simexm.sources.tiff.source import TiffStack

        return TiffStack(Path(path).expanduser(), color_ids)
    if kind == "sequence":
        from simexm.sources.sequence import SliceSequence

        return SliceSequence(path, color_ids)
    if kind == "Zarr":
        from simexm.sources.zarr.stack import ZarrStack

        return ZarrStack(path, dataset)
    if kind == "HDF5":
        from simexm.sources.hdf5.source import Hdf5Stack

        file, inside = hdf5_parts(path) or (Path(path), "")
        return Hdf5Stack(file, "/".join(filter(None, (inside, dataset))) or None)
    if kind in _ONE_FILE:
        opener = getattr(import_module(f"simexm.sources.{kind.lower()}"), _ONE_FILE[kind])
        stack: Stack = opener(Path(path).expanduser())
        return stack
    if kind == "cells":
        raise SourceError(
            f"{path} holds folders of slices. If each is one cell, type --cells splitted; otherwise name one of them."
        )
    if kind == "WEBKNOSSOS":
        from simexm.sources.webknossos import choose

        mag = choose(path, dataset)
        return open_stack(str(mag.folder))
    if kind == "WKW":
        from simexm.sources.wkw import WkwStack

        return WkwStack(Path(path).expanduser())
    if kind == "N5":
        from simexm.sources.n5 import open_n5

        return open_n5(path, dataset)
    if kind == "precomputed":
        from simexm.sources.precomputed import open_precomputed

        return open_precomputed(path, dataset)
    if kind == "phantom":
        from simexm.sources.phantom_stack import PhantomStack

        return PhantomStack(Path(path).expanduser(), dataset)
    raise AssertionError(f"{kind} is in simexm.sources.kinds, but has no reader here")


def _splitted(path: str, dataset: str | None, color_ids: ColorIds | None) -> Stack:
    from simexm.sources.splitted import splitted

    if dataset is not None:
        raise SpecError(f"--dataset {dataset} and --cells splitted cannot go together. Leave one out.")
    if not is_glob(path):
        kind = kind_of(path)
        if kind not in ("sequence", "cells"):
            raise SourceError(
                f"{path}: --cells splitted needs a folder that holds one TIFF stack, or one folder of slices, for each cell. "
                "Name such a folder, or leave --cells out."
            )
    members = []
    for member in files_of(path):
        if kind_of(str(member)) not in ("TIFF", "sequence"):
            raise SourceError(
                f"{member} is neither a TIFF stack nor a folder of slices of one cell. Move it elsewhere."
            )
        found = open_stack(str(member), color_ids=color_ids)
        if times_of(found) > 1:
            raise SourceError(
                f"{member} holds {times_of(found)} time points, and with --cells splitted each cell has one. Save one time "
                "point of each."
            )
        members.append(found)
    return splitted(path, members)
