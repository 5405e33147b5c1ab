"""`simexm export`: write a result in formats of other programs."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from simexm.errors import OutputError
from simexm.export.formats import LOCALISATIONS, MOVIES, SKELETONS, TRANSFORMS, Arrangement, Format
from simexm.export.frames import require_movie
from simexm.export.images import Image, all_in_one, colored, one_by_one, open_image, three_by_three
from simexm.export.labels import Labels, all_cells, cell_by_cell, warn_of_fiji
from simexm.export.localisations import export_localisations
from simexm.export.recording import DEVICE, SESSION, write_session
from simexm.export.skeletons import export_skeletons
from simexm.export.stack import Job
from simexm.export.tables import TABLES, export_tables
from simexm.export.transforms import export_transform, path_of
from simexm.export.write import Progress, check, check_folder, write
from simexm.result.result import Result
from simexm.store.atomic_file import refuse

Choice = TypeVar("Choice", bound=StrEnum)


def export(
    result: Result | str | Path,
    output: str | Path,
    format: Format | str,
    *,
    channels: Arrangement | str = Arrangement.SPLIT,
    labels: Arrangement | str | None = None,
    level: int = 0,
    eight_bit: bool = False,
    pair: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a result's image, and on request its label images, as TIFF, OME-TIFF, GIF or PNG; or its tables or its transform.

    Volumes may be of any size: planes are read in slabs and written one at a time. Files are written atomically.

    Parameters
    ----------
    result
        A finished result, or its folder NAME.zarr. As a transform, NAME.zarr/round_NN is that of a round to the first.
    output
        Folder of the files: CHANNEL.tiff, or merged.tiff; labels/NAME.tiff, or labels/NAME/CELL.tiff; likewise .ome.tiff and
        .gif; for PNG, folders of images without a suffix. A movie's frames take the place of planes.
    format
        "tiff": stacks for ImageJ. "ome-tiff". "gif": an animation through z. "png": a folder with an image for each plane.
        "avi": a movie without loss (FFV1). "miniscope": a movie as the acquisition software of the UCLA Miniscope stores it.
        "csv": all tables. "graphml", "npz": the matrix of `simexm matrix` as a graph, or as a sparse matrix of SciPy
        with the ids of its rows and columns in cells.npy. Of the output of `simexm skeletons` "swc": a file for each id,
        in um; "precomputed": skeletons for Neuroglancer, in nm. Of a transform, "nrrd": one displacement field, for ITK.
        "ome-zarr": the same as OME-Zarr 0.6. "tfm", "txt": an affine map, for ITK or as text. "points": places in both
        volumes. "rnr-exm": the file of that challenge. Of the table of localisations, "thunderstorm", "picasso",
        "smlm-challenge", "smap": a file that these programs read.
    channels
        "split": a gray stack for each channel, with the stored values; in GIF with 8 bits.
        "merged": in OME-TIFF all channels, with their colours as metadata; in TIFF 8-bit red, green and blue stacks of three
        channels each; in GIF and PNG all channels in their display colours, 8 bits.
    labels
        "merged": a stack of ids for each label image. "split": one for each cell in it. None: no labels.
    level
        Level of the pyramid, 0 the finest.
    eight_bit
        Scale each channel by its own maximum: value * 255 / maximum, rounded, as the 2017 program did. By default, where 8 bits
        are needed, the channel's display window maps to black and full.
    pair
        Species and number in the challenge, such as "zebrafish/5".
    overwrite
        Replace existing files.
    dry_run
        Check everything and write nothing.
    progress
        Called with the numbers of planes written and to be written.

    Returns
    -------
    list of Path
        Files and folders of images in the order of writing, also after a dry run.

    Raises
    ------
    OutputError
        If the result is not finished or has no such level, the format cannot hold it, or a file exists or cannot be written.
    """
    form, arranged = _one_of(Format, format, "format"), _one_of(Arrangement, channels, "channels")
    ids = None if labels is None else _one_of(Arrangement, labels, "labels")
    where = Path(output).expanduser()
    if form in TRANSFORMS:
        if labels is not None or level or eight_bit:
            raise OutputError(
                f"{form} is a format of transforms, which have no labels, level or 8 bits; leave these out, or choose a format "
                "of images"
            )
        return export_transform(
            path_of(result), where, form, pair, overwrite=overwrite, dry_run=dry_run, progress=progress
        )
    if pair is not None:
        raise OutputError(f"the pair {pair!r} is for --format {Format.RNR_EXM}, not {form}; leave it out")
    opened = result if isinstance(result, Result) else Result.open(result)
    check_folder(where, opened.places)
    if form in TABLES:
        return export_tables(opened, where, form, overwrite=overwrite, dry_run=dry_run)
    if form in LOCALISATIONS:
        return export_localisations(opened, where, form, overwrite=overwrite, dry_run=dry_run)
    if form in SKELETONS:
        return export_skeletons(opened, where, form, overwrite=overwrite, dry_run=dry_run)
    image = open_image(opened, level, by_maximum=eight_bit)
    if form in MOVIES:
        return _movie(image, where, form, arranged, ids, eight_bit, overwrite, dry_run, progress)
    jobs = [(job, form) for job in _image_jobs(image, where, form, arranged, eight_bit)]
    check(jobs, where, overwrite=overwrite)  # before the search for ids, which takes long
    if ids is not None:
        jobs += [(job, form) for job in _label_jobs(image.still, where / "labels", form, ids)]
    if dry_run:
        return check(jobs, where, overwrite=overwrite)
    return write(jobs, where, overwrite=overwrite, progress=progress)


