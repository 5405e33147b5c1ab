"""From a segmentation of any kind to a sharded multiscale OME-Zarr 0.5 label image, its region masks beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from simexm.arguments import text, whole_number
from simexm.errors import SimexmWarning, SourceError, SourceGoneError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.geometry.roi import Roi, box_of
from simexm.ingestion.bands import Written, write_image
from simexm.ingestion.fields import Beside, named_fields, named_regions, open_field, warn_of_mask
from simexm.ingestion.mark import leave_mark
from simexm.sources.axes import voxel_sizes
from simexm.sources.base import INGESTED
from simexm.sources.colours import ColorIds
from simexm.sources.fields import Kind
from simexm.sources.opening import Cells, open_stack
from simexm.sources.splitted import SharedValueError, SplittedCells
from simexm.sources.stack import (
    Numbers,
    Stack,
    at_time,
    cell_ids,
    gone,
    seconds_of,
    size_and_origin,
    times_of,
)
from simexm.sources.state import FilesState
from simexm.sources.times import refuse_time
from simexm.sources.words import COMMAND, speaking
from simexm.sources.zarr.source import warn_of_image
from simexm.sources.zarr.stack import ZarrStack
from simexm.store.atomic_group import atomic_group, refuse_group
from simexm.store.location import Location, location, usable
from simexm.store.pyramid import plan_levels
from simexm.store.remote import Remote


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest wrote.

    Attributes
    ----------
    path
        The OME-Zarr label image.
    shape
        Voxels along z, y, x.
    times
        Time points.
    voxel_size_nm
        Size of a voxel, nm.
    dtype
        Data type of the ids.
    regions
        Names of the masks beside the labels.
    fields
        Names of the other fields beside them.
    levels
        Number of levels.
    largest_id
        The largest id of all; None after a dry run.
    nbytes
        Bytes of all shards on disk; after a dry run, of the labels before compression.
    seconds
        Wall time; 0 after a dry run.
    """

    path: Location
    shape: Triple
    times: int
    voxel_size_nm: Spacing
    dtype: str
    regions: tuple[str, ...]
    fields: tuple[str, ...]
    levels: int
    largest_id: int | None
    nbytes: int
    seconds: float


