"""Write a segmentation of any format as a sharded multiscale OME-Zarr 0.5 label image, with its masks and fields."""

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
from simexm.ingestion.fields import FieldToWrite, named_fields, named_regions, open_field, warn_of_mask
from simexm.sources.axes import voxel_sizes
from simexm.sources.base import INGESTED
from simexm.sources.colours import ColorIds
from simexm.sources.fields import Kind
from simexm.sources.mark import digest_of_lists
from simexm.sources.opening import Cells, open_stack
from simexm.sources.splitted import SharedValueError, SplittedCells
from simexm.sources.stack import Numbers, Stack, at_time, cell_ids, gone_error, seconds_of, size_and_origin, times_of
from simexm.sources.state import FilesState
from simexm.sources.times import refuse_time
from simexm.sources.words import COMMAND, speaking
from simexm.sources.zarr.source import warn_of_image
from simexm.sources.zarr.stack import ZarrStack
from simexm.store.atomic_group import atomic_group, refuse_group
from simexm.store.files import Files
from simexm.store.location import Location, location, usable
from simexm.store.omezarr import write_group
from simexm.store.pyramid import plan_levels
from simexm.store.remote import Remote


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest wrote."""

    path: Location
    """The OME-Zarr label image."""
    shape: Triple
    """Voxels along z, y, x."""
    times: int
    """Number of time points."""
    voxel_size_nm: Spacing
    """Size of a voxel, nm."""
    dtype: str
    """Data type of the ids."""
    regions: tuple[str, ...]
    """Names of the masks beside the labels."""
    fields: tuple[str, ...]
    """Names of the other fields beside them."""
    levels: int
    """Number of levels."""
    largest_id: int | None
    """The largest id; None after a dry run."""
    nbytes: int
    """Bytes of all shards on disk; after a dry run, of the labels before compression."""
    seconds: float
    """Wall time; 0 after a dry run."""


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
    """Write a segmentation as a multiscale OME-Zarr 0.5 label image, with unchanged ids.

    The result appears under its name when it is complete. Masks become label images of 1 and 0 in groups with the regions'
    names inside it, further fields images in groups with theirs, and a spec with this source knows them.

    Parameters
    ----------
    source
        TIFF stack, folder or glob of slices, Zarr, N5, Neuroglancer precomputed, HDF5, .npy, NRRD, NIfTI or MRC, recognised
        by its content.
    output
        Folder to write, such as cortex.zarr, or s3://bucket/cortex.zarr.
    voxel_size_nm
        Size of a voxel along z, y, x, nm of tissue before expansion, with voxel (0, 0, 0) of the source at 0. None: from the
        source's metadata.
    regions
        Path of the mask of each region by name, in any format, of the source's shape. The region is where the mask is not 0.
        Masks and fields of a Zarr that ingest wrote are included without being named.
    fields
        Kind ("ids" of other objects, "classes" of tissue, "grey" values) and path of each further field by name.
    roi
        Crop of the source and of all fields, such as "0:40,100:300,:" (z, y, x) or three slices; it keeps its position in the
        tissue. None: everything.
    time
        The time point of a series to write, counted from 0. None: all.
    cells
        "merged": one volume of all cells. "splitted": a folder of one TIFF stack or folder of slices for each cell, whose id is
        the value of its voxels; where two overlap, the first in natural order of names keeps the voxel. If two files have the
        same value, ids are the numbers of the files, 1, 2, ..., listed in the attribute "simexm" of the result.
    dataset
        Volume inside an HDF5, N5 or Zarr, or scale of a precomputed volume.
    color_ids
        How ids are packed into the colours of a TIFF or image sequence, 8 bits each: "rgb", 65536 red + 256 green + blue, or
        "bgr", red + 256 green + 65536 blue. None: colour images are refused.
    workers
        Threads; None for one per CPU of this process, if they fit into memory.
    overwrite
        Replace what an earlier ingest wrote there. Nothing else is replaced.
    dry_run
        Check everything and write nothing.
    progress
        Called with the voxels written so far, and of all images.

    Raises
    ------
    SpecError
        If the voxel size is not positive or unknown, the crop is outside, or the name of a region is invalid.
    SourceError
        If the source cannot be read, or holds no ids or no cell; if a mask has another shape. SourceGoneError if files of them
        vanished or changed meanwhile.
    OutputError
        If the output exists, or cannot be written.

    Warns
    -----
    SimexmWarning
        If cells overlap, or are numbered; if a mask is 0 everywhere, or nowhere.
    """
    begin = perf_counter()
    where = _output_location(output)
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
    stored = stack.fields() if isinstance(stack, ZarrStack) else {}
    to_write = {name: FieldToWrite(*field) for name, field in stored.items()}
    to_write |= {name: open_field(name, *field, stack, color_ids, given) for name, field in named.items()}
    if time is not None:
        refuse_time(stack.where, whole_number("time", time), times_of(stack))
        stack = at_time(stack, time)
        to_write = {name: FieldToWrite(field.kind, at_time(field.stack, time)) for name, field in to_write.items()}
    for field in to_write.values():
        field.numbers(field.stack, crop)  # raises for values that cannot be of its kind
    before = [_state(volume, crop) for volume in (stack, *(field.stack for field in to_write.values()))]
    masks = tuple(name for name, field in to_write.items() if field.kind == "mask")
    others = tuple(name for name in to_write if name not in masks)
    largest: int | None = None
    if dry_run:
        refuse_group(where, overwrite=overwrite, writer=INGESTED)
        levels, seconds = len(plan_levels(crop.shape, size)), 0.0
        nbytes = times_of(stack) * crop.size * cell_ids(stack, crop).dtype.itemsize
    else:
        job = _Job(where, size, (z, y, x), crop, to_write, before, workers, overwrite, progress)
        try:
            labels, nbytes = job.write(stack)
        except SharedValueError as error:
            stack = _number(stack, error)
            labels, nbytes = job.write(stack)
        levels, largest, seconds = labels.levels, labels.largest, perf_counter() - begin
    dtype, times = cell_ids(stack, crop).dtype.name, times_of(stack)
    return IngestResult(where, crop.shape, times, size, dtype, masks, others, levels, largest, nbytes, seconds)


@dataclass(frozen=True, slots=True)
class _Job:
    """Output and fields to write beside the labels; see `ingest`."""

    output: Location
    voxel_size_nm: Spacing
    origin_nm: Spacing
    crop: Box
    fields: Mapping[str, FieldToWrite]
    before: list[FilesState | None]
    workers: int | None
    overwrite: bool
    progress: Callable[[int, int], None] | None

    def write(self, labels: Stack) -> tuple[Written, int]:
        """Write labels and fields; return the totals of the labels, and the bytes of all."""
        done = 0
        total = self.crop.size * sum(times_of(stack) for stack in (labels, *self._stacks))

        def count(voxels: int) -> None:
            nonlocal done
            done += voxels
            if self.progress is not None:
                self.progress(done, total)

        def image(path: str, name: str, stack: Stack, numbers: Callable[[Stack, Box], Numbers]) -> Written:
            series = [numbers(at_time(stack, time), self.crop) for time in range(times_of(stack))]
            place, seconds = (self.voxel_size_nm, self.origin_nm), seconds_of(stack)
            return write_image(
                files, path, name, series, *place, seconds_per_time=seconds, workers=self.workers, progress=count
            )

        with atomic_group(self.output, overwrite=self.overwrite, writer=INGESTED) as files:
            written = image("", self.output.name.removesuffix(".zarr"), labels, cell_ids)
            if written.largest == 0:
                raise SourceError(f"{labels.where}: every voxel is 0, so there is no cell. Is this the segmentation?")
            nbytes = written.nbytes
            for name, field in self.fields.items():
                found = image(name, name, field.stack, field.numbers)
                if field.kind == "mask":
                    warn_of_mask(name, field.stack, found)
                _write_mark(files, name, found, {})
                nbytes += found.nbytes
            self._refuse_changed(labels)
            _write_mark(files, "", written, _mark_of_labels(labels, self.fields))
        return written, nbytes

    @property
    def _stacks(self) -> list[Stack]:
        return [field.stack for field in self.fields.values()]

    def _refuse_changed(self, labels: Stack) -> None:
        """Raise SourceGoneError if files were changed while they were read, a missing chunk included."""
        for stack, before in zip((labels, *self._stacks), self.before, strict=True):
            if _state(stack, self.crop) != before:
                raise SourceGoneError(
                    f"{stack.where} was changed while it was read, so the result may mix two volumes. "
                    "Nothing of it was kept: type the same command again."
                )


def _state(stack: Stack, crop: Box) -> FilesState | None:
    try:
        return stack.state(crop)
    except OSError as error:
        raise gone_error(stack.where, error) from error


def _output_location(output: str | PathLike[str]) -> Location:
    """Return the location of the output, on a disk as the user named it."""
    found = location(output)
    if isinstance(found, Remote):
        found.refuse_read_only()
        return found
    return Path(usable(output))


def _number(stack: Stack, error: SharedValueError) -> SplittedCells:
    """Return the cells with the numbers of their files as ids."""
    assert isinstance(stack, SplittedCells)  # no other stack raises this
    warnings.warn(
        f"{error}, so values cannot be ids: cells are numbered by their files, 1 to {len(stack.members)} in natural order (the "
        "attribute simexm.cells of the result lists them). To keep ids, write each cell with a unique value",
        SimexmWarning,
        stacklevel=3,
    )
    return stack.by_number()


def _mark_of_labels(stack: Stack, to_write: Mapping[str, FieldToWrite]) -> dict[str, Any]:
    """Return the attributes of fields and cells; warns of overlapping cells."""
    regions = [name for name, field in to_write.items() if field.kind == "mask"]
    fields = {name: field.kind for name, field in to_write.items() if field.kind != "mask"}
    more: dict[str, Any] = {**({"regions": regions} if regions else {}), **({"fields": fields} if fields else {})}
    if isinstance(stack, SplittedCells):
        table = stack.table()
        if table:
            more["cells"] = {str(n): name for n, name in table.items()}
        if stack.found.overlapped:
            warnings.warn(
                f"{stack.where}: cells overlap in {stack.found.overlapped} voxels, which the first file in natural order "
                "of names keeps. Correct the segmentation if that is too many",
                SimexmWarning,
                stacklevel=3,
            )
    return more


def _write_mark(files: Files, path: str, written: Written, more: Mapping[str, Any]) -> None:
    """Write a group's metadata, which complete it."""
    digest = f"{written.digest:032x}"
    lists = {array.rpartition("/")[2]: found.to_text() for array, found in written.lists.items()}
    mark = {
        "written_by": INGESTED,
        "digest": digest,
        "shards": lists,
        "shards_digest": digest_of_lists(digest, lists),
        **more,
    }
    write_group(files, path, {**written.attributes, "simexm": mark})