def _movie(
    image: Image,
    folder: Path,
    form: Format,
    arranged: Arrangement,
    labels: Arrangement | None,
    eight_bit: bool,
    overwrite: bool,
    dry_run: bool,
    progress: Progress | None,
) -> list[Path]:
    """Write a movie as AVI, or as the recording of a miniscope."""
    require_movie(image.result, image.level, form)
    if labels is not None:
        raise OutputError(f"{form} is a format of movies, which holds no labels; leave them out, or type --format tiff")
    recorded = form is Format.MINISCOPE
    found = _image_jobs(image, folder, form, arranged, eight_bit)
    if recorded:  # a folder for each channel
        names = [DEVICE] if len(found) == 1 else [f"{DEVICE}_{job.targets[0].path.name}" for job in found]
        found = [
            replace(job, targets=(replace(job.targets[0], path=folder / name),))
            for job, name in zip(found, names, strict=True)
        ]
    jobs = [(job, form) for job in found]
    about = [folder / SESSION] if recorded else []
    refuse(about, overwrite=overwrite)
    paths = [*check(jobs, folder, overwrite=overwrite), *about]
    if dry_run:
        return paths
    write(jobs, folder, overwrite=overwrite, progress=progress)
    for path in about:
        write_session(path, [job.targets[0].path.name for job in found], found[0].targets[0].head)
    return paths


def _image_jobs(image: Image, folder: Path, form: Format, arranged: Arrangement, eight_bit: bool) -> list[Job]:
    if arranged is Arrangement.SPLIT:
        paths = [folder / c.name for c in image.channels]
        stored = not eight_bit and form is not Format.GIF
        if form is Format.PNG and stored and (image.dtype.kind != "u" or image.dtype.itemsize > 2):
            raise OutputError(
                f"{image.result.path} holds {image.dtype}, but a PNG holds 8 or 16 bits. Type --format tiff, or --8bit."
            )
        return one_by_one(image, paths, eight_bit=not stored)
    if form is Format.OME_TIFF:
        return [all_in_one(image, folder / "merged", eight_bit=eight_bit)]
    if form is Format.TIFF:
        groups = -(-len(image.channels) // 3)
        names = ["merged"] if groups == 1 else [f"merged_{i}" for i in range(groups)]
        return three_by_three(image, [folder / name for name in names])
    return [colored(image, folder / "merged")]


def _label_jobs(image: Image, folder: Path, form: Format, arranged: Arrangement) -> list[Job]:
    wanted = [Labels(image, (name,)) for name in image.result.label_names]
    jobs: list[Job] = []
    for each in wanted:
        if arranged is Arrangement.MERGED:
            jobs.append(all_cells(each, folder / each.names[0], form))
        else:
            jobs += cell_by_cell(each, folder / each.names[0], form)
    warn_of_fiji(wanted, form)
    return jobs


def _one_of(kind: type[Choice], given: str, argument: str) -> Choice:
    try:
        return kind(given)
    except ValueError:
        known = ", ".join(kind)
        raise OutputError(f"{argument} is {given!r}, which is unknown. Choose one of {known}.") from None