@speaking(COMMAND)
def ingest(
    source: str | PathLike[str],
    output: str | PathLike[str],
    voxel_size_nm: Spacing | tuple[float, float, float] | None = None,
    *,
    regions: Mapping[str, str | PathLike[str]] | None = None,
    fields: Mapping[str, tuple[Kind, str | PathLike[str]]] | None = None,
    roi: Roi | None = None,
    time: int | None = None,
    cells: Cells = "merged",
    dataset: str | None = None,
    color_ids: ColorIds | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestResult:
    """Write a segmentation as a multiscale OME-Zarr 0.5 label image; every id stays what it is.

    The result appears under its name when it is whole, and not before. Masks become label images of 1 and 0 in groups of
    the regions' names inside it, further fields images in groups of theirs, and a spec that names it as its source knows them.

    Parameters
    ----------
    source
        TIFF stack, folder or glob of slices, Zarr, N5, Neuroglancer precomputed, HDF5, .npy, NRRD, NIfTI or MRC: its content
        tells which.
    output
        Folder to make, such as cortex.zarr, or s3://bucket/cortex.zarr.
    voxel_size_nm
        Size of a voxel along z, y, x, nm of tissue before expansion, with voxel (0, 0, 0) of the source at 0. None: what
        the source's metadata tell.
    regions
        Name and path of the mask of each further region: of any kind, too, and of the source's shape. Whatever is not 0 is
        in the region. The masks and fields of a Zarr that ingest wrote are carried along without being named.
    fields
        Name of each further field, and its kind ("ids" of other objects, "classes" of tissue, "grey" values) and path.
    roi
        Part of the source and of all fields to take, such as "0:40,100:300,:" (z, y, x) or three slices; its position in the
        tissue is kept. None takes all.
    time
        Which time point of a series to take, counted from 0. None takes all.
    cells
        "merged": one volume of all cells. "splitted": a folder of one TIFF stack or folder of slices for each cell, whose
        id is the value of its voxels; where two overlap, the first one in natural order of names keeps the voxel. If two
        have the same value, ids are the numbers of the files, 1, 2, ..., and the attribute "simexm" of the result says
        which file each is.
    dataset
        Which volume inside an HDF5, N5 or Zarr, or which scale of a precomputed volume.
    color_ids
        How ids are packed into the colours of a TIFF or image sequence, 8 bits each: "rgb", 65536 red + 256 green + blue, or
        "bgr", red + 256 green + 65536 blue. None: a picture in colour is refused.
    workers
        Threads; None for as many as there are CPUs for this process and as fit into the memory.
    overwrite
        Replace what an earlier ingest wrote there. Nothing else is ever replaced.
    dry_run
        Check everything and write nothing.
    progress
        Called with the voxels done and the voxels of all that is to be written.

    Raises
    ------
    SpecError
        If the voxel size is not positive, or not known; if the crop reaches outside; if a region has no proper name.
    SourceError
        If the source cannot be read, holds no ids, or no cell; if a mask has another shape. SourceGoneError if one of them
        vanished or was changed meanwhile.
    OutputError
        If the output exists, or cannot be written.

    Warns
    -----
    SimexmWarning
        If cells overlap, or are numbered; if a mask is 0 everywhere, or nowhere.
    """
    begin = perf_counter()
    where = _where(output)
    given = None if voxel_size_nm is None else voxel_sizes(voxel_size_nm)
    workers = None if workers is None else whole_number("workers", workers, 1)
    if text("cells", cells) not in ("merged", "splitted"):
        raise SpecError(f"cells is {cells!r}; give merged or splitted")
    dataset = None if dataset is None else text("dataset", dataset)
    named = {**named_regions(regions), **named_fields(regions, fields)}
    stack = open_stack(usable(source), cells=cells, dataset=dataset, color_ids=color_ids)
    if isinstance(stack, ZarrStack) and stack.is_image:
        warn_of_image(stack.where)
    crop = box_of(roi, stack.shape, stack.where)
    size, first = size_and_origin(stack, given)
    z, y, x = (o + a * s for o, a, s in zip(first, crop.start, size, strict=True))
    beside = {name: Beside(*field) for name, field in stack.fields().items()} if isinstance(stack, ZarrStack) else {}
    beside |= {name: open_field(name, *field, stack, color_ids, given) for name, field in named.items()}
    if time is not None:
        refuse_time(stack.where, whole_number("time", time), times_of(stack))
        stack = at_time(stack, time)
        beside = {name: Beside(field.kind, at_time(field.stack, time)) for name, field in beside.items()}
    for field in beside.values():
        field.numbers(field.stack, crop)  # which refuses values that cannot be of its kind
    before = [_state(volume, crop) for volume in (stack, *(field.stack for field in beside.values()))]
    masks = tuple(name for name, field in beside.items() if field.kind == "mask")
    others = tuple(name for name in beside if name not in masks)
    if dry_run:
        refuse_group(where, overwrite=overwrite, writer=INGESTED)
        dtype = cell_ids(stack, crop).dtype
        return IngestResult(
            where, crop.shape, times_of(stack), size, dtype.name, masks, others, len(plan_levels(crop.shape, size)), None,
            times_of(stack) * crop.size * dtype.itemsize, 0.0,
        )  # fmt: skip
    job = _Job(where, size, (z, y, x), crop, beside, before, workers, overwrite, progress)
    try:
        labels, nbytes = job.write(stack)
    except SharedValueError as error:
        stack = _number(stack, error)
        labels, nbytes = job.write(stack)
    return IngestResult(
        where, crop.shape, times_of(stack), size, cell_ids(stack, crop).dtype.name, masks, others, labels.levels,
        labels.largest, nbytes, perf_counter() - begin,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be written, but for the labels: see `ingest`."""

    output: Location
    voxel_size_nm: Spacing
    origin_nm: Spacing
    crop: Box
    fields: Mapping[str, Beside]
    before: list[FilesState | None]
    workers: int | None
    overwrite: bool
    progress: Callable[[int, int], None] | None

    def write(self, labels: Stack) -> tuple[Written, int]:
        """Write labels and fields; returns what is told of the labels, and the bytes of all."""
        done = 0
        total = self.crop.size * sum(times_of(stack) for stack in (labels, *self._stacks))

        def count(voxels: int) -> None:
            nonlocal done
            done += voxels
            if self.progress is not None:
                self.progress(done, total)

        def image(path: str, name: str, stack: Stack, numbers: Callable[[Stack, Box], Numbers]) -> Written:
            return write_image(
                files, path, name, [numbers(at_time(stack, time), self.crop) for time in range(times_of(stack))],
                self.voxel_size_nm, self.origin_nm, seconds_per_time=seconds_of(stack), workers=self.workers, progress=count,
            )  # fmt: skip

        with atomic_group(self.output, overwrite=self.overwrite, writer=INGESTED) as files:
            written = image("", self.output.name.removesuffix(".zarr"), labels, cell_ids)
            if written.largest == 0:
                raise SourceError(
                    f"{labels.where}: every voxel is 0, so there is no cell in it. Is this the segmentation?"
                )
            nbytes = written.nbytes
            for name, field in self.fields.items():
                found = image(name, name, field.stack, field.numbers)
                if field.kind == "mask":
                    warn_of_mask(name, field.stack, found)
                leave_mark(files, name, found, {})
                nbytes += found.nbytes
            self._refuse_changed(labels)
            leave_mark(files, "", written, _told(labels, self.fields))
        return written, nbytes

    @property
    def _stacks(self) -> list[Stack]:
        return [field.stack for field in self.fields.values()]

    def _refuse_changed(self, labels: Stack) -> None:
        """Refuse what was written from files that were changed meanwhile, a missing chunk included."""
        for stack, before in zip((labels, *self._stacks), self.before, strict=True):
            if _state(stack, self.crop) != before:
                raise SourceGoneError(
                    f"{stack.where} was changed while it was read, so what was written may come from two different volumes. "
                    "Nothing of it was kept: type the same command again."
                )


def _state(stack: Stack, crop: Box) -> FilesState | None:
    try:
        return stack.state(crop)
    except OSError as error:
        raise gone(stack.where, error) from error


def _where(output: str | PathLike[str]) -> Location:
    """The place that is named; as it is named where it is on a disk."""
    found = location(output)
    if isinstance(found, Remote):
        found.refuse_read_only()
        return found
    return Path(usable(output))


def _number(stack: Stack, error: SharedValueError) -> SplittedCells:
    """Tell cells by their files from now on."""
    assert isinstance(stack, SplittedCells)  # nothing else raises this
    warnings.warn(
        f"{error}, so values are no ids: cells are numbered by their files, 1 to {len(stack.members)} in natural order (the "
        "attribute simexm.cells of the result says which is which). To keep ids, write each cell with a value of its own",
        SimexmWarning,
        stacklevel=3,
    )
    return stack.by_number()


def _told(stack: Stack, beside: Mapping[str, Beside]) -> dict[str, Any]:
    """What the attributes say of fields and of cells; warns of cells that overlap."""
    regions = [name for name, field in beside.items() if field.kind == "mask"]
    fields = {name: field.kind for name, field in beside.items() if field.kind != "mask"}
    more: dict[str, Any] = {**({"regions": regions} if regions else {}), **({"fields": fields} if fields else {})}
    if isinstance(stack, SplittedCells):
        table = stack.table()
        if table:
            more["cells"] = {str(n): name for n, name in table.items()}
        if stack.found.overlapped:
            warnings.warn(
                f"{stack.where}: cells overlap in {stack.found.overlapped} voxels, which the first file in natural order "
                "of names keeps. Mend the segmentation if that is too many",
                SimexmWarning,
                stacklevel=3,
            )
    return more
